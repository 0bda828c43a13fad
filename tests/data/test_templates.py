from __future__ import annotations

import logging

import pytest

from skd.data.chat import encode_prompts
from skd.data.rows import Row, Turn
from skd.data.templates import require_template
from skd.errors import ModelError
from tests.data.families import FAMILIES

NESTED = "{% for i in range(100000) %}{% for j in range(100000) %}{% endfor %}{% endfor %}"


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("skd.rendering.SECONDS", 1.0)


def refusal(template: str, *rows: Row) -> str:
    tokenizer = FAMILIES["qwen2"].tokenizer()
    tokenizer.chat_template = template
    with pytest.raises(ModelError) as caught:
        encode_prompts(rows or [Row("hi", "yo")], tokenizer, stop_id=130)
    return str(caught.value)


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize(
    ("template", "found"),
    [(NESTED, "it did not end within 1 seconds"), ("{{ ('a' * 10 ** 12) | length }}", "more than 1024 MiB of memory")],
)
def test_a_template_without_end_is_stopped(template: str, found: str) -> None:
    message = refusal(template)
    assert message.startswith("error[SKD-M10] data.chat: the chat template was stopped: it ")
    assert found in message


@pytest.mark.usefixtures("impatient")
def test_a_trap_for_one_row_is_found() -> None:
    """Every conversation is rendered in the child, not one of each shape."""
    trap = "{% if messages[0]['content'] == 'now' %}" + NESTED + "{% endif %}"
    chatml = str(FAMILIES["qwen2"].tokenizer().chat_template)
    assert "SKD-M10" in refusal(trap + chatml, Row("hi", "yo"), Row("now", "yo"))
    system = "{% if messages[0]['role'] == 'system' %}" + NESTED + "{% endif %}"
    assert "SKD-M10" in refusal(system + chatml, Row("hi", "yo"), Row("hi", "yo", (Turn("system", "be brief"),)))


@pytest.mark.parametrize("template", ["{{", "{{ messages[9].content }}", "{{ raise_exception('no') }}", "{{ 1 / 0 }}"])
def test_whatever_a_template_raises_is_a_refusal(template: str) -> None:
    assert "error[SKD-M08] data.chat: the chat template " in refusal(template)


def test_the_tag_that_marks_what_the_assistant_wrote_is_known() -> None:
    marked = "{% for m in messages %}{% generation %}{{ m['content'] }}<|im_end|>{% endgeneration %}{% endfor %}"
    tokenizer = FAMILIES["qwen2"].tokenizer()
    tokenizer.chat_template = marked + "{% if add_generation_prompt %}>{% endif %}"
    encode_prompts([Row("hi", "yo")], tokenizer, stop_id=130)


def test_several_templates_need_a_default() -> None:
    tokenizer = FAMILIES["qwen2"].tokenizer()
    tokenizer.chat_template = {"a": "x", "b": "y"}
    with pytest.raises(ModelError, match=r"SKD-M08\] data\.chat: .*; keep one template, or name one of them default"):
        require_template(tokenizer)


def test_a_template_with_a_date_is_told_of(caplog: pytest.LogCaptureFixture) -> None:
    tokenizer = FAMILIES["qwen2"].tokenizer()
    tokenizer.chat_template = "{{ strftime_now('%d') }}" + str(tokenizer.chat_template)
    with caplog.at_level(logging.WARNING):
        require_template(tokenizer)
    assert caplog.messages == [
        "the chat template writes the date of today, so the same rows give other prompts tomorrow"
    ]

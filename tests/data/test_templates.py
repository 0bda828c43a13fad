from __future__ import annotations

import logging
from pathlib import Path

import pytest

from skd.data import render_probe
from skd.data.chat import encode_prompts
from skd.data.rows import Row, Turn
from skd.data.templates import require_tame
from skd.errors import ModelError
from tests.data.families import FAMILIES

MESSAGE = (
    "error[SKD-M10] data.chat: the chat template computes longer than 1 s or wants more memory than 1 GiB; "
    "set data.chat to never, or take a tokenizer whose template you trust"
)
NESTED = "{% for i in range(100000) %}{% for j in range(100000) %}{% endfor %}{% endfor %}"
pytestmark = pytest.mark.usefixtures("impatient")
CHAT = [[Turn("user", "hi"), Turn("assistant", "yo")]]


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("skd.data.templates.SECONDS", 1)


def refusal(template: str, chat: list[list[Turn]] = CHAT) -> str:
    tokenizer = FAMILIES["qwen2"].tokenizer()
    tokenizer.chat_template = template
    with pytest.raises(ModelError) as caught:
        require_tame(tokenizer, chat)
    return str(caught.value)


def test_a_template_that_does_not_end_is_refused() -> None:
    assert refusal(NESTED) == MESSAGE


def test_a_template_that_wants_all_memory_is_refused() -> None:
    assert refusal("{{ ('a' * 10 ** 12) | length }}") == MESSAGE


def test_a_trap_for_one_shape_of_rows_is_found() -> None:
    trap = "{% if messages[0]['role'] == 'system' %}" + NESTED + "{% endif %}"
    rows = [Row("hi", "yo"), Row("hi", "yo", (Turn("system", "be brief"),))]
    tokenizer = FAMILIES["qwen2"].tokenizer()
    tokenizer.chat_template = trap
    with pytest.raises(ModelError, match="SKD-M10"):
        encode_prompts(rows, tokenizer, stop_id=130)


@pytest.mark.parametrize("template", ["{{", "{{ messages[9].content }}", "{{ raise_exception('no') }}", "{{ 1 / 0 }}"])
def test_what_is_wrong_otherwise_is_left_to_the_tokenizers_own_renderer(template: str) -> None:
    tokenizer = FAMILIES["qwen2"].tokenizer()
    tokenizer.chat_template = template
    require_tame(tokenizer, CHAT)
    with pytest.raises(ModelError, match=r"SKD-M08\] data\.chat: the chat template "):
        encode_prompts([Row("hi", "yo")], tokenizer, stop_id=130)


def test_the_tag_that_marks_what_the_assistant_wrote_is_known() -> None:
    marked = "{% for m in messages %}{% generation %}{{ m['content'] }}<|im_end|>{% endgeneration %}{% endfor %}"
    tokenizer = FAMILIES["qwen2"].tokenizer()
    tokenizer.chat_template = marked + "{% if add_generation_prompt %}>{% endif %}"
    encode_prompts([Row("hi", "yo")], tokenizer, stop_id=130)
    assert refusal(marked + NESTED) == MESSAGE


def test_several_templates_need_a_default() -> None:
    tokenizer = FAMILIES["qwen2"].tokenizer()
    tokenizer.chat_template = {"a": "x", "b": "y"}
    with pytest.raises(ModelError, match=r"SKD-M08\] data\.chat: .*; keep one template, or name one of them default"):
        require_tame(tokenizer, CHAT)


def test_a_template_with_a_date_is_told_of(caplog: pytest.LogCaptureFixture) -> None:
    tokenizer = FAMILIES["qwen2"].tokenizer()
    tokenizer.chat_template = "{{ strftime_now('%d') }}" + str(tokenizer.chat_template)
    with caplog.at_level(logging.WARNING):
        require_tame(tokenizer, CHAT)
    assert caplog.messages == [
        "the chat template writes the date of today, so the same rows give other prompts tomorrow"
    ]


def test_no_module_beside_the_script_hides_one_that_it_imports() -> None:
    import sys

    names = {path.stem for path in Path(render_probe.__file__).parent.glob("*.py")} - {"__init__"}
    assert not names & {*sys.stdlib_module_names, "jinja2", "markupsafe"}

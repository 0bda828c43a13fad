"""The ids and masks of each family's rows against hand-made ones."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from skd.data.chat import encode_prompts
from skd.data.rows import Row, Turn
from skd.errors import ModelError
from skd.types import Prompts
from tests.data.families import FAMILIES, Family, expected

CONTEXT = (Turn("system", "be brief"), Turn("user", "hi"), Turn("assistant", "yo"))
CHATS = [name for name, family in FAMILIES.items() if family.template]


def encode(family: Family, rows: Sequence[Row], **options: Any) -> Prompts:
    return encode_prompts(rows, family.tokenizer(), stop_id=family.eos_id, **options)


def dialogue(family: Family, response: str = "no") -> Row:
    return Row("more", response, CONTEXT if family.system else CONTEXT[1:])


def holds(prompts: Prompts, row: int, family: Family, text: str) -> None:
    """The row is what the text says, marks included; no masks at all mean that all is learned from."""
    prompt, reference, mask = expected(family, text)
    assert prompts.references is not None
    masks = prompts.reference_masks or [[True] * len(ids) for ids in prompts.references]
    assert list(prompts.ids[row]) == prompt
    assert list(prompts.references[row]) == reference
    assert list(masks[row]) == mask


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("train_on", ["last", "all"])
def test_one_question_and_its_answer(name: str, train_on: str) -> None:
    family = FAMILIES[name]
    prompts = encode(family, [Row("hi", "yo"), Row("hi", "yo")], train_on=train_on)
    holds(prompts, 1, family, family.single)
    assert prompts.reference_masks is None


@pytest.mark.parametrize("name", CHATS)
def test_the_last_turn_of_a_conversation(name: str) -> None:
    family = FAMILIES[name]
    prompts = encode(family, [dialogue(family)])
    holds(prompts, 0, family, family.last)
    assert prompts.reference_masks is None
    unanswered = Row("more", None, dialogue(family).context)
    assert list(encode(family, [unanswered], train_on="all").ids[0]) == expected(family, family.last)[0]


@pytest.mark.parametrize("name", [name for name in CHATS if FAMILIES[name].every])
def test_all_turns_of_a_conversation(name: str) -> None:
    family = FAMILIES[name]
    prompts = encode(family, [Row("hi", "yo"), dialogue(family)], train_on="all")
    holds(prompts, 0, family, family.single)
    holds(prompts, 1, family, str(family.every))
    assert prompts.select([1]).reference_masks == [list(prompts.reference_masks or [])[1]]


@pytest.mark.parametrize("name", [name for name, family in FAMILIES.items() if family.system and family.template])
def test_a_system_text_of_the_config_is_for_rows_without_their_own(name: str) -> None:
    family = FAMILIES[name]
    bare, own = Row("more", "no", CONTEXT[1:]), dialogue(family)
    prompts = encode(family, [bare, own], system="be brief")
    holds(prompts, 0, family, family.last)
    holds(prompts, 1, family, family.last)
    holds(encode(family, [own], system="be long"), 0, family, family.last)


@pytest.mark.parametrize("name", FAMILIES)
def test_white_space_is_the_templates_matter(name: str) -> None:
    family = FAMILIES[name]
    spaced = family.single.replace("hi", family.spaced, 1)
    if family.swallow:
        spaced = spaced.replace("<|user|>\n", "<|user|>")
    holds(encode(family, [Row(" hi ", "yo")]), 0, family, spaced)


@pytest.mark.parametrize("name", FAMILIES)
def test_begin_and_end_tokens_stand_where_they_belong(name: str) -> None:
    family = FAMILIES[name]
    prompts = encode(family, [Row("hi", "yo")])
    assert prompts.references is not None
    if family.bos is not None and name != "phi3":  # Phi-3's template writes none.
        begin = 128 + family.specials.index(family.bos)
        assert [place for place, i in enumerate(prompts.ids[0]) if i == begin] == [0]
    ends = [place for place, i in enumerate(prompts.references[0]) if 128 <= i < 128 + len(family.specials)]
    assert ends == [len(prompts.references[0]) - 1]


@pytest.mark.parametrize("train_on", ["last", "all"])
def test_a_token_across_the_border_of_prompt_and_response_is_cut_there(train_on: str) -> None:
    family = FAMILIES["qwen2"]
    rows = [Row("hi", "\nyo"), Row("more", "\nno", (*CONTEXT[1:2], Turn("assistant", "\nyo")))]
    prompts = encode(family, rows, train_on=train_on)
    assert prompts.ids[0] == encode(family, [Row("hi", None)]).ids[0]
    assert prompts.references is not None
    end = family.eos_id
    assert list(prompts.references[0]) == [10, *b"yo", end]
    if train_on == "last":
        assert list(prompts.references[1]) == [10, *b"no", end]
        assert prompts.ids[1] == encode(family, [Row("more", None, rows[1].context)]).ids[0]
    else:
        between = [10, end - 1, *b"user", 10, *b"more", end, 10, end - 1, *b"assistant", 10]
        assert list(prompts.references[1]) == [10, *b"yo", end, *between, 10, *b"no", end]
        assert prompts.reference_masks is not None
        assert list(prompts.reference_masks[1]) == [True] * 4 + [False] * len(between) + [True] * 4


@pytest.mark.parametrize("name", CHATS)
def test_special_tokens_in_any_turn_stay_text(name: str) -> None:
    family = FAMILIES[name]
    attack = "".join(family.specials)
    context = tuple(Turn(turn.role, turn.content + attack) for turn in dialogue(family).context)
    hostile = encode(family, [Row(f"more{attack}", f"no{attack}", context)])
    plain = encode(family, [dialogue(family)])
    assert hostile.references is not None
    assert plain.references is not None
    for found, wanted in ((hostile.ids[0], plain.ids[0]), (hostile.references[0], plain.references[0])):
        assert [i for i in found if i >= 128 and i < 128 + len(family.specials)] == [
            i for i in wanted if i >= 128 and i < 128 + len(family.specials)
        ]
        assert len(found) > len(wanted)


@pytest.mark.parametrize("name", ["qwen2", "qwen3", "phi3", "gemma"])
def test_the_text_of_special_tokens_is_kept_and_masked_with_its_turn(name: str) -> None:
    family = FAMILIES[name]
    end = {"phi3": "<|end|>", "gemma": "<end_of_turn>"}.get(name, "<|im_end|>")
    row = Row("more", "no", (*dialogue(family).context[:-1], Turn("assistant", f"y{end}o")))
    prompts = encode(family, [row], train_on="all")
    prompt, reference, mask = expected(family, str(family.every))
    assert prompts.references is not None
    assert prompts.reference_masks is not None
    at, spelt = reference.index(ord("y")) + 1, [ord(character) for character in end]
    assert list(prompts.ids[0]) == prompt
    assert list(prompts.references[0]) == [*reference[:at], *spelt, *reference[at:]]
    assert list(prompts.reference_masks[0]) == [*mask[:at], *[True] * len(spelt), *mask[at:]]


def test_thoughts_are_learned_where_the_template_shows_them() -> None:
    family = FAMILIES["qwen3"]
    thought = "<think>\nwell\n</think>\n\nyo"
    prompts = encode(family, [Row("hi", thought), Row("hi", "<think>well</think>yo")])
    single = family.single.replace("<think>\n\n</think>", "<think>\nwell\n</think>")
    holds(prompts, 0, family, single)
    holds(prompts, 1, family, single)
    earlier = Row("more", "no", (Turn("user", "hi"), Turn("assistant", thought)))
    holds(encode(family, [earlier]), 0, family, family.last.replace("<|im_start|>system\nbe brief<|im_end|>\n", ""))
    with pytest.raises(ModelError) as caught:
        encode(family, [Row("hi", "yo"), earlier], train_on="all")
    assert str(caught.value) == (
        "error[SKD-M09] data.chat: 1 of 2 rows do not fit, first row 1: the chat template rewrites an earlier "
        "assistant turn, or does not end it; set data.train_on to last"
    )


def test_a_thought_that_the_prompt_opens_is_not_opened_again() -> None:
    family = FAMILIES["r1"]
    prompts = encode(family, [Row("hi", "<think>\nwell\n</think>\nyo"), Row("hi", "yo")])
    holds(prompts, 0, family, family.single.replace("«yo", "«well\n</think>\nyo"))
    holds(prompts, 1, family, family.single)


def test_rows_that_a_family_cannot_hold_are_counted() -> None:
    rows = [Row("hi", "yo"), Row("more", "no", CONTEXT), Row("more", "no", CONTEXT)]
    other = "take such turns out of the data, or use a model whose template has them"
    for name, found, remedy in [
        (
            "gemma",
            "the chat template refuses the roles system, user, assistant, user: System role not supported",
            other,
        ),
        (
            "mistral",
            "the chat template refuses the roles system, user, assistant, user: roles must alternate user/assistant",
            other,
        ),
        (
            "gpt2",
            "4 turns before the response, and no chat template that could frame them",
            "use a chat model, or rows of one prompt and one response",
        ),
    ]:
        with pytest.raises(ModelError) as caught:
            encode(FAMILIES[name], rows)
        assert str(caught.value) == (
            f"error[SKD-M08] data.chat: 2 of 3 rows do not fit, first row 1: {found}; {remedy}"
        )
    with pytest.raises(
        ModelError, match=r"SKD-M09\] data\.chat: 2 of 3 rows do not fit, first row 1: .*train_on to last"
    ):
        encode(FAMILIES["r1"], rows, train_on="all")


def test_duplicate_conversations_keep_their_own_answers() -> None:
    family = FAMILIES["llama3"]
    prompts = encode(family, [dialogue(family, "no"), dialogue(family, "yes"), dialogue(family, "no")])
    assert prompts.ids[0] == prompts.ids[1] == prompts.ids[2]
    assert prompts.references is not None
    assert [bytes(ids[:-1]).decode() for ids in prompts.references] == ["no", "yes", "no"]
    assert prompts.sample_ids == [0, 1, 2]


def test_a_long_conversation_loses_its_oldest_exchanges_first() -> None:
    family = FAMILIES["llama3"]
    full, short = encode(family, [dialogue(family)]), encode(family, [Row("more", "no", CONTEXT[:1])])
    options = {"on_long_prompt": "truncate_left"}
    cut = encode(family, [dialogue(family)], max_prompt_tokens=len(full.ids[0]) - 1, **options)
    assert cut.ids == short.ids
    assert cut.references == full.references
    cut = encode(family, [dialogue(family)], max_prompt_tokens=len(short.ids[0]) - 1, **options)
    assert len(cut.ids[0]) == len(short.ids[0]) - 1
    assert family.tokenizer().decode(cut.ids[0]) == family.tokenizer().decode(short.ids[0]).replace("more", "ore")

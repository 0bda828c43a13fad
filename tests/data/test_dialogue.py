from __future__ import annotations

import pytest

from skd.data import dialogue
from skd.data.dialogue import Facts, parse
from skd.data.rows import Row

REFERENCE = "anna and ben will swim at the lake on friday at six ."
FACTS = Facts(frozenset({"anna", "ben"}), "swim", "lake", "friday", "six")


@pytest.mark.parametrize(
    "text",
    [
        REFERENCE,
        "on friday at six , ben and anna meet at the lake to swim .",
        "at six on friday , anna and ben go to the lake to swim",
    ],
)
def test_facts_do_not_depend_on_the_wording(text: str) -> None:
    assert parse(text) == FACTS
    assert dialogue.score(Row("irrelevant", REFERENCE), text)


@pytest.mark.parametrize(
    "text",
    [
        "anna and clara will swim at the lake on friday at six .",
        "anna , ben and clara will swim at the lake on friday at six .",
        "anna and ben will cook at the lake on friday at six .",
        "anna and ben will swim at the park on friday at six .",
        "anna and ben will swim at the lake on monday at six .",
        "anna and ben will swim at the lake on friday at noon .",
    ],
)
def test_one_wrong_fact_fails(text: str) -> None:
    assert parse(text) is not None
    assert not dialogue.score(Row("irrelevant", REFERENCE), text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "anna will swim at the lake on friday at six .",
        "anna and anna will swim at the lake on friday at six .",
        "anna and ben will swim at the lake on friday .",
        "anna and ben will swim at the lake on friday at six at six .",
        "anna and ben will swim and cook at the lake on friday at six .",
    ],
)
def test_missing_or_doubled_facts_are_no_summary(text: str) -> None:
    assert parse(text) is None
    assert not dialogue.score(Row("irrelevant", REFERENCE), text)


def _decided(prompt: str, kind: str) -> str:
    """Slow twin: read one fact from the dialogue, line by line, knowing only who says yes to what."""
    choices = dialogue.CHOICES[kind]
    refusals = [text.partition(" : ")[2].split()[0] for text in dialogue.REFUSED]
    agreed, offered = "", ""
    for line in _lines(prompt):
        speaker_words = line.split()[2:]
        named = [word for word in speaker_words if word in choices]
        if not agreed:
            agreed = named[0]
        elif offered:
            agreed = agreed if speaker_words[0] in refusals else offered
            offered = ""
        else:
            offered = next((word for word in named if word != agreed), "")
    return agreed


def _lines(prompt: str) -> list[str]:
    words = prompt.removesuffix(" =").split()
    starts = [i - 1 for i, word in enumerate(words) if word == ":"]
    return [" ".join(words[i:j]) for i, j in zip(starts, [*starts[1:], len(words)], strict=True)]


def test_summaries_state_what_the_dialogue_agreed_on() -> None:
    rows = dialogue.rows("train", 500, 0)
    for row in rows:
        facts = parse(str(row.response))
        assert facts is not None
        for kind in dialogue.CHOICES:
            assert getattr(facts, kind) == _decided(row.prompt, kind), (kind, row)
    assert sum(len(set(dialogue.DAYS) & set(row.prompt.split())) > 1 for row in rows) > 50


def test_a_third_person_is_counted_only_when_welcome() -> None:
    for row in dialogue.rows("train", 300, 1):
        facts = parse(str(row.response))
        assert facts is not None
        speakers = {line.split()[0] for line in _lines(row.prompt)}
        asked = [line for line in _lines(row.prompt) if line.split(" : ")[1] in _texts(dialogue.REQUESTS)]
        refused = any(text in row.prompt for text in ("not this time", "no , sorry ,", "just for us"))
        third = {line.split()[0] for line in asked}
        assert facts.people == (speakers - third if refused else speakers)


def _texts(lines: tuple[str, ...]) -> set[str]:
    return {line.split(" : ")[1] for line in lines}


def test_lengths_are_those_of_a_short_summary_task() -> None:
    rows = dialogue.rows("train", 500, 0)
    assert 30 < sum(len(row.prompt.split()) for row in rows) / 500 < 45
    assert 14 < sum(len(str(row.response).split()) for row in rows) / 500 < 16
    assert len(set(dialogue.WORDS)) == len(dialogue.WORDS) < 140

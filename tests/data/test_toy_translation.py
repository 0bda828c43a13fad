from __future__ import annotations

from collections import Counter

from skd.data import toy_translation
from skd.data.rows import Row
from skd.data.toy_translation import ADJECTIVES, ADVERBS, MEANINGS, NOUNS, TENSES, VERBS

ROWS = toy_translation.rows("train", 500, 3)


def _back(response: str) -> list[str]:
    english = {word: source for source, words in MEANINGS.items() for word in words}
    return [english.get(word, word) for word in response.split()]


def _slow_translation(prompt: str) -> list[str]:
    """Twin: from the English words, which all are of one kind, to the other language's order, in English words."""
    words = [word for word in prompt.split() if word not in ("the", "a", "=")]
    auxiliary = next(i for i, word in enumerate(words) if word in TENSES)
    subject = [*(w for w in words[:auxiliary] if w in NOUNS), *(w for w in words[:auxiliary] if w in ADJECTIVES)]
    rest = words[auxiliary + 1 :]
    kinds = (ADVERBS, NOUNS, ADJECTIVES, VERBS)
    *found, verb = [word for kind in kinds for word in rest if word in kind]
    ending = [*TENSES[words[auxiliary]], *(["ni"] if "not" in rest else [])]
    return [*subject, "ga", *found, "wo", verb, *ending]


def test_references_are_translations() -> None:
    for row in ROWS:
        assert _back(row.response or "") == _slow_translation(row.prompt)


def test_no_word_means_two_things() -> None:
    targets = [word for words in MEANINGS.values() for word in words]
    assert len(set(targets)) == len(targets)
    assert not set(targets) & {"ga", "wo", "ni", "ta", "zu", *MEANINGS}
    assert len(set(toy_translation.WORDS)) == len(toy_translation.WORDS)
    assert sum(len(words) == 2 for words in MEANINGS.values()) == len(MEANINGS) // 3


def test_first_words_are_frequent() -> None:
    seen = Counter(word for row in ROWS for word in row.prompt.split())
    assert seen[NOUNS[0]] > 5 * seen[NOUNS[-1]]


def test_another_right_word_counts_and_a_wrong_one_does_not() -> None:
    word, (one, other) = next((word, words) for word, words in MEANINGS.items() if len(words) == 2)
    row = Row(word, f"{one} ga zu")
    assert toy_translation.score(row, f"{other} ga zu")
    assert not toy_translation.score(row, f"{other} ga")
    assert not toy_translation.score(row, f"{other} wo zu")
    assert not toy_translation.score(row, "ga zu")
    assert not toy_translation.score(row, f"{other} zu ga")
    assert not toy_translation.score(row, "")

"""The task ``toy_translation``: English sentences into a made-up language with another word order.

``the good baker will not follow a young teacher often =`` becomes ``migi duko ga menu gike muka wo bibo zu ni``: the
verb comes last, adjectives follow their nouns, the adverb moves, particles mark subject (ga), object (wo), tense (zu,
ta) and negation (ni). Words are nearly as unequal in frequency as a real language's, and every third one has two
translations that are both right.
"""

from __future__ import annotations

from collections.abc import Sequence

from skd.data.rows import Draws, Row, Split, distinct_rows

__all__ = ["MEANINGS", "WORDS", "rows", "score"]

# fmt: off
NOUNS = (
    "man", "woman", "child", "dog", "house", "boat", "friend", "king", "horse", "bird", "teacher", "tree", "fish",
    "doctor", "river", "soldier", "baker", "letter", "stone", "farmer", "cat", "bridge", "painter", "bear", "sailor",
    "lamp", "judge", "wolf", "tailor", "goose", "miller", "anchor",
)
VERBS = (
    "see", "know", "find", "take", "like", "follow", "hear", "help", "call", "leave", "carry", "draw", "visit", "push",
    "miss", "paint",
)
ADJECTIVES = (
    "good", "old", "new", "small", "big", "young", "red", "poor", "white", "quiet", "strong", "green", "clever",
    "tired", "proud", "lazy",
)
ADVERBS = ("today", "often", "here", "soon", "again", "quickly", "early", "alone")
# fmt: on
TENSES = {"does": (), "did": ("ta",), "will": ("zu",)}
"""English auxiliary -> particles after the verb."""
SUBJECT, OBJECT, NOT = "ga", "wo", "ni"


def _translations() -> dict[str, tuple[str, ...]]:
    """Each English word's translations: two syllables each, no two alike; every third word has two of them."""
    syllables = [consonant + vowel for consonant in "bdfgklmnprs" for vowel in "aeiou"]
    # 1237 has no factor in common with the number of pairs, so that none comes twice and neighbours look different.
    pairs = (divmod(n * 1237 % len(syllables) ** 2, len(syllables)) for n in range(len(syllables) ** 2))
    made = (syllables[first] + syllables[second] for first, second in pairs)
    words = (*NOUNS, *VERBS, *ADJECTIVES, *ADVERBS)
    return {word: tuple(next(made) for _ in range(1 + (i % 3 == 2))) for i, word in enumerate(words)}


MEANINGS = _translations()
"""English word -> its translations, all of them right."""
_ALIKE = {word: frozenset(words) for words in MEANINGS.values() for word in words}

WORDS: tuple[str, ...] = ("=", "the", "a", *TENSES, "not", *MEANINGS, *_ALIKE, SUBJECT, OBJECT, "ta", "zu", NOT)
"""Every word of prompts and responses, once."""


def _frequent(draws: Draws, words: Sequence[str]) -> str:
    """One of ``words``, the first ones more often: nearly as in Zipf's law."""
    return words[draws.below(1 + draws.below(len(words)))]


def _translated(draws: Draws, words: Sequence[str]) -> list[str]:
    return [draws.pick(MEANINGS[word]) for word in words]


def _draw(draws: Draws) -> Row:
    subject = _frequent(draws, NOUNS)
    other = _frequent(draws, [noun for noun in NOUNS if noun != subject])
    adjectives = [[_frequent(draws, ADJECTIVES)] if draws.chance(50) else [] for _ in range(2)]
    articles = [draws.pick(("the", "a")) for _ in range(2)]
    tense, verb = draws.pick(tuple(TENSES)), _frequent(draws, VERBS)
    negation, adverb = draws.chance(30), [_frequent(draws, ADVERBS)] if draws.chance(40) else []
    english = [
        *(articles[0], *adjectives[0], subject, tense, *(["not"] if negation else []), verb),
        *(articles[1], *adjectives[1], other, *adverb, "="),
    ]
    phrases = [_translated(draws, [noun, *adjectives[i]]) for i, noun in enumerate((subject, other))]
    made = [
        *(*phrases[0], SUBJECT, *_translated(draws, adverb), *phrases[1], OBJECT),
        *(*_translated(draws, [verb]), *TENSES[tense], *([NOT] if negation else [])),
    ]
    return Row(" ".join(english), " ".join(made))


def rows(split: Split, size: int, seed: int) -> list[Row]:
    """``size`` distinct sentences of ``split`` with one of their translations."""
    return distinct_rows(_draw, split, size, seed)


def score(row: Row, response_text: str) -> bool:
    """Whether each word is that of the reference or another translation of the same English word."""
    words, reference = response_text.split(), (row.response or "").split()
    return len(words) == len(reference) and all(
        word in _ALIKE.get(right, {right}) for word, right in zip(words, reference, strict=True)
    )

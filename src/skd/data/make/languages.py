"""The languages that sentence pairs can be made for."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

__all__ = ["LANGUAGES", "Language"]


@dataclass(frozen=True)
class Language:
    """A language to translate from; English is the other side."""

    name: str
    code: str
    """Two letters: names gettext catalogues."""
    long_code: str
    """Three letters: names the word-problem templates."""
    script: re.Pattern[str]
    """Characters of its script."""
    foreign: str = ""
    """Characters of that script which the language does not use: they give away a text in a neighbour's language."""

    def writes(self, text: str) -> bool:
        """Whether ``text`` looks like this language: most of its letters are of its script, none is a neighbour's."""
        letters = [character for character in text if character.isalpha()]
        own = sum(1 for character in letters if self.script.match(character))
        return bool(letters) and 2 * own > len(letters) and not any(letter in text for letter in self.foreign)


_LATIN = re.compile(r"[A-Za-zÀ-ɏ]")
_BENGALI = re.compile(r"[\u0980-\u09ff]")
_DEVANAGARI = re.compile(r"[\u0900-\u097f]")

LANGUAGES: Mapping[str, Language] = {
    language.name: language
    for language in (
        # U+09B0 is Bengali's letter ra; Assamese writes U+09F0.
        Language("Assamese", "as", "asm", _BENGALI, foreign="\u09b0"),
        Language("Danish", "da", "dan", _LATIN),
        Language("French", "fr", "fra", _LATIN),
        Language("German", "de", "deu", _LATIN),
        Language("Hindi", "hi", "hin", _DEVANAGARI),
    )
}
"""By name, as in ``translation:German-English``."""

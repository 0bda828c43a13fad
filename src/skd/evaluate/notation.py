r"""One spelling for answers that differ in notation only: LaTeX spacing, ``\dfrac``, units, percent, currency.

What is left has the same meaning; nothing is computed here.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass

__all__ = ["Plain", "plain", "same_words"]

_HIDDEN = re.compile(
    "[\u00ad\u061c\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufe0e\ufe0f]|[\x00-\x08\x0e-\x1f\x7f]"
)
_SYMBOLS = {
    "\u2212": "-", "\u2013": "-", "\u2014": "-", "\u00d7": "*", "\u00b7": "*", "\u22c5": "*", "\u00f7": "/",
    "\u2044": "/", "\u03c0": r"\pi ", "\u221e": r"\infty ", "\u221a": r"\sqrt ", "\u00b0": r"^\circ ", "\u00b2": "^2",
    "\u00b3": "^3", "\u00bd": r"\frac{1}{2}", "\u00bc": r"\frac{1}{4}", "\u00be": r"\frac{3}{4}", "\u00b1": r"\pm ",
    "\u222a": r"\cup ", "\u2264": r"\le ", "\u2265": r"\ge ", "\u2208": r"\in ", "\u2205": r"\emptyset ",
    "\u00a0": " ", "\u202f": " ", "\u2009": " ", "\u20ac": "", "\u00a3": "",
}  # fmt: skip
_SYMBOL = re.compile("|".join(map(re.escape, _SYMBOLS)))

# Applied in this order. What is replaced by nothing is layout.
_REWRITES = tuple(
    (re.compile(pattern), replacement)
    for pattern, replacement in [
        (r"(?<!\\)\\[\[\]()]|\\begin\{(?:align|equation|gather)\*?\}|\\end\{(?:align|equation|gather)\*?\}", ""),
        (r"\\\$|(?<!\\)\$", ""),
        (r"(?<=[0-9])(?:\{,\}|,\\!)(?=[0-9]{3})", ","),
        (r"\\(?:left|right|displaystyle|textstyle|limits|bigl?|bigr?|Bigl?|Bigr?)(?![A-Za-z])\s?", ""),
        (r"(?<!\\)\\[!,;:> ]|~|\\q?quad(?![A-Za-z])", " "),
        (r"\\[dtc]frac(?![A-Za-z])", r"\\frac"),
        (r"\\(?:cdot|times|ast)(?![A-Za-z])|(?<!\*)\*(?!\*)", "*"),
        (r"\*\*", "^"),
        (r"\\div(?![A-Za-z])", "/"),
        (r"\s*\^\s*(?:\\circ(?![A-Za-z])|\{\s*\\circ\s*\})|\\degree(?![A-Za-z])", ""),
        (r"\\(?:mathrm|mathbf|textbf|textit|textrm|mbox|operatorname|rm|bf)(?=\{)", r"\\text"),
        (r"\\text\{\s*(?:and|or|,)\s*\}|(?<=[0-9)}\]A-Za-z])\s+(?:and|or)\s+(?=[-0-9(\\A-Za-z]+)", ","),
        (r"\\(?:leq|leqslant)(?![A-Za-z])", r"\\le"),
        (r"\\(?:geq|geqslant)(?![A-Za-z])", r"\\ge"),
        (r"\\(?:varnothing)(?![A-Za-z])", r"\\emptyset"),
        (r"\{[pbB]matrix\}", "{matrix}"),
        (r"(?<![A-Za-z\\])sqrt(?=[({])", r"\\sqrt"),
        (r"(?<![A-Za-z\\])(?:pi)(?![A-Za-z])", r"\\pi"),
        (r"(?<![A-Za-z\\])(?:infinity|inf|infty|oo)(?![A-Za-z])", r"\\infty"),
    ]
)

_FACTORS = {"hundred": "100", "thousand": "1000", "million": "1000000", "billion": "1000000000", "dozen": "12"}
_UNITS = {
    "centimeter": "cm", "centimetre": "cm", "millimeter": "mm", "millimetre": "mm", "meter": "m", "metre": "m",
    "kilometer": "km", "kilometre": "km", "inch": "in", "inche": "in", "foot": "ft", "feet": "ft", "yard": "yd",
    "mile": "mi", "gram": "g", "kilogram": "kg", "milligram": "mg", "pound": "lb", "ounce": "oz", "liter": "l",
    "litre": "l", "milliliter": "ml", "second": "s", "sec": "s", "minute": "min", "hour": "h", "hr": "h", "day": "day",
    "week": "week", "month": "month", "year": "year", "dollar": "dollar", "cent": "cent", "degree": "degree",
    "mph": "mph",
}  # fmt: skip
_KNOWN_UNITS = frozenset(_UNITS.values())
_UNIT_LETTERS = frozenset("mgshlLVWNJKCFA")
_TAIL = re.compile(
    r"(?P<head>.*[0-9)}\]])(?P<gap>\s*)"
    r"(?:\\text\{(?P<text>[^{}]*)\}|\((?P<noun>[A-Za-z][A-Za-z ]*)\)|(?P<words>[A-Za-z][A-Za-z./ ]*))"
    r"(?:\s*\^\s*\{?\s*(?P<power>[23])\s*\}?)?\s*",
    re.DOTALL,
)
_NUMERAL = re.compile(r"[-+0-9.,/ ]+")
_FUNCTIONS = frozenset({
    "sin", "cos", "tan", "cot", "sec", "csc", "arcsin", "arccos", "arctan", "sinh", "cosh", "tanh", "log", "ln", "exp",
    "sqrt", "lim", "max", "min", "mod", "gcd", "lcm", "det", "deg",
})  # fmt: skip


@dataclass(frozen=True)
class Plain:
    """An answer in one spelling."""

    text: str
    """Without units, currency, percent sign and layout; single spaces where the original had any."""
    unit: str | None = None
    """A unit that two answers can differ in, such as ``cm^2``; None for none and for nouns such as apples."""
    percent: bool = False

    @property
    def key(self) -> str:
        """Without any space and outer braces: answers with one key are one text."""
        return re.sub(r"\s+", "", self.text)

    @property
    def words(self) -> str | None:
        """Lower case words of an answer that is words only; None for mathematics, such as one or two letters."""
        text = self.text.lower()
        words = [word for word in re.split(r"[\s,.!?:;'\u2019-]+", text) if word]
        long = any(len(word) > 2 and word not in _FUNCTIONS for word in words)
        if not all(word.isalpha() for word in words) or not (long or text in ("no", "am", "pm")):
            return None
        return " ".join(words)

    @property
    def is_mathematics(self) -> bool:
        """Whether there is nothing in it but mathematics: no words, quotes or programming."""
        bare = re.sub(r"\\text\{[^{}]*\}|\\[A-Za-z]+|\\[{}|\\]", " ", self.text)
        strange = re.search(r"[\"`;@#?\\]|__|[^\x20-\x7e]", bare)
        return not strange and all(name in _FUNCTIONS or len(name) == 2 for name in re.findall(r"[A-Za-z]{2,}", bare))


def plain(answer: str) -> Plain:
    """The one spelling of an answer."""
    text = _HIDDEN.sub("", unicodedata.normalize("NFC", answer))
    text = _SYMBOL.sub(lambda match: _SYMBOLS[match[0]], text)
    for pattern, replacement in _REWRITES:
        text = pattern.sub(replacement, text)
    text = re.sub(r"\s+", " ", text).strip().rstrip(".").strip()
    text = _unwrapped(text)
    percent = text.endswith("%") or text.lower().endswith(" percent")
    if percent:
        text = re.sub(r"\s*(?:\\?%|percent)$", "", text, flags=re.IGNORECASE)
    text, unit = _without_unit(text)
    return Plain(text, unit, percent)


def _unwrapped(text: str) -> str:
    r"""Without a ``\text{}`` or braces around the whole, and without parentheses around one letter."""
    for pattern in (r"\\text\s*\{([^{}]*)\}", r"\{([^{}]*)\}", r"\(([A-Za-z])\)"):
        if match := re.fullmatch(pattern, text):
            text = match[1].strip().rstrip(".")
    return text


def _without_unit(text: str) -> tuple[str, str | None]:
    match = _TAIL.fullmatch(text) if len(text) < 200 else None
    if match is None:
        return text, None
    name = (match["text"] or match["noun"] or match["words"] or "").strip().rstrip(".")
    if factor := _FACTORS.get(name.lower()):
        return f"{match['head']}*{factor}", None
    if match["words"] and not _is_unit(name, match["head"], bool(match["gap"])):
        return text, None
    if match["noun"] and not (_NUMERAL.fullmatch(match["head"]) and len(name) > 2):
        return text, None
    return match["head"].strip(), _canonical_unit(name, match["power"])


def _is_unit(name: str, head: str, gap: bool) -> bool:
    """Whether letters behind a number are a unit, and not variables or a function."""
    first = name.split()[0].lower()
    if not (_NUMERAL.fullmatch(head) or head[-1] in "})") or first in _FUNCTIONS:
        return False
    if len(name) == 1:
        return gap and name in _UNIT_LETTERS and bool(_NUMERAL.fullmatch(head))
    return gap or _singular(first) in _KNOWN_UNITS or _singular(first) in _UNITS


def _singular(word: str) -> str:
    return word[:-1] if len(word) > 2 and word.endswith("s") else word


def _canonical_unit(name: str, power: str | None) -> str | None:
    words = name.lower().replace("sq.", "square").replace("sq ", "square ").split()
    if words and words[0] in ("square", "cubic"):
        power, words = ("2" if words[0] == "square" else "3"), words[1:]
    if len(words) != 1:
        return None
    unit = _UNITS.get(_singular(words[0]), words[0])
    return (unit + (f"^{power}" if power else "")) if unit in _KNOWN_UNITS else None


def same_words(first: str, second: str) -> bool:
    """Whether two answers in words are the same up to case, spaces and punctuation."""
    return first.replace(" ", "") == second.replace(" ", "")

r"""Answers as exact values: a small grammar for numbers, closed forms, tuples, sets, intervals, matrices and equations.

Only what the grammar knows for certain has a value. Everything else raises ``Unsupported`` and is left to math-verify.
"""

from __future__ import annotations

import math
import re
from fractions import Fraction

from skd.evaluate.polynomials import (
    Polynomial,
    Unsupported,
    add,
    divide,
    multiply,
    number,
    power,
    root,
    symbol,
)
from skd.evaluate.values import ClosedForm, Equation, Matrix, Ordered, Unordered, Value, unordered

__all__ = ["value_of"]

_TOKENS = re.compile(
    r"(?P<number>[0-9]*\.(?=\\overline)|(?:[0-9]+(?:\.[0-9]+)?|\.[0-9]+)(?:[eE][-+]?[0-9]+)?)"
    r"|(?P<command>\\[A-Za-z]+|\\[{}|\\])|(?P<letter>[A-Za-z])|(?P<mark>[-+*/^_(){}\[\],=!|&])|(?P<space>\s+)"
)
_SYMBOLS = frozenset({
    "pi", "infty", "alpha", "beta", "gamma", "delta", "epsilon", "theta", "lambda", "mu", "phi", "rho", "sigma", "tau",
    "omega",
})  # fmt: skip
_OPENINGS = {"(": ")", "[": "]", "\\{": "\\}"}
MAX_DEPTH = 20
MAX_DIGITS = 300


def value_of(text: str) -> Value:
    """The exact value of an answer in plain notation. Raises Unsupported for what the grammar does not know."""
    text = re.sub(r"^([A-Za-z])\s*\\in\s*(?=[(\[\\])", "", text)
    if r"\cup" in text:
        return Unordered(frozenset(value_of(part.strip()) for part in text.split(r"\cup")))
    if "matrix" in text:
        return _matrix(text)
    mixed = re.fullmatch(r"(-?)\s*([0-9]+)\s+([0-9]+)\s*/\s*([0-9]+)", text)
    if mixed:
        text = rf"{mixed[1]}{mixed[2]}\frac{{{mixed[3]}}}{{{mixed[4]}}}"
    values = [_Parser(part).answer() for part in _signs(_ungrouped(text))]
    return values[0] if len(values) == 1 else unordered(values)


def _ungrouped(text: str) -> str:
    """Without thousands separators. In brackets a comma separates items: (1,200) is a point."""
    if re.fullmatch(r"-?[0-9]{1,3}(\.[0-9]{3})+,[0-9]+", text):
        return text.replace(".", "").replace(",", ".")
    if re.fullmatch(r"-?[0-9]{1,3}( [0-9]{3})+(\.[0-9]+)?", text):
        return text.replace(" ", "")
    if re.search(r"[\[(]|\\\{", text):
        return text
    return re.sub(r"(?<![0-9.,])[0-9]{1,3}(?:,[0-9]{3})+(?![0-9,])", lambda match: match[0].replace(",", ""), text)


def _signs(text: str) -> list[str]:
    r"""Both readings of ``\pm``."""
    if r"\mp" in text or r"\pm" not in text:
        return [text]
    return [re.sub(r"\\pm(?![A-Za-z])", sign, text) for sign in "+-"]


def _matrix(text: str) -> Value:
    match = re.fullmatch(r"\\begin\{matrix\}(.*)\\end\{matrix\}", text, re.DOTALL)
    if match is None or "matrix" in match[1]:
        raise Unsupported("matrix")
    rows = [row for row in match[1].split("\\\\") if row.strip()]
    return Matrix(tuple(tuple(value_of(cell.strip()) for cell in row.split("&")) for row in rows))


class _Parser:
    """Recursive descent over the tokens of one answer."""

    def __init__(self, text: str) -> None:
        self.text, self.tokens, self.at, self.depth = text, _tokens(text), 0, 0

    def answer(self) -> Value:
        """One value or equation; several with commas between them are a set, for order means nothing there."""
        values = [self.equation()]
        while self.next() == ",":
            self.take()
            values.append(self.equation())
        if self.next() != "":
            raise Unsupported(self.next())
        return values[0] if len(values) == 1 else unordered(values)

    def equation(self) -> Value:
        left = self.item()
        if self.next() != "=":
            return left
        self.take()
        return Equation(left, self.item())

    def item(self) -> Value:
        """A tuple, interval or set in brackets, or a closed form."""
        opening, start = self.next(), self.at
        if opening in _OPENINGS:
            self.take()
            inside = self.list_until(")]" if opening in "([" else [_OPENINGS[opening]])
            if opening == "\\{":
                return Unordered(frozenset(inside))
            if len(inside) > 1:
                return Ordered(opening, tuple(inside), self.tokens[self.at - 1])
            self.at = start
        return ClosedForm(frozenset(self.sum().items()))

    def list_until(self, closings: str | list[str]) -> list[Value]:
        self.deeper()
        values: list[Value] = []
        while self.next() not in (*closings, ""):
            values.append(self.item())
            if self.next() == ",":
                self.take()
        self.depth -= 1
        if self.next() == "":
            raise Unsupported("unclosed")
        self.take()
        return values

    def deeper(self) -> None:
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise Unsupported("depth")

    def sum(self) -> Polynomial:
        self.deeper()
        total = self.product()
        while self.next() in ("+", "-"):
            sign = 1 if self.take() == "+" else -1
            total = add(total, self.product(), sign)
        self.depth -= 1
        return total

    def product(self) -> Polynomial:
        result, divided = self.factor(), False
        while True:
            token = self.next()
            if token == "*":
                self.take()
                result, divided = multiply(result, self.factor()), False
            elif token == "/":
                self.take()
                result, divided = divide(result, self.factor()), True
            elif self.starts_factor(token):
                # 1/2x is read in two ways, and 2 3 in none.
                if divided or token[0].isdigit():
                    raise Unsupported("implicit product")
                result = multiply(result, self.factor())
            else:
                return result

    def starts_factor(self, token: str) -> bool:
        return token != "" and (
            token[0].isalnum() or token in ("(", "{") or (token[:1] == "\\" and token[1:].isalpha())
        )

    def factor(self) -> Polynomial:
        if self.next() in ("+", "-"):
            sign = 1 if self.take() == "+" else -1
            return multiply(number(sign), self.factor())
        base = self.atom()
        if self.next() == "!":
            self.take()
            base = _factorial(base)
        if self.next() == "^":
            self.take()
            base = power(base, _constant(self.argument()))
        if self.next() in ("^", "!"):
            raise Unsupported("towers are read in two ways")
        return base

    def atom(self) -> Polynomial:
        token = self.take()
        if token[:1].isdigit() or token[:1] == ".":
            return self.number(token)
        if token in ("(", "{"):
            value = self.sum()
            self.expect(")" if token == "(" else "}")
            return value
        if token.isalpha() and len(token) == 1:
            return symbol(token + self.subscript())
        if token[:1] == "\\" and token[1:] in _SYMBOLS:
            return symbol(token + self.subscript())
        if token == "\\frac":
            above = self.argument(one_digit=True)
            return divide(above, self.argument(one_digit=True))
        if token == "\\sqrt":
            degree = self.degree()
            return root(self.argument(), degree)
        raise Unsupported(token)

    def number(self, token: str) -> Polynomial:
        value = _decimal(token)
        if self.next() == "\\overline" and "." in token:
            self.take()
            value += self.repeating(len(token.partition(".")[2]))
        if self.next() == "_":
            raise Unsupported("base")
        # 1 1/2, written 1\frac{1}{2}, is a sum; a larger numerator would make it a product.
        mixed = re.match(r"\\frac\s*\{?([0-9]+)\}?\s*\{?([0-9]+)\}?", self.rest())
        if mixed and value.denominator == 1:
            above, below = (mixed[1], mixed[2]) if "{" in mixed[0] else (mixed[1][:1], mixed[1][1:] + mixed[2])
            if not int(above or 0) < int(below or 0):
                raise Unsupported("mixed number")
            return add(number(value), self.atom())
        return number(value)

    def repeating(self, places: int) -> Fraction:
        r"""The value of ``\overline{digits}`` behind ``places`` decimals."""
        self.expect("{")
        digits = self.take()
        self.expect("}")
        if not re.fullmatch(r"[0-9]{1,20}", digits):
            raise Unsupported("overline")
        return Fraction(int(digits), (10 ** len(digits) - 1) * 10**places)

    def argument(self, one_digit: bool = False) -> Polynomial:
        """What a command or an exponent applies to: a group, or one token."""
        token = self.next()
        if token == "{":
            self.take()
            value = self.sum()
            self.expect("}")
            return value
        if one_digit and re.fullmatch(r"[0-9]{2,}", token):
            self.tokens[self.at] = token[1:]
            return number(int(token[0]))
        if token == "-":
            self.take()
            return multiply(number(-1), self.argument())
        return self.atom()

    def degree(self) -> int:
        if self.next() != "[":
            return 2
        self.take()
        token = self.take()
        self.expect("]")
        if not re.fullmatch(r"[0-9]{1,2}", token):
            raise Unsupported("degree")
        return int(token)

    def subscript(self) -> str:
        if self.next() != "_":
            return ""
        self.take()
        if self.next() != "{":
            return "_" + self.take()
        self.take()
        name = self.take()
        self.expect("}")
        return "_" + name

    def next(self) -> str:
        return self.tokens[self.at] if self.at < len(self.tokens) else ""

    def rest(self) -> str:
        return "".join(self.tokens[self.at : self.at + 7])

    def take(self) -> str:
        token = self.next()
        self.at += 1
        return token

    def expect(self, token: str) -> None:
        if self.take() != token:
            raise Unsupported(f"no {token}")


def _tokens(text: str) -> list[str]:
    tokens, at = [], 0
    while at < len(text):
        match = _TOKENS.match(text, at)
        if match is None or match.end() == at:
            raise Unsupported(text[at])
        if match.lastgroup != "space":
            tokens.append(match[0])
        at = match.end()
    return tokens


def _decimal(token: str) -> Fraction:
    mantissa, _, exponent = token.lower().partition("e")
    if len(token) > MAX_DIGITS or abs(int(exponent or 0)) > MAX_DIGITS:
        raise Unsupported("digits")
    return Fraction(mantissa if mantissa[0] != "." else "0" + mantissa) * Fraction(10) ** int(exponent or 0)


def _constant(value: Polynomial) -> Fraction:
    if not value:
        return Fraction(0)
    if set(value) != {(1, ())}:
        raise Unsupported("exponent")
    return value[1, ()]


def _factorial(base: Polynomial) -> Polynomial:
    value = _constant(base)
    if value.denominator != 1 or not 0 <= value <= 50:
        raise Unsupported("factorial")
    return number(math.factorial(int(value)))

r"""Exact closed forms: sums of rational multiples of products of powers of symbols and square roots of integers.

``3\sqrt{2}\pi - x^2/2`` is two terms. The form is unique, so two of them are equal exactly when they are the same
dictionary. Everything that could grow without bound is refused with ``Unsupported``.
"""

from __future__ import annotations

import math
from fractions import Fraction

__all__ = ["Monomial", "Polynomial", "Unsupported", "add", "divide", "multiply", "number", "power", "root", "symbol"]

Monomial = tuple[int, tuple[tuple[str, int], ...]]
"""A square-free integer under a square root, and the powers of symbols in order of their names."""
Polynomial = dict[Monomial, Fraction]
"""Coefficient of each monomial; none is zero."""

MAX_TERMS = 200
MAX_BITS = 2048
MAX_POWER = 64
MAX_RADICAND = 10**9
"""Factored by trial division."""
IMAGINARY = "i"


class Unsupported(Exception):
    """Not a closed form of this kind, or too large."""


def number(value: Fraction | int) -> Polynomial:
    """A rational constant."""
    value = Fraction(value)
    if max(value.numerator.bit_length(), value.denominator.bit_length()) > MAX_BITS:
        raise Unsupported("too many digits")
    return {(1, ()): value} if value else {}


def symbol(name: str) -> Polynomial:
    """A variable or a constant such as pi; ``i`` is the imaginary unit."""
    return {(1, ((name, 1),)): Fraction(1)}


def add(a: Polynomial, b: Polynomial, sign: int = 1) -> Polynomial:
    """a + sign * b."""
    total = dict(a)
    for monomial, coefficient in b.items():
        total[monomial] = total.get(monomial, Fraction(0)) + sign * coefficient
    return {monomial: coefficient for monomial, coefficient in total.items() if coefficient}


def multiply(a: Polynomial, b: Polynomial) -> Polynomial:
    """The product, multiplied out."""
    if len(a) * len(b) > MAX_TERMS:
        raise Unsupported("too many terms")
    total: Polynomial = {}
    for first, x in a.items():
        for second, y in b.items():
            monomial, factor = _product(first, second)
            total = add(total, {monomial: x * y * factor})
    for coefficient in total.values():
        number(coefficient)
    return total


def _product(a: Monomial, b: Monomial) -> tuple[Monomial, int]:
    shared = math.gcd(a[0], b[0])
    powers = dict(a[1])
    for name, exponent in b[1]:
        powers[name] = powers.get(name, 0) + exponent
    factor = shared
    if IMAGINARY in powers:
        factor *= (1, 1, -1, -1)[powers[IMAGINARY] % 4]
        powers[IMAGINARY] %= 2
    kept = tuple(sorted((name, exponent) for name, exponent in powers.items() if exponent))
    return (a[0] * b[0] // shared**2, kept), factor


def divide(a: Polynomial, b: Polynomial) -> Polynomial:
    """a / b for a single term b. Raises Unsupported for a sum or zero."""
    if len(b) != 1:
        raise Unsupported("division by a sum or by zero")
    (((radicand, powers), coefficient),) = b.items()
    # 1 / sqrt(r) = sqrt(r) / r
    inverse = {(radicand, tuple((name, -exponent) for name, exponent in powers)): 1 / (coefficient * radicand)}
    return multiply(a, multiply(inverse, number(1)))


def power(base: Polynomial, exponent: Fraction) -> Polynomial:
    """base ** exponent for a small integer, or half of one."""
    if exponent.denominator == 2:
        return power(root(base), Fraction(exponent.numerator))
    if exponent.denominator != 1 or abs(exponent) > MAX_POWER:
        raise Unsupported("power")
    if exponent < 0:
        return divide(number(1), power(base, -exponent))
    result = number(1)
    for _ in range(int(exponent)):
        result = multiply(result, base)
    return result


def root(base: Polynomial, degree: int = 2) -> Polynomial:
    """The real root of a rational constant; for degrees above 2 only where it is rational.

    Raises Unsupported for anything else. The square root of a negative number is imaginary.
    """
    value = base.get((1, ()), Fraction(0))
    if len(base) > 1 or (base and not value) or not 2 <= degree <= 12:
        raise Unsupported("root")
    if degree > 2:
        return number(_rational_root(value, degree))
    # sqrt(p/q) = sqrt(p q) / q
    square, free = _squares(abs(value.numerator) * value.denominator)
    result: Polynomial = {(free, ()): Fraction(square, value.denominator)} if square else {}
    return multiply(result, symbol(IMAGINARY)) if value < 0 else result


def _squares(n: int) -> tuple[int, int]:
    """n = square ** 2 * free with a square-free second number; (0, 1) for 0."""
    if n > MAX_RADICAND:
        exact = math.isqrt(n)
        if exact * exact == n:
            return exact, 1
        raise Unsupported("radicand")
    square, free, factor = 1, n, 2
    while factor * factor <= free:
        while free % (factor * factor) == 0:
            free //= factor * factor
            square *= factor
        factor += 1
    return (square, free) if n else (0, 1)


def _rational_root(value: Fraction, degree: int) -> Fraction:
    if value < 0 and degree % 2 == 0:
        raise Unsupported("root")
    parts = [_integer_root(abs(part), degree) for part in (value.numerator, value.denominator)]
    return Fraction(parts[0], parts[1]) * (-1 if value < 0 else 1)


def _integer_root(n: int, degree: int) -> int:
    low, high = 0, 1 << (n.bit_length() // degree + 1)
    while low < high:
        middle = (low + high) // 2
        if middle**degree < n:
            low = middle + 1
        else:
            high = middle
    if low**degree != n:
        raise Unsupported("root")
    return low

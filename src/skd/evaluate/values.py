"""What an answer can be worth: closed forms, and points, sets, matrices and equations of them; when two are equal."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction

from skd.evaluate.polynomials import Monomial

__all__ = ["ClosedForm", "Equation", "Matrix", "Ordered", "Unordered", "Value", "same", "unordered"]


@dataclass(frozen=True)
class ClosedForm:
    """A sum of terms; see ``skd.evaluate.polynomials``."""

    terms: frozenset[tuple[Monomial, Fraction]]

    @property
    def is_name(self) -> bool:
        """Whether it is one symbol, or a function of one: what stands left of an assignment."""
        names = [name for (radicand, powers), factor in self.terms if radicand == factor == 1 for name in powers]
        function = len(names) == 2 and names[0][0] in "fgh"
        return len(self.terms) == 1 and (len(names) == 1 or function) and all(power == 1 for _, power in names)


@dataclass(frozen=True)
class Ordered:
    """A point or an interval: the brackets count."""

    opening: str
    items: tuple[Value, ...]
    closing: str


@dataclass(frozen=True)
class Unordered:
    """A set, a list of solutions or a union."""

    items: frozenset[Value]


@dataclass(frozen=True)
class Matrix:
    rows: tuple[tuple[Value, ...], ...]


@dataclass(frozen=True)
class Equation:
    left: Value
    right: Value

    @property
    def assigned(self) -> Value | None:
        """The right side of ``x = 5`` and ``f(x) = 5``; None for other equations."""
        return self.right if isinstance(self.left, ClosedForm) and self.left.is_name else None


Value = ClosedForm | Ordered | Unordered | Matrix | Equation


def unordered(values: Iterable[Value]) -> Unordered:
    """A set; ``x = 2, x = 3`` is the set of 2 and 3."""
    items = list(values)
    equations = [item for item in items if isinstance(item, Equation)]
    rights = [equation.assigned for equation in equations if equation.assigned is not None]
    alike = len(rights) == len(items) and len({equation.left for equation in equations}) == 1
    return Unordered(frozenset(rights if alike else items))


def same(a: Value, b: Value) -> bool | None:
    """Whether two values are equal; None where that cannot be told, as between a tuple and a set."""
    if a == b:
        return True
    for one, other in ((a, b), (b, a)):
        if isinstance(one, Equation) and not isinstance(other, Equation) and one.assigned is not None:
            return same(one.assigned, other)
    return False if type(a) is type(b) and not _holds_equation(a) and not _holds_equation(b) else None


def _holds_equation(value: Value) -> bool:
    items = value.items if isinstance(value, Unordered) else [value]
    return any(isinstance(item, Equation) for item in items)

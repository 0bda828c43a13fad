r"""Mathematics with the answer in ``\boxed{}``: problems of reasoning-gym with solutions worked out here.

reasoning-gym gives answers without a way to them, word problems apart. A solution is written from the numbers of the
problem, so every step of it is exact.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping
from fractions import Fraction
from itertools import chain
from typing import Any

from skd.data.make.items import Item, Source
from skd.data.make.word_problems import problems as word_problems
from skd.data.make.word_problems import require_reasoning_gym

__all__ = ["WORKED", "problems"]

BLOCK = 500
_URL = "https://github.com/open-thought/reasoning-gym"
_SUFFIX = re.compile(
    r"\s*(Give only the (GCD|simplified fraction) as your final answer\.|Return only the angle as your answer\.?"
    r"|Do not give the units in your answer\.)"
)
_LINEAR = re.compile(r"^(?:(-?\d+) ([+-]) )?(-?\d+)\*([a-z])(?: ([+-]) (\d+))? = (-?\d+)$")

Facts = Mapping[str, Any]
"""What reasoning-gym tells about a problem."""


def _gcd(facts: Facts) -> str | None:
    larger, smaller = sorted(facts["numbers"], reverse=True)
    lines = []
    while smaller:
        lines.append(f"{larger} = {larger // smaller} * {smaller} + {larger % smaller}")
        larger, smaller = smaller, larger % smaller
    return "\n".join([*lines, f"The last remainder that is not 0 is \\boxed{{{larger}}}."])


def _lcm(facts: Facts) -> str | None:
    first, second = facts["numbers"]
    common = math.gcd(first, second)
    return (
        f"The greatest common divisor of {first} and {second} is {common}.\n"
        f"{first} * {second} / {common} = {first * second // common}\n"
        f"The answer is \\boxed{{{first * second // common}}}."
    )


def _fraction(facts: Facts) -> str | None:
    above, below = facts["numerator"], facts["denominator"]
    common = math.gcd(above, below)
    return (
        f"Both numbers can be divided by {common}.\n{above} / {common} = {above // common}\n"
        f"{below} / {common} = {below // common}\n"
        f"The answer is \\boxed{{\\frac{{{above // common}}}{{{below // common}}}}}."
    )


def _chain_sum(facts: Facts) -> str | None:
    first, *rest = facts["expression"].split(" ")
    total, lines = int(first), []
    for sign, number in zip(rest[::2], rest[1::2], strict=True):
        after = total + int(number) if sign == "+" else total - int(number)
        lines.append(f"{total} {sign} {number} = {after}")
        total = after
    return "\n".join([*lines, f"The answer is \\boxed{{{total}}}."])


def _polygon(facts: Facts) -> str | None:
    if "known_angles" not in facts:
        return None
    known = [round(angle) for angle in facts["known_angles"]]
    sides, total = facts["n_sides"], (facts["n_sides"] - 2) * 180
    return (
        f"The angles of a polygon with {sides} sides add up to ({sides} - 2) * 180 = {total} degrees.\n"
        f"{' + '.join(map(str, known))} = {sum(known)}\n{total} - {sum(known)} = {total - sum(known)}\n"
        f"The answer is \\boxed{{{total - sum(known)}}}."
    )


def _linear(facts: Facts) -> str | None:
    match = _LINEAR.match(facts["equation"])
    if not match or (match[1] and match[6]):
        return None
    factor = int(match[3]) * (-1 if match[2] == "-" else 1)
    constant = int(match[1] or 0) + (int(match[6]) * (-1 if match[5] == "-" else 1) if match[6] else 0)
    right, name = int(match[7]), match[4]
    lines = [f"{factor}*{name} = {right} - {constant} = {right - constant}"] if constant > 0 else []
    lines += [f"{factor}*{name} = {right} + {-constant} = {right - constant}"] if constant < 0 else []
    value = Fraction(right - constant, factor)
    return "\n".join(
        [*lines, f"{name} = {right - constant} / {factor} = {value}", f"The answer is \\boxed{{{value}}}."]
    )


WORKED: Mapping[str, Callable[[Facts], str | None]] = {
    "chain_sum": _chain_sum,
    "fraction_simplification": _fraction,
    "gcd": _gcd,
    "lcm": _lcm,
    "simple_equations": _linear,
    "simple_geometry": _polygon,
}
"""Generator of reasoning-gym -> its solution in steps; None where this form has none."""


def problems(seed: int) -> Iterator[Item]:
    """Items with ``problem`` and ``solution``: all kinds in turn, word problems among them."""
    kinds = [_word_problems(seed), *(_drawn(name, seed) for name in WORKED)]
    return chain.from_iterable(zip(*kinds, strict=False))


def _word_problems(seed: int) -> Iterator[Item]:
    for item in word_problems(seed):
        steps, _, answer = item.fields["answer"].rpartition("\n#### ")
        fields = {"problem": item.fields["question"], "solution": f"{steps}\nThe answer is \\boxed{{{answer}}}."}
        yield Item(fields, item.group, item.source, item.detail)


def _drawn(name: str, seed: int) -> Iterator[Item]:
    import reasoning_gym

    source = Source(f"reasoning-gym {require_reasoning_gym()}, {name}", "Apache-2.0", _URL)
    for block in range(400):
        for entry in reasoning_gym.create_dataset(name, size=BLOCK, seed=(seed * 400 + block) * BLOCK):
            solution = WORKED[name](entry["metadata"])
            if solution is not None:
                problem = " ".join(_SUFFIX.sub("", entry["question"]).split())
                yield Item({"problem": problem, "solution": solution}, problem, source, "solution worked out by skd")

"""The exact distribution of whole responses, by writing down every one of them. For tiny vocabularies only."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from tests.oracles.interleave import STUDENT, TEACHER
from tests.oracles.warp import Floats, warp

Logits = Callable[[tuple[int, ...]], Floats]
"""Raw logits [V] after a response prefix."""
Step = Callable[[tuple[int, ...]], dict[tuple[int, int], float]]
"""Probability of every (token, author) after a response prefix."""


def skd_step(
    student: Logits,
    teacher: Logits,
    k: int,
    student_warp: tuple[float, float] = (1.0, 1.0),
    teacher_warp: tuple[float, float] = (1.0, 1.0),
) -> Step:
    """A draft inside the teacher's raw top k stays; the probability of all others goes to the teacher's draw."""

    def step(prefix: tuple[int, ...]) -> dict[tuple[int, int], float]:
        teacher_raw = teacher(prefix)
        student_V, teacher_V = warp(student(prefix), *student_warp), warp(teacher_raw, *teacher_warp)
        kept = teacher_raw >= np.sort(teacher_raw)[-k]
        rejected = float(student_V[~kept].sum())
        by_student = {(i, STUDENT): float(student_V[i]) for i in np.flatnonzero(kept)}
        by_teacher = {(i, TEACHER): rejected * float(teacher_V[i]) for i in range(len(teacher_V))}
        return {key: p for key, p in {**by_student, **by_teacher}.items() if p > 0.0}

    return step


def ipd_step(
    student: Logits,
    teacher: Logits,
    g: float,
    student_warp: tuple[float, float] = (1.0, 1.0),
    teacher_warp: tuple[float, float] = (1.0, 1.0),
) -> Step:
    """(1-g) student + g teacher, split by author: the student's share of a token is min(student, mixture)."""

    def step(prefix: tuple[int, ...]) -> dict[tuple[int, int], float]:
        student_V, teacher_V = warp(student(prefix), *student_warp), warp(teacher(prefix), *teacher_warp)
        mixture_V = (1.0 - g) * student_V + g * teacher_V
        kept_V = np.minimum(student_V, mixture_V)
        by_student = {(i, STUDENT): float(p) for i, p in enumerate(kept_V)}
        by_teacher = {(i, TEACHER): float(p) for i, p in enumerate(mixture_V - kept_V)}
        return {key: p for key, p in {**by_student, **by_teacher}.items() if p > 0.0}

    return step


def teacher_step(teacher: Logits, teacher_warp: tuple[float, float] = (1.0, 1.0)) -> Step:
    """The teacher alone; its author is left open (-1)."""

    def step(prefix: tuple[int, ...]) -> dict[tuple[int, int], float]:
        return {(i, -1): float(p) for i, p in enumerate(warp(teacher(prefix), *teacher_warp)) if p > 0.0}

    return step


Response = tuple[tuple[int, int], ...]
"""(token, author) pairs."""


def responses(step: Step, max_new_tokens: int, stop_ids: frozenset[int]) -> dict[Response, float]:
    """Probability of every response that ends with a stop id or at the cap."""
    found: dict[Response, float] = {}

    def extend(prefix: Response, probability: float) -> None:
        if len(prefix) == max_new_tokens or (prefix and prefix[-1][0] in stop_ids):
            found[prefix] = probability
            return
        for pair, p in step(tuple(token for token, _ in prefix)).items():
            extend((*prefix, pair), probability * p)

    extend((), 1.0)
    return found


def chi_square_p(observed: dict[Response, int], exact: dict[Response, float], least: float = 5.0) -> float:
    """p-value of the counts; cells expected below ``least`` are pooled. 0 when an impossible response was seen."""
    from scipy.stats import chi2

    if any(response not in exact for response in observed):
        return 0.0
    n = sum(observed.values())
    cells = [(observed.get(response, 0), n * p) for response, p in exact.items()]
    large = [cell for cell in cells if cell[1] >= least]
    rest = [cell for cell in cells if cell[1] < least]
    if rest:
        large.append((sum(o for o, _ in rest), sum(e for _, e in rest)))
    statistic = sum((o - e) ** 2 / e for o, e in large)
    return float(chi2.sf(statistic, len(large) - 1))


def counts(rows: Sequence[Sequence[tuple[int, int]]]) -> dict[Response, int]:
    """How often each response was seen."""
    seen: dict[Response, int] = {}
    for row in rows:
        seen[tuple(row)] = seen.get(tuple(row), 0) + 1
    return seen

"""Watch-dogs: signs that a run learns nothing, each said once and in plain words.

One of them stops the run: too many responses without a token to learn from.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch
from torch import nn

from skd.errors import DataError, Problem
from skd.policies import Interleaved, Policy

__all__ = ["Watch", "weights_mark"]

PATIENCE = 50
"""Steps in a row that a sign must last, where one such step is nothing strange."""
MOST_SKIPPED = 0.05
ENOUGH_RESPONSES = 100
"""Fewer say nothing about the share of the skipped ones."""
MOST_TRUNCATED = 0.5

Metrics = Mapping[str, float | int | None]


@dataclass(frozen=True)
class _Sign:
    code: str
    steps: int
    """In a row."""
    shows: Callable[[Metrics], bool]
    text: str


_SIGNS = (
    _Sign(
        "SKD-T06",
        10,
        lambda metrics: metrics["loss"] == 0.0,
        "the loss is exactly 0; check that teacher and student differ and that the responses have tokens to learn from",
    ),
    _Sign(
        "SKD-T13",
        10,
        lambda metrics: metrics["grad_norm"] == 0.0,
        "the gradient is exactly 0, so nothing is learned; check the loss, and the tokens that are masked out",
    ),
    _Sign(
        "SKD-G02",
        PATIENCE,
        lambda metrics: (metrics["truncated_share"] or 0.0) > MOST_TRUNCATED,
        "more than half of the responses were cut at the cap; raise sampling.max_new_tokens, or check that the end "
        "token is one that the models write",
    ),
)
_GATE_SIGNS = (
    _Sign(
        "SKD-G10",
        PATIENCE,
        lambda metrics: metrics["acceptance_rate"] == 1.0,
        "every drafted token was kept, so the teacher corrects nothing; make the gate stricter, or use on_policy, "
        "which writes the same responses for less",
    ),
    _Sign(
        "SKD-G10",
        PATIENCE,
        lambda metrics: metrics["acceptance_rate"] == 0.0,
        "no drafted token was kept, so the teacher writes alone; make the gate milder, or check that both models use "
        "the same chat template",
    ),
)


@dataclass
class Watch:
    """Looks at every step of a process's part of a run.

    Args:
        gated: a gate judges the student's drafts; where none does, an acceptance of 0 or 1 is what was asked for.
        look: gives the ``weights_mark`` of the student.
    """

    gated: bool
    look: Callable[[], int]
    _lasted: dict[str, int] = field(default_factory=dict)
    _said: set[str] = field(default_factory=set)
    _skipped: int = 0
    _responses: int = 0
    _steps: int = 0
    _mark: int = field(init=False)

    def __post_init__(self) -> None:
        self._mark = self.look()

    @staticmethod
    def over(policy: Policy, look: Callable[[], int]) -> Watch:
        """A watch over a run whose first step is to come."""
        gated = isinstance(policy, Interleaved) and policy.gate.drafts and policy.gate.judges
        return Watch(gated, look)

    def step(self, step: int, metrics: Metrics) -> list[str]:
        """The warnings after a step, most often none. Raises DataError (SKD-D11) when too many responses are skipped.

        ``metrics`` are of all ranks, so that all of them stop or none.
        """
        self._steps += 1
        found = [text for sign in self._signs() for text in self._seen(step, sign, metrics)]
        self._skipped += int(metrics["skipped"] or 0)
        self._responses += int(metrics["responses"] or 0)
        if self._steps == PATIENCE:
            found += self._unmoved(step)
        if self._responses >= ENOUGH_RESPONSES and self._skipped > MOST_SKIPPED * self._responses:
            limit = f"more than {MOST_SKIPPED:.0%} is no training"
            remedy = "check the data, the end token and sampling.stop_strings; older checkpoints are untouched"
            raise DataError(Problem("SKD-D11", f"step {step}", f"{self._without_tokens()}; {limit}", remedy))
        return found

    def end(self, step: int) -> list[str]:
        """The warnings after the last step."""
        found = self._unmoved(step) if self._steps else []
        if self._skipped:
            text = f"{self._without_tokens()} and were skipped; check the data and the end token"
            found.append(f"warning[SKD-D11] step {step}: {text}")
        return found

    def _without_tokens(self) -> str:
        return f"{self._skipped:,} of {self._responses:,} responses had no token to learn from"

    def _signs(self) -> tuple[_Sign, ...]:
        return _SIGNS + _GATE_SIGNS if self.gated else _SIGNS

    def _seen(self, step: int, sign: _Sign, metrics: Metrics) -> list[str]:
        lasted = self._lasted[sign.text] = self._lasted.get(sign.text, 0) + 1 if sign.shows(metrics) else 0
        if lasted < sign.steps:
            return []
        return self._once(sign.text, f"warning[{sign.code}] step {step}: for {sign.steps} steps now {sign.text}")

    def _unmoved(self, step: int) -> list[str]:
        if self.look() != self._mark:
            return []
        text = f"after {self._steps} steps no weight of the student has changed; raise train.lr, or check the loss"
        return self._once("unmoved", f"warning[SKD-T13] step {step}: {text}")

    def _once(self, name: str, warning: str) -> list[str]:
        if name in self._said:
            return []
        self._said.add(name)
        return [warning]


@torch.no_grad()
def weights_mark(student: nn.Module) -> int:
    """A number that changes, but for one chance in 2**32, when any bit of a trained weight does; it costs no copy."""
    trained = [parameter.detach() for parameter in student.parameters() if parameter.requires_grad]
    marks = [parameter.contiguous().view(torch.int32).sum() for parameter in trained]
    return sum((2 * number + 1) * int(mark) for number, mark in enumerate(marks))

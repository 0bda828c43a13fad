"""What a token loss is given, and what it must be."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Protocol

from torch import Tensor

from skd.schedule import Number, value_at

__all__ = ["ResponseTokens", "TokenLoss", "Tokens", "log_probs"]


def log_probs(logits_NV: Tensor, temperature: float = 1.0) -> Tensor:
    """Float32 log-probabilities [..., V] of logits [..., V], divided by ``temperature`` first.

    Use it where a loss is computed: on CPU torch.log_softmax adds the exponentials up one after the other, which over
    262,144 ids costs up to 7e-5 of every probability; logsumexp adds them pairwise and stays below 1e-6.
    """
    logits_NV = logits_NV.float()
    if temperature != 1.0:
        logits_NV = logits_NV / temperature
    return logits_NV - logits_NV.logsumexp(-1, keepdim=True)


@dataclass(frozen=True)
class ResponseTokens:
    """N response tokens, those of several responses one after the other."""

    ids_N: Tensor
    """int64: the token written."""
    author_N: Tensor
    """uint8: DATA, STUDENT or TEACHER."""
    position_N: Tensor
    """int64: its place in its response, from 0."""
    rollout_logp_N: Tensor | None = None
    """float32: the student's raw log-prob of it when it was sampled; None where no objective asks."""

    def __len__(self) -> int:
        return len(self.ids_N)

    def at(self, index: slice | Tensor) -> ResponseTokens:
        """Some of the tokens."""
        logp_N = None if self.rollout_logp_N is None else self.rollout_logp_N[index]
        return ResponseTokens(self.ids_N[index], self.author_N[index], self.position_N[index], logp_N)


@dataclass(frozen=True)
class Tokens:
    """N response tokens with what both models think of them.

    Log-probs are normalised and float32, at the loss temperature. V is the vocabulary, or, where only the teacher's
    most probable ids are known, those ids and one bucket for all others; both models have the same V.
    """

    response: ResponseTokens
    student_logp_NV: Tensor
    student_written_N: Tensor
    """The student's log-prob of the token written."""
    teacher_logp_NV: Tensor | None = None
    """The distribution to learn: the teacher's, or a target made of it."""
    teacher_written_N: Tensor | None = None
    """The teacher's own log-prob of the token written."""
    progress: float = 0.0
    """Share of the training done, for schedules."""

    def value(self, number: Number) -> float | Tensor:
        """A number's value here: a float, or float32 [N]."""
        value = value_at(number, self.progress, self.response.position_N)
        return value.float() if isinstance(value, Tensor) else value

    def given_teacher(self) -> Tensor:
        """``teacher_logp_NV`` in float32. Raises ValueError when there is none."""
        if self.teacher_logp_NV is None:
            raise ValueError("this loss compares with the teacher, and teacher_logp_NV is None")
        return self.teacher_logp_NV.float()

    def at(self, index: Tensor) -> Tokens:
        """Some of the tokens."""

        def pick(values: Tensor | None) -> Tensor | None:
            return None if values is None else values[index]

        return replace(
            self,
            response=self.response.at(index),
            student_logp_NV=self.student_logp_NV[index],
            student_written_N=self.student_written_N[index],
            teacher_logp_NV=pick(self.teacher_logp_NV),
            teacher_written_N=pick(self.teacher_written_N),
        )


class TokenLoss(Protocol):
    """A loss of each token. Implementations are frozen dataclasses, so that a loss is a value."""

    @property
    def needs_teacher(self) -> bool:
        """Whether the teacher's log-probs must be given."""
        ...

    @property
    def needs_rollout_logp(self) -> bool:
        """Whether the student's log-probs at the time of sampling are of use."""
        ...

    def __call__(self, tokens: Tokens) -> Tensor:
        """Float32 [N] in nats, with its gradient for the student's log-probs."""
        ...

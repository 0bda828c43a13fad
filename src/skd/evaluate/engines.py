"""Who writes the responses of an evaluation: this package's own sampler, or vLLM."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

from skd.evaluate.prompts import Decoding, Reader
from skd.evaluate.workload import Workload
from skd.faults import point
from skd.sampling import AcceptAll, Warp, interleave
from skd.types import Prompts

if TYPE_CHECKING:
    from skd.models.pair import Pair

__all__ = ["Engine", "Response", "Sampler"]


@dataclass(frozen=True)
class Response:
    """One response as it was written."""

    ids: list[int]
    """With the end token, where one was written, and with the token that completed a stop string."""
    text: str
    """Without special tokens, not yet cut at a stop string."""
    truncated: bool
    """It reached the cap without an end."""


class Engine(Protocol):
    """Holds one model and writes with it."""

    @property
    def reader(self) -> Reader:
        """How its prompts are encoded."""
        ...

    @property
    def model(self) -> dict[str, Any]:
        """Which model it is."""
        ...

    @property
    def settings(self) -> dict[str, Any]:
        """What belongs to the decoding settings of a result; empty for this package's own sampler."""
        ...

    def write(self, prompts: Prompts, work: Workload, decoding: Decoding) -> Sequence[Response]:
        """A response to every prompt, in their order."""
        ...


@dataclass(frozen=True)
class Sampler:
    """The student of a pair, by ``skd.interleave``."""

    pair: Pair

    @property
    def reader(self) -> Reader:
        """The pair itself."""
        return self.pair

    @property
    def model(self) -> dict[str, Any]:
        """The student's provenance."""
        origin: dict[str, Any] = self.pair.provenance["student"]
        return origin

    @property
    def settings(self) -> dict[str, Any]:
        """Nothing: results were without them before there was a choice."""
        return {}

    def write(self, prompts: Prompts, work: Workload, decoding: Decoding) -> list[Response]:
        """Raises as ``interleave`` does."""
        rollout = interleave(
            self.pair,
            prompts,
            gate=AcceptAll(),
            student_warp=Warp(temperature=decoding.temperature),
            max_new_tokens=work.max_new_tokens,
            slots=decoding.slots,
            stop_strings=work.stop_strings,
            seed=decoding.seed,
            evidence=False,
            check=partial(point, "round"),
        )
        rows = zip(rollout.response_ids, rollout.text(), rollout.truncated.tolist(), strict=True)
        return [Response(ids.tolist(), text, cut) for ids, text, cut in rows]

"""What a run consists of once everything is loaded."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path

import torch
from accelerate import Accelerator
from torch import Tensor
from torch.amp import GradScaler
from torch.optim import AdamW

from skd.config import RunConfig
from skd.engines import Writers
from skd.errors import Problem, RemoteError
from skd.models import Pair
from skd.objectives import Objective
from skd.policies import Policy
from skd.train.batch import StudentLoss, joined_evidence, response_tokens, teacher_view
from skd.train.signals import Interrupted
from skd.train.spread import Spread
from skd.types import Evidence, Prompts, Rollout, by_route

__all__ = ["Run"]

_LOST = 2**15
"""In place of the number of a signal: a process has lost its teacher's server."""
_LOST_ELSEWHERE = Problem("SKD-R02", "teacher", "another process has lost the server", "see what that process says")


@dataclass(frozen=True)
class Run:
    """The parts of a run; the loop changes weights, optimizer and loss scale, nothing else in here."""

    config: RunConfig
    run_dir: Path
    pair: Pair
    policy: Policy
    objective: Objective
    prompts: Prompts
    """The whole training set."""
    validation: Prompts | None
    total_steps: int
    accelerator: Accelerator
    spread: Spread
    """What learns in this process: the pair's student, or a shard."""
    loss: StudentLoss
    """Of the pair, whose student is whole."""
    scaler: GradScaler
    """Of the loss; see ``skd.train.scale``."""
    writers: Writers | None = None
    """Engines outside this process that write for the policy."""
    check: Callable[[], None] | None = None
    """Called between rounds of the sampler; raises Interrupted when the run is to end."""

    @property
    def optimizer(self) -> AdamW:
        """Of what learns in this process."""
        return self.spread.optimizer

    @property
    def rank(self) -> int:
        return int(self.accelerator.process_index)

    @property
    def world_size(self) -> int:
        return int(self.accelerator.num_processes)

    @property
    def is_main(self) -> bool:
        return bool(self.accelerator.is_main_process)

    def shard(self, items: Prompts) -> Prompts:
        """This rank's share: every world_size-th prompt, from its rank on."""
        return items.select(range(self.rank, len(items), self.world_size))

    def total(self, values: Sequence[float]) -> list[float]:
        """Each number summed over the ranks."""
        if self.world_size == 1:
            return list(values)
        mine = torch.tensor(values, dtype=torch.float64, device=self.accelerator.device)
        summed: Tensor = self.accelerator.reduce(mine, reduction="sum")
        return [float(value) for value in summed]

    def largest(self, value: int) -> int:
        """The largest of a number over the ranks."""
        if self.world_size == 1:
            return value
        everyone: Tensor = self.accelerator.gather(torch.tensor([value], device=self.accelerator.device))
        return int(everyone.max())

    @contextmanager
    def interruptible(self) -> Iterator[None]:
        """Sampling that ``check`` or the loss of a server may end: it then ends on every rank, since all must leave the
        step together."""
        number, lost = 0, None
        try:
            yield
        except Interrupted as interrupted:
            number = interrupted.number
        except RemoteError as error:
            number, lost = _LOST, error
        number = self.largest(number)
        if number == _LOST:
            raise lost or RemoteError(_LOST_ELSEWHERE)
        if number:
            raise Interrupted(number)

    def evidence(self, rollout: Rollout, rows: Sequence[int]) -> Evidence | None:
        """What is known of the teacher at these responses, which have one: kept by the policy, or computed now."""
        if not self.objective.needs_teacher or not rows:
            return None
        if rollout.evidence is not None:
            return rollout.select(rows).evidence
        prompts = [rollout.read_by_teacher[row] for row in rows]
        responses = [rollout.response_ids[row] for row in rows]
        engine = self.pair.of(rollout.route(rows)).required_engine
        return engine.score(prompts, responses, self.config.train.micro_batch_tokens)

    def recomputing(self) -> AbstractContextManager[None]:
        """Around ``evidence`` in the gradients of a step, where it asks the teacher, and around all of them, so that
        models that are whole stay so."""
        asked = self.objective.needs_teacher and self.config.sampling.evidence == "recompute"
        return self.spread.visit() if asked else nullcontext()

    def progress(self, step: int) -> float:
        """Share of the training done at optimiser step ``step``: 0 at the first, 1 at the last."""
        return min(step / max(self.total_steps - 1, 1), 1.0)

    def token_weights(self, rollout: Rollout) -> tuple[list[Tensor], float]:
        """The factor of each token's loss, float32 [L] per response, and their total over this rank's responses."""
        weights = [torch.empty(0)] * len(rollout)
        for _, rows in by_route(rollout.routes, len(rollout)):
            for row, weight_L in zip(rows, self._weights(rollout, rows), strict=True):
                weights[row] = weight_L if rollout.masks is None else weight_L * rollout.masks[row]
        return self.objective.reduced(weights)

    def _weights(self, rollout: Rollout, rows: Sequence[int]) -> Sequence[Tensor]:
        """What the objective gives the tokens of responses of one teacher, [L] each."""
        needs_teacher = self.objective.weights.needs_teacher
        device, teacher = self.accelerator.device if needs_teacher else torch.device("cpu"), None
        if needs_teacher:
            evidence, pair = self.evidence(rollout, rows), self.pair.of(rollout.route(rows))
            teacher = teacher_view(pair, None if evidence is None else joined_evidence(evidence, device), device)
        weight_N = self.objective.weights(response_tokens(rollout, rows, device), teacher).cpu()
        return torch.split(weight_N, [len(rollout.response_ids[row]) for row in rows])

"""The teacher as a model in this process."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor
from transformers import PreTrainedModel

from skd.models.head import head_of
from skd.models.score import score
from skd.sampling.cache import AttentionForm
from skd.sampling.judge import Opening
from skd.sampling.prompts import PromptReader
from skd.sampling.writer import LocalJudge, Writer
from skd.types import Evidence

__all__ = ["LocalTeacher"]


@dataclass(frozen=True)
class LocalTeacher:
    """See ``skd.sampling.judge.TeacherEngine``."""

    model: PreTrainedModel
    form: AttentionForm
    vocab_size: int
    context: int
    frozen: bool
    """Its weights never change, so that what it makes of a prompt can be kept."""
    block: int | None = None

    @property
    def num_parameters(self) -> int:
        """Weights."""
        return int(self.model.num_parameters())

    @property
    def provenance(self) -> Mapping[str, Any]:
        """That of a loaded model is in ``Pair.provenance``."""
        return {}

    @property
    def usage(self) -> Mapping[str, int]:
        """Nothing is sent anywhere."""
        return {}

    def open(self, opening: Opening) -> LocalJudge:
        """With a cache of its own."""
        execution, head = opening.execution, head_of(self.model, self.vocab_size)
        body = execution.body(self.model.base_model, self.form, self.context, opening.num_slots, opening.capacity)
        reader = PromptReader(body, opening.kept if self.frozen else None)
        return LocalJudge(Writer(body, head, opening.warp, reader, execution.passes))

    def score(
        self, prompt_ids: Sequence[Tensor], response_ids: Sequence[Tensor], token_budget: int = 16384
    ) -> Evidence:
        """Its last hidden states, by full forwards."""
        return score(self.model, prompt_ids, response_ids, token_budget)

"""The values that travel between the rooms.

Shape letters, used as suffixes of tensor names everywhere:

    B  rows of a batch (slots of the sampler)     L  response length of one row
    G  gamma, drafted tokens of a block           P  prompt length of one row
    V  vocabulary shared by teacher and student   T  padded sequence length (prompt and response)
    D  hidden size                                N  tokens that count, flattened over rows
    R  responses of a rollout                     S  key positions an attention looks at

Log-probabilities are natural logarithms, float32, normalised over V, and unwarped unless a name says ``drawn``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

__all__ = [
    "DATA",
    "STUDENT",
    "TEACHER",
    "Evidence",
    "Head",
    "LossSum",
    "Prompts",
    "Rollout",
    "SamplerStats",
    "TopEvidence",
    "by_route",
    "merged",
]

DATA, STUDENT, TEACHER = 0, 1, 2
"""Authors of a token. Kept for every response token, to the end."""


@dataclass(frozen=True)
class TopEvidence:
    """What is kept of the teacher at the L tokens of a response: its K most probable ids there, at temperature 1."""

    ids_LK: Tensor
    """Most probable first, int64 or int32."""
    logp_LB: Tensor
    """float32 [L, K + 1]: their log-probs, and last that of all other ids together; -inf when there are none."""
    written_L: Tensor
    """float32: the log-prob of the token written, which need not be among the K."""

    def __len__(self) -> int:
        return len(self.ids_LK)


Evidence = list[Tensor] | list[TopEvidence]
"""What is known of the teacher at each of several responses: its last hidden states [L, D_teacher], or its top ids."""


@dataclass(frozen=True)
class _Picked(Sequence[Any]):
    """Some items of a sequence, fetched when they are looked at and not before."""

    items: Sequence[Any]
    places: Sequence[int]

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, number: Any) -> Any:
        if isinstance(number, slice):
            return _Picked(self.items, self.places[number])
        return self.items[self.places[number]]


@dataclass(frozen=True)
class Prompts:
    """Prompts of one batch, with what keys their noise and, where the data has them, their references."""

    ids: Sequence[Sequence[int]]
    """R token-id sequences, each of at least one token."""
    sample_ids: Sequence[int]
    """Row number in the data set, R of them. Keys the noise, so it must not depend on the batch."""
    references: Sequence[Sequence[int]] | None = None
    """Reference responses as token ids, end token included; None when the data has none."""
    reference_masks: Sequence[Sequence[bool]] | None = None
    """Which tokens of each reference are learned from, one mask as long as its reference; None when all are.
    A reference of several turns holds tokens of the user and of the template, which are context only."""
    reference_authors: Sequence[Sequence[int]] | None = None
    """Who wrote each token of each reference; None when all are the data set's."""
    reference_evidence: Sequence[TopEvidence] | None = None
    """What was stored of the teacher at each reference, read when it is looked at; None when nothing was."""
    teacher_ids: Sequence[Sequence[int]] | None = None
    """The prompts that the teacher reads in place of ``ids``, such as ones with the answer in them (a privileged
    prompt); None when it reads the same."""
    routes: Sequence[str] | None = None
    """Which of several teachers each prompt has, by name; None where there are not several."""

    def __post_init__(self) -> None:
        """Raises ValueError unless every prompt has one sample id, and one reference, mask and so on if any."""
        optional = ("references", "reference_masks", "reference_authors", "reference_evidence", "teacher_ids", "routes")
        for name in ("sample_ids", *optional):
            items = getattr(self, name)
            if items is not None and len(items) != len(self.ids):
                raise ValueError(f"{name} has {len(items)} entries and ids has {len(self.ids)}; one for every prompt")
        lengths = [len(reference) for reference in self.references or ()]
        for name in ("reference_masks", "reference_authors"):
            items = getattr(self, name)
            if items is not None and [len(item) for item in items] != lengths:
                raise ValueError(f"an entry of {name} is not as long as its reference")

    def __len__(self) -> int:
        return len(self.ids)

    def select(self, index: Sequence[int]) -> Prompts:
        """The prompts at ``index``, in that order."""

        def pick(items: Sequence[Any] | None) -> list[Any] | None:
            return None if items is None else [items[i] for i in index]

        evidence = self.reference_evidence
        return Prompts(
            ids=[self.ids[i] for i in index],
            sample_ids=[self.sample_ids[i] for i in index],
            references=pick(self.references),
            reference_masks=pick(self.reference_masks),
            reference_authors=pick(self.reference_authors),
            reference_evidence=None if evidence is None else _Picked(evidence, index),
            teacher_ids=pick(self.teacher_ids),
            routes=pick(self.routes),
        )


def by_route(routes: Sequence[str] | None, count: int) -> Sequence[tuple[str | None, Sequence[int]]]:
    """The places of ``count`` items by their teacher, in order of appearance; one group where there are not several."""
    if routes is None:
        return [(None, range(count))]
    groups: dict[str, list[int]] = {}
    for place, route in enumerate(routes):
        groups.setdefault(route, []).append(place)
    return list(groups.items())


@dataclass(frozen=True)
class Head:
    """How a last hidden state becomes logits: ``cap * tanh(scale * (W h + b) / cap)``, cut to the shared ids."""

    weight_VD: Tensor
    bias_V: Tensor | None = None
    scale: float = 1.0
    softcap: float | None = None

    def logits(self, hidden_ND: Tensor) -> Tensor:
        """Raw float32 logits [..., V] of hidden states [..., D]; multiplied in the weights' dtype or autocast's."""
        product_NV = torch.nn.functional.linear(hidden_ND.to(self.weight_VD.dtype), self.weight_VD, self.bias_V)
        return self.logits_of(product_NV)

    def product(self, hidden_ND: Tensor, space_NV: Tensor) -> Tensor:
        """``W h + b`` [N, V], without a gradient, in the first rows of ``space_NV``, which has the weights' dtype."""
        out_NV, hidden_ND = space_NV[: len(hidden_ND)], hidden_ND.to(self.weight_VD.dtype)
        if self.bias_V is None:
            return torch.mm(hidden_ND, self.weight_VD.t(), out=out_NV)
        return torch.addmm(self.bias_V, hidden_ND, self.weight_VD.t(), out=out_NV)

    def logits_of(self, product_NV: Tensor) -> Tensor:
        """Raw float32 logits of ``W h + b``."""
        logits_NV = product_NV.float()
        if self.scale != 1.0:
            logits_NV = logits_NV * self.scale
        if self.softcap is not None:
            logits_NV = self.softcap * torch.tanh(logits_NV / self.softcap)
        return logits_NV


@dataclass
class SamplerStats:
    """What a rollout cost and what the gate did. Counts are of tokens; seconds are wall time."""

    kept: int = 0
    """Drafted tokens that the gate kept and that are in a response."""
    replaced: int = 0
    """Tokens that the teacher wrote at a rejection."""
    drafted: int = 0
    """Tokens the student drafted, kept or not."""
    rounds: int = 0
    """Draft-judge-commit rounds."""
    student_read: int = 0
    """Prompt tokens that the student read before it drafted."""
    student_reused: int = 0
    """Prompt tokens that it had read for another response."""
    teacher_read: int = 0
    """Prompt tokens that a teacher in this process read before it judged."""
    teacher_reused: int = 0
    """Prompt tokens that it had read for another response, or in an earlier rollout."""
    kept_by_position: Tensor = field(default_factory=lambda: torch.zeros(0, dtype=torch.long))
    """Kept tokens by response position, int64 [longest L]."""
    replaced_by_position: Tensor = field(default_factory=lambda: torch.zeros(0, dtype=torch.long))
    """Replaced tokens by response position, int64 [longest L]."""
    by_teacher: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    """Kept and replaced tokens by the name of the teacher, where there are several."""
    seconds_prefill: float = 0.0
    """Prompts read by the models that sample."""
    seconds_draft: float = 0.0
    seconds_judge: float = 0.0
    seconds_evidence: float = 0.0
    """The teacher's forward over finished responses, where it did not judge them."""
    seconds_rest: float = 0.0
    seconds_sync: float = 0.0
    """Weights brought to an engine outside this process."""
    probe_gap: float = 0.0
    """Largest mean difference in nats between that engine's log-probs of a fixed probe and the student's own."""

    @property
    def acceptance_rate(self) -> float:
        """kept / (kept + replaced): independent of the block size; NaN when nothing was judged."""
        judged = self.kept + self.replaced
        return self.kept / judged if judged else float("nan")

    @property
    def wasted(self) -> int:
        """Drafted tokens that are in no response: rejected ones and those after a rejection, an end or the cap."""
        return self.drafted - self.kept

    def __add__(self, other: SamplerStats) -> SamplerStats:
        def padded_sum(a: Tensor, b: Tensor) -> Tensor:
            out = torch.zeros(max(len(a), len(b)), dtype=torch.long)
            out[: len(a)] += a.cpu()
            out[: len(b)] += b.cpu()
            return out

        judged = dict.fromkeys((*self.by_teacher, *other.by_teacher), (0, 0))
        for stats in (self, other):
            for name, (kept, replaced) in stats.by_teacher.items():
                judged[name] = (judged[name][0] + kept, judged[name][1] + replaced)
        return SamplerStats(
            kept=self.kept + other.kept,
            replaced=self.replaced + other.replaced,
            drafted=self.drafted + other.drafted,
            rounds=self.rounds + other.rounds,
            student_read=self.student_read + other.student_read,
            student_reused=self.student_reused + other.student_reused,
            teacher_read=self.teacher_read + other.teacher_read,
            teacher_reused=self.teacher_reused + other.teacher_reused,
            kept_by_position=padded_sum(self.kept_by_position, other.kept_by_position),
            replaced_by_position=padded_sum(self.replaced_by_position, other.replaced_by_position),
            by_teacher=judged,
            seconds_prefill=self.seconds_prefill + other.seconds_prefill,
            seconds_draft=self.seconds_draft + other.seconds_draft,
            seconds_judge=self.seconds_judge + other.seconds_judge,
            seconds_evidence=self.seconds_evidence + other.seconds_evidence,
            seconds_rest=self.seconds_rest + other.seconds_rest,
            seconds_sync=self.seconds_sync + other.seconds_sync,
            probe_gap=max(self.probe_gap, other.probe_gap),
        )


@dataclass(frozen=True)
class Rollout:
    """R responses to prompts, token ids end to end. All tensors are on the CPU except the evidence."""

    prompt_ids: list[Tensor]
    """R int64 tensors [P]."""
    response_ids: list[Tensor]
    """R int64 tensors [L], end token included where one was written. L may be 0."""
    authors: list[Tensor]
    """R uint8 tensors [L] of DATA, STUDENT or TEACHER."""
    truncated: Tensor
    """bool [R]: the response reached the cap without an end."""
    sample_ids: list[int]
    response_index: list[int]
    """Which of the several responses to its prompt each one is, from 0."""
    teacher_prompt_ids: list[Tensor] | None = None
    """R int64 tensors: what the teacher read in place of each prompt; None when it read the same."""
    routes: list[str] | None = None
    """Which of several teachers each response has, by name; None where there are not several."""
    evidence: Evidence | None = None
    """R tensors [L, D_teacher], the teacher's last hidden state that predicts each response token, or what files held
    of it. None when the objective needs no teacher, or when it is to be recomputed."""
    student_logp: list[Tensor] | None = None
    """R float32 tensors [L]: the student's raw log-prob of each token when it was written; None where not kept."""
    masks: list[Tensor] | None = None
    """R bool tensors [L]: which response tokens are learned from; None when all are."""
    versions: list[int] | None = None
    """Optimiser steps that the student's weights had behind them when each was written, where an engine outside this
    process wrote them; None where they are the weights of this step."""
    stats: SamplerStats = field(default_factory=SamplerStats)
    tokenizer: PreTrainedTokenizerBase | None = field(default=None, repr=False)

    def __len__(self) -> int:
        return len(self.response_ids)

    @property
    def num_tokens(self) -> int:
        """Response tokens of all responses."""
        return sum(len(ids) for ids in self.response_ids)

    @property
    def num_untrainable(self) -> int:
        """Responses with no token to learn from: empty ones, and those of which every token is masked."""
        if self.masks is not None:
            return sum(not mask.any() for mask in self.masks)
        return sum(not len(ids) for ids in self.response_ids)

    @property
    def read_by_teacher(self) -> list[Tensor]:
        """R int64 tensors: the prompts as the teacher reads them."""
        return self.prompt_ids if self.teacher_prompt_ids is None else self.teacher_prompt_ids

    @property
    def acceptance_rate(self) -> float:
        """See SamplerStats.acceptance_rate."""
        return self.stats.acceptance_rate

    @property
    def replaced_share(self) -> float:
        """Teacher-written tokens / response tokens (METHOD: replacement rate); NaN when there are no tokens."""
        written = sum(int((authors == TEACHER).sum()) for authors in self.authors)
        return written / self.num_tokens if self.num_tokens else float("nan")

    def text(self) -> list[str]:
        """The R responses as text, special tokens left out. Raises ValueError without a tokenizer."""
        if self.tokenizer is None:
            raise ValueError("this rollout carries no tokenizer; decode response_ids yourself")
        return [str(self.tokenizer.decode(ids.tolist(), skip_special_tokens=True)) for ids in self.response_ids]

    def with_full_masks(self) -> Rollout:
        """The same with masks that leave nothing out."""
        return replace(self, masks=[torch.ones(len(ids), dtype=torch.bool) for ids in self.response_ids])

    def route(self, rows: Sequence[int]) -> str | None:
        """The teacher that the responses ``rows`` have in common; None where there are not several, or no rows."""
        return self.routes[rows[0]] if self.routes and rows else None

    def select(self, index: Sequence[int]) -> Rollout:
        """The responses at ``index``, in that order; the statistics stay those of the whole rollout."""

        def pick(items: Any) -> Any:
            return None if items is None else [items[i] for i in index]

        return replace(
            self,
            prompt_ids=pick(self.prompt_ids),
            response_ids=pick(self.response_ids),
            authors=pick(self.authors),
            truncated=self.truncated[list(index)],
            sample_ids=pick(self.sample_ids),
            response_index=pick(self.response_index),
            teacher_prompt_ids=pick(self.teacher_prompt_ids),
            routes=pick(self.routes),
            evidence=pick(self.evidence),
            student_logp=pick(self.student_logp),
            masks=pick(self.masks),
            versions=pick(self.versions),
        )


def merged(parts: Sequence[tuple[Sequence[int], Rollout]]) -> Rollout:
    """One rollout of several, each given with the places its prompts have among all prompts, every place once.

    Responses to one prompt stay next to each other. What only some of the parts have (evidence, masks, log-probs) is
    kept where it can be completed, and otherwise left out. Raises ValueError for no part.
    """
    if not parts:
        raise ValueError("there is nothing to merge")
    whole = [rollout for _, rollout in parts]
    rows = [
        (place, part, row)
        for part, (places, rollout) in enumerate(parts)
        for row, place in enumerate(_place_of_each_response(places, rollout))
    ]
    order = [(part, row) for _, part, row in sorted(rows)]

    def gather(name: str) -> list[Any]:
        columns = [getattr(rollout, name) for rollout in whole]
        return [columns[part][row] for part, row in order]

    def gather_if_all(name: str) -> list[Any] | None:
        return None if any(getattr(rollout, name) is None for rollout in whole) else gather(name)

    masked = any(rollout.masks is not None for rollout in whole)
    if masked:
        whole = [rollout if rollout.masks is not None else rollout.with_full_masks() for rollout in whole]
    return replace(
        whole[0],
        prompt_ids=gather("prompt_ids"),
        response_ids=gather("response_ids"),
        authors=gather("authors"),
        truncated=torch.stack(gather("truncated")),
        sample_ids=gather("sample_ids"),
        response_index=gather("response_index"),
        teacher_prompt_ids=gather_if_all("teacher_prompt_ids"),
        routes=gather_if_all("routes"),
        evidence=gather_if_all("evidence"),
        student_logp=gather_if_all("student_logp"),
        masks=gather("masks") if masked else None,
        versions=gather_if_all("versions"),
        stats=sum((rollout.stats for rollout in whole), SamplerStats()),
    )


def _place_of_each_response(places: Sequence[int], rollout: Rollout) -> list[int]:
    """A prompt's first response has the index 0; those that follow are of the same prompt."""
    number, found = -1, []
    for index in rollout.response_index:
        number += index == 0
        found.append(places[number])
    return found


class LossSum(NamedTuple):
    """A loss as sums, so that micro-batches and ranks add up; the step divides once by the global weight.

    A tuple, because wrappers of modules look for tensors in those.
    """

    loss: Tensor
    """Scalar: sum over tokens of weight x token loss. Carries the gradient."""
    token_loss_N: Tensor
    """float32 [N], detached: the unweighted loss of each token."""
    token_nll_N: Tensor
    """float32 [N], detached: its negative log-likelihood under the student at the loss temperature, for the logs."""
    token_kl_N: Tensor | None = None
    """float32 [N], detached: the forward KL to the teacher there, likewise; None without a teacher. Over the buckets of
    the evidence where only the teacher's most probable ids are known."""

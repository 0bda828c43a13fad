"""Batched interleaved sampling: the student drafts, the teacher judges, the row's cursor moves.

Both models always hold exactly one pending token per row: the last one committed, not yet fed. Drafting feeds it and
each draft but the last to the student; judging feeds the same tokens to the teacher, whose logits judge every draft.
The tokens before the first rejection are kept, the teacher's replacement stands there, and the rest is written over in
the next round. Sampling by the student alone or the teacher alone is the same loop with a degenerate block.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from skd.errors import ConfigError, Problem
from skd.sampling.cache import CursorModel
from skd.sampling.checks import not_finite, require_positive, require_prompts, require_stop_strings
from skd.sampling.clock import Clock
from skd.sampling.finish import Response, gather_rollout, gather_stats
from skd.sampling.gate import Drafted, Gate, Verdict
from skd.sampling.gates import TopK
from skd.sampling.slots import Request, Slots
from skd.sampling.stops import StopStrings
from skd.sampling.warp import Warp, draw
from skd.types import STUDENT, TEACHER, Head, Prompts, Rollout

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from skd.models.pair import Pair

__all__ = ["OnCommit", "interleave"]

OnCommit = Callable[[int, list[int], list[int]], None]
"""Called with a response's row, and the ids and authors of the tokens just committed to it."""

_UNJUDGED_BLOCK = 4
"""Draft steps between two looks of the host where no teacher judges: a row that ended in between idles for the rest."""
_KEYS_STEP = 32
"""Attention looks at a multiple of this many positions, so that few shapes occur."""


@torch.no_grad()
def interleave(
    pair: Pair,
    prompts: Prompts | Sequence[str],
    *,
    gate: Gate | None = None,
    block: int = 5,
    student_warp: Warp | None = None,
    teacher_warp: Warp | None = None,
    max_new_tokens: int = 128,
    slots: int = 64,
    responses_per_prompt: int = 1,
    stop_strings: Sequence[str] = (),
    seed: int = 0,
    epoch: int | Sequence[int] = 0,
    progress: float = 0.0,
    evidence: bool = True,
    on_commit: OnCommit | None = None,
) -> Rollout:
    """Write responses to prompts by interleaved sampling (Xu et al. 2025, arXiv 2410.11325, algorithm 1).

    Args:
        prompts: token ids, or texts, which are encoded as ``Pair.encode`` does and numbered from 0.
        gate: the rule that keeps a draft; ``TopK(25)`` by default.
        block: drafted tokens per look of the teacher; it changes the cost, not the responses.
        student_warp: what drafts are drawn from; by default the student's own distribution.
        teacher_warp: what replacements are drawn from, likewise.
        max_new_tokens: cap of a response, its end token included.
        slots: rows of the batch; more responses than slots wait their turn.
        stop_strings: texts that end a response, besides the pair's stop ids.
        seed: keys the noise, together with epoch, sample id and response index.
        epoch: one number for all prompts, or one for each.
        progress: share of the training done, in [0, 1], for gates with schedules.
        evidence: keep the teacher's last hidden states for the loss.
        on_commit: told of every token as it is written.

    Returns responses in the order of the prompts, those to one prompt next to each other.

    Raises ConfigError for an impossible argument; DataError when a prompt is empty, holds an unknown id, or does not
    fit the context together with the cap; ModelError when the gate needs a teacher and the pair has none;
    NumericsError when a model's output is not finite.
    """
    gate = gate or TopK()
    require_positive(block=block, max_new_tokens=max_new_tokens, slots=slots, responses_per_prompt=responses_per_prompt)
    require_stop_strings(stop_strings)
    prompts = prompts if isinstance(prompts, Prompts) else pair.encode(prompts)
    require_prompts(prompts, [max_new_tokens] * len(prompts), pair.context, pair.vocab_size)
    epochs = [epoch] * len(prompts) if isinstance(epoch, int) else list(epoch)
    if len(epochs) != len(prompts):
        found = f"has {len(epochs)} entries for {len(prompts)} prompts"
        raise ConfigError(Problem("SKD-C07", "epoch", found, "give one number for all, or one for every prompt"))
    requests = [
        Request(i * responses_per_prompt + j, torch.tensor(list(ids), dtype=torch.int64), sample_id, j, epochs[i])
        for i, (ids, sample_id) in enumerate(zip(prompts.ids, prompts.sample_ids, strict=True))
        for j in range(responses_per_prompt)
    ]
    sampler = _Sampler(
        pair=pair,
        gate=gate,
        student_warp=student_warp or Warp(),
        teacher_warp=teacher_warp or Warp(),
        stops=StopStrings(pair.tokenizer, tuple(stop_strings)),
        cap=max_new_tokens,
        progress=progress,
        evidence=evidence and gate.judges,
        on_commit=on_commit,
    )
    with _evaluating(pair.sampling_student, pair.teacher):
        rollout = sampler.run(requests, slots, block if gate.judges else _UNJUDGED_BLOCK, seed)
        if evidence and not gate.judges and pair.teacher is not None:
            rollout = _with_evidence(pair, rollout)
    return rollout


@dataclass
class _Sampler:
    pair: Pair
    gate: Gate
    student_warp: Warp
    teacher_warp: Warp
    stops: StopStrings
    cap: int
    progress: float
    evidence: bool
    on_commit: OnCommit | None

    def run(self, requests: list[Request], num_slots: int, block: int, seed: int) -> Rollout:
        """Draft, judge and commit until every response has ended."""
        device = self.pair.device
        block = block if self.gate.drafts else 1
        slots = Slots(requests, num_slots, self.cap, block, seed, self.gate.state_size, device)
        capacity = max((len(request.prompt) for request in requests), default=1) - 1 + self.cap + block
        self._open(len(slots.held), capacity)
        done: dict[int, Response] = {}
        clock, drafted, rounds = Clock(device), 0, 0
        while slots.num_waiting or slots.num_active:
            self._fill(slots)
            num_keys = min(capacity, -(-(slots.num_keys + block) // _KEYS_STEP) * _KEYS_STEP)
            clock.lap("rest")
            ids_BG, student_logits, drafts_finite_B = self._draft(slots, block, num_keys)
            clock.lap("draft")
            kept_B, ids_BG, hidden_BGD, state_BGS = self._judge(slots, ids_BG, student_logits, num_keys)
            clock.lap("judge")
            drafted += slots.num_active * block * self.gate.drafts
            rounds += 1
            self._commit(slots, kept_B, ids_BG, hidden_BGD, state_BGS, drafts_finite_B, done)
            self._shrink(slots)
        clock.lap("rest")
        responses = [done[request.index] for request in requests]
        stats = gather_stats(responses, drafted, rounds, clock.seconds())
        return gather_rollout(requests, responses, stats, self.evidence, self.pair.tokenizer)

    def _open(self, num_rows: int, capacity: int) -> None:
        pair = self.pair
        self._student: tuple[CursorModel, Head] | None = None
        self._teacher: tuple[CursorModel, Head] | None = None
        self._stop_ids = torch.tensor(sorted(pair.stop_ids), device=pair.device)
        if self.gate.drafts:
            from skd.models.head import head_of

            model = pair.sampling_student
            body = CursorModel(model.base_model, pair.student_form, pair.context, num_rows, capacity)
            self._student = body, head_of(model, pair.vocab_size)
        if self.gate.judges:
            teacher = pair.required_teacher
            assert pair.teacher_form is not None
            body = CursorModel(teacher.base_model, pair.teacher_form, pair.context, num_rows, capacity)
            self._teacher = body, pair.teacher_head()

    def _models(self) -> list[CursorModel]:
        return [opened[0] for opened in (self._student, self._teacher) if opened is not None]

    def _fill(self, slots: Slots) -> None:
        filled = slots.refill()
        if filled is not None:
            for model in self._models():
                model.prefill(*filled)

    def _shrink(self, slots: Slots) -> None:
        rows_b = slots.shrink()
        if rows_b is not None:
            for model in self._models():
                model.keep_rows(rows_b)

    def _draft(self, slots: Slots, block: int, num_keys: int) -> tuple[Tensor, list[Tensor], Tensor]:
        """Drafted ids [B, G], the logits they came from where the gate asks, and whether the student was finite [B]."""
        finite_B = torch.ones_like(slots.active_B)
        if self._student is None:
            return slots.pending_B.unsqueeze(1), [], finite_B
        model, head = self._student
        noise_BG = slots.noise(block)[0]
        token_B, drafts, logits = slots.pending_B, [], []
        for offset in range(block):
            hidden_B1D = model.forward(token_B.unsqueeze(1), slots.cursor_B + offset, num_keys)
            finite_B = finite_B & hidden_B1D.isfinite().flatten(1).all(dim=1)
            logits_BV = head.logits(hidden_B1D[:, -1])
            token_B = draw(self.student_warp.log_probs(logits_BV), noise_BG[:, offset])
            drafts.append(token_B)
            if self.gate.needs_student:
                logits.append(logits_BV)
        return torch.stack(drafts, dim=1), logits, finite_B

    def _judge(
        self, slots: Slots, ids_BG: Tensor, student_logits: list[Tensor], num_keys: int
    ) -> tuple[Tensor, Tensor, Tensor | None, Tensor | None]:
        """Tokens kept per row [B], the block with the replacement in place, the evidence, and the row states."""
        block = ids_BG.shape[1]
        if self._teacher is None:
            return torch.full_like(slots.pending_B, block), ids_BG, None, None
        model, head = self._teacher
        fed_BG = torch.cat([slots.pending_B.unsqueeze(1), ids_BG[:, :-1]], dim=1)
        hidden_BGD = model.forward(fed_BG, slots.cursor_B, num_keys)
        _, accept_BG, replace_BG = slots.noise(block)
        drafted = Drafted(
            ids_BG=ids_BG,
            teacher_logits_BGV=head.logits(hidden_BGD),
            teacher_warp=self.teacher_warp,
            position_BG=slots.positions(block),
            progress=self.progress,
            accept_noise_BG=accept_BG,
            replace_noise_BG=replace_BG,
            state_BS=slots.state_BS,
            student_logits_BGV=torch.stack(student_logits, dim=1) if student_logits else None,
            student_warp=self.student_warp,
        )
        verdict = self.gate.judge(drafted)
        kept_B = verdict.keep_BG.long().cumprod(dim=1).sum(dim=1)
        return kept_B, _replace_first_rejected(drafted, verdict, kept_B), hidden_BGD, verdict.state_BGS

    def _commit(
        self,
        slots: Slots,
        kept_B: Tensor,
        ids_BG: Tensor,
        hidden_BGD: Tensor | None,
        state_BGS: Tensor | None,
        drafts_finite_B: Tensor,
        done: dict[int, Response],
    ) -> None:
        block = ids_BG.shape[1]
        offset_G = torch.arange(block, device=ids_BG.device)
        authors_BG = torch.where(offset_G == kept_B.unsqueeze(1), TEACHER, STUDENT).to(torch.uint8)
        slots.write(ids_BG, authors_BG, hidden_BGD if self.evidence else None)
        count_B = torch.minimum((kept_B + 1).clamp(max=block), self.cap - slots.length_B)
        ends_BG = torch.isin(ids_BG, self._stop_ids) & (offset_G < count_B.unsqueeze(1))
        end_B = torch.where(ends_BG, offset_G, block).amin(dim=1)
        ended_B = end_B < block
        count_B = torch.where(slots.active_B, torch.where(ended_B, end_B + 1, count_B), 0)
        count_B, ended_B = self.stops.cut(slots, count_B, ended_B)
        if state_BGS is not None:
            last_B11 = (count_B - 1).clamp(min=0).view(-1, 1, 1).expand(-1, 1, state_BGS.shape[2])
            slots.state_BS = torch.where(
                (count_B > 0).unsqueeze(1), state_BGS.gather(1, last_B11).squeeze(1), slots.state_BS
            )
        slots.advance(count_B)
        finite_B = torch.ones_like(ended_B) if hidden_BGD is None else hidden_BGD.isfinite().flatten(1).all(dim=1)
        # The one look of the host per round.
        flags = [ended_B.long(), drafts_finite_B.long(), finite_B.long()]
        counts, ended, *finite = torch.stack([count_B, *flags]).tolist()
        self._settle(slots, counts, ended, finite, done)

    def _settle(
        self, slots: Slots, counts: list[int], ended: list[int], finite: list[list[int]], done: dict[int, Response]
    ) -> None:
        for slot, request in enumerate(slots.held):
            if request is None:
                continue
            for role, flags in zip(("student", "teacher"), finite, strict=True):
                if not flags[slot]:
                    raise not_finite(request, role)
            start, slots.lengths[slot] = slots.lengths[slot], slots.lengths[slot] + counts[slot]
            length = slots.lengths[slot]
            if self.on_commit is not None:
                tokens, authors = (values[slot, start:length].tolist() for values in (slots.ids_BW, slots.authors_BW))
                self.on_commit(request.index, tokens, authors)
            if ended[slot] or length == self.cap:
                slots.release(slot)
                done[request.index] = Response.of(slots, slot, length, truncated=not ended[slot])


def _replace_first_rejected(drafted: Drafted, verdict: Verdict, kept_B: Tensor) -> Tensor:
    block = drafted.ids_BG.shape[1]
    rejected_B = kept_B.clamp(max=block - 1)
    at_rejection = drafted if block == 1 else drafted.at(rejected_B)
    token_B1 = torch.where((kept_B < block).unsqueeze(1), verdict.replacement(at_rejection), at_rejection.ids_BG)
    return drafted.ids_BG.scatter(1, rejected_B.unsqueeze(1), token_B1)


def _with_evidence(pair: Pair, rollout: Rollout) -> Rollout:
    from skd.models.score import score

    started = time.perf_counter()
    evidence = score(pair.required_teacher, rollout.prompt_ids, rollout.response_ids)
    stats = replace(rollout.stats, seconds_judge=rollout.stats.seconds_judge + time.perf_counter() - started)
    return replace(rollout, evidence=evidence, stats=stats)


@contextmanager
def _evaluating(*models: PreTrainedModel | None) -> Iterator[None]:
    """Dropout off while sampling; every model's own mode afterwards."""
    modes = [(model, model.training) for model in models if model is not None]
    for model, _ in modes:
        model.eval()
    try:
        yield
    finally:
        for model, was_training in modes:
            model.train(was_training)

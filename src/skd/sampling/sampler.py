"""The rounds of interleaved sampling: the student drafts, the teacher judges, the row's cursor moves.

Both models always hold exactly one pending token per row: the last one committed, not yet fed. Drafting feeds it and
each draft but the last to the student; judging feeds the same tokens to the teacher, whose logits judge every draft.
The tokens before the first rejection are kept, the teacher's replacement stands there, and the rest is written over in
the next round. Sampling by the student alone or the teacher alone is the same loop without the judging.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from skd.sampling.cache import AttentionForm
from skd.sampling.checks import not_finite
from skd.sampling.clock import Clock
from skd.sampling.execution import Eager
from skd.sampling.finish import Response, gather_rollout, gather_stats
from skd.sampling.gate import Drafted, Gate, Verdict
from skd.sampling.judge import Judge, Opening
from skd.sampling.pace import LONGEST_BLOCK, Costs, Pace
from skd.sampling.prompts import PromptCache, PromptReader, PromptTokens
from skd.sampling.slots import Block, Places, Request, Slots
from skd.sampling.stops import StopStrings
from skd.sampling.warp import Warp
from skd.sampling.writer import Writer, Written, finite_rows
from skd.types import STUDENT, TEACHER, Evidence, Rollout

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from skd.models.pair import Pair

__all__ = ["OnCommit", "Sampler", "Settings"]

OnCommit = Callable[[int, list[int], list[int]], None]
"""Called with a response's row, and the ids and authors of the tokens just committed to it."""

_ALL_BLOCKS, _FEW_BLOCKS = range(1, LONGEST_BLOCK + 1), (1, 2, 4, 8)
_ALONE_BLOCK = 3
"""Steps between two looks of the host where one model writes alone: a row that ended in between idles for the rest."""


@dataclass(frozen=True)
class Settings:
    """How responses are sampled; see ``skd.interleave``."""

    gate: Gate
    block: int | None
    """Tokens drafted before the teacher looks; None lets ``Pace`` choose."""
    student_warp: Warp
    teacher_warp: Warp
    cap: int
    stops: StopStrings
    seed: int
    progress: float
    evidence: bool
    """Keep the teacher's hidden states where it writes or judges."""
    student_logp: bool
    """Keep the raw log-probs of the student where it drafts."""
    on_commit: OnCommit | None
    kept_prompts: PromptCache | None = None
    """Where what the teacher makes of prompts is kept for other rollouts."""
    execution: Eager = Eager()  # noqa: RUF009 - a value without state


class Sampler:
    """Writes the responses that ``requests`` ask for, in ``num_slots`` rows."""

    def __init__(self, pair: Pair, settings: Settings, requests: list[Request], num_slots: int) -> None:
        gate = settings.gate
        self._pair, self._settings, self._requests = pair, settings, requests
        self._pace = _pace(pair, settings)
        self._block = self._pace.longest
        self._slots = Slots(requests, num_slots, settings.cap, self._block, settings.seed, gate.state_size, pair.device)
        self._slots.fixed_shapes = settings.execution.fixed_shapes
        self._student: Writer | None = None
        self._teacher: Judge | None = None
        if gate.drafts:
            longest = max((request.prompt_length for request in requests), default=1)
            self._student = self._opened(pair.sampling_student, pair.student_form, self._capacity(longest))
        if gate.judges:
            longest = max((len(request.teacher_prompt) for request in requests), default=1)
            capacity = self._capacity(longest)
            rows, kept = len(self._slots.held), settings.kept_prompts
            opening = Opening(gate, settings.teacher_warp, rows, capacity, kept, settings.execution)
            self._teacher = pair.required_engine.open(opening)
        self._offset_G = torch.arange(self._block, device=pair.device)
        self._stop_ids = torch.tensor(sorted(pair.stop_ids), device=pair.device)
        self._done: dict[int, Response] = {}
        self._clock = Clock(pair.device)
        self._rounds = self._drafted = 0
        self._by_student = self._by_teacher = PromptTokens()

    # Not no_grad: its bookkeeping is a tenth of a tiny model's forward. ``Response.take`` leaves this mode again.
    @torch.inference_mode()
    def run(self, check: Callable[[], None]) -> Rollout:
        """Draft, judge and commit until every response has ended; ``check`` is called before every round."""
        slots, settings = self._slots, self._settings
        pair = self._pair
        with settings.execution.running(pair.sampling_student, pair.teacher, frozen=pair.frozen):
            while slots.num_waiting or slots.num_active:
                check()
                self._clock.lap("rest")
                self._fill()
                block = self._next_block()
                self._rounds += 1
                self._drafted += slots.num_active * block.ids_BG.shape[1] * settings.gate.drafts
                self._commit(block)
                self._shrink()
        self._clock.lap("rest")
        responses = [self._done[request.index] for request in self._requests]
        stats = replace(
            gather_stats(responses, self._drafted, self._rounds, self._clock.seconds()),
            student_read=self._by_student.read,
            student_reused=self._by_student.reused,
            teacher_read=self._by_teacher.read,
            teacher_reused=self._by_teacher.reused,
        )
        rollout = gather_rollout(self._requests, responses, stats, self._pair.tokenizer, settings.student_logp)
        return replace(rollout, evidence=self._evidence(responses) if settings.evidence else None)

    def _evidence(self, responses: Sequence[Response]) -> Evidence:
        assert self._teacher is not None
        kept = [response.evidence for response in responses if response.evidence is not None]
        return self._teacher.evidence(kept, [response.ids for response in responses])

    def _capacity(self, longest_prompt: int) -> int:
        return longest_prompt - 1 + self._settings.cap + self._block

    def _opened(self, model: PreTrainedModel, form: AttentionForm, capacity: int) -> Writer:
        from skd.models.head import head_of

        execution, head = self._settings.execution, head_of(model, self._pair.vocab_size)
        body = execution.body(model.base_model, form, self._pair.context, len(self._slots.held), capacity)
        return Writer(body, head, self._settings.student_warp, PromptReader(body), execution.passes)

    def _fill(self) -> None:
        filled = self._slots.refill()
        if filled is not None and self._student is not None:
            self._by_student += self._student.prompts.fill(filled.rows, filled.student)
        if filled is not None and self._teacher is not None:
            self._by_teacher += self._teacher.prefill(filled.rows, filled.teacher)
        self._clock.lap("prefill")

    def _shrink(self) -> None:
        rows_b = self._slots.shrink()
        if rows_b is not None and self._student is not None:
            self._student.prompts.keep_rows(rows_b)
        if rows_b is not None and self._teacher is not None:
            self._teacher.keep_rows(rows_b)

    def _next_block(self) -> Block:
        places = self._slots.next_places(self._pace.block(len(self._slots.held)))
        if self._teacher is None:
            assert self._student is not None
            block = self._alone(self._draft(self._student, places), STUDENT, places)
            self._clock.lap("draft")
        elif self._student is None:
            written = self._teacher.write(self._slots, places.replace_noise_BG, places)
            block = self._alone(written, TEACHER, places)
            self._clock.lap("judge")
        else:
            draft = self._draft(self._student, places)
            self._clock.lap("draft")
            block = self._judge(self._teacher, draft, places)
            self._clock.lap("judge")
        return block

    def _draft(self, student: Writer, places: Places) -> Written:
        keep_logits = self._settings.student_logp or self._settings.gate.needs_student
        return student.write(self._slots.student, places.draft_noise_BG, places.num_keys, keep_logits)

    def _alone(self, written: Written, author: int, places: Places) -> Block:
        """A block without a judge: all of it is kept."""
        return Block(
            places=places,
            ids_BG=written.ids_BG,
            author_BG=torch.full_like(written.ids_BG, author, dtype=torch.uint8),
            count_B=torch.full_like(self._slots.length_B, written.ids_BG.shape[1]),
            finite={author: finite_rows(written.hidden_BGD)},
            evidence_BGD=written.hidden_BGD if author == TEACHER and self._settings.evidence else None,
            student_logp_BG=written.logp(written.ids_BG) if self._settings.student_logp else None,
        )

    def _judge(self, teacher: Judge, draft: Written, places: Places) -> Block:
        """The draft with the teacher's token in place of the first one that the gate rejects."""
        slots, settings = self._slots, self._settings
        judged = teacher.read(slots, draft.ids_BG, places)
        drafted = Drafted(
            ids_BG=draft.ids_BG,
            teacher_logits_BGV=judged.logits_BGV,
            teacher_warp=teacher.warp,
            position_BG=places.position_BG,
            progress=settings.progress,
            accept_noise_BG=places.accept_noise_BG,
            replace_noise_BG=places.replace_noise_BG,
            state_BS=slots.state_BS,
            student_logits_BGV=torch.stack(draft.logits, dim=1) if settings.gate.needs_student else None,
            student_warp=settings.student_warp,
        )
        verdict = settings.gate.judge(drafted)
        kept_B = verdict.keep_BG.long().cumprod(dim=1).sum(dim=1)
        ids_BG = _replace_first_rejected(drafted, verdict, kept_B)
        block = ids_BG.shape[1]
        replaced_BG = self._offset_G[:block] == kept_B.unsqueeze(1)
        return Block(
            places=places,
            ids_BG=ids_BG,
            author_BG=torch.where(replaced_BG, TEACHER, STUDENT).to(torch.uint8),
            count_B=(kept_B + 1).clamp(max=block),
            finite={STUDENT: finite_rows(draft.hidden_BGD), TEACHER: judged.finite_B},
            evidence_BGD=judged.kept_BGE if settings.evidence else None,
            student_logp_BG=draft.logp(ids_BG) if settings.student_logp else None,
            state_BGS=verdict.state_BGS,
        )

    def _commit(self, block: Block) -> None:
        """Move the cursors over what the block gives to each response, and take out the responses that end."""
        slots = self._slots
        slots.write(block)
        count_B = torch.minimum(block.count_B, self._settings.cap - slots.length_B) * slots.active_B
        # Tokens up to the first stop id, itself included.
        end_G = self._offset_G[: block.ids_BG.shape[1]] + 1
        stop_B = torch.where(torch.isin(block.ids_BG, self._stop_ids), end_G, self._block + 1).amin(1)
        ended_B, count_B = stop_B <= count_B, torch.minimum(stop_B, count_B)
        count_B, ended_B = self._settings.stops.cut(slots, count_B, ended_B)
        slots.advance(block, count_B, ended_B)
        last_B1 = (count_B - 1).clamp(min=0).unsqueeze(1)
        replaced_B = (block.author_BG.gather(1, last_B1).squeeze(1) == TEACHER) & (count_B > 0)
        # The one look of the host per round.
        counts, ended, replaced, *finite = torch.stack([count_B, ended_B, replaced_B, *block.finite.values()]).tolist()
        if not all(map(all, finite)):
            self._refuse_nonfinite(dict(zip(block.finite, finite, strict=True)))
        self._pace.saw(counts, replaced)
        self._settle(counts, ended)

    def _refuse_nonfinite(self, finite: dict[int, list[int]]) -> None:
        for slot, request in enumerate(self._slots.held):
            for author, name in ((STUDENT, "student"), (TEACHER, "teacher")):
                if request is not None and author in finite and not finite[author][slot]:
                    raise not_finite(request, name)

    def _settle(self, counts: list[int], ended: list[int]) -> None:
        slots = self._slots
        over = []
        for slot, request in enumerate(slots.held):
            if request is None:
                continue
            start, slots.lengths[slot] = slots.lengths[slot], slots.lengths[slot] + counts[slot]
            if self._settings.on_commit is not None:
                tokens, authors = (row[slot, start : slots.lengths[slot]] for row in (slots.ids_BW, slots.authors_BW))
                self._settings.on_commit(request.index, tokens.tolist(), authors.tolist())
            if ended[slot] or slots.lengths[slot] == self._settings.cap:
                over.append(slot)
        for slot, response in zip(over, Response.take(slots, over, ended), strict=True):
            self._done[slots.release(slot).index] = response


def _pace(pair: Pair, settings: Settings) -> Pace:
    engine = pair.engine
    fixed = settings.block or (None if engine is None else engine.block)
    if not (settings.gate.drafts and settings.gate.judges):
        fixed = _ALONE_BLOCK
    teacher = 0 if engine is None else engine.num_parameters
    costs = pair.costs or Costs.by_size(pair.sampling_student.num_parameters(), teacher, pair.device.type)
    return Pace(costs, fixed, _FEW_BLOCKS if settings.execution.fixed_shapes else _ALL_BLOCKS)


def _replace_first_rejected(drafted: Drafted, verdict: Verdict, kept_B: Tensor) -> Tensor:
    block = drafted.ids_BG.shape[1]
    rejected_B = kept_B.clamp(max=block - 1)
    at_rejection = drafted.at(rejected_B)
    token_B1 = torch.where((kept_B < block).unsqueeze(1), verdict.replacement(at_rejection), at_rejection.ids_BG)
    return drafted.ids_BG.scatter(1, rejected_B.unsqueeze(1), token_B1)

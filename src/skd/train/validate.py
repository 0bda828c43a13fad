"""Validation during a run: loss and acceptance on fixed prompts with fixed noise, and the data of the token view."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from skd.faults import point
from skd.models import Pair, score
from skd.objectives import kl, log_probs
from skd.policies import RolloutKey, rolled_out
from skd.train.batch import collate
from skd.train.log import RunLog
from skd.train.run import Run
from skd.train.step import row_batches
from skd.types import TEACHER, Head, Rollout, by_route

__all__ = ["VALIDATION_EPOCH", "pieces_of", "token_view", "validate"]

VALIDATION_EPOCH = 2**31 - 1
"""Keys the noise of validation: always the same, and never that of a training epoch."""
VIEWED_PROMPTS = 16
VIEWED_CANDIDATES = 5


@torch.no_grad()
def validate(run: Run, step: int, log: RunLog) -> dict[str, float | int | None]:
    """Loss, acceptance and replaced share under the run's policy and objective, over all ranks.

    Called inside a visit. Logs the token view of the first 16 prompts of the main rank's share. Raises Interrupted
    when a signal arrives.
    """
    assert run.validation is not None
    point("validate")
    prompts = run.shard(run.validation)
    # Schedules and stages as they will be at the end: so that the losses of all validations compare.
    key = RolloutKey(run.config.train.known_seed, [VALIDATION_EPOCH] * len(prompts), 1.0, run.check, step)
    with run.interruptible(), run.spread.visit():
        rollout = rolled_out(run.policy, run.pair, prompts, key)
    loss = 0.0
    with run.spread.visit():
        weights, total_weight = run.token_weights(rollout)
        for rows in row_batches(rollout, run.config.train.micro_batch_tokens, run.accelerator.device.type):
            batch = collate(rollout, rows, weights, run.evidence(rollout, rows), 1.0, run.accelerator.device)
            loss += run.loss(batch).loss.item()
        if run.is_main:
            log.tokens(step, token_view(run, rollout, step))
    return _metrics(run, rollout, loss, total_weight)


def _metrics(run: Run, rollout: Rollout, loss: float, weight: float) -> dict[str, float | int | None]:
    written = sum(int((authors == TEACHER).sum()) for authors in rollout.authors)
    counts = [rollout.num_tokens, written, rollout.stats.kept, rollout.stats.replaced]
    loss, weight, tokens, written_total, kept, replaced = run.total([loss, weight, *counts])
    return {
        "loss": loss / (weight or 1.0),
        "tokens": int(tokens),
        "acceptance_rate": kept / (kept + replaced) if kept + replaced else None,
        "replaced_share": written_total / tokens if tokens else None,
    }


@torch.no_grad()
def token_view(run: Run, rollout: Rollout, step: int) -> dict[str, Any]:
    """What the token view shows: for each response, who wrote each token and what both models thought of it.

    ``{"format": 1, "step", "responses": [{"sample_id", "prompt", "ids", "pieces", "authors", "truncated", "divergence",
    "student_top", "student_top_ids", "teacher_top", "teacher_top_ids"}]}``: ``divergence`` is the forward KL in nats
    per token, the ``top`` lists hold, per token, the five most probable ``[piece, probability]``, unwarped. Without a
    teacher the divergences are null and its lists empty.
    """
    rows = [row for row, index in enumerate(rollout.response_index) if index == 0][:VIEWED_PROMPTS]
    viewed = rollout.select(rows)
    budget = run.config.train.micro_batch_tokens
    pair = run.pair
    student_hidden = score(pair.student, viewed.prompt_ids, viewed.response_ids, budget)
    teacher_hidden: list[Tensor | None] = [None] * len(viewed)
    for route, group in by_route(viewed.routes, len(viewed)):
        for row, states in zip(group, _teacher_hidden(pair.of(route), viewed.select(group), budget), strict=False):
            teacher_hidden[row] = states
    responses = []
    for row, known in enumerate(teacher_hidden):
        student_logp = _log_probs(pair.student_head(), student_hidden[row])
        teacher_logp = None if known is None else _log_probs(pair.of(viewed.route([row])).teacher_head(), known)
        responses.append(_viewed_response(pair.tokenizer, viewed, row, student_logp, teacher_logp))
    return {"format": 1, "step": step, "responses": responses}


def _teacher_hidden(pair: Pair, viewed: Rollout, budget: int) -> list[Tensor]:
    """Of responses of one teacher; none where it is not in this process."""
    if pair.teacher is None:
        return []
    kept = [states for states in viewed.evidence or () if isinstance(states, Tensor)]
    return kept or score(pair.teacher, viewed.read_by_teacher, viewed.response_ids, budget)


def _log_probs(head: Head, hidden_LD: Tensor) -> Tensor:
    return log_probs(head.logits(hidden_LD)).cpu()


def _viewed_response(
    tokenizer: PreTrainedTokenizerBase,
    rollout: Rollout,
    row: int,
    student_logp_LV: Tensor,
    teacher_logp_LV: Tensor | None,
) -> dict[str, Any]:
    ids = rollout.response_ids[row]
    divergence: list[float | None] = [None] * len(ids)
    if teacher_logp_LV is not None:
        divergence = kl(teacher_logp_LV, student_logp_LV).tolist()
    return {
        "sample_id": rollout.sample_ids[row],
        "prompt": tokenizer.decode(rollout.prompt_ids[row].tolist()),
        "ids": ids.tolist(),
        "pieces": pieces_of(tokenizer, ids.tolist()),
        "authors": rollout.authors[row].tolist(),
        "truncated": bool(rollout.truncated[row]),
        "divergence": [None if value is None else round(value, 6) for value in divergence],
        **_candidates("student", tokenizer, student_logp_LV, len(ids)),
        **_candidates("teacher", tokenizer, teacher_logp_LV, len(ids)),
    }


def _candidates(
    model: str, tokenizer: PreTrainedTokenizerBase, logp_LV: Tensor | None, length: int
) -> dict[str, list[list[Any]]]:
    if logp_LV is None:
        return {f"{model}_top": [[] for _ in range(length)], f"{model}_top_ids": [[] for _ in range(length)]}
    top = logp_LV.exp().topk(min(VIEWED_CANDIDATES, logp_LV.shape[-1]), dim=-1)
    shown = [
        [[tokenizer.decode([i]), round(p, 6)] for i, p in zip(ids, probabilities, strict=True)]
        for ids, probabilities in zip(top.indices.tolist(), top.values.tolist(), strict=True)
    ]
    return {f"{model}_top": shown, f"{model}_top_ids": top.indices.tolist()}


def pieces_of(tokenizer: PreTrainedTokenizerBase, ids: Sequence[int]) -> list[str]:
    """The text that each token adds to the response; joined they are the decoded response, special tokens included.

    A token that is only part of a character adds nothing; the one that completes the character adds it.
    """
    pieces, shown = [], ""
    for end in range(1, len(ids) + 1):
        text = str(tokenizer.decode(list(ids[:end])))
        complete = not text.endswith("\ufffd") or end == len(ids)
        pieces.append(text[len(shown) :] if complete else "")
        shown = text if complete else shown
    return pieces

"""Interleaved sampling of one response, token by token.

Both models read the whole sequence anew for every token: no cache, no padding, no batch, no block. What is written
is what METHOD.md section 2 says, in the order in which it says it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedModel

from tests.oracles import philox
from tests.oracles.draw import draw, draw_margin
from tests.oracles.warp import Floats, nucleus_margin, softmax, warp

STUDENT, TEACHER = 1, 2


@dataclass
class Look:
    """What a gate may look at when it judges one drafted token."""

    draft: int
    position: int
    teacher_raw_V: Floats
    """Raw teacher logits."""
    student_raw_V: Floats
    """Raw student logits."""
    student_drawn_V: Floats
    """Probabilities after the student's warp."""
    teacher_drawn_V: Floats
    """Probabilities after the teacher's warp."""
    accept_u: float
    replace_u: float
    state: dict[str, Any]
    """Whatever the gate remembers of this response; empty at its start."""


@dataclass
class Verdict:
    """keep, the token to write otherwise, and how near the decision was (logits, or probability)."""

    keep: bool
    replacement: int
    margin: float


Gate = Callable[[Look], Verdict]


def _teacher_draw(look: Look, keep: bool, margin: float) -> Verdict:
    if not keep:
        margin = min(margin, draw_margin(look.teacher_drawn_V, look.replace_u))
    return Verdict(keep, draw(look.teacher_drawn_V, look.replace_u), margin)


def top_k(k: int) -> Gate:
    """SKD: the draft is among the teacher's k most probable tokens, ties at the border included."""

    def gate(look: Look) -> Verdict:
        border = sorted(look.teacher_raw_V, reverse=True)[min(k, len(look.teacher_raw_V)) - 1]
        logit = look.teacher_raw_V[look.draft]
        below = look.teacher_raw_V[look.teacher_raw_V < border].max(initial=-np.inf)
        margin = logit - below if logit >= border else border - logit
        return _teacher_draw(look, bool(logit >= border), float(margin))

    return gate


def falling_top_k(start: int, end: int, tokens: int) -> Gate:
    """Adaptive K: K falls in a straight line from ``start`` to ``end`` over ``tokens`` tokens, and stays there."""

    def gate(look: Look) -> Verdict:
        share = min(look.position / tokens, 1.0)
        return top_k(round(start + (end - start) * share))(look)

    return gate


def top_p(mass: float) -> Gate:
    """The draft is in the smallest set of the teacher's most probable tokens that holds ``mass``."""

    def gate(look: Look) -> Verdict:
        keep = warp(look.teacher_raw_V, 1.0, mass)[look.draft] > 0.0
        return _teacher_draw(look, bool(keep), nucleus_margin(look.teacher_raw_V, 1.0, mass))

    return gate


def accept_all(look: Look) -> Verdict:
    """On-policy: the student alone."""
    return Verdict(True, look.draft, float("inf"))


def accept_none(look: Look) -> Verdict:
    """The teacher alone."""
    return _teacher_draw(look, False, float("inf"))


def ipd(g: float) -> Gate:
    """Exact speculative sampling from (1-g) student + g teacher, both as drawn from."""

    def gate(look: Look) -> Verdict:
        ratio = look.teacher_drawn_V[look.draft] / look.student_drawn_V[look.draft]
        border = min(1.0, 1.0 - g + g * ratio)
        keep = look.accept_u < border
        margin = abs(border - look.accept_u)
        if keep:
            return Verdict(True, look.draft, margin)
        residual_V = np.maximum(look.teacher_drawn_V - look.student_drawn_V, 0.0)
        margin = min(margin, draw_margin(residual_V, look.replace_u))
        return Verdict(False, draw(residual_V, look.replace_u), margin)

    return gate


def min_prob(floor: float) -> Gate:
    """CA-OPD: the teacher's raw probability of the draft reaches a floor."""

    def gate(look: Look) -> Verdict:
        probability = softmax(look.teacher_raw_V)[look.draft]
        return _teacher_draw(look, bool(probability >= floor), float(abs(probability - floor)))

    return gate


def switch_once(factor: float) -> Gate:
    """AdaSwitch: the student until KL(T || S) of one token exceeds ``factor`` x its mean so far, then the teacher."""

    def gate(look: Look) -> Verdict:
        if look.state.get("switched"):
            return _teacher_draw(look, False, float("inf"))
        teacher_V, student_V = softmax(look.teacher_raw_V), softmax(look.student_raw_V)
        divergence = float((teacher_V * np.log(teacher_V / student_V)).sum())
        seen, total = look.state.get("seen", 0), look.state.get("total", 0.0)
        border = factor * total / seen if seen else float("inf")
        look.state |= {"seen": seen + 1, "total": total + divergence, "switched": divergence > border}
        return _teacher_draw(look, divergence <= border, abs(divergence - border))

    return gate


@dataclass
class Written:
    """One response and what the test needs to judge it."""

    ids: list[int] = field(default_factory=list)
    authors: list[int] = field(default_factory=list)
    margins: list[float] = field(default_factory=list)
    """Per token, how near another token was."""
    teacher_hidden: list[torch.Tensor] = field(default_factory=list)
    """Per token, the teacher's last hidden state [D] that predicts it."""
    truncated: bool = False


@torch.no_grad()
def next_logits(model: PreTrainedModel, ids: Sequence[int], vocab_size: int) -> tuple[Floats, torch.Tensor]:
    """Raw logits of the shared vocabulary after ``ids``, and the last hidden state they come from."""
    out = model(input_ids=torch.tensor([list(ids)], device=model.device), use_cache=False, output_hidden_states=True)
    return out.logits[0, -1, :vocab_size].float().cpu().numpy().astype(np.float64), out.hidden_states[-1][0, -1]


def _draft_margin(logits_V: Floats, probs_V: Floats, spread: tuple[float, float], u: float) -> float:
    if spread[0] == 0.0:
        first, second = np.sort(logits_V)[[-1, -2]]
        return float(first - second)
    return min(draw_margin(probs_V, u), nucleus_margin(logits_V, *spread))


def interleave(
    student: PreTrainedModel,
    teacher: PreTrainedModel,
    prompt: Sequence[int],
    *,
    gate: Gate,
    vocab_size: int,
    max_new_tokens: int,
    student_warp: tuple[float, float] = (1.0, 1.0),
    teacher_warp: tuple[float, float] = (1.0, 1.0),
    stop_ids: frozenset[int] = frozenset(),
    stop_strings: Sequence[str] = (),
    decode: Callable[[list[int]], str] | None = None,
    seed: int = 0,
    epoch: int = 0,
    sample: int = 0,
    response: int = 0,
    teacher_prompt: Sequence[int] | None = None,
) -> Written:
    """Sample one response. A warp is (temperature, top_p); the teacher reads ``teacher_prompt`` where it is given."""
    written, state = Written(), {}
    for position in range(max_new_tokens):
        student_raw, _ = next_logits(student, [*prompt, *written.ids], vocab_size)
        read = prompt if teacher_prompt is None else teacher_prompt
        teacher_raw, teacher_hidden = next_logits(teacher, [*read, *written.ids], vocab_size)
        student_drawn, teacher_drawn = warp(student_raw, *student_warp), warp(teacher_raw, *teacher_warp)
        draft_u, accept_u, replace_u = (
            philox.uniform(seed, purpose, epoch, sample, response, position)
            for purpose in (philox.DRAFT, philox.ACCEPT, philox.REPLACE)
        )
        draft = draw(student_drawn, draft_u)
        drawn = student_drawn, teacher_drawn
        verdict = gate(Look(draft, position, teacher_raw, student_raw, *drawn, accept_u, replace_u, state))
        margin = min(_draft_margin(student_raw, student_drawn, student_warp, draft_u), verdict.margin)
        if not verdict.keep:
            margin = min(margin, _draft_margin(teacher_raw, teacher_drawn, teacher_warp, replace_u))
        token = draft if verdict.keep else verdict.replacement
        written.ids.append(token)
        written.authors.append(STUDENT if verdict.keep else TEACHER)
        written.margins.append(margin)
        written.teacher_hidden.append(teacher_hidden)
        if token in stop_ids:
            return written
        if decode is not None and any(stop in decode(written.ids) for stop in stop_strings):
            return written
    written.truncated = max_new_tokens > 0
    return written

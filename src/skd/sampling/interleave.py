"""Write responses to prompts by interleaved sampling. The rounds themselves are in ``skd.sampling.sampler``."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

import torch

from skd.errors import ConfigError, Problem
from skd.sampling.checks import require_positive, require_prompts, require_stop_strings
from skd.sampling.execution import Eager
from skd.sampling.gate import Gate
from skd.sampling.gates import TopK
from skd.sampling.judge import TeacherEngine
from skd.sampling.prompts import PromptCache
from skd.sampling.sampler import OnCommit, Sampler, Settings
from skd.sampling.slots import Request
from skd.sampling.stops import StopStrings
from skd.sampling.warp import Warp
from skd.types import Prompts, Rollout

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from skd.models.pair import Pair

__all__ = ["OnCommit", "interleave", "requests_of", "with_evidence"]


@torch.no_grad()
def interleave(
    pair: Pair,
    prompts: Prompts | Sequence[str],
    *,
    gate: Gate | None = None,
    block: int | None = None,
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
    student_logp: bool = False,
    kept_prompts: PromptCache | None = None,
    execution: Eager | None = None,
    on_commit: OnCommit | None = None,
    check: Callable[[], None] | None = None,
) -> Rollout:
    """Write responses to prompts by interleaved sampling (Xu et al. 2025, arXiv 2410.11325, algorithm 1).

    Args:
        prompts: token ids, or texts, which are encoded as ``Pair.encode`` does and numbered from 0.
        gate: the rule that keeps a draft; ``TopK(25)`` by default.
        block: drafted tokens per look of the teacher, by default chosen from the acceptance so far; it changes the
            cost, not the responses.
        student_warp: what drafts are drawn from; by default the student's own distribution.
        teacher_warp: what replacements are drawn from, likewise.
        max_new_tokens: cap of a response, its end token included.
        slots: rows of the batch; more responses than slots wait their turn.
        stop_strings: texts that end a response, besides the pair's stop ids.
        seed: keys the noise, together with epoch, sample id and response index.
        epoch: one number for all prompts, or one for each.
        progress: share of the training done, in [0, 1], for gates with schedules.
        evidence: keep the teacher's last hidden states for the loss.
        student_logp: keep, for every token, the log-prob that the student gave it before any warp; not for a gate
            without drafts.
        kept_prompts: where what a frozen teacher in this process makes of prompts is kept for the next call. It then
            reads each prompt alone, so that a response does not depend, not even by rounding, on what was kept.
        execution: ``Eager(0)`` to pack no weights on a CPU; ``Compiled()`` for compiled passes, which keeps its graphs
            for the next call.
        on_commit: told of every token as it is written.
        check: called before every round of drafting and judging; what it raises ends the sampling.

    Returns responses in the order of the prompts, those to one prompt next to each other.

    Raises ConfigError for an impossible argument; DataError when a prompt is empty, holds an unknown id, or does not
    fit the context together with the cap; ModelError when the gate needs a teacher and the pair has none;
    NumericsError when a model's output is not finite.
    """
    gate = gate or TopK()
    require_positive(
        block=1 if block is None else block,
        max_new_tokens=max_new_tokens,
        slots=slots,
        responses_per_prompt=responses_per_prompt,
    )
    require_stop_strings(stop_strings)
    prompts = prompts if isinstance(prompts, Prompts) else pair.encode(prompts)
    require_prompts(prompts, [max_new_tokens] * len(prompts), pair.context, pair.vocab_size)
    epochs = [epoch] * len(prompts) if isinstance(epoch, int) else list(epoch)
    if len(epochs) != len(prompts):
        found = f"has {len(epochs)} entries for {len(prompts)} prompts"
        raise ConfigError(Problem("SKD-C07", "epoch", found, "give one number for all, or one for every prompt"))
    requests = requests_of(prompts, responses_per_prompt, epochs)
    settings = Settings(
        gate=gate,
        block=block,
        student_warp=student_warp or Warp(),
        teacher_warp=teacher_warp or Warp(),
        cap=max_new_tokens,
        stops=StopStrings(pair.tokenizer, tuple(stop_strings)),
        seed=seed,
        progress=progress,
        evidence=evidence and gate.judges,
        student_logp=student_logp and gate.drafts,
        on_commit=on_commit,
        kept_prompts=kept_prompts,
        execution=execution or Eager(),
    )
    with _evaluating(pair.sampling_student, pair.teacher):
        rollout = Sampler(pair, settings, requests, slots).run(check or (lambda: None))
        if evidence and not gate.judges and pair.engine is not None:
            rollout = with_evidence(pair.engine, rollout)
    return rollout


def requests_of(prompts: Prompts, responses_per_prompt: int, epochs: Sequence[int]) -> list[Request]:
    """The responses to be written, those to one prompt next to each other."""
    flat = torch.tensor([token for ids in prompts.ids for token in ids], dtype=torch.int64)
    rows = flat.split([len(ids) for ids in prompts.ids])
    read = rows if prompts.teacher_ids is None else [torch.tensor(list(ids)) for ids in prompts.teacher_ids]
    return [
        Request(i * responses_per_prompt + j, ids, teacher_ids, sample_id, j, epochs[i])
        for i, (ids, teacher_ids, sample_id) in enumerate(zip(rows, read, prompts.sample_ids, strict=True))
        for j in range(responses_per_prompt)
    ]


def with_evidence(teacher: TeacherEngine, rollout: Rollout) -> Rollout:
    """The same with what the teacher thinks of each response, by one forward over them."""
    started = time.perf_counter()
    evidence = teacher.score(rollout.read_by_teacher, rollout.response_ids)
    stats = replace(rollout.stats, seconds_evidence=time.perf_counter() - started)
    return replace(rollout, evidence=evidence, stats=stats)


@contextmanager
def _evaluating(*models: PreTrainedModel | None) -> Iterator[None]:
    """Dropout off while sampling; every module's own mode afterwards."""
    training = [module for model in models if model is not None for module in model.modules() if module.training]
    for module in training:
        module.training = False
    try:
        yield
    finally:
        for module in training:
            module.training = True

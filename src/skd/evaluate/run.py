"""Measuring a model on tasks: responses by our own sampler, scores with intervals, and what is needed to repeat it."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from skd.data.rows import Split
from skd.evaluate.comet import Comet
from skd.evaluate.extra import Drafters, Extra
from skd.evaluate.grade import open_grader
from skd.evaluate.progress import progress
from skd.evaluate.prompts import Decoding, encoded
from skd.evaluate.ranks import Ranks
from skd.evaluate.samples import Sample, Samples
from skd.evaluate.scores import Finding, Score, item_score
from skd.evaluate.workload import Choice, Workload, workload
from skd.sampling import AcceptAll, Warp, interleave
from skd.text import require_writable, shortened, visible
from skd.types import Prompts
from skd.versions import commit, versions

if TYPE_CHECKING:
    import torch

    from skd.models.pair import Pair

__all__ = ["Decoding", "EvaluationResult", "evaluate", "evaluate_tasks"]

CHUNKS = 4
"""Batches of ``slots`` prompts between two writes of the samples: more keeps the slots fuller, fewer loses less."""


@dataclass(frozen=True)
class EvaluationResult:
    """Scores on n items, with what they rest on."""

    task: str
    scores: Mapping[str, Score]
    """By name, the most important one first."""
    responses: tuple[str, ...]
    findings: tuple[Finding, ...]
    """What the metric found in each response, in the order of the task's rows."""
    seconds: float
    """Wall time of the generation in this process, loading not counted."""
    provenance: dict[str, Any]
    """model, decoding, data (with fingerprint), versions, commit."""

    @property
    def main(self) -> Score:
        """The score that the task is known by."""
        return next(iter(self.scores.values()))

    @property
    def score(self) -> float:
        """The main score."""
        return self.main.value

    @property
    def interval(self) -> tuple[float, float]:
        """Its 95 % interval."""
        return self.main.interval_95

    @property
    def n(self) -> int:
        """Number of items."""
        return len(self.responses)

    @property
    def correct(self) -> tuple[bool, ...]:
        """Per item: two results with one ``data`` fingerprint can be paired. Empty for graded metrics."""
        return tuple(bool(finding["correct"]) for finding in self.findings if "correct" in finding)

    @property
    def values(self) -> tuple[float, ...]:
        """Score of each item, for paired comparisons. A corpus score such as BLEU is not their mean."""
        return tuple(item_score(finding) for finding in self.findings)

    def line(self) -> str:
        """The main score as one line of a table, safe for a terminal."""
        model = visible(shortened(str(self.provenance["model"].get("path", "")), 80))
        return f"{visible(self.task):<14} n {self.n:>6,}   {self.main.text()}   {self.seconds:6.1f} s   {model}"

    def lines(self) -> list[str]:
        """All scores, the main one first; further ones by name."""
        return [self.line(), *(f"  {name:<24} {score.text()}" for name, score in list(self.scores.items())[1:])]


def evaluate(
    model: Pair | str | Path,
    task: str,
    size: int | None = None,
    split: Split = "test",
    out: str | Path | None = None,
    max_new_tokens: int | None = None,
    *,
    data: str | Path | None = None,
    seed: int = 0,
    slots: int = 256,
    temperature: float = 0.0,
) -> EvaluationResult:
    """Measure a model on a task: greedy responses, the task's metric, 95 % intervals.

    model: a pair, whose student is measured, or a model directory, run directory or Hub id.
    task: a task that the package generates (``size`` rows of ``split`` drawn by ``seed``), or one over the file
    ``data`` (``gsm8k``, ``translation:German-English``, ``mine.yaml`` ...; its first ``size`` rows).
    slots: responses written at once. temperature: 0 takes the most probable token; above, ``seed`` keys the draws.
    out: file for the judged samples, one JSON object per line; the scores and their provenance go beside it, with the
    suffix ``.summary.json``. Called again after it was stopped, the evaluation goes on where it was.

    Raises ConfigError for an unknown task or split; DataError when the data are unusable or a prompt and
    ``max_new_tokens`` exceed the model's context; ModelError when the model cannot be loaded;
    ResourceError, before anything is measured, when ``out`` cannot be written.
    """
    choice = Choice(task, None if data is None else str(data), split, size, seed, max_new_tokens)
    outs = [None if out is None else Path(out)]
    (result,) = evaluate_tasks(model, [choice], outs, Decoding(temperature, seed, slots))
    return result


def evaluate_tasks(
    model: Pair | str | Path,
    choices: Sequence[Choice],
    outs: Sequence[Path | None],
    decoding: Decoding | None = None,
    *,
    teacher: str | Path | None = None,
    drafters: Drafters = Drafters(),  # noqa: B008 - a value
    comet: Comet | None = None,
    show_progress: bool = False,
    ranks: Ranks = Ranks(),  # noqa: B008 - a value
) -> Iterator[EvaluationResult]:
    """Measure one model on several tasks, loaded once; all of them are checked before that. See ``evaluate``.

    teacher: a model to compare it with, token by token, besides (``skd.evaluate.teacher``).
    drafters: what to measure of it as the teacher's draft model (``skd.evaluate.drafter``).
    ranks: the processes that share the items, all of which call this; the main one alone writes files, and alone
    measures against the teacher and by COMET.
    """
    if not ranks.is_main:
        outs, comet, show_progress = [None] * len(outs), None, False
    for out in outs:
        if out is not None:
            require_writable(out)
    with open_grader() as grader:
        workloads = [workload(choice, grader) for choice in choices]
        if comet is not None:
            comet.require([work for work in workloads if work.task])
        pair = _loaded(model, teacher if ranks.is_main else None, ranks.device)
        students = _students(pair, drafters) if teacher is not None and ranks.is_main else {}
        extra = Extra(comet, students, drafters)
        for work, out in zip(workloads, outs, strict=True):
            yield _measured(pair, work, out, decoding or Decoding(), extra, show_progress, ranks)


def _measured(
    pair: Pair, work: Workload, out: Path | None, decoding: Decoding, extra: Extra, show_progress: bool, ranks: Ranks
) -> EvaluationResult:
    settings = {
        "temperature": decoding.temperature,
        **({"seed": decoding.seed} if decoding.temperature else {}),
        "max_new_tokens": work.max_new_tokens,
        "max_prompt_tokens": work.max_prompt_tokens,
        "long_prompts": decoding.long_prompts,
        "stop_strings": list(work.stop_strings),
        "chat": "auto",
    }
    provenance = {
        "model": pair.provenance["student"],
        **({"teacher": pair.provenance["teacher"]} if extra.students else {}),
        **{f"model{suffix}": each.provenance["student"] for suffix, each in extra.students.items() if suffix},
        "decoding": settings,
        "data": work.data,
        "versions": versions(*work.metric.packages),
        "commit": commit(),
    }
    store = Samples(out, {key: provenance[key] for key in ("model", "decoding", "data")})
    started = time.perf_counter()
    samples = _samples(pair, work, decoding, store, show_progress, ranks)
    seconds = time.perf_counter() - started
    responses = tuple(str(sample["response"]) for sample in samples)
    findings = tuple(dict(sample["finding"]) for sample in samples)
    scores = {**work.metric.scores(work.rows, responses, findings), **extra.scores(pair, work, responses, decoding)}
    result = EvaluationResult(work.name, scores, responses, findings, seconds, provenance)
    store.finish([_flat(sample) for sample in samples], _summary(result, work.metric.counts(findings)))
    return result


def _samples(
    pair: Pair, work: Workload, decoding: Decoding, store: Samples, show_progress: bool, ranks: Ranks
) -> list[Sample]:
    """All samples, those of an earlier process first."""
    prompts = encoded(pair, work, decoding)
    samples = ranks.gathered(store.resume())
    with progress(work.name, len(work.rows), len(samples), show_progress) as advance:
        while len(samples) < len(work.rows):
            first = len(samples)
            chunk = range(first, min(first + CHUNKS * decoding.slots * ranks.size, len(work.rows)))
            mine = ranks.share(chunk)
            new = ranks.gathered(_written(pair, work, prompts.select(mine), mine, decoding) if mine else [])
            new.sort(key=lambda sample: int(sample["item"]))
            store.append(new)
            samples += new
            advance(len(samples))
    return samples


def _written(pair: Pair, work: Workload, prompts: Prompts, items: Sequence[int], decoding: Decoding) -> list[Sample]:
    rollout = interleave(
        pair,
        prompts,
        gate=AcceptAll(),
        student_warp=Warp(temperature=decoding.temperature),
        max_new_tokens=work.max_new_tokens,
        slots=decoding.slots,
        stop_strings=work.stop_strings,
        seed=decoding.seed,
        evidence=False,
    )
    ids, cut = [response.tolist() for response in rollout.response_ids], rollout.truncated.tolist()
    return [
        {
            "item": item,
            "prompt": work.rows[item].prompt,
            "reference": work.rows[item].response,
            "response": (response := work.cut(text)),
            "ids": ids[i],
            "truncated": cut[i],
            "finding": work.metric.judge(work.rows[item], response),
        }
        for i, (item, text) in enumerate(zip(items, rollout.text(), strict=True))
    ]


def _flat(sample: Sample) -> Sample:
    """A sample with its score, and what was found in it, beside its texts."""
    finding: Finding = sample["finding"]
    texts = {key: value for key, value in sample.items() if key != "finding"}
    return {**texts, "score": item_score(finding), **finding}


def _summary(result: EvaluationResult, counts: Mapping[str, int]) -> dict[str, Any]:
    return {
        "task": result.task,
        "score": result.score,
        "interval_95": result.interval,
        "n": result.n,
        "scores": {name: score.record() for name, score in result.scores.items()},
        "counts": dict(counts),
        "seconds": result.seconds,
        **result.provenance,
    }


def _loaded(model: Pair | str | Path, teacher: str | Path | None, device: str | torch.device) -> Pair:
    if not isinstance(model, str | Path):
        return model
    from skd.models.pair import load_pair

    return load_pair(teacher, _student_of(model), device=device)


def _student_of(model: str | Path) -> str | Path:
    """The finished student of a run directory; any other model as it is."""
    student = Path(model) / "student"
    return student if student.is_dir() else model


def _students(pair: Pair, drafters: Drafters) -> dict[str, Pair]:
    """The pairs whose students draft, by what follows the names of their scores."""
    if drafters.before is None:
        return {"": pair}
    from skd.evaluate.drafter import with_student

    return {"": pair, "_before": with_student(pair, _student_of(drafters.before))}

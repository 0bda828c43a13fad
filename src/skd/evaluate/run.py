"""Measuring a model on tasks: responses by our own sampler, scores with intervals, and what is needed to repeat it."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from skd.data.rows import Split
from skd.evaluate.code import Code, EvalPlus, by_hand, write_samples
from skd.evaluate.comet import Comet
from skd.evaluate.engines import Engine, Response, Sampler
from skd.evaluate.extra import Drafters, Extra
from skd.evaluate.grade import open_grader
from skd.evaluate.progress import progress
from skd.evaluate.prompts import Decoding, encoded
from skd.evaluate.ranks import Ranks
from skd.evaluate.samples import Sample, Samples
from skd.evaluate.scores import Finding, Score, item_score
from skd.evaluate.workload import Choice, Workload, workload
from skd.faults import point
from skd.ranks.meeting import require_same
from skd.text import require_writable, shortened, visible
from skd.types import Prompts
from skd.versions import commit, versions

if TYPE_CHECKING:
    from skd.models.pair import Pair

__all__ = ["Decoding", "EvaluationResult", "evaluate", "evaluate_tasks"]

logger = logging.getLogger(__name__)

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
    decoding: Decoding = Decoding(),  # noqa: B008 - a value
    *,
    engine: Literal["skd", "vllm"] = "skd",
    teacher: str | Path | None = None,
    drafters: Drafters = Drafters(),  # noqa: B008 - a value
    comet: Comet | None = None,
    evalplus: EvalPlus | None = None,
    show_progress: bool = False,
    ranks: Ranks = Ranks(),  # noqa: B008 - a value
) -> Iterator[EvaluationResult]:
    """Measure one model on several tasks, loaded once; all of them are checked before that. See ``evaluate``.

    engine: who writes: this package's own sampler, or vLLM (``skd.evaluate.vllm``), which takes no teacher.
    teacher: a model to compare it with, token by token, besides (``skd.evaluate.teacher``).
    drafters: what to measure of it as the teacher's draft model (``skd.evaluate.drafter``).
    evalplus: runs the programs of code tasks; without it they are only written.
    ranks: the processes that share the items, all of which call this; the main one alone writes files, and alone
    measures against the teacher, by COMET and by EvalPlus, once the responses of all tasks are there.

    Raises RemoteError when another of the processes fails, is killed (SKD-P02) or gets stuck (SKD-P03).
    """
    if not ranks.is_main:
        outs, comet, evalplus, show_progress = [None] * len(outs), None, None, False
    with open_grader() as grader:
        with ranks.as_one():
            for out in outs:
                if out is not None:
                    require_writable(out)
            workloads = [workload(choice, grader) for choice in choices]
            if comet is not None:
                comet.require([work for work in workloads if work.task])
            if evalplus is not None:
                evalplus.require(workloads)
            writer, students = _opened(model, teacher if ranks.is_main else None, drafters, engine, decoding, ranks)
            extra = Extra(comet, evalplus, students, drafters)
            all_answered: Iterable[_Answered] = (
                _answered(writer, work, out, decoding, extra, show_progress, ranks)
                for work, out in zip(workloads, outs, strict=True)
            )
            if ranks.size > 1:
                # Nobody waits for what the main process measures alone.
                all_answered = list(all_answered)
        for answered in all_answered:
            yield answered.result(extra, decoding)


@dataclass(frozen=True)
class _Answered:
    """A task whose responses are there and judged."""

    work: Workload
    samples: Sequence[Sample]
    seconds: float
    provenance: dict[str, Any]
    store: Samples
    out: Path | None

    def result(self, extra: Extra, decoding: Decoding) -> EvaluationResult:
        """With all scores; it is written to ``out``."""
        work = self.work
        responses = tuple(str(sample["response"]) for sample in self.samples)
        findings = tuple(dict(sample["finding"]) for sample in self.samples)
        own, added = work.metric.scores(work.rows, responses, findings), extra.scores(work, responses, decoding)
        scores = {**added, **own} if isinstance(work.metric, Code) else {**own, **added}
        result = EvaluationResult(work.name, scores, responses, findings, self.seconds, self.provenance)
        if self.out is not None and isinstance(work.metric, Code):
            _keep_programs(self.out.with_suffix(".evalplus.jsonl"), work, responses, extra)
        self.store.finish([_flat(sample) for sample in self.samples], _summary(result, work.metric.counts(findings)))
        return result


def _answered(
    engine: Engine,
    work: Workload,
    out: Path | None,
    decoding: Decoding,
    extra: Extra,
    show_progress: bool,
    ranks: Ranks,
) -> _Answered:
    settings = {
        "temperature": decoding.temperature,
        **({"seed": decoding.seed} if decoding.temperature else {}),
        "max_new_tokens": work.max_new_tokens,
        "max_prompt_tokens": work.max_prompt_tokens,
        "long_prompts": decoding.long_prompts,
        "stop_strings": list(work.stop_strings),
        "chat": "auto",
        "chat_template": engine.reader.tokenizer.chat_template is not None,
        **engine.settings,
    }
    provenance = {
        "model": engine.model,
        **extra.provenance(),
        "decoding": settings,
        "data": work.data,
        "versions": versions(*work.metric.packages),
        "commit": commit(),
    }
    identity = {key: provenance[key] for key in ("model", "decoding", "data")}
    if ranks.size > 1:
        require_same({"model, task, data or decoding": json.dumps(identity, default=str), "version": str(versions())})
    store = Samples(out, identity)
    started = time.perf_counter()
    samples = _samples(engine, work, decoding, store, show_progress, ranks)
    return _Answered(work, samples, time.perf_counter() - started, provenance, store, out)


def _keep_programs(path: Path, work: Workload, responses: Sequence[str], extra: Extra) -> None:
    write_samples(path, work, responses)
    if extra.evalplus is None:
        command = visible(by_hand(work, path))
        logger.warning("%s: no program was run; --evalplus PROGRAM runs them, and so does: %s", work.name, command)


def _samples(
    engine: Engine, work: Workload, decoding: Decoding, store: Samples, show_progress: bool, ranks: Ranks
) -> list[Sample]:
    """All samples, those of an earlier process first."""
    prompts = encoded(engine.reader, work, decoding)
    samples = ranks.gathered(store.resume())
    with progress(work.name, len(work.rows), len(samples), show_progress) as advance:
        while len(samples) < len(work.rows):
            first = len(samples)
            chunk = range(first, min(first + CHUNKS * decoding.slots * ranks.size, len(work.rows)))
            mine = ranks.share(chunk)
            new = ranks.gathered(_written(engine, work, prompts.select(mine), mine, decoding) if mine else [])
            new.sort(key=lambda sample: int(sample["item"]))
            store.append(new)
            samples += new
            advance(len(samples))
    return samples


def _written(
    engine: Engine, work: Workload, prompts: Prompts, items: Sequence[int], decoding: Decoding
) -> list[Sample]:
    return [
        _judged(work, item, response)
        for item, response in zip(items, engine.write(prompts, work, decoding), strict=True)
    ]


def _judged(work: Workload, item: int, response: Response) -> Sample:
    point("judge")
    row, text = work.rows[item], work.cut(response.text)
    return {
        "item": item,
        "prompt": row.prompt,
        "reference": row.response,
        "response": text,
        "ids": response.ids,
        "truncated": response.truncated,
        "finding": work.metric.judge(row, text),
    }


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


def _opened(
    model: Pair | str | Path,
    teacher: str | Path | None,
    drafters: Drafters,
    engine: Literal["skd", "vllm"],
    decoding: Decoding,
    ranks: Ranks,
) -> tuple[Engine, dict[str, Pair]]:
    """Who writes; and, with a teacher, the pairs whose students draft, by what follows the names of their scores."""
    if engine == "vllm":
        from skd.evaluate.vllm import open_vllm

        assert isinstance(model, str | Path), "vLLM opens models itself"
        return open_vllm(_student_of(model), decoding.slots), {}
    from skd.evaluate.drafter import with_student
    from skd.models.pair import load_pair

    pair = load_pair(teacher, _student_of(model), device=ranks.device) if isinstance(model, str | Path) else model
    students = {} if teacher is None else {"": pair}
    if students and drafters.before is not None:
        students["_before"] = with_student(pair, _student_of(drafters.before))
    return Sampler(pair), students


def _student_of(model: str | Path) -> str | Path:
    """The finished student of a run directory; any other model as it is."""
    student = Path(model) / "student"
    return student if student.is_dir() else model

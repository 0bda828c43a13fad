"""``skd evaluate``: options into choices, results onto the screen."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

from skd.data.rows import Split
from skd.errors import ConfigError, Problem
from skd.evaluate.grade import grade_file
from skd.evaluate.workload import Choice, require_known
from skd.text import visible

__all__ = ["EvaluateOptions", "choices_of", "grade_answers", "measure"]


@dataclass(frozen=True)
class EvaluateOptions:
    """The options as they were given."""

    tasks: str = "number_words"
    """Names with commas between them."""
    data: tuple[str, ...] = ()
    """``FILE`` for a single task, ``TASK=FILE`` for several."""
    size: int | None = None
    split: Split = "test"
    out: Path | None = None
    max_new_tokens: int | None = None
    temperature: float = 0.0
    seed: int = 0
    slots: int = 64
    long_prompts: Literal["error", "truncate_left"] = "error"
    engine: Literal["skd", "vllm"] = "skd"
    teacher: str | None = None
    drafter: bool = False
    drafter_before: str | None = None
    draft_block: int | None = None
    comet: str | None = None
    comet_model: str = "Unbabel/wmt22-comet-da"
    evalplus: str | None = None
    rank_timeout: float = 1800.0


def measure(model: str, options: EvaluateOptions) -> None:
    """Measure a model on all tasks and print a line for every score."""
    choices = choices_of(options)
    require_known(choices)
    _require_fitting(options)
    from skd.evaluate.code import EvalPlus
    from skd.evaluate.comet import Comet
    from skd.evaluate.extra import Drafters
    from skd.evaluate.ranks import Ranks
    from skd.evaluate.run import Decoding, evaluate_tasks

    ranks = Ranks.of_launcher(options.rank_timeout)
    decoding = Decoding(options.temperature, options.seed, options.slots, options.long_prompts)
    comet = None if options.comet is None else Comet(options.comet, options.comet_model)
    timed = options.drafter or options.drafter_before is not None
    results = evaluate_tasks(
        model,
        choices,
        _outs(options.out, choices),
        decoding,
        engine=options.engine,
        teacher=options.teacher,
        drafters=Drafters(options.draft_block or Drafters.block, timed, options.drafter_before),
        comet=comet,
        evalplus=None if options.evalplus is None else EvalPlus(options.evalplus),
        show_progress=True,
        ranks=ranks,
    )
    for result in results:
        if ranks.is_main:
            print(visible("\n".join(result.lines())), flush=True)


def grade_answers(path: Path) -> None:
    """Print one JSON object for each line of a file of answers."""
    for verdict in grade_file(path):
        print(json.dumps(verdict), flush=True)


def choices_of(options: EvaluateOptions) -> list[Choice]:
    """One choice for each task. Raises ConfigError when tasks and files do not fit together."""
    names = [name.strip() for name in options.tasks.split(",") if name.strip()]
    files = _files(names, options.data)
    unknown = [name for name in files if name not in names]
    problems = [
        Problem("SKD-E19", f"--data {name}", f"is for a task that is not among {', '.join(names)}", "add it to --task")
        for name in unknown
    ]
    if not names or len(set(names)) < len(names):
        problems.append(
            Problem("SKD-E19", "--task", f"{options.tasks!r} names a task twice, or none", "name each once")
        )
    if problems:
        raise ConfigError(problems)
    return [
        Choice(name, files.get(name), options.split, options.size, options.seed, options.max_new_tokens)
        for name in names
    ]


def _files(names: Sequence[str], given: Sequence[str]) -> dict[str, str]:
    """The file of each task. A file that belongs to the only task needs no name in front."""
    files: dict[str, str] = {}
    for text in given:
        name, equals, path = text.partition("=")
        if equals and name in names:
            files[name] = path
        elif len(names) == 1 and not files:
            files[names[0]] = text
        else:
            found = f"{text!r} does not say which task it is for"
            raise ConfigError(Problem("SKD-E19", "--data", found, f"write {names[0] if names else 'TASK'}=FILE"))
    return files


def _require_fitting(options: EvaluateOptions) -> None:
    """A draft model drafts for a teacher, in this package's own sampler. Raises ConfigError (SKD-C10, SKD-E15)."""
    drafts = {
        "--drafter": options.drafter,
        "--drafter-before": options.drafter_before,
        "--draft-block": options.draft_block,
    }
    problems = [
        Problem("SKD-C10", name, "is given, and there is no teacher to draft for", "add --teacher MODEL")
        for name, value in drafts.items()
        if value and options.teacher is None
    ]
    if options.engine == "vllm":
        alone = {"--teacher": options.teacher is not None, "WORLD_SIZE": int(os.environ.get("WORLD_SIZE", "1")) > 1}
        problems += [
            Problem("SKD-C10", name, "is given, and vLLM writes alone, in one process", "leave it or --engine out")
            for name, given in alone.items()
            if given
        ]
    if problems:
        raise ConfigError(problems)
    if options.engine == "vllm":
        _require_vllm()


def _require_vllm() -> None:
    """Raises ConfigError (SKD-E15) where vLLM is not installed."""
    if find_spec("vllm") is None:
        found = "vLLM is not installed in this environment"
        remedy = "make one that has both (docs/evaluation.md, vLLM), or leave --engine out"
        raise ConfigError(Problem("SKD-E15", "--engine vllm", found, remedy))


def _outs(out: Path | None, choices: Sequence[Choice]) -> list[Path | None]:
    if out is None or len(choices) == 1:
        return [out] * len(choices)
    if out.suffix:
        found = f"is a file, and there are {len(choices)} tasks"
        raise ConfigError(Problem("SKD-C12", f"--out {out}", found, "name a directory"))
    return [out / f"{_file_name(choice.task)}.jsonl" for choice in choices]


def _file_name(task: str) -> str:
    return "".join(character if character.isalnum() or character in "-_" else "-" for character in Path(task).stem)

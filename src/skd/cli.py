"""The command line: ``skd train | check | plan | generate | evaluate | compare | quickstart | report``.

Nothing heavy is imported before a command needs it, so help and mistakes answer at once.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Sequence
from enum import Enum
from pathlib import Path
from typing import Annotated, TypeVar

import typer

from skd import __version__
from skd.entry import exit_code_of
from skd.errors import ConfigError, Problem
from skd.text import visible

__all__ = ["app", "main"]

app = typer.Typer(
    name="skd",
    help="Distil a large language model into a small one by interleaved sampling.",
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


class Resume(str, Enum):
    """What to do with a run that is already in the output directory."""

    auto = "auto"
    never = "never"
    must = "must"


class Task(str, Enum):
    """Tasks that the package generates and grades itself."""

    number_words = "number_words"
    dialogue = "dialogue"


class LongPrompts(str, Enum):
    """What happens to a prompt above the task's cap in an evaluation."""

    error = "error"
    truncate_left = "truncate_left"


class WritingEngine(str, Enum):
    """Who writes the responses of an evaluation."""

    skd = "skd"
    vllm = "vllm"


class Split(str, Enum):
    """Parts of a task."""

    train = "train"
    validation = "validation"
    test = "test"


def _print_version(wanted: bool) -> None:
    if wanted:
        print(visible(__version__))
        raise typer.Exit


@app.callback(no_args_is_help=True)
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    pass


@app.command()
def train(
    config: Annotated[str | None, typer.Argument(help="YAML file of the run.", show_default=False)] = None,
    overrides: Annotated[
        list[str] | None, typer.Argument(help="Changes to it, such as train.lr=2e-5.", show_default=False)
    ] = None,
    print_config: Annotated[bool, typer.Option("--print-config", help="Print the full config and exit.")] = False,
    list_methods: Annotated[bool, typer.Option("--list-methods", help="Print all methods and exit.")] = False,
    resume: Annotated[Resume, typer.Option(help="Continue a run found in the output directory.")] = Resume.auto,
    allow: Annotated[
        list[str] | None,
        typer.Option(metavar="KEY", help="Resume although KEY has changed since, such as train.lr; repeatable."),
    ] = None,
    profile: Annotated[int, typer.Option(min=0, help="Write a Chrome trace of this many steps.")] = 0,
) -> None:
    """Train a student as a config file says. Any method, plain fine-tuning included."""
    from skd.config import dump_config, methods_table, read_config

    if list_methods:
        print(visible(methods_table(shutil.get_terminal_size((1000, 24)).columns)), end="")
        return
    if config is None:
        raise typer.BadParameter("missing argument 'config', the YAML file of the run")
    reading = read_config(config, overrides or [])
    if print_config:
        print(visible(dump_config(reading.require(), docs=True)), end="")
        return
    from skd.check import check_reading

    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        from skd.ranks.meeting import meet

        # Now, while all are at the same place: the checks may take one of them longer than another.
        meet()
    found = check_reading(reading, allow=allow or ())
    found.require()
    # Loads torch and accelerate, which a mistake need not wait for.
    from skd.train.loop import train as run

    run(reading.require(), resume=resume.value, allow=allow or (), checked=found, profile=profile)


@app.command()
def check(
    config: Annotated[str, typer.Argument(help="YAML file of the run.", show_default=False)],
    overrides: Annotated[
        list[str] | None, typer.Argument(help="Changes to it, such as train.lr=2e-5.", show_default=False)
    ] = None,
    fail_on_leak: Annotated[
        bool, typer.Option("--fail-on-leak", help="A validation prompt that is also trained on is an error.")
    ] = False,
    allow: Annotated[
        list[str] | None, typer.Option(metavar="KEY", help="As for train: a key that may differ from the run's.")
    ] = None,
) -> None:
    """Find what is wrong with a run before anything is spent: all of it at once, and no weight is read."""
    from skd.check import Part, check_reading
    from skd.config import read_config

    def show(part: Part) -> None:
        print(visible("\n".join(part.lines())), flush=True)

    reading = read_config(config, overrides or [])
    found = check_reading(reading, say=show, fail_on_leak=fail_on_leak, allow=allow or ())
    if found.exit_code:
        raise typer.Exit(found.exit_code)
    print(visible(f"ok: {found.summary}"))


@app.command()
def plan(
    config: Annotated[str | None, typer.Argument(help="YAML file of the run.", show_default=False)] = None,
    overrides: Annotated[
        list[str] | None, typer.Argument(help="Changes to it, such as train.batch_size=16.", show_default=False)
    ] = None,
    machine: Annotated[
        str, typer.Option(help="cpu (this one, measured), h100, h200, a100, l4, or a .yaml file; docs/speed.md.")
    ] = "cpu",
    alpha: Annotated[
        float | None, typer.Option(min=0.0, max=1.0, help="Share of the drafts that are kept.", show_default=False)
    ] = None,
    like: Annotated[
        Path | None,
        typer.Option(metavar="RUN", help="Acceptance and lengths as in this run's directory.", show_default=False),
    ] = None,
    response_tokens: Annotated[
        float | None, typer.Option(min=1.0, help="Mean length of a response.", show_default=False)
    ] = None,
    calibrate: Annotated[bool, typer.Option("--calibrate", help="Measure this CPU again.")] = False,
    scale: Annotated[bool, typer.Option("--scale", help="Print the model's table for 1 to 1,024 GPUs.")] = False,
) -> None:
    """Time and memory of a step, part by part, on this or another machine; which knob brings what."""
    from skd.plan.command import PlanOptions, plan_lines

    options = PlanOptions(machine, alpha, like, response_tokens, calibrate, scale)
    for line in plan_lines(config, overrides or [], options):
        print(visible(line))


def _finite(value: float) -> float:
    if value == float("inf"):
        raise typer.BadParameter("inf is not finite")
    return value


def _above_zero(value: float) -> float:
    if value <= 0:
        raise typer.BadParameter(f"{value:g} is not above 0 and at most 1")
    return value


_Temperature = Annotated[float, typer.Option(min=0.0, callback=_finite, help="0 takes the most probable token.")]
_TopP = Annotated[float, typer.Option(min=0.0, max=1.0, callback=_above_zero, help="Probability mass to draw from.")]


@app.command()
def generate(
    context: typer.Context,
    arguments: Annotated[
        list[str], typer.Argument(metavar="PROMPT | [KEY=VALUE]...", help="The prompt; with --config, changes to it.")
    ] = [],  # noqa: B006 - typer reads it, nothing changes it
    teacher: Annotated[str | None, typer.Option(help="Directory, Hub id or builtin:TASK/teacher.")] = None,
    student: Annotated[str | None, typer.Option(help="Directory, Hub id or builtin:TASK/student.")] = None,
    k: Annotated[int, typer.Option(min=1, help="Keep a draft among the teacher's k most probable tokens.")] = 25,
    block: Annotated[
        int | None, typer.Option(min=1, help="Tokens drafted before the teacher looks; follows the acceptance without.")
    ] = None,
    max_new_tokens: Annotated[int, typer.Option(min=1, help="Longest response.")] = 128,
    student_temperature: _Temperature = 0.5,
    student_top_p: _TopP = 0.5,
    teacher_temperature: _Temperature = 0.2,
    teacher_top_p: _TopP = 1.0,
    seed: Annotated[int, typer.Option(min=0, max=2**32 - 1, help="The same seed writes the same response.")] = 0,
    no_color: Annotated[bool, typer.Option("--no-color", help="No colours; so does the variable NO_COLOR.")] = False,
    config: Annotated[str | None, typer.Option(help="Write the responses to the rows of this config file.")] = None,
    to: Annotated[Path | None, typer.Option(help="With --config: the directory to write to.")] = None,
    evidence: Annotated[
        str | None, typer.Option(metavar="top_k=N", help="With --config: store the teacher's N most probable tokens.")
    ] = None,
) -> None:
    """Watch the interleaving, each token in the colour of its author; or, with --config, write responses to files."""
    given = [name for name in context.params if str(context.get_parameter_source(name)).endswith("COMMANDLINE")]
    if config is not None:
        _refuse_options(given, allowed=("arguments", "config", "to", "evidence"), form="with --config")
        _generate_files(config, arguments, _required(to, "--to"), evidence)
        return
    _refuse_options(given, allowed=[name for name in context.params if name not in ("to", "evidence")], form="alone")
    if len(arguments) > 1:
        raise _usage(f"Got unexpected extra argument ({arguments[1]})", "quote a prompt of several words")
    from skd.live import GenerateOptions
    from skd.live import generate as run

    prompt = _required(next(iter(arguments), None), "PROMPT")
    teacher, student = _required(teacher, "--teacher"), _required(student, "--student")
    options = GenerateOptions(
        k=k,
        block=block,
        max_new_tokens=max_new_tokens,
        student_temperature=student_temperature,
        student_top_p=student_top_p,
        teacher_temperature=teacher_temperature,
        teacher_top_p=teacher_top_p,
        seed=seed,
    )
    run(teacher, student, prompt, options, no_color=no_color)


def _generate_files(config: str, overrides: list[str], to: Path, evidence: str | None) -> None:
    from skd.config import load_config

    top_k = None if evidence is None else _top_k(evidence)
    run_config = load_config(config, overrides)
    from skd.generate import generate_responses

    index = generate_responses(run_config, to, top_k)
    kept = "no evidence" if index.top_k is None else f"the teacher's {index.top_k} most probable tokens at each"
    print(visible(f"{to}: {index.num_responses} responses, {index.num_tokens} tokens, {kept}, {index.num_bytes} bytes"))


def _top_k(evidence: str) -> int:
    """N of ``top_k=N``."""
    key, _, number = evidence.partition("=")
    if key != "top_k" or not (number.isascii() and number.isdigit() and 0 < int(number) < 2**31):
        raise _usage(f"Invalid value for '--evidence': {evidence!r}", "write for example top_k=64")
    return int(number)


_Given = TypeVar("_Given")


def _required(value: _Given | None, name: str) -> _Given:
    if value is None:
        kind = "option" if name.startswith("-") else "argument"
        raise _usage(f"Missing {kind} '{name}'", "see skd generate --help")
    return value


def _refuse_options(given: Sequence[str], allowed: Sequence[str], form: str) -> None:
    """The two forms of ``generate`` share no option: one that would do nothing is a mistake."""
    idle = [f"--{name.replace('_', '-')}" for name in given if name not in allowed]
    if idle and form == "alone":
        raise _usage(f"{idle[0]} is given without --config", f"add --config FILE, or leave {idle[0]} out")
    if idle:
        remedy = "write it as a change of the config, such as sampling.max_new_tokens=64, or leave --config out"
        raise _usage(f"{idle[0]} is given with --config, which says it itself", remedy)


def _usage(found: str, remedy: str) -> ConfigError:
    return ConfigError(Problem("SKD-L01", "skd generate", found, remedy))


@app.command()
def evaluate(
    model: Annotated[
        str | None, typer.Argument(help="Model directory, run directory or Hub id.", show_default=False)
    ] = None,
    task: Annotated[
        str,
        typer.Option(
            help="What to measure: number_words, dialogue, toy_translation, sums, or with --data gsm8k, dialogsum, "
            "translation, math, humaneval, mbpp, translation:German-English, a task file; several with commas."
        ),
    ] = "number_words",
    data: Annotated[
        list[str] | None, typer.Option(help="File of the rows; TASK=FILE where there are several.", show_default=False)
    ] = None,
    size: Annotated[
        int | None, typer.Option(min=1, help="Number of prompts; 1000, or the whole file.", show_default=False)
    ] = None,
    split: Annotated[Split, typer.Option(help="Part of a generated task.")] = Split.test,
    out: Annotated[
        Path | None, typer.Option(help="Write the samples to this .jsonl file, scores beside; a directory for several.")
    ] = None,
    max_new_tokens: Annotated[
        int | None, typer.Option(min=1, help="Longest response; the task's own.", show_default=False)
    ] = None,
    temperature: _Temperature = 0.0,
    seed: Annotated[int, typer.Option(min=0, max=2**32 - 1, help="Rows of generated tasks, draws.")] = 0,
    slots: Annotated[int, typer.Option(min=1, help="Responses written at once.")] = 64,
    long_prompts: Annotated[LongPrompts, typer.Option(help="Prompts above the task's cap.")] = LongPrompts.error,
    engine: Annotated[
        WritingEngine, typer.Option(help="Who writes the responses; vllm needs an environment with vLLM.")
    ] = WritingEngine.skd,
    teacher: Annotated[
        str | None, typer.Option(help="Also compare with this model, token by token.", show_default=False)
    ] = None,
    drafter: Annotated[
        bool, typer.Option("--drafter", help="Time the model as the teacher's draft model, against the teacher alone.")
    ] = False,
    drafter_before: Annotated[
        str | None, typer.Option(help="The same for the student before its training.", show_default=False)
    ] = None,
    draft_block: Annotated[
        int | None, typer.Option(min=1, help="Tokens drafted before the teacher looks; 5.", show_default=False)
    ] = None,
    comet: Annotated[
        str | None, typer.Option(help="Program comet-score, for translations.", show_default=False)
    ] = None,
    comet_model: Annotated[str, typer.Option(help="COMET model: Hub id or checkpoint.")] = "Unbabel/wmt22-comet-da",
    evalplus: Annotated[
        str | None,
        typer.Option(help="Program evalplus.evaluate: RUNS the generated programs.", show_default=False),
    ] = None,
    rank_timeout: Annotated[
        float, typer.Option(min=1, help="Of several processes: seconds without progress after which one is stuck.")
    ] = 1800.0,
    grade: Annotated[
        Path | None,
        typer.Option(help="Only judge the answers of this file against their references.", show_default=False),
    ] = None,
) -> None:
    """Measure a model on tasks, with 95 % intervals; or, with --grade, judge answers that are there already."""
    from skd.evaluate.command import EvaluateOptions, grade_answers, measure

    if grade is not None:
        if model is not None:
            raise typer.BadParameter("--grade judges answers that are there already; leave the model out")
        grade_answers(grade)
        return
    if model is None:
        raise typer.BadParameter("name a model, or answers to judge by --grade FILE")
    measure(
        model,
        EvaluateOptions(
            tasks=task,
            data=tuple(data or ()),
            size=size,
            split=split.value,
            out=out,
            max_new_tokens=max_new_tokens,
            temperature=temperature,
            seed=seed,
            slots=slots,
            long_prompts=long_prompts.value,
            engine=engine.value,
            teacher=teacher,
            drafter=drafter,
            drafter_before=drafter_before,
            draft_block=draft_block,
            comet=comet,
            comet_model=comet_model,
            evalplus=evalplus,
            rank_timeout=rank_timeout,
        ),
    )


@app.command()
def compare(
    plan: Annotated[str, typer.Argument(help="YAML file of the comparison; docs/compare.md.", show_default=False)],
    overrides: Annotated[
        list[str] | None, typer.Argument(help="Changes to it, such as base.train.max_steps=200.", show_default=False)
    ] = None,
    status: Annotated[bool, typer.Option("--status", help="Print which cells are done or stale; run nothing.")] = False,
    redo: Annotated[bool, typer.Option("--redo", help="Run stale cells again; the old ones are kept aside.")] = False,
    report: Annotated[bool, typer.Option("--report", help="Tables and page of what is finished; run nothing.")] = False,
) -> None:
    """Methods x seeds x settings from one student: paired tests, one table, one page. The same command goes on."""
    from skd.compare import compare as run
    from skd.compare import show_states

    if status:
        show_states(plan, overrides or [])
        return
    run(plan, overrides or [], redo=redo, only_report=report)


@app.command()
def quickstart(
    out: Annotated[Path, typer.Option(help="Directory of the results.")] = Path("runs/quickstart"),
    task: Annotated[Task, typer.Option(help="Which pair and task.")] = Task.number_words,
) -> None:
    """The whole story on this machine: four methods, one table, one page."""
    from skd.quickstart import run

    run(out, task.value)


@app.command()
def report(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN...", help="Directories of runs.", show_default=False)],
    out: Annotated[
        Path | None,
        typer.Option(help="The page; RUN/report.html of one run, report.html of several.", show_default=False),
    ] = None,
) -> None:
    """Write the HTML page of a run, or of several side by side."""
    from skd.report import write

    print(visible(str(write(runs, out))))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run ``skd`` with ``arguments`` (those of the process when None) and return the exit code."""
    return exit_code_of(lambda: _invoke(list(sys.argv[1:] if arguments is None else arguments)))


def _invoke(arguments: list[str]) -> int:
    """Run the command; unlike typer's own main it leaves every exception to the caller."""
    command = typer.main.get_command(app)
    try:
        with command.make_context("skd", arguments) as context:
            command.invoke(context)
    except typer.Exit as leave:
        return leave.exit_code
    return 0

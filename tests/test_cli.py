"""The command line as its user meets it: exit codes, messages, and which function gets which values."""

import os
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import skd.check
import skd.compare
import skd.evaluate.command
import skd.live
import skd.quickstart
import skd.report
import skd.train.loop
from skd.check import Checked
from skd.cli import main
from skd.config import load_config
from skd.errors import CheckpointError, ModelError, Problem
from skd.evaluate.command import EvaluateOptions
from skd.live import GenerateOptions

Output = Callable[[], tuple[str, str]]

CHECKED = Checked((), None, None, "")
CONFIG = "method: sft\nstudent: s\ndata: {train: rows.json}\n"


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of a valid config file in the current directory."""
    monkeypatch.chdir(tmp_path)
    Path("train.yaml").write_text(CONFIG)
    return "train.yaml"


@pytest.fixture
def output(capsys: pytest.CaptureFixture[str]) -> Output:
    """output() is (stdout, stderr) so far."""

    def read() -> tuple[str, str]:
        captured = capsys.readouterr()
        return captured.out, captured.err

    return read


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, tuple[Any, ...], dict[str, Any]]]:
    """What the functions behind the commands were called with: (name, positional, keywords)."""
    record: list[tuple[str, tuple[Any, ...], dict[str, Any]]] = []

    def recorder(name: str, result: object = None) -> Callable[..., object]:
        def call(*args: Any, **kwargs: Any) -> object:
            record.append((name, args, kwargs))
            return result

        return call

    monkeypatch.setattr(skd.train.loop, "train", recorder("train"))
    monkeypatch.setattr(skd.check, "check_reading", lambda reading, allow: CHECKED)
    monkeypatch.setattr(skd.evaluate.command, "measure", recorder("measure"))
    monkeypatch.setattr(skd.evaluate.command, "grade_answers", recorder("grade"))
    monkeypatch.setattr(skd.compare, "compare", recorder("compare"))
    monkeypatch.setattr(skd.compare, "show_states", recorder("states"))
    monkeypatch.setattr(skd.quickstart, "run", recorder("quickstart"), raising=False)
    monkeypatch.setattr(skd.report, "write", recorder("report", Path("runs/x/report.html")), raising=False)
    monkeypatch.setattr(skd.live, "generate", recorder("generate"))
    return record


def test_train_gets_the_checked_config(config: str, calls: list[Any]) -> None:
    assert main(["train", config, "train.lr=2e-5", "output=runs/y", "--resume", "must"]) == 0
    ((name, args, kwargs),) = calls
    assert name == "train"
    assert args == (load_config(config, ["train.lr=2e-5", "output=runs/y"]),)
    assert kwargs == {"resume": "must", "allow": (), "checked": CHECKED, "profile": 0}


def test_print_config_prints_a_file_that_can_be_used(config: str, calls: list[Any], output: Output) -> None:
    assert main(["train", config, "train.seed=7", "--print-config"]) == 0
    text, errors = output()
    assert not calls
    assert not errors
    Path("printed.yaml").write_text(text)
    assert load_config("printed.yaml") == load_config(config, ["train.seed=7"])
    assert "seed: 7  # Seed of everything random in the run; null" in text


def test_generate_passes_its_options(calls: list[Any]) -> None:
    arguments = "generate --teacher a --student b --k 7 --block 3 --max-new-tokens 9 --student-temperature 0"
    arguments += " --student-top-p 0.9 --teacher-temperature 1 --teacher-top-p 0.8 --seed 4 --no-color"
    assert main([*arguments.split(), "two words"]) == 0
    options = GenerateOptions(7, 3, 9, 0.0, 0.9, 1.0, 0.8, 4)
    assert calls == [("generate", ("a", "b", "two words", options), {"no_color": True})]


def test_generates_defaults_are_the_papers(calls: list[Any]) -> None:
    assert main(["generate", "--teacher", "a", "--student", "b", "p"]) == 0
    assert calls == [("generate", ("a", "b", "p", GenerateOptions()), {"no_color": False})]


def test_compare_passes_its_options(calls: list[Any]) -> None:
    assert main(["compare", "plan.yaml"]) == 0
    assert main(["compare", "plan.yaml", "seeds=[0]", "--redo"]) == 0
    assert main(["compare", "plan.yaml", "--report"]) == 0
    assert main(["compare", "plan.yaml", "--status"]) == 0
    assert calls == [
        ("compare", ("plan.yaml", []), {"redo": False, "only_report": False}),
        ("compare", ("plan.yaml", ["seeds=[0]"]), {"redo": True, "only_report": False}),
        ("compare", ("plan.yaml", []), {"redo": False, "only_report": True}),
        ("states", ("plan.yaml", []), {}),
    ]


def test_evaluate_passes_its_options(calls: list[Any]) -> None:
    arguments = "evaluate m --task gsm8k,math --data gsm8k=g.json --data math=m.json --size 5 --split validation"
    arguments += " --out o --max-new-tokens 9 --temperature 0.5 --seed 3 --slots 2 --long-prompts truncate_left"
    drafter = "--drafter --drafter-before b --draft-block 4"
    assert main(f"{arguments} --engine vllm {drafter} --teacher t --comet c --comet-model M --evalplus e".split()) == 0
    options = EvaluateOptions(
        "gsm8k,math",
        ("gsm8k=g.json", "math=m.json"),
        5,
        "validation",
        Path("o"),
        9,
        0.5,
        3,
        2,
        "truncate_left",
        "vllm",
        "t",
        drafter=True,
        drafter_before="b",
        draft_block=4,
        comet="c",
        comet_model="M",
        evalplus="e",
    )
    assert calls == [("measure", ("m", options), {})]


def test_evaluate_and_quickstart_defaults(calls: list[Any]) -> None:
    assert main(["evaluate", "m"]) == 0
    assert main(["quickstart"]) == 0
    assert calls == [
        ("measure", ("m", EvaluateOptions()), {}),
        ("quickstart", (Path("runs/quickstart"), "number_words"), {}),
    ]


def test_grading_needs_no_model(calls: list[Any], output: Output) -> None:
    assert main(["evaluate", "--grade", "answers.jsonl"]) == 0
    assert calls == [("grade", (Path("answers.jsonl"),), {})]
    assert main(["evaluate", "m", "--grade", "answers.jsonl"]) == 2
    assert main(["evaluate"]) == 2
    assert "leave the model out" in output()[1]


def test_report_says_where_the_page_is(calls: list[Any], output: Output) -> None:
    assert main(["report", "runs/x"]) == 0
    assert main(["report", "a", "b", "--out", "c.html"]) == 0
    assert [arguments for _, arguments, _ in calls] == [
        ([Path("runs/x")], None),
        ([Path("a"), Path("b")], Path("c.html")),
    ]
    assert output() == (f"{Path('runs/x/report.html')}\n" * 2, "")


USAGE = [
    ("trian x", "error[SKD-L01] skd: No such command 'trian'. Did you mean 'train'?; see skd --help"),
    (
        "train",
        "error[SKD-L01] skd train: Invalid value: missing argument 'config', the YAML file of the run; "
        "see skd train --help",
    ),
    ("train x --print-confg", "No such option: --print-confg (Possible options: --print-config); see skd train --help"),
    ("train x --train.lr=3", "No such option: --train.lr; write a change of the config without dashes: train.lr=VALUE"),
    ("train x --resume maybe", "'maybe' is not one of 'auto', 'never', 'must'; see skd train --help"),
    ("evaluate x --split tset", "'train', 'validation', 'test'; did you mean test?"),
    ("evaluate x --size 0", "Invalid value for '--size'"),
    ("evaluate x --size many", "Invalid value for '--size'"),
    ("generate p --teacher a", "error[SKD-L01] skd generate: Missing option '--student'"),
    ("generate p --teacher a --student b --k 0", "Invalid value for '--k'"),
    ("generate p --teacher a --student b --student-top-p 1.5", "Invalid value for '--student-top-p'"),
    ("generate p --teacher a --student b --student-top-p 0", "'--student-top-p': 0 is not above 0 and at most 1; see"),
    ("generate p --teacher a --student b --teacher-temperature inf", "'--teacher-temperature': inf is not finite; see"),
    ("generate", "error[SKD-L01] skd generate: Missing argument 'PROMPT'; see skd generate --help"),
    ("generate a b --teacher t --student s", "Got unexpected extra argument (b); quote a prompt of several words"),
    ("generate p --to d", "--to is given without --config; add --config FILE, or leave --to out"),
    ("generate p --evidence top_k=3", "--evidence is given without --config; add --config FILE"),
    ("generate --config c", "error[SKD-L01] skd generate: Missing option '--to'"),
    ("generate --config c --to d --teacher t", "--teacher is given with --config, which says it itself; write it as"),
    ("generate --config c --to d --max-new-tokens 128", "--max-new-tokens is given with --config"),
    ("generate --config c --to d --evidence 64", "Invalid value for '--evidence': '64'; write for example top_k=64"),
    ("generate --config c --to d --evidence top_k=0", "Invalid value for '--evidence': 'top_k=0'"),
    ("report", "error[SKD-L01] skd report: Missing argument 'RUN...'"),
]


@pytest.mark.parametrize(("arguments", "message"), USAGE)
def test_usage_mistakes(arguments: str, message: str, calls: list[Any], output: Output) -> None:
    assert main(arguments.split()) == 2
    text, errors = output()
    assert message in errors
    assert errors.count("\n") == 1
    assert not text
    assert not calls


def test_config_mistakes_are_one_line_each(config: str, calls: list[Any], output: Output) -> None:
    assert main(["train", config, "train.lr=0", "train.keep=yes", "--print-config"]) == 2
    _, errors = output()
    assert errors == (
        "error[SKD-C07] --override train.lr: train.lr is 0, expected a number above 0 and at most 1; "
        "write for example train.lr: 1e-05\n"
        "error[SKD-C06] --override train.keep: train.keep is the boolean yes, expected a whole number; "
        "write for example train.keep: 2\n"
    )
    assert not calls


def failing(error: BaseException) -> Callable[..., None]:
    def call(*args: object, **kwargs: object) -> None:
        raise error

    return call


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ModelError(Problem("SKD-M01", "t", "is missing\x1b[2J", "check it")), 4),
        (CheckpointError(Problem("SKD-K01", "t", "is cut", "remove it")), 5),
    ],
)
def test_errors_of_ours_are_printed_with_their_exit_code(
    error: Exception, code: int, monkeypatch: pytest.MonkeyPatch, output: Output
) -> None:
    monkeypatch.setattr(skd.live, "generate", failing(error))
    assert main(["generate", "--teacher", "a", "--student", "b", "p"]) == code
    _, errors = output()
    assert errors == str(error).replace("\x1b", "\\x1b") + "\n"


def test_control_c_is_130_without_a_word(monkeypatch: pytest.MonkeyPatch, output: Output) -> None:
    monkeypatch.setattr(skd.live, "generate", failing(KeyboardInterrupt()))
    assert main(["generate", "--teacher", "a", "--student", "b", "p"]) == 130
    assert output() == ("", "")


def test_an_unexpected_fault_is_one_line_and_a_file(
    monkeypatch: pytest.MonkeyPatch, output: Output, tmp_path: Path
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr(skd.live, "generate", failing(ZeroDivisionError("by\x1b zero")))
    assert main(["generate", "--teacher", "a", "--student", "b", "p"]) == 70
    (log,) = tmp_path.glob("skd-traceback-*.log")
    text, errors = output()
    assert errors == (
        "error[SKD-70] unexpected ZeroDivisionError: by\\x1b zero; "
        f"this is a fault of skd: please report it with {log}\n"
    )
    assert not text
    assert "ZeroDivisionError" in log.read_text()
    assert "failing" in log.read_text() or "call" in log.read_text()


def test_no_arguments_show_the_help(output: Output) -> None:
    assert main([]) == 2
    assert "quickstart" in output()[1]


@pytest.mark.parametrize("command", ["", "train", "generate", "evaluate", "quickstart", "report"])
def test_help_of_every_command(command: str, output: Output) -> None:
    assert main([*command.split(), "--help"]) == 0
    text, errors = output()
    assert text.startswith(f"Usage: skd {command}".rstrip())
    assert not errors


def test_version(output: Output) -> None:
    assert main(["--version"]) == 0
    assert output()[0] == f"{skd.__version__}\n"


def python_m_skd(*arguments: str, **environment: str) -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, "-m", "skd", *arguments]
    return subprocess.run(command, capture_output=True, timeout=120, env={**os.environ, **environment}, check=False)


def test_python_m_skd_is_the_command(config: str) -> None:
    result = python_m_skd("train", config, "method=sdk")
    assert result.returncode == 2
    assert result.stderr.startswith(b"error[SKD-C05] --override method: method is the text ")
    assert not result.stdout


def test_a_closed_pipe_is_silent(config: str) -> None:
    read, write = os.pipe()
    os.close(read)
    command = [sys.executable, "-m", "skd", "train", config, "--print-config"]
    result = subprocess.run(command, stdout=write, stderr=subprocess.PIPE, timeout=120, check=False)
    os.close(write)
    assert (result.returncode, result.stderr) == (141, b"")


def test_a_reader_who_leaves_generate_is_no_fault() -> None:
    pair = ["--teacher", "builtin:number_words/teacher", "--student", "builtin:number_words/student"]
    read, write = os.pipe()
    os.close(read)
    command = [sys.executable, "-m", "skd", "generate", *pair, "two ="]
    result = subprocess.run(command, stdout=write, stderr=subprocess.PIPE, timeout=120, check=False)
    os.close(write)
    assert (result.returncode, result.stderr) == (141, b"")


def test_a_full_disk_behind_standard_output_is_an_error(config: str) -> None:
    with open("/dev/full", "w") as full:
        command = [sys.executable, "-m", "skd", "train", config, "--print-config"]
        result = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, timeout=120, check=False)
    text = (
        b"error[SKD-H09] standard output: cannot be written (No space left on device); free space, or write elsewhere\n"
    )
    assert (result.returncode, result.stderr) == (8, text)


@pytest.mark.parametrize(
    ("arguments", "code"), [("train train.yaml --print-config", 0), ("train nowhere.yaml", 2), ("--help", 0)]
)
@pytest.mark.parametrize("streams", [">&-", "2>&-", ">&- 2>&-", "2>/dev/full", "<&-"])
def test_closed_or_full_streams_do_not_change_the_exit_code(
    config: str, arguments: str, code: int, streams: str
) -> None:
    command = f"exec {shlex.quote(sys.executable)} -m skd {arguments} {streams}"
    result = subprocess.run(["sh", "-c", command], capture_output=True, timeout=120, check=False)
    assert result.returncode == code
    assert b"SKD-70" not in result.stdout + result.stderr


def test_an_encoding_without_the_character_shows_an_escape(config: str) -> None:
    result = python_m_skd("train", config, "output=ß€", "--print-config", PYTHONIOENCODING="ascii")
    assert result.returncode == 0
    assert b"output: \\xdf\\u20ac" in result.stdout


def test_help_and_mistakes_load_nothing_heavy(config: str) -> None:
    script = (
        "import sys\nfrom skd.cli import main\n"
        f"codes = [main(['--help']), main(['trian']), main(['train', {config!r}, '--print-config'])]\n"
        "heavy = {'torch', 'transformers', 'datasets', 'accelerate'} & set(sys.modules)\n"
        "sys.exit(0 if codes == [0, 2, 0] and not heavy else 1)"
    )
    assert subprocess.run([sys.executable, "-c", script], capture_output=True, timeout=120, check=False).returncode == 0


def test_list_methods_has_a_line_for_every_method_and_needs_no_config(capsys, monkeypatch):
    from skd.config import METHODS

    monkeypatch.setenv("COLUMNS", "240")
    assert main(["train", "--list-methods"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == ["method", *METHODS]
    assert "interleaved (interpolated)" in next(line for line in lines if line.startswith("ipd "))


def test_list_methods_fits_a_narrow_terminal(capsys, monkeypatch):
    from skd.config import METHODS

    monkeypatch.setenv("COLUMNS", "80")
    assert main(["train", "--list-methods"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[::3]] == list(METHODS)
    assert "                interleaved (top_k), forward_kl" in lines
    too_long = [line for line in lines if len(line) > 80 and "https://" not in line]
    assert not too_long


def test_train_without_a_config_says_what_is_missing(capsys):
    assert main(["train"]) == 2
    assert "missing argument 'config'" in capsys.readouterr().err

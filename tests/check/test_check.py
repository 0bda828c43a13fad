"""The check as a whole: a right run, several faults at once, warnings, resources, and the start of a training run."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from transformers import AutoTokenizer

import skd.check.run
import skd.model_files
from skd.check import check
from skd.check.environment import Machine, size_text
from skd.cli import main
from skd.config import load_config
from skd.errors import ConfigError, DataError, ModelError
from skd.train import train
from tests.check.bench import GOOD_ROWS, Bench, row
from tests.check.conftest import Outcome
from tests.data.test_chat import CHATML, THINKING

Look = Callable[..., Outcome]


def test_a_right_run_is_told_part_by_part(bench: Bench, look: Look) -> None:
    outcome = look("run.yaml")
    assert outcome.exit == 0, outcome.out
    assert not outcome.messages
    lines = outcome.out.splitlines()
    names = ["output", "data", "environment", "student", "teacher", "tokenizer", "prompts", "resources"]
    assert [line.split()[:2] for line in lines[:-1]] == [[name, "ok"] for name in names]
    assert lines[-1] == "ok: skd: 2 steps of 4 prompts, 1 passes over 8, at most 64 response tokens"
    for text in ("8 training rows; 3 validation rows", "6,736 parameters", "context 64", "stop ids 1 '</s>'"):
        assert text in outcome.out
    assert "longest prompt 2 tokens, longest response 3" in outcome.out
    assert "two checkpoints need 158 KiB" in outcome.out


def test_nothing_is_written(bench: Bench, look: Look) -> None:
    before = sorted(bench.root.rglob("*"))
    look("run.yaml")
    assert sorted(bench.root.rglob("*")) == before


def test_no_problem_hides_another(bench: Bench, look: Look) -> None:
    bench.rows(*GOOD_ROWS, row("t2 " * 20))
    bench.json("teacher/config.json", auto_map={})
    (bench.root / "validation.jsonl").unlink()
    outcome = look("run.yaml", "output=run.yaml", "student.attention=flash_attention_2", "train.precision=bf16")
    assert outcome.exit == 2
    codes = [message["code"] for message in outcome.messages]
    assert codes == ["SKD-C12", "SKD-D01", "SKD-M11", "SKD-M20", "SKD-D08"]


def test_the_exit_code_is_that_of_the_gravest(bench: Bench, look: Look) -> None:
    bench.json("teacher/config.json", auto_map={})
    assert look("run.yaml").exit == 4
    (bench.root / "validation.jsonl").unlink()
    assert look("run.yaml").exit == 3


WARNINGS: dict[str, tuple[Callable[[Bench], object], str, str]] = {
    "leak": (
        lambda b: b.rows(GOOD_ROWS[2], row("t50"), name="validation.jsonl"),
        "warning[SKD-D07] data.validation: 1 of 2 rows are training rows too, first row 0, which is training row 2; "
        "take them out of one of the two",
        "",
    ),
    "one model": (
        lambda b: None,
        "warning[SKD-M19] teacher: is the student, too (student), so the two agree before the first step; name another "
        "teacher, unless this is meant",
        "teacher=student",
    ),
    "the student as its own teacher": (
        lambda b: None,
        "warning[SKD-M19] teacher: is the student itself and reads the same prompts, so the two agree at every step; "
        "write data.teacher_prompt, or teacher: {kind: average}, unless this is meant",
        "teacher={kind: student}",
    ),
    "thinking template": (
        lambda b: b.template(THINKING),
        "warning[SKD-M09] data.chat: the chat template writes a finished turn otherwise than it opens one; nothing "
        "need be done: responses are appended to the opened turn as they are",
        "",
    ),
    "output among the data": (
        lambda b: None,
        "warning[SKD-C12] output '.': is the directory of data.train; files of the run would stand among the data; "
        "choose an output of its own",
        "output=.",
    ),
}


@pytest.mark.parametrize("name", WARNINGS)
def test_what_a_run_may_go_on_with_is_a_warning(name: str, bench: Bench, look: Look) -> None:
    damage, message, override = WARNINGS[name]
    damage(bench)
    overrides = [override] if override else []
    if name == "output among the data":
        overrides += ["teacher=builtin:number_words/teacher", "student=builtin:number_words/student"]
        bench.rows(*[row(f"two times {n}") for n in ("one", "two", "three", "four")])
        overrides += ["data.validation=null"]
    outcome = look("run.yaml", *overrides)
    assert outcome.exit == 0, outcome.out
    assert [match.group().strip() for match in outcome.messages] == [message]


RECOVERED: dict[str, tuple[Callable[[Bench], object], list[str]]] = {
    "rows that repeat": (lambda b: b.rows(*GOOD_ROWS, GOOD_ROWS[0], row("t2 t3", "t9")), []),
    "byte order mark": (
        lambda b: b.rows(*[b"\xef\xbb\xbf" + b'{"prompt": "t2", "response": "t3"}'] * 1, *GOOD_ROWS),
        [],
    ),
    "long prompts skipped": (lambda b: b.rows(*GOOD_ROWS, row("t2 " * 20)), ["data.on_long_prompt=skip"]),
    "shards": (lambda b: b.shards(), []),
    "chat template": (lambda b: b.template(CHATML), []),
    "unsavable generation config": (
        lambda b: b.json("student/generation_config.json", temperature=0.7, do_sample=False),
        [],
    ),
    "no generation config": (lambda b: (b.student / "generation_config.json").unlink(), []),
    "end token a list": (lambda b: b.json("student/generation_config.json", eos_token_id=[1, 5]), []),
    "no teacher": (lambda b: None, ["teacher=null", "method=sft"]),
    "a file of pickle beside": (lambda b: (b.student / "training_args.bin").write_bytes(b"\x80"), []),
}


@pytest.mark.parametrize("name", RECOVERED)
def test_what_is_handled_is_no_problem(name: str, bench: Bench, look: Look) -> None:
    damage, overrides = RECOVERED[name]
    damage(bench)
    outcome = look("run.yaml", *overrides)
    assert outcome.exit == 0, outcome.out
    assert not outcome.messages


def test_repeated_rows_are_counted(bench: Bench, look: Look) -> None:
    bench.rows(*GOOD_ROWS, GOOD_ROWS[0], row("t2 t3", "t9"))
    assert "(1 equal an earlier row, 1 repeat its prompt with another response)" in look("run.yaml").out


def test_all_stop_ids_are_shown(bench: Bench, look: Look) -> None:
    bench.json("student/generation_config.json", eos_token_id=[1, 5])
    assert "stop ids 1 '</s>', 5 't5'" in look("run.yaml").out


def test_no_pad_token_is_needed(bench: Bench, look: Look) -> None:
    for model in ("student", "teacher"):
        bench.json(f"{model}/tokenizer_config.json", pad_token=...)
        bench.json(f"{model}/config.json", pad_token_id=...)
        bench.json(f"{model}/generation_config.json", pad_token_id=...)
    assert AutoTokenizer.from_pretrained(bench.student, trust_remote_code=False).pad_token is None
    assert look("run.yaml").exit == 0
    assert main(["train", "run.yaml", "train.trackers=[]"]) == 0


def test_a_full_disk_is_found_before_the_run(bench: Bench, look: Look, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("skd.check.output.shutil.disk_usage", lambda path: SimpleNamespace(free=1000))
    outcome = look("run.yaml")
    assert outcome.exit == 8
    assert "error[SKD-K03] runs/x: two checkpoints need 161,664 bytes, and 1,000 bytes are free; free" in outcome.out


def test_a_directory_without_rights_is_found(bench: Bench, look: Look, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("skd.check.output.os.access", lambda path, mode: not mode & os.W_OK)
    outcome = look("run.yaml")
    assert outcome.exit == 8
    assert "error[SKD-K04] output 'runs/x': there is no right to write to" in outcome.out


def test_too_little_memory_for_what_is_estimated_is_a_warning(
    bench: Bench, look: Look, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(skd.check.run, "machine", lambda: Machine((), None, 300_000))
    outcome = look("run.yaml")
    assert outcome.exit == 0
    (message,) = outcome.messages
    assert message["code"] == "SKD-M22"
    assert "and 293 KiB of memory are free; lower train.micro_batch_tokens" in message["text"]


def test_a_package_that_is_too_old_is_named(bench: Bench, look: Look, monkeypatch: pytest.MonkeyPatch) -> None:
    real = skd.check.environment.version
    monkeypatch.setattr("skd.check.environment.version", lambda name: "5.2.9" if name == "transformers" else real(name))
    outcome = look("run.yaml")
    assert outcome.exit == 4
    line = "error[SKD-M12] package transformers: is 5.2.9; 5.3 or newer is needed; run pip install"
    assert line in outcome.out


def test_a_student_that_cannot_be_saved_is_found(bench: Bench, look: Look, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: Any, **options: Any) -> None:
        raise ValueError("the vocabulary cannot be written")

    monkeypatch.setattr("transformers.PreTrainedTokenizerFast.save_pretrained", refuse)
    outcome = look("run.yaml")
    assert outcome.exit == 4
    assert "error[SKD-M17] student: the student's tokenizer cannot be saved, so the export would fail: " in outcome.out


def test_a_header_is_all_that_is_read_of_a_weights_file(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    reads: list[int] = []
    path = bench.student / "model.safetensors"
    length = int.from_bytes(path.read_bytes()[:8], "little")
    real = Path.open

    def counting(self: Path, *arguments: Any, **options: Any) -> Any:
        file = real(self, *arguments, **options)
        if self != path:
            return file
        assert options["buffering"] == 0  # a buffer would read ahead
        return _Counting(file, reads)

    monkeypatch.setattr(Path, "open", counting)
    skd.model_files.stored_tensors("student", "student", bench.student)
    assert reads == [8, length]


class _Counting:
    def __init__(self, file: Any, reads: list[int]) -> None:
        self._file, self._reads = file, reads

    def read(self, size: int) -> bytes:
        data: bytes = self._file.read(size)
        self._reads.append(len(data))
        return data

    def __enter__(self) -> _Counting:
        return self

    def __exit__(self, *error: object) -> None:
        self._file.close()


def test_faults_of_files_are_said_before_torch_is_loaded(bench: Bench) -> None:
    """The first parts need no torch, and neither does the check itself."""
    script = (
        "import sys\nfrom skd.check import check\nfrom skd.config import load_config\n"
        "def say(part):\n    if part.errors: print(part.name, 'torch' in sys.modules)\n"
        "check(load_config('run.yaml', ['output=run.yaml', 'student=./x', 'data.train=x']), say=say)"
    )
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120, check=True)
    assert result.stdout.splitlines() == ["output False", "data False", "student False"]


def test_train_starts_with_the_same_check(bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    bench.rows(*GOOD_ROWS, row("t2 " * 20))
    bench.json("teacher/config.json", auto_map={})
    assert main(["train", "run.yaml"]) == 3
    errors = capsys.readouterr().err
    assert [line[:14] for line in errors.splitlines()] == ["error[SKD-D08]", "error[SKD-M11]"]
    assert not (bench.root / "runs").exists()
    with pytest.raises(DataError):
        train("run.yaml", display=False)


def test_train_uses_what_the_check_has_read(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows are read and encoded once: the files can go as soon as the check is done."""
    config = load_config("run.yaml", ["train.trackers=[]"])
    found = check(config)
    found.require()
    (bench.root / "train.jsonl").unlink()
    (bench.root / "validation.jsonl").unlink()
    assert train(config, checked=found, display=False).step == 2


def test_given_models_and_prompts_are_not_looked_for(bench: Bench) -> None:
    config = load_config("run.yaml", ["student=./nowhere", "data.train=nowhere.jsonl", "data.validation=null"])
    assert check(config, rows=False, models=False).exit_code == 0
    assert check(config, rows=False).exit_code == 4
    assert check(config, models=False).exit_code == 3


def test_errors_of_several_kinds_travel_as_the_gravest(bench: Bench) -> None:
    config = load_config("run.yaml", ["student=./nowhere", "output=run.yaml"])
    with pytest.raises(ConfigError) as caught:
        check(config).require()
    assert [problem.code for problem in caught.value.problems] == ["SKD-C12", "SKD-M14"]
    with pytest.raises(ModelError):
        check(load_config("run.yaml", ["student=./nowhere"])).require()


@pytest.mark.parametrize(
    ("number", "text"), [(0, "0 bytes"), (1023, "1023 bytes"), (1536, "1.5 KiB"), (2**40 * 3, "3.0 TiB")]
)
def test_sizes_are_written_short(number: int, text: str) -> None:
    assert size_text(number) == text

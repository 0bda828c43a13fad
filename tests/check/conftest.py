"""A bench for every test, and a watch over weight files."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import pytest
import safetensors
import safetensors.torch

import skd.files
import skd.model_files
from skd.cli import main
from tests.check.bench import Bench, Fault, build, save_models

_opened: list[tuple[str, str]] | None = None
"""(weight file, function that opened it) while a test watches."""
_WEIGHTS = re.compile(r"\.(safetensors|bin|pt|pth)$")
MESSAGE = re.compile(r" *(error|warning)\[(?P<code>SKD-[A-Z]\d\d)\] (?P<place>.+?): (?P<text>.+; .+)")


def _watch(event: str, arguments: tuple[Any, ...]) -> None:
    if event == "open" and _opened is not None and _WEIGHTS.search(str(arguments[0])):
        frame: Any = sys._getframe(1)
        while frame is not None and "skd" not in Path(frame.f_code.co_filename).parts:
            frame = frame.f_back
        _opened.append((str(arguments[0]), frame.f_code.co_name if frame else "?"))


sys.addaudithook(_watch)


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_models(tmp_path_factory.mktemp("models"))


@pytest.fixture
def bench(models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    monkeypatch.chdir(tmp_path)
    return build(models, tmp_path)


@dataclass(frozen=True)
class Outcome:
    """What ``skd check`` printed and returned."""

    exit: int
    out: str

    @property
    def messages(self) -> list[re.Match[str]]:
        """The lines of form ``error[CODE] place: found; remedy``; a problem of another form fails the test."""
        lines = [line for line in self.out.splitlines() if re.match(r" *(error|warning)\[", line)]
        found = [MESSAGE.fullmatch(line) for line in lines]
        assert None not in found, lines
        return [match for match in found if match is not None]

    def assert_told(self, fault: Fault) -> None:
        """The message of the fault is there with all its parts, and no more problems than belong to it."""
        assert self.exit == fault.exit, self.out
        matching = [
            message
            for message in self.messages
            if message["code"] == f"SKD-{fault.code}"
            and fault.place in message["place"]
            and fault.found in message["text"]
            and fault.remedy in message["text"].partition(fault.found)[2]
        ]
        assert matching, self.out
        assert len(self.messages) == 1 + fault.others, self.out


@pytest.fixture
def look(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Outcome]:
    """look(*arguments): the outcome of ``skd check``; fails when a weight file is read beyond its header.

    Where the output has a run, a few blocks are read to tell whether its models are still the same.
    """

    def refuse(*arguments: Any, **options: Any) -> NoReturn:
        raise AssertionError("weights were opened by the library of safetensors")

    def run(*arguments: str) -> Outcome:
        global _opened
        _opened = []
        try:
            with monkeypatch.context() as patch:
                # Native code opens files unseen by the hook above.
                patch.setattr(safetensors, "safe_open", refuse)
                patch.setattr(safetensors.torch, "load_file", refuse)
                patch.setattr("transformers.modeling_utils.safe_open", refuse)
                code = main(["check", *arguments])
        finally:
            opened, _opened = _opened, None
        allowed = {skd.model_files._header.__name__}
        if list(Path("runs").glob("*/checkpoints/step-*")):
            allowed |= {skd.files.directory_digest.__name__, skd.files._sample.__name__}
        assert {function for _, function in opened} <= allowed, opened
        captured = capsys.readouterr()
        return Outcome(code, captured.out + captured.err)

    return run

"""Keys planted in the environment and in a config are in no file that a run leaves, no output and no process list."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from skd.errors import ConfigError
from skd.train import loop
from trust.child import Child, start, train
from trust.tally import Bench, Tally
from trust.toy import MODES

__all__ = ["canaries"]

VARIABLES = ("HF_TOKEN", "WANDB_API_KEY", "SKD_TEACHER_TOKEN", "OPENAI_API_KEY", "AWS_SECRET_ACCESS_KEY")


def canaries(bench: Bench) -> Tally:
    """A run and its report; a run that meets a fault of ours; a config that holds a key."""
    tally = Tally()
    keys = {name: f"hf_{bench.random.getrandbits(160):040x}" for name in VARIABLES}

    def plant() -> None:
        os.environ.update(keys)
        os.environ["TMPDIR"] = os.getcwd()  # where a traceback is written

    def broken() -> None:
        plant()

        def fail(*arguments: object) -> None:
            raise RuntimeError("a fault of ours")

        vars(loop)["train_step"] = fail

    for mode in MODES:
        directory = bench.room / mode
        child = train(directory, bench.toy.config(mode), prepare=plant)
        listed = _listed(child, keys)
        ended = child.wait()
        report = start(directory / "report", ["report", "../run"], prepare=plant).wait()
        wrong = [f"exit codes {ended.code} and {report.code}"] if ended.code or report.code else []
        _search(tally, "runs with their report", directory, keys, [*wrong, *listed])
    directory = bench.room / "fault"
    ended = train(directory, bench.toy.config("skd"), prepare=broken).wait()
    _search(tally, "faults of ours", directory, keys, [] if ended.code == 70 else [f"exit code {ended.code}"])
    for name, key in keys.items():
        _refused(bench, tally, name, key)
    return tally


def _refused(bench: Bench, tally: Tally, name: str, key: str) -> None:
    """The config holds the key itself, so it is taken away before the search."""
    directory = bench.room / f"config-{name}"
    ended = train(directory, {**bench.toy.config("skd"), name.lower(): key}).wait()
    (directory / "run.yaml").unlink()
    wrong = [] if ended.code == ConfigError.exit_code and "error[SKD-C11]" in ended.output else [ended.output]
    _search(tally, "configs that hold a key", directory, {name: key}, wrong)


def _listed(child: Child, keys: dict[str, str]) -> list[str]:
    """What the process list shows of the keys while a run is under way, where there is a /proc."""
    command = Path(f"/proc/{child.pid}/cmdline")
    text = command.read_text(errors="replace") if command.exists() else ""
    return [f"{name} is in the process list" for name, key in keys.items() if key in text]


def _search(tally: Tally, kind: str, directory: Path, keys: dict[str, str], wrong: list[str]) -> None:
    found = [f"{name} is in {path}" for path in _files(directory) for name, key in keys.items() if _holds(path, key)]
    tally.note(kind, *wrong, *found)
    tally.counts["files searched"] += sum(1 for _ in _files(directory))
    tally.counts["canaries"] += len(keys)


def _holds(path: Path, key: str) -> bool:
    return key.encode() in path.read_bytes()


def _files(directory: Path) -> Iterator[Path]:
    return (path for path in directory.rglob("*") if path.is_file())

"""Damaged checkpoints: none is loaded with other values, each is refused by name, and an older whole one is used."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import torch

from skd.errors import CheckpointError
from skd.train.checkpoint import TrainState, load
from skd.train.directory import latest_whole
from trust.child import fork, train
from trust.ends import differences
from trust.tally import Bench, Tally
from trust.toy import SAVE_EVERY, STEPS

__all__ = ["mutations"]

MODE = "data_set"
BATCH = 50
"""Mutations per child."""
WHOLE_RUNS_PER = 50
"""One mutation in so many is followed by a whole resumed run."""
NEWEST, OLDER = f"step-{STEPS}", f"step-{STEPS - SAVE_EVERY}"

Files = dict[str, bytes]
Tensors = dict[str, torch.Tensor]
Mutation = Callable[[Path, Random], None]


def _flip(path: Path, random: Random) -> None:
    data = bytearray(path.read_bytes())
    data[random.randrange(len(data))] ^= 1 << random.randrange(8)
    path.write_bytes(data)


def _set(path: Path, random: Random) -> None:
    data = bytearray(path.read_bytes())
    data[random.randrange(len(data))] = random.randrange(256)
    path.write_bytes(data)


def _digit(path: Path, random: Random) -> None:
    """One digit of a text becomes another; in a binary file any byte."""
    data = bytearray(path.read_bytes())
    digits = [i for i, byte in enumerate(data) if chr(byte).isdigit()] if path.suffix != ".safetensors" else []
    data[random.choice(digits or range(len(data)))] = ord(random.choice("0123456789"))
    path.write_bytes(data)


def _insert(path: Path, random: Random) -> None:
    data, at = path.read_bytes(), random.randrange(path.stat().st_size + 1)
    path.write_bytes(data[:at] + bytes([random.randrange(256)]) + data[at:])


def _truncate(path: Path, random: Random) -> None:
    os.truncate(path, random.randrange(path.stat().st_size))


def _zero(path: Path, random: Random) -> None:
    """A page of zeros, as after a crash of the file system."""
    data = path.read_bytes()
    at = random.randrange(len(data)) // 4096 * 4096
    path.write_bytes(data[:at] + bytes(min(4096, len(data) - at)) + data[at + 4096 :])


def _delete(path: Path, random: Random) -> None:
    path.unlink()


def _swap(path: Path, random: Random) -> None:
    """With another file, of this checkpoint or of its neighbour."""
    own = [other for other in path.parent.iterdir() if other != path and other.is_file()]
    beside = path.parent.parent / (OLDER if path.parent.name == NEWEST else NEWEST) / path.name
    other = random.choice([*own, *([beside] if beside.is_file() else [])])
    mine, others = path.read_bytes(), other.read_bytes()
    path.write_bytes(others)
    other.write_bytes(mine)


def _link(path: Path, random: Random) -> None:
    elsewhere = path.parent.parent.parent / "elsewhere"
    shutil.copy(path, elsewhere)
    path.unlink()
    path.symlink_to(elsewhere)


MUTATIONS: tuple[Mutation, ...] = (_flip, _flip, _set, _digit, _insert, _truncate, _zero, _delete, _swap, _link)


@dataclass(frozen=True)
class Subject:
    """A run with two whole checkpoints, and what they hold."""

    run_dir: Path
    files: Mapping[str, Files]
    values: Mapping[str, tuple[Any, ...]]

    @staticmethod
    def of(run_dir: Path) -> Subject:
        checkpoints = {name: run_dir / "checkpoints" / name for name in (NEWEST, OLDER)}
        return Subject(
            run_dir,
            {name: _files(path) for name, path in checkpoints.items()},
            {name: _copied(load(path)) for name, path in checkpoints.items()},
        )

    def restore(self) -> None:
        """Put both checkpoints back as they were."""
        for name, files in self.files.items():
            directory = self.run_dir / "checkpoints" / name
            shutil.rmtree(directory, ignore_errors=True)
            directory.mkdir()
            for file, data in files.items():
                (directory / file).write_bytes(data)

    def harmed(self) -> list[str]:
        """The names of the checkpoints that are not as they were, the newest first."""
        return [name for name in self.files if _files(self.run_dir / "checkpoints" / name) != self.files[name]]

    def judge(self) -> str | None:
        """What is wrong with the answer to the directory as it is now."""
        harmed = self.harmed()
        try:
            found, refused = latest_whole(self.run_dir)
        except CheckpointError as error:
            missing = [name for name in self.files if name not in str(error)]
            return None if len(harmed) == 2 and not missing else f"{harmed} harmed, and: {error}"
        if found is None or found.name in harmed:
            return f"{harmed} harmed, {found} was taken"
        if [refusal.name for refusal in refused] != [name for name in harmed if name > found.name]:
            return f"{harmed} harmed, refused were {refused}"
        return None if _equal(load(found), self.values[found.name]) else f"{found.name} holds other values"


def _copied(values: tuple[TrainState, Tensors, Tensors]) -> tuple[TrainState, Tensors, Tensors]:
    """Not backed by the file, which is about to be harmed."""
    state, *tensors = values
    weights, moments = ({name: tensor.clone() for name, tensor in part.items()} for part in tensors)
    return state, weights, moments


def _files(directory: Path) -> Files:
    return {
        path.name: path.read_bytes() + b"a link" * path.is_symlink() for path in directory.iterdir() if path.is_file()
    }


def _equal(found: tuple[Any, ...], expected: tuple[Any, ...]) -> bool:
    if found[0] != expected[0]:
        return False
    return all(
        ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in theirs)
        for ours, theirs in zip(found[1:], expected[1:], strict=True)
    )


def mutations(bench: Bench) -> Tally:
    """Mutate, load, compare; some of them with a whole run behind."""
    tally = Tally()
    for start in range(0, bench.size.mutations, BATCH):
        _batch(bench, tally, min(BATCH, bench.size.mutations - start))
    for number in range(max(bench.size.mutations // WHOLE_RUNS_PER, 3)):
        _whole_run(bench, tally, bench.room / str(number))
    return tally


def _batch(bench: Bench, tally: Tally, count: int) -> None:
    directory = bench.room / "batch"
    shutil.rmtree(directory, ignore_errors=True)
    shutil.copytree(bench.wholes[MODE].directory / "run", directory / "run")
    seed = bench.random.random()

    def work() -> None:
        subject, random = Subject.of(Path("run")), Random(seed)
        with open("results.jsonl", "w") as results:
            for _ in range(count):
                named = _mutate(subject.run_dir, random)
                while not subject.harmed():  # such as a byte set to what it was
                    named = _mutate(subject.run_dir, random)
                results.write(json.dumps([named, subject.judge()]) + "\n")
                subject.restore()

    ended = fork(work, directory).wait()
    results = [json.loads(line) for line in (directory / "results.jsonl").read_text().splitlines()]
    for named, complaint in results:
        tally.note("checkpoints harmed", *([complaint] if complaint else []))
        tally.counts["mutations"] += 1
        if complaint:
            tally.failures[-1] += f" ({named})"
    if ended.code or len(results) != count:
        tally.note("batches that broke", f"exit code {ended.code}: {ended.output[-500:]}")


def _mutate(run_dir: Path, random: Random) -> str:
    """Harm the newest checkpoint, in one case of five the older one too; returns what was done."""
    done = []
    for name in (NEWEST, OLDER)[: 1 + (random.random() < 0.2)]:
        mutation = random.choice(MUTATIONS)
        path = random.choice(sorted(path for path in (run_dir / "checkpoints" / name).iterdir() if path.is_file()))
        if path.stat().st_size:
            mutation(path, random)
        done.append(f"{mutation.__name__} {name}/{path.name}")
    return ", ".join(done)


def _whole_run(bench: Bench, tally: Tally, directory: Path) -> None:
    """Harm the newest checkpoint and resume: the older one is named, and the end is that of the uninterrupted run."""
    shutil.copytree(bench.wholes[MODE].directory, directory)
    shutil.rmtree(directory / "run" / "student")
    newest = directory / "run" / "checkpoints" / NEWEST
    _flip(bench.random.choice(sorted(newest.iterdir())), bench.random)
    ended = train(directory, bench.toy.config(MODE)).wait()
    complaints = [] if f"{NEWEST} was refused" in ended.output else ["the refusal is not said"]
    if f"resuming from {OLDER}" not in ended.output or ended.code:
        complaints.append(f"exit code {ended.code}: {ended.output[-500:]}")
    tally.note("whole runs after it", *complaints, *differences(directory / "run", bench.wholes[MODE].end))

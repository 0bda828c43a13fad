"""The output directory: whether it can be written, has room, and is not in the way of what the run reads."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path

from skd.check.environment import size_text
from skd.check.models import Roles
from skd.check.report import Part
from skd.config import AverageTeacher, DataConfig, RunConfig
from skd.config.paths import BUILTIN
from skd.errors import ConfigError, Problem, ResourceError

__all__ = ["check_disk", "check_output", "paths_read"]

_OURS = ("student", "checkpoints")
"""Directories of a run that a save or the export replaces."""


def check_output(part: Part, output: str, read: Mapping[str, str]) -> None:
    """Errors: a path that is none, a file in its way (SKD-C12), what a run would replace (SKD-C12), no right to write
    (SKD-K04). Nothing is made or written. ``read`` has the paths that the run reads, by their key."""
    place = f"output {output!r}"
    try:
        os.stat(output)
    except (FileNotFoundError, NotADirectoryError):
        pass
    except OSError as error:
        part.errors.append(_misplaced(place, f"is no usable path ({error.strerror})", "write another output"))
        return
    target = Path(os.path.realpath(output))
    above = _existing(target)
    if not above.is_dir():
        part.errors.append(_misplaced(place, f"leads through {above}, which is a file", "write another output"))
    elif not os.access(above, os.W_OK | os.X_OK):
        found, remedy = f"there is no right to write to {above}", "choose another output, or change its permissions"
        part.errors.append(ResourceError(Problem("SKD-K04", place, found, remedy)))
    else:
        part.facts.append(f"{output} can be written")
    for key, path in read.items():
        _check_neighbour(part, place, target, key, Path(os.path.realpath(path)))


def _existing(path: Path) -> Path:
    """The path, or the nearest one above it that is there."""
    while not os.path.exists(path):
        path = path.parent
    return path


def paths_read(models: Roles, data: DataConfig | None) -> Mapping[str, str]:
    """Local paths that a run reads, by their key."""
    paths = {key: model.path for key, model in models.items() if not model.path.startswith(BUILTIN)}
    train, validation = (data.train, data.validation or ()) if data is not None else ((), ())
    for key, sources in (("data.train", train), ("data.validation", validation)):
        files = [source.path for source in sources if source.kind == "file"]
        paths |= {key if number == 0 else f"{key}.{number}": path for number, path in enumerate(files)}
    return {key: path for key, path in paths.items() if os.path.exists(path)}


def _check_neighbour(part: Part, place: str, target: Path, key: str, path: Path) -> None:
    replaced = next((name for name in _OURS if path.is_relative_to(target / name)), None)
    if replaced is not None:
        found = f"the run would replace {replaced} in it, and {key} lies there"
        part.errors.append(_misplaced(place, found, "choose another output, or move what is read"))
    elif path.is_dir() and target.is_relative_to(path):
        found = f"lies in the directory of {key}, which would hold the run's files, too"
        part.errors.append(_misplaced(place, found, "choose an output outside it"))
    elif path.is_file() and target == path.parent:
        found = f"is the directory of {key}; files of the run would stand among the data"
        part.warnings.append(Problem("SKD-C12", place, found, "choose an output of its own"))


def _misplaced(place: str, found: str, remedy: str) -> ConfigError:
    return ConfigError(Problem("SKD-C12", place, found, remedy))


def check_disk(part: Part, config: RunConfig, num_parameters: int) -> None:
    """Room for two checkpoints, since the new one is whole before the old one goes (SKD-K03)."""
    # Float32 tensors per weight: itself, AdamW's two moments, and the average where that is the teacher.
    tensors, output = 3 + isinstance(config.teacher, AverageTeacher), config.output
    needed = 2 * tensors * 4 * num_parameters
    free = shutil.disk_usage(_existing(Path(os.path.realpath(output)))).free
    part.facts.append(f"two checkpoints need {size_text(needed)}, {size_text(free)} are free")
    if free < needed:
        found = f"two checkpoints need {needed:,} bytes, and {free:,} bytes are free"
        part.errors.append(ResourceError(Problem("SKD-K03", output, found, "free space or choose another output")))

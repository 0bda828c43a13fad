"""The samples of an evaluation as JSON Lines: appended while it runs, so that one which was killed goes on.

``OUT.partial`` grows batch by batch; its first line says which evaluation it belongs to. At the end ``OUT`` and
``OUT`` with the suffix ``.summary.json`` are written whole, and the partial file goes.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from skd.errors import ConfigError, Problem, ResourceError
from skd.text import write_text

__all__ = ["Samples"]

logger = logging.getLogger(__name__)

Sample = dict[str, Any]


class Samples:
    """Where an evaluation keeps its samples. ``out`` None keeps none."""

    def __init__(self, out: Path | None, identity: Mapping[str, Any]) -> None:
        """``identity``: whatever the samples depend on; a file of another evaluation is not continued."""
        self._out = out
        self._partial = None if out is None else out.with_name(out.name + ".partial")
        text = json.dumps(identity, sort_keys=True, default=str)
        self._digest = hashlib.sha256(text.encode()).hexdigest()

    def resume(self) -> list[Sample]:
        """Samples that an earlier, unfinished process left, in order; the file is then ready to be appended to.

        What follows a damaged line is answered again. Raises ConfigError (SKD-E16) when they are another evaluation's.
        """
        if self._partial is None:
            return []
        try:
            lines = self._partial.read_bytes().split(b"\n")[:-1]
        except FileNotFoundError:
            lines = []
        if lines and _object(lines[0]) != {"evaluation": self._digest}:
            found = "holds samples of another evaluation: model, task, data or decoding differ"
            raise ConfigError(Problem("SKD-E16", str(self._partial), found, "remove it, or write to another file"))
        samples = _whole(lines[1:])
        if left := len(lines[1:]) - len(samples):
            logger.warning("%s: line %d is damaged; %d samples are made again", self._partial, len(samples) + 2, left)
        # A line that a kill cut off has no end and is dropped, so that the next one starts a line of its own.
        write_text(self._partial, "".join(map(self._line, [{"evaluation": self._digest}, *samples])))
        return samples

    def append(self, samples: Sequence[Sample]) -> None:
        """Add samples, durably. Raises ResourceError when the disk is full."""
        if self._partial is None:
            return
        try:
            with open(self._partial, "a", encoding="utf-8", newline="\n") as file:
                file.writelines(map(self._line, samples))
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            found = f"cannot be written ({error.strerror})"
            raise ResourceError(Problem("SKD-H09", str(self._partial), found, "free space and start again")) from error

    def finish(self, samples: Sequence[Sample], summary: Mapping[str, Any]) -> None:
        """Write both files whole; the partial one goes."""
        if self._out is None or self._partial is None:
            return
        write_text(self._out, "".join(map(self._line, samples)))
        write_text(self._out.with_suffix(".summary.json"), json.dumps(summary, indent=2) + "\n")
        with contextlib.suppress(OSError):
            self._partial.unlink()

    @staticmethod
    def _line(sample: Mapping[str, Any]) -> str:
        return json.dumps(sample) + "\n"


def _whole(lines: Sequence[bytes]) -> list[Sample]:
    """The samples of items 0, 1, 2 ... up to the first line that is not the next one's."""
    samples: list[Sample] = []
    for number, line in enumerate(lines):
        sample = _object(line)
        if sample.get("item") != number or not isinstance(sample.get("finding"), dict) or not sample["finding"]:
            break
        samples.append(sample)
    return samples


def _object(line: bytes) -> Sample:
    """The JSON object of a line; an empty one for anything else."""
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}

"""COMET through unbabel-comet's own command, which lives in an environment of its own.

unbabel-comet 2.2.7 needs transformers below 5 and numpy below 2, and its checkpoints are pickled, so it can neither be
installed beside this package nor be loaded by it. ``comet-score`` of that other environment reads three text files and
writes a JSON file: https://github.com/Unbabel/COMET.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from skd.errors import ConfigError, Problem, SkdError
from skd.evaluate.scores import Score, mean_score
from skd.evaluate.workload import Workload

__all__ = ["Comet"]

_HOW = (
    "make an environment for it: python -m venv comet && comet/bin/pip install unbabel-comet; "
    "then pass --comet comet/bin/comet-score"
)
_SECONDS = 6 * 3600


@dataclass(frozen=True)
class Comet:
    """``command``: the program ``comet-score``. ``model``: a Hub id, or the path of a checkpoint."""

    command: str
    model: str = "Unbabel/wmt22-comet-da"

    def applies(self, work: Workload) -> bool:
        """Whether a task is a translation."""
        return work.task is not None and work.task.metric == "translation"

    def require(self, works: Sequence[Workload]) -> None:
        """Raises ConfigError (SKD-E15) when there is no such program, or nothing for it to measure."""
        if shutil.which(self.command) is None:
            found = f"{self.command!r} is no program that can be run"
            raise ConfigError(Problem("SKD-E15", "comet", found, _HOW))
        if not any(self.applies(work) for work in works):
            found = "COMET measures translations, and no task is one"
            raise ConfigError(Problem("SKD-C10", "comet", found, "leave --comet out"))

    def score(self, work: Workload, responses: Sequence[str]) -> Score:
        """The mean of the sentences' scores. Raises SkdError (SKD-E15) when the command fails."""
        assert work.task is not None
        texts = {
            "sources": [work.task.source_of(row.prompt) for row in work.rows],
            "translations": list(responses),
            "references": [row.response or "" for row in work.rows],
        }
        with tempfile.TemporaryDirectory(prefix="skd-comet-") as folder:
            values = self._run(Path(folder), texts)
        if len(values) != len(responses):
            raise self._failed(f"gave {len(values)} scores for {len(responses)} translations")
        return mean_score(values, is_share=False, signature=f"comet|model:{self.model}")

    def _run(self, folder: Path, texts: dict[str, list[str]]) -> list[float]:
        paths = {name: folder / f"{name}.txt" for name in texts}
        for name, lines in texts.items():
            # One line for each sentence, whatever stands in it.
            text = "".join(f"{' '.join(line.split())}\n" for line in lines)
            paths[name].write_text(text, encoding="utf-8", errors="replace")
        out = folder / "scores.json"
        command = [self.command, "--sources", str(paths["sources"]), "--translations", str(paths["translations"])]
        command += ["--references", str(paths["references"]), "--model", self.model, "--to_json", str(out)]
        command += ["--quiet", "--only_system", "--gpus", str(_gpus())]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=_SECONDS, stdin=subprocess.DEVNULL)
            segments = json.loads(out.read_text(encoding="utf-8")) if done.returncode == 0 else {}
        except (OSError, ValueError, subprocess.TimeoutExpired) as error:
            raise self._failed(f"{type(error).__name__}: {error}") from error
        if done.returncode:
            raise self._failed((done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1])
        return [float(segment["COMET"]) for segments_of_file in segments.values() for segment in segments_of_file]

    def _failed(self, found: str) -> SkdError:
        return SkdError(Problem("SKD-E15", f"comet {self.command}", found, "run it by hand to see what it needs"))


def _gpus() -> int:
    import torch

    return 1 if torch.cuda.is_available() else 0

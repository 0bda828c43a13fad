"""Programs as answers: what of a response is the program, and EvalPlus, which alone runs it.

EvalPlus 0.3.1 (Liu et al., 2023, arXiv 2305.01210; https://github.com/evalplus/evalplus) pins libraries that this
package has in other versions, so it lives in an environment of its own. It runs each program in a process with limits,
which is no wall against a hostile one; nothing is run unless its command is named by the user.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from skd.data.rows import Row
from skd.errors import ConfigError, DataError, Problem, SkdError
from skd.evaluate.scores import Finding, Score, share_score
from skd.text import write_text

if TYPE_CHECKING:
    from skd.evaluate.workload import Workload

__all__ = ["Code", "EvalPlus", "by_hand", "write_samples"]

_HOW = (
    "make an environment for it: python -m venv evalplus && evalplus/bin/pip install evalplus; "
    "then pass --evalplus evalplus/bin/evalplus.evaluate, which runs the generated programs"
)
_FIELDS = ("task_id", "prompt", "canonical_solution", "entry_point", "base_input", "plus_input", "contract", "atol")
_FENCE = re.compile(r"```[^\n`]*\n(.*?)(?:\n```|\Z)", re.DOTALL)
_KEPT_VARIABLES = ("PATH", "LANG", "SYSTEMROOT", "EVALPLUS_MAX_MEMORY_BYTES", "EVALPLUS_TIMEOUT_PER_TASK")
"""Of the environment: a generated program sees no key."""
_SECONDS = 6 * 3600


@dataclass(frozen=True)
class Code:
    """Looks for a program in a response. Whether it is right, only ``EvalPlus`` says."""

    completes: bool = False
    """The response goes on where the prompt ends, instead of being an answer with a block of code in it."""
    packages: tuple[str, ...] = ()

    def solution(self, row: Row, response: str) -> str:
        """The whole program: the first fenced block, or the prompt and what follows it."""
        if self.completes:
            return row.prompt + response
        block = _FENCE.search(response)
        return response if block is None else block.group(1) + "\n"

    def judge(self, row: Row, response: str) -> Finding:
        """Whether there is a program, and which."""
        found = bool(response.strip()) if self.completes else _FENCE.search(response) is not None
        return {"has_code": found, "solution": self.solution(row, response)}

    def scores(self, rows: Sequence[Row], responses: Sequence[str], findings: Sequence[Finding]) -> dict[str, Score]:
        """The share of responses with a program in them."""
        return {"has_code": share_score([bool(finding["has_code"]) for finding in findings])}

    def counts(self, findings: Sequence[Finding]) -> dict[str, int]:
        """Nothing beside."""
        return {}


@dataclass(frozen=True)
class EvalPlus:
    """``command``: the program ``evalplus.evaluate``."""

    command: str

    def applies(self, work: Workload) -> bool:
        """Whether the answers are programs."""
        return isinstance(work.metric, Code)

    def require(self, works: Sequence[Workload]) -> None:
        """Raises ConfigError (SKD-E15, SKD-C10) without the program or a task for it, DataError (SKD-D04)."""
        if shutil.which(self.command) is None:
            raise ConfigError(Problem("SKD-E15", "--evalplus", f"{self.command!r} is no program that can be run", _HOW))
        if not any(self.applies(work) for work in works):
            found = "EvalPlus runs programs, and no task asks for one"
            raise ConfigError(Problem("SKD-C10", "--evalplus", found, "leave it out"))
        for work in works:
            if self.applies(work):
                _problems(work)

    def scores(self, work: Workload, responses: Sequence[str]) -> dict[str, Score]:
        """pass_at_1_plus: programs that pass all tests; pass_at_1_base: those of the original benchmark.

        Raises SkdError (SKD-E15) when EvalPlus fails.
        """
        problems = _problems(work)
        with tempfile.TemporaryDirectory(prefix="skd-evalplus-") as folder:
            found = self._run(Path(folder), work, problems, responses)
        rows = [found["eval"][problem["task_id"]][0] for problem in problems]
        base = [row["base_status"] == "pass" for row in rows]
        plus = [both and row["plus_status"] == "pass" for both, row in zip(base, rows, strict=True)]
        signature = f"evalplus|problems:{found['hash']}"
        return {
            "pass_at_1_plus": share_score(plus, signature=signature),
            "pass_at_1_base": share_score(base, signature=signature),
        }

    def _run(
        self, folder: Path, work: Workload, problems: Sequence[dict[str, Any]], responses: Sequence[str]
    ) -> dict[str, Any]:
        """What EvalPlus wrote about all programs."""
        samples, given = folder / "samples.jsonl", folder / "problems.jsonl"
        write_samples(samples, work, responses)
        write_text(given, _lines(problems))
        environment = {name: os.environ[name] for name in _KEPT_VARIABLES if name in os.environ}
        # Its cache holds pickles, so that it is a new one every time.
        environment |= {"HOME": str(folder), "XDG_CACHE_HOME": str(folder), _override(work): str(given)}
        # It runs in a folder of its own, from which a relative path would lead elsewhere.
        program = os.path.abspath(shutil.which(self.command) or self.command)
        command = [program, "--dataset", _dataset(work), "--samples", str(samples)]
        try:
            done = subprocess.run(
                command,
                cwd=folder,
                env=environment,
                capture_output=True,
                text=True,
                timeout=_SECONDS,
                stdin=subprocess.DEVNULL,
            )
            if done.returncode:
                raise self._failed((done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1])
            found: dict[str, Any] = json.loads((folder / "samples_eval_results.json").read_text(encoding="utf-8"))
        except (OSError, ValueError, subprocess.TimeoutExpired) as error:
            raise self._failed(f"{type(error).__name__}: {error}") from error
        return found

    def _failed(self, found: str) -> SkdError:
        return SkdError(Problem("SKD-E15", f"evalplus {self.command}", found, "run it by hand to see what it needs"))


def write_samples(path: Path, work: Workload, responses: Sequence[str]) -> None:
    """One line for each program, with the name of its problem, as EvalPlus reads them."""
    assert isinstance(work.metric, Code)
    solutions = [work.metric.solution(row, response) for row, response in zip(work.rows, responses, strict=True)]
    samples = [
        {"task_id": problem["task_id"], "solution": solution}
        for problem, solution in zip(_problems(work), solutions, strict=True)
    ]
    write_text(path, _lines(samples))


def by_hand(work: Workload, samples: Path) -> str:
    """The command that runs and scores the programs in ``samples``."""
    return f"{_override(work)}={work.data['path']} evalplus.evaluate --dataset {_dataset(work)} --samples {samples}"


def _dataset(work: Workload) -> str:
    return work.name.removesuffix("_bare")


def _override(work: Workload) -> str:
    return f"{_dataset(work).upper()}_OVERRIDE_PATH"


def _lines(records: Sequence[dict[str, Any]]) -> str:
    return "".join(json.dumps(record) + "\n" for record in records)


def _problems(work: Workload) -> list[dict[str, Any]]:
    """The problems of a workload's rows. Raises DataError (SKD-D04) for a file that EvalPlus could not use."""
    path = str(work.data["path"])
    try:
        records = [json.loads(line) for line in Path(path).read_text(encoding="utf-8").splitlines() if line.strip()]
    except ValueError as error:
        remedy = "use EvalPlus's own file, such as HumanEvalPlus.jsonl"
        raise DataError(Problem("SKD-D04", path, "is not JSON Lines", remedy)) from error
    missing = [
        Problem("SKD-D04", f"{path}, problem {number}", f"has no {name}", "use EvalPlus's own file")
        for number, record in enumerate(records[: len(work.rows)])
        for name in _FIELDS
        if name not in record
    ]
    if missing:
        raise DataError(missing)
    return records[: len(work.rows)]

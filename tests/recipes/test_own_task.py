"""Tasks of one's own as docs/evaluation.md shows them: at most 15 lines, trained on and measured by name."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from skd import cli

PAGE = (Path(__file__).parents[2] / "docs" / "evaluation.md").read_text(encoding="utf-8")
SECTION = PAGE.partition("\n## Own tasks\n")[2].partition("\n## ")[0]
ROWS = [{"question": f"How many {n}?", "tables": "t", "query": f"SELECT {n}"} for n in range(4)]


@pytest.mark.parametrize(("language", "suffix"), [("yaml", "yaml"), ("python", "py")])
def test_a_task_from_the_page_goes_from_training_to_a_score(
    language: str, suffix: str, models: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (text,) = re.findall(rf"^```{language}\n(.*?)^```$", SECTION, re.MULTILINE | re.DOTALL)
    assert len(text.splitlines()) <= 15
    task = f"sql.{suffix}"
    Path(task).write_text(text, encoding="utf-8")
    Path("rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS), encoding="utf-8")
    places = models("qwen2")
    run = {
        "teacher": str(places / "teacher"),
        "student": str(places / "student"),
        "data": {"train": {"path": "rows.jsonl", "task": task}},
        "sampling": {"max_new_tokens": 4},
        "train": {"max_steps": 1, "batch_size": 2, "trackers": []},
        "output": "run",
    }
    Path("run.yaml").write_text(json.dumps(run), encoding="utf-8")
    assert cli.main(["train", "run.yaml"]) == 0
    evaluate = ["evaluate", "run", "--task", task, "--data", "rows.jsonl", "--max-new-tokens", "4"]
    assert cli.main([*evaluate, "--out", "scores.jsonl"]) == 0
    assert json.loads(Path("scores.summary.json").read_text(encoding="utf-8"))["task"].startswith("sql")

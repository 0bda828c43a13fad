"""``skd plan`` as its user meets it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from skd.cli import main
from skd.plan.command import PlanOptions, cpu, plan_lines

CONFIG = """\
teacher: builtin:number_words/teacher
student: builtin:number_words/student
data: {train: {kind: task, name: number_words, split: train, size: 64}}
train: {batch_size: 8, max_steps: 1}
"""


@pytest.fixture
def config(tmp_path: Path) -> str:
    (tmp_path / "run.yaml").write_text(CONFIG)
    return str(tmp_path / "run.yaml")


def test_a_gpu_is_a_model_and_says_so_with_parts_memory_and_knobs(
    config: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["plan", config, "--machine", "h100", "--alpha", "0.9"]) == 0
    text = capsys.readouterr().out
    assert "A MODEL: nothing was run there" in text
    assert "90% of the drafts kept\n" in text
    for word in ("draft ", "judge ", "forward ", "optimiser ", "bottleneck: ", "memory: about", "policy.block="):
        assert word in text
    assert "train.batch_size=16" in text
    assert "teacher on a vLLM server" in text


def test_acceptance_and_lengths_may_be_those_of_a_run(config: str, tmp_path: Path) -> None:
    rows = [{"step": n, "responses": 4, "tokens": 40, "acceptance_rate": 0.5} for n in range(3)]
    (tmp_path / "metrics.jsonl").write_text("\n".join(map(json.dumps, rows)))
    lines = list(plan_lines(config, (), PlanOptions(machine="l4", run=tmp_path)))
    assert "8 responses of 10 tokens" in lines[1]
    assert "50% of the drafts kept" in lines[1]


def test_what_is_wrong_is_said_without_a_traceback(config: str, capsys: pytest.CaptureFixture[str]) -> None:
    cases = {
        (): "config is missing; name the YAML file of a run",
        (config, "--machine", "tpu"): "'tpu' is no known machine",
        (config, "--machine", "l4", "--like", "nowhere"): "has no steps that can be read",
        (config, "--machine", "l4", "teacher=./nowhere"): "there is no such directory",
    }
    for arguments, message in cases.items():
        assert main(["plan", *arguments]) in (2, 4)
        assert message in capsys.readouterr().err


def test_this_machine_is_measured_once_and_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    measured = cpu()
    assert measured.measured
    assert not measured.overlap
    assert min(measured.tflops.float32, measured.launch_us, measured.loss_passes) > 0
    assert cpu() == measured
    assert len(list((tmp_path / "skd").iterdir())) == 1

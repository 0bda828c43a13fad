"""``skd evaluate --engine vllm``: run by vLLM's python, with the same answers as this package's own sampler."""

import json
import os
import subprocess
from pathlib import Path

import pytest

from skd.evaluate.prompts import Decoding
from skd.evaluate.run import evaluate_tasks
from skd.evaluate.workload import Choice
from tests.tiny import save_tiny

ROWS = 100
STOP = "t17"


@pytest.fixture(scope="module")
def room(tmp_path_factory):
    """A model with heads of 32 numbers and a padded vocabulary, a task with a stop string, rows with their answers."""
    room = tmp_path_factory.mktemp("evaluated")
    save_tiny(room / "model", "llama", seed=4, hidden=128, padded_vocab=80)
    task = "prompt: '{q}'\nreference: '{a}'\nmetric: exact\nmax_new_tokens: 16\n" + f"stop_strings: [{STOP}]\n"
    (room / "task.yaml").write_text(task)
    return room


def write_rows(room, answers):
    rows = [{"q": f"t{2 + i % 60} t{3 + i % 7}", "a": answer} for i, answer in enumerate(answers)]
    (room / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def own(room, out):
    choice = Choice(str(room / "task.yaml"), str(room / "rows.jsonl"))
    (result,) = evaluate_tasks(room / "model", [choice], [out], Decoding(slots=8))
    return result


def by_vllm(room, out, *options):
    python = os.environ.get("SKD_VLLM_PYTHON")
    if not python:
        pytest.skip("SKD_VLLM_PYTHON names no python with vLLM")
    command = [python, "-m", "skd", "evaluate", room / "model", "--engine", "vllm", "--slots", "8", "--out", out]
    command += ["--task", room / "task.yaml", "--data", room / "rows.jsonl", *options]
    sources = str(Path(__file__).resolve().parents[2] / "src")
    environment = os.environ | {"VLLM_CPU_KVCACHE_SPACE": "1", "PYTHONPATH": sources}
    done = subprocess.run([str(part) for part in command], env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(out.with_suffix(".summary.json").read_text())


def samples(out):
    return [json.loads(line) for line in out.read_text().splitlines()]


def test_the_scores_and_the_tokens_are_those_of_the_own_engine(room, tmp_path, figures):
    write_rows(room, ["t2"] * ROWS)
    responses = own(room, None).responses
    # Every second answer is right, so that a score of everything or nothing could not pass.
    write_rows(room, [text if i % 2 and text else "other" for i, text in enumerate(responses)])
    expected = own(room, tmp_path / "own.jsonl")
    summary = by_vllm(room, tmp_path / "vllm.jsonl")
    ours, theirs = samples(tmp_path / "own.jsonl"), samples(tmp_path / "vllm.jsonl")
    differing = sum(a["ids"] != b["ids"] for a, b in zip(ours, theirs, strict=True))
    figures |= {"evaluated": ROWS, "evaluated_differing": differing}
    figures |= {"score_own": expected.score, "score_vllm": summary["score"]}
    # A near-tie may fall the other way and changes one response.
    assert differing <= 1
    assert abs(summary["score"] - expected.score) <= 1 / ROWS
    # Some responses end at the end token, some at the stop string, some at the cap.
    ends = {(row["truncated"], row["ids"][-1] == 1) for row in ours}
    assert ends == {(True, False), (False, True), (False, False)}
    assert [row["truncated"] for row in ours if row in theirs] == [row["truncated"] for row in theirs if row in ours]
    assert summary["decoding"]["engine"].startswith("vllm ")


def test_draws_differ_between_equal_prompts_and_repeat_with_the_seed(room, tmp_path):
    (room / "rows.jsonl").write_text(json.dumps({"q": "t5 t6", "a": "t2"}) + "\n")
    (room / "rows.jsonl").write_text((room / "rows.jsonl").read_text() * 16)
    runs = [tmp_path / "one.jsonl", tmp_path / "two.jsonl"]
    for out in runs:
        by_vllm(room, out, "--temperature", "1", "--seed", "3")
    ids = [[row["ids"] for row in samples(out)] for out in runs]
    assert ids[0] == ids[1]
    assert len({tuple(row) for row in ids[0]}) > 8

"""Training with a teacher on a server: what the local teacher teaches, and nothing is lost with the server."""

import json
from pathlib import Path

import pytest
from safetensors.torch import load_file

import skd
from skd.engines.vllm import VllmServer
from skd.errors import CheckpointError, RemoteError
from tests.engines.conftest import SHORT
from tests.engines.stand_in import StandIn, serving
from tests.tiny import tiny_model, tiny_tokenizer
from tests.train.conftest import ROWS, end_state


def settings(url, directory, output, method="skd", **train):
    return {
        "method": method,
        "teacher": {"engine": "vllm", "url": url, "top_logprobs": 64, "tries": 2},
        "student": str(directory / "student"),
        "data": {"train": "rows.json"},
        "sampling": {"max_new_tokens": 5, "slots": 4, "student": {"temperature": 1.0, "top_p": 1.0}},
        "train": {"max_steps": 4, "batch_size": 4, "lr": 0.01, "eps": 0.01, "warmup": 0.0, "trackers": [], **train},
        "output": str(output),
    }


def train(config, directory, teacher=None):
    pair = skd.load_pair(
        teacher or VllmServer(config["teacher"]["url"], top=64, limits=SHORT), directory / "student", device="cpu"
    )
    return skd.train(config, pair=pair, prompts=ROWS, validation=ROWS, display=False)


def rows(config):
    return [json.loads(line) for line in (Path(config["output"]) / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("method", ["skd", "on_policy", "supervised_kd"])
def test_the_student_becomes_what_the_local_teacher_makes_of_it(server, directory, tmp_path, method):
    """With all 64 ids asked for, the server tells everything, and only rounding differs."""
    served = settings(server.url, directory, tmp_path / "served", method)
    local = {**settings(server.url, directory, tmp_path / "local", method), "teacher": str(directory / "teacher")}
    train(served, directory)
    train(local, directory, directory / "teacher")
    weights, expected = (
        load_file(Path(config["output"]) / "checkpoints" / "step-4" / "student.safetensors")
        for config in (served, local)
    )
    assert max((weights[name] - expected[name]).abs().max().item() for name in expected) < 1e-4
    steps = [row for row in rows(served) if "lr" in row]
    assert all(row["teacher_requests"] > 0 and row["teacher_retries"] == 0 for row in steps)
    rescored = sum(row["teacher_rescored"] for row in steps)
    assert rescored > 0 if method == "skd" else rescored == 0
    assert "teacher_requests" not in next(row for row in rows(local) if "lr" in row)


def test_a_server_that_dies_costs_nothing(directory, tmp_path):
    whole = settings("", directory, tmp_path / "whole")
    broken = settings("", directory, tmp_path / "broken")
    stand_in = StandIn(tiny_model("llama", seed=1), tiny_tokenizer())
    with serving(stand_in) as served:
        whole["teacher"]["url"] = served.url
        train(whole, directory)
        needed = stand_in.completions

    for share in (0.3, 0.7):
        with serving(StandIn(tiny_model("llama", seed=1), tiny_tokenizer())) as dying:
            last = int(needed * share) if share < 0.5 else needed // 4

            def die(handler, number, answer, last=last):
                if number > last:
                    handler.close_connection = True
                    return handler.connection.close()
                return answer

            dying.fault = die
            broken["teacher"]["url"] = dying.url
            with pytest.raises(RemoteError, match="SKD-R03"):
                train(broken, directory)
    with serving(StandIn(tiny_model("llama", seed=1), tiny_tokenizer())) as served:
        broken["teacher"]["url"] = served.url
        train(broken, directory)
    states = [end_state(config["output"], 4) for config in (whole, broken)]
    for state in states:
        state.pop("state")  # holds the address of the server in its digest
    assert states[0] == states[1]


def test_a_run_does_not_go_on_with_another_teacher(server, directory, tmp_path):
    config = settings(server.url, directory, tmp_path / "run", max_steps=2)
    train(config, directory)
    server.model = tiny_model("llama", seed=9)
    config["train"]["max_steps"] = 4
    with pytest.raises(CheckpointError, match=r"SKD-M21.*answers a fixed probe otherwise"):
        train(config, directory)

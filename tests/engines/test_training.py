"""Training with a teacher on a server: what the local teacher teaches, and nothing is lost with the server."""

import json
from pathlib import Path

import pytest
from safetensors.torch import load_file

import skd
import skd.generate
from skd import cli, faults
from skd.config import config_of
from skd.engines.vllm import VllmServer
from skd.errors import CheckpointError, RemoteError, ResourceError
from skd.generate import generate_responses
from skd.responses import open_responses
from tests.engines.conftest import PATIENT
from tests.engines.stand_in import StandIn, serving
from tests.responses.conftest import content
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
        teacher or VllmServer(config["teacher"]["url"], top=64, limits=PATIENT), directory / "student", device="cpu"
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


def test_the_command_line_probes_the_server_first_and_trains_with_it(server, directory, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    lines = [{"prompt": f"t{2 + i} t{3 + i}", "response": f"t{5 + i}"} for i in range(8)]
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, lines)))
    config = settings(server.url, directory, "run", max_steps=1)
    config["data"] = {"train": {"path": "rows.jsonl", "prompt_field": "prompt", "response_field": "response"}}
    (tmp_path / "run.yaml").write_text(json.dumps(config))
    assert cli.main(["check", "run.yaml"]) == 0
    assert f"teacher at {server.url}; context 127; 64 log-probs per token" in capsys.readouterr().out
    assert cli.main(["train", "run.yaml"]) == 0
    server.version = "0.9.0"
    assert cli.main(["check", "run.yaml"]) == 6
    assert "SKD-V01" in capsys.readouterr().out
    with pytest.raises(RemoteError, match="SKD-V01"):
        skd.train(config, display=False)


def one_answer_in_other_words(handler, number, answer):
    """The probe, which comes first, rounded in another way."""
    if number == 1:
        for entry in answer["choices"][0]["prompt_logprobs"][1:]:
            for told in entry.values():
                told["logprob"] -= 1e-3
    return answer


def test_generation_goes_on_at_another_address_and_not_with_another_teacher(directory, tmp_path, monkeypatch):
    """The same bytes, though the address and the patience are others and the probe is rounded otherwise."""
    monkeypatch.setattr(skd.generate, "SHARD_PROMPTS", 2)
    (tmp_path / "rows.jsonl").write_text("\n".join(json.dumps({"prompt": f"t{2 + i}"}) for i in range(5)))
    data = {"train": {"path": str(tmp_path / "rows.jsonl"), "prompt_field": "prompt", "response_field": None}}

    def generate(url, name, **asking):
        config = {**settings(url, directory, tmp_path / "run"), "data": data}
        config["teacher"] |= asking
        generate_responses(config_of(config), tmp_path / name, top_k=5, display=False)

    def dies(name):
        if name == "generate.shard":
            raise OSError(9, "gone")

    def teacher(seed=1, **keys):
        return serving(StandIn(tiny_model("llama", seed=seed), tiny_tokenizer(), **keys))

    with teacher() as first:
        generate(first.url, "whole")
        with faults.hooked(dies), pytest.raises(ResourceError):
            generate(first.url, "moved")
    with teacher(seed=9) as other, pytest.raises(CheckpointError, match="teacher, which answered a fixed probe"):
        generate(other.url, "moved")
    with teacher(fault=one_answer_in_other_words) as second:
        assert second.url != first.url
        generate(second.url, "moved", tries=4, concurrency=3, silence_seconds=50)
    assert content(tmp_path / "moved") == content(tmp_path / "whole")


def test_stored_responses_hold_what_the_server_told(server, directory, tmp_path):
    (tmp_path / "rows.jsonl").write_text("\n".join(json.dumps({"prompt": f"t{2 + i}"}) for i in range(5)))
    data = {"train": {"path": str(tmp_path / "rows.jsonl"), "prompt_field": "prompt", "response_field": None}}
    config = config_of({**settings(server.url, directory, tmp_path / "run"), "data": data})
    pair = skd.load_pair(VllmServer(server.url, top=40, limits=PATIENT), directory / "student", device="cpu")
    with pytest.raises(skd.ConfigError, match="SKD-C07"):
        generate_responses(config, tmp_path / "more", top_k=41, pair=pair, display=False)
    local = config_of({**config.model_dump(mode="json"), "teacher": str(directory / "teacher")})
    generate_responses(config, tmp_path / "served", top_k=5, pair=pair, display=False)
    generate_responses(local, tmp_path / "local", top_k=5, display=False)
    served, expected = (open_responses(tmp_path / name).prompts for name in ("served", "local"))
    assert served.references == expected.references
    for one, other in zip(served.reference_evidence, expected.reference_evidence, strict=True):
        assert one.ids_LK.tolist() == other.ids_LK.tolist()
        assert (one.logp_LB - other.logp_LB).abs().max() < 1e-4

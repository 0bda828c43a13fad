"""What ``skd generate`` writes, and what it leaves and refuses when it is interrupted or repeated."""

import os

import pytest
import torch
from safetensors.torch import load_file

import skd
from skd import faults
from skd.config import config_of
from skd.errors import CheckpointError, ConfigError
from skd.policies import RolloutKey
from skd.responses import open_responses
from skd.train.build import build_policy
from skd.types import DATA, STUDENT, TEACHER
from tests.responses.conftest import content, from_files, generate


def open_pair(config):
    return skd.load_pair(config["teacher"], config["student"], device="cpu")


def test_the_files_hold_the_policys_responses_with_their_authors(config, write):
    config["sampling"]["responses_per_prompt"] = 2
    responses = open_responses(write())
    prompts = open_pair(config).encode([f"t{2 + i % 9}" for i in range(10)])  # only their number matters here
    assert len(responses.prompts) == responses.index.num_responses == 2 * len(prompts)
    assert responses.prompts.reference_evidence is None
    assert len(responses.index.shards) == 4
    pair, built = open_pair(config), build_policy(config_of(config), evidence=False)
    ids = [list(row) for row in responses.prompts.ids[::2]]
    rollout = built.rollout(pair, skd.Prompts(ids, range(10)), RolloutKey(3, [0] * 10))
    assert [list(row) for row in responses.prompts.references] == [row.tolist() for row in rollout.response_ids]
    assert [list(row) for row in responses.prompts.reference_authors] == [row.tolist() for row in rollout.authors]
    assert {author for row in responses.prompts.reference_authors for author in row} == {STUDENT, TEACHER}


@pytest.mark.parametrize("top_k", [1, 5, 63, 64, 1000])
def test_the_evidence_is_the_teachers_as_defined(config, write, top_k):
    responses = open_responses(write(top_k))
    k = min(top_k, 64)
    assert responses.index.top_k == k
    teacher, prompts = open_pair(config).teacher, responses.prompts
    for prompt, response, evidence in zip(prompts.ids, prompts.references, prompts.reference_evidence, strict=True):
        ids = torch.tensor([[*prompt, *response]])
        logp_LV = torch.log_softmax(teacher(ids).logits[0, len(prompt) - 1 : -1].double(), -1)
        top = logp_LV.topk(k)
        others_LV = logp_LV.scatter(-1, top.indices, -torch.inf)
        assert evidence.ids_LK.tolist() == top.indices.tolist()
        expected_LB = torch.cat([top.values, others_LV.logsumexp(-1, keepdim=True)], -1)
        torch.testing.assert_close(evidence.logp_LB.double(), expected_LB, rtol=0, atol=1e-5)
        written_L = logp_LV[torch.arange(len(response)), torch.tensor(list(response))]
        torch.testing.assert_close(evidence.written_L.double(), written_L, rtol=0, atol=1e-5)


def test_the_tail_of_a_sharp_teacher_is_not_lost_to_rounding():
    """1 - sum(p) would be 0 in float32 here; the logarithm of the true tail is finite."""
    from skd.objectives import HiddenStates, top_evidence
    from skd.types import Head

    logits_1V = torch.tensor([[60.0, 0.0, 0.0, 1.0]])
    evidence = top_evidence(HiddenStates(logits_1V, Head(torch.eye(4))), torch.tensor([1]), 1)
    expected = torch.log_softmax(logits_1V.double(), -1)[0, 1:].logsumexp(-1)
    assert evidence.logp_LB[0, 1].item() == pytest.approx(expected.item(), rel=1e-6)


def test_references_are_stored_for_the_data_sets_policy(config, write):
    directory = write(7, method="supervised_kd", policy="data_set")
    prompts = open_responses(directory).prompts
    assert [list(row) for row in prompts.references] == [[5 + i % 3, 6, 7, 1] for i in range(10)]
    assert {author for row in prompts.reference_authors for author in row} == {DATA}
    again = write(7, "again", data={"train": from_files(directory)}, policy="data_set")
    assert [list(row) for row in open_responses(again).prompts.references] == [list(row) for row in prompts.references]


@pytest.mark.parametrize("name", ["generate.rename", "generate.shard"])
@pytest.mark.parametrize("number", [1, 2, 4])
def test_a_killed_run_goes_on_and_leaves_the_same_bytes(config, write, tmp_path, name, number):
    whole = content(write(5, "whole"))
    child = os.fork()
    if child == 0:
        reached = []

        def kill(reached_name):
            reached.append(reached_name)
            if reached.count(name) == number:
                os._exit(9)

        with faults.hooked(kill):
            generate(config, tmp_path / "killed", 5)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9
    left = content(tmp_path / "killed")
    assert "index.json" not in left
    kept = sorted(path for path in left if path.startswith("shard"))
    written = []
    with faults.hooked(written.append):
        generate(config, tmp_path / "killed", 5)
    assert written.count("generate.shard") == 4 - len(kept)
    assert content(tmp_path / "killed") == whole


def test_a_shard_that_is_broken_meanwhile_is_written_again(config, write, tmp_path):
    whole = content(write(5))
    shard = tmp_path / "responses" / "shard-00001.safetensors"
    shard.write_bytes(shard.read_bytes()[:-1] + b"\1")
    assert content(write(5)) == whole


def test_a_whole_directory_is_left_as_it_is(config, write):
    directory = write(5)
    before = {path.name: path.stat().st_mtime_ns for path in directory.iterdir() if path.name != ".lock"}
    write(5, train={**config["train"], "lr": 0.5}, output="elsewhere")
    assert {path.name: path.stat().st_mtime_ns for path in directory.iterdir() if path.name != ".lock"} == before


@pytest.mark.parametrize(
    ("changes", "top_k", "named"),
    [
        ({"train": {"seed": 4}}, 5, r"settings\.seed 3 \(now 4\)"),
        ({"policy": {"kind": "interleaved", "gate": {"kind": "top_k", "k": 2}, "block": 3}}, 5, r"policy\.gate\.k 20"),
        ({}, 6, r"evidence\.top_k 5 \(now 6\)"),
        ({}, None, r"evidence\.top_k 5 \(now None\)"),
    ],
)
def test_a_directory_of_other_responses_is_refused_by_name(config, write, changes, top_k, named):
    before = content(write(5))
    with pytest.raises(CheckpointError, match=rf"SKD-K14.*made with .*{named}") as caught:
        write(top_k, **changes)
    assert caught.value.exit_code == 5
    assert content(write(5)) == before


def test_changed_rows_are_refused(config, write, tmp_path):
    write(5)
    (tmp_path / "rows.json").write_text('[{"prompt": "t9", "response": "t5"}]')
    with pytest.raises(CheckpointError, match=r"made with prompts \w+ \(now"):
        write(5)


def test_somebody_elses_directory_is_refused(config, write, tmp_path):
    (tmp_path / "responses").mkdir()
    (tmp_path / "responses" / "thesis.tex").write_text("x")
    with pytest.raises(CheckpointError, match=r"SKD-K15.*holds thesis\.tex and no index"):
        write(5)
    assert content(tmp_path / "responses") == {"thesis.tex": b"x"}


def test_evidence_without_a_teacher_is_refused(config, write):
    with pytest.raises(ConfigError, match="teacher is missing; add teacher: PATH"):
        write(5, method="sft", policy="data_set", teacher=None)


def test_stored_bytes_per_token(config, write):
    """4 for the id, 1 for the author, 8 for each of the K, 8 for the tail and the token written."""
    directory = write(16)
    tensors = load_file(directory / "shard-00000.safetensors")
    per_token = [tensor for name, tensor in tensors.items() if len(tensor) == len(tensors["authors"])]
    assert sum(t.numel() * t.element_size() for t in per_token) == len(tensors["authors"]) * (4 + 1 + 16 * 8 + 8)

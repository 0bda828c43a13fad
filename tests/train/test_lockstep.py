"""Models that are gathered a layer at a time sample and judge, to the bit, what whole ones do."""

import json
import os
import re
import shutil
import signal
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

import skd
from skd.config import config_of as config_of_run
from skd.errors import Problem, RemoteError
from skd.models import score
from skd.train import lockstep, train
from skd.train.pieces import Shell
from skd.train.setup import _load
from skd.train.step import roll_out_step
from tests.tiny import FAMILIES, save_tiny
from tests.train.conftest import ROWS, open_run, run_train
from tests.train.test_ranks import as_ranks, run_as_ranks
from tests.train.test_self_distillation import OWN, config_of, pair_of
from tests.train.test_several_teachers import same
from tests.train.test_spread import DEEPSPEED, ZERO, curve, end, farthest

SHARDINGS = ["fsdp2", *ZERO]
ZERO_SKD = [pytest.param("skd", name, marks=DEEPSPEED) for name in ("zero2", "zero3")]
METHODS = ["supervised_kd", "on_policy", "skd", "seq_kd", "mixed_skd"]
PARTS = [{"weight": 1, "policy": {"kind": "interleaved", "block": 2}}, {"weight": 1, "policy": "data_set"}]
COLUMNS = ("response_ids", "authors", "evidence", "student_logp", "truncated")


@pytest.fixture
def config(settings):
    """A config whose responses end at different lengths, in few slots; keywords go to ``train``."""

    def build(method="skd", **keys):
        found = settings(**{"method": method, "student": "steady", "sharding": "fsdp2", "gather": "layer", **keys})
        found["sampling"] |= {"max_new_tokens": 9, "slots": 2}
        if method == "mixed_skd":
            found["policy"] = {"parts": PARTS}
        return found

    return build


def forms(config):
    """A config, and the same with models that are gathered whole."""
    return config, {**config, "train": {**config["train"], "gather": "step"}}


def outputs(config, tmp_path):
    """The two forms with an output each."""
    return ({**each, "output": str(tmp_path / each["train"]["gather"])} for each in forms(config))


def require_equal(one, other):
    assert one.sample_ids == other.sample_ids
    for column in COLUMNS:
        assert same(getattr(one, column), getattr(other, column)), column


@pytest.mark.parametrize(("world_size", "batch_size"), [(2, 6), (3, 4), (3, 1)])
def test_responses_authors_and_evidence_are_those_of_whole_models(config, world_size, batch_size):
    """A process with fewer responses, or none, takes part until the others have theirs."""

    def look(rank):
        for method in METHODS:
            layered, whole = (open_run(each) for each in forms(config(method, batch_size=batch_size)))
            for step in range(2):
                require_equal(roll_out_step(layered, step)[0], roll_out_step(whole, step)[0])

    assert as_ranks(look, world_size) == [0] * world_size


@pytest.mark.parametrize("sharding", SHARDINGS)
def test_on_a_device_are_the_heads_and_a_frame_and_a_layer(config, sharding, monkeypatch):
    config = config(batch_size=3)
    config["train"]["sharding"] = sharding

    def look(rank):
        pair = skd.load_pair(config["teacher"], config["student"], sample_dtype="bfloat16", device="cpu")
        run = open_run(config, ROWS, pair)
        models = run.spread.models
        allowed = [
            {id(piece.shell) for piece in [*models._heads, *model.frame, *held]}
            for model in models._models
            for _, held in model.layers
        ]
        seen, fill = set(), Shell.fill

        def filled(shell, whole):
            fill(shell, whole)
            shells = [piece.shell for piece in models.pieces.all]
            now = {id(each) for each in shells if each.weight.data_ptr() != each.nothing.data_ptr()}
            seen.update(place for place, some in enumerate(allowed) if now == some)
            assert any(now <= some for some in allowed)

        monkeypatch.setattr(Shell, "fill", filled)
        rollout, _, _ = roll_out_step(run, 0)
        # Each layer of the sampling copy and of the teacher was there, also where nothing was computed.
        assert seen == {0, 1, 4, 5}
        assert len(rollout) == 2 - rank
        for piece in models.pieces.all:
            assert piece.shell.weight.isnan().all()

    assert as_ranks(look, 2) == [0, 0]


def validations(config):
    rows = map(json.loads, (Path(config["output"]) / "metrics.jsonl").read_text().splitlines())
    return [row["validation"] for row in rows if "validation" in row]


def measured(pair):
    """A score that only the main process takes, while the others wait for it."""
    (states_LD,) = score(pair.student, [torch.tensor([2, 3])], [torch.tensor([4, 5, 6])])
    return {"reach": pair.student_head().logits(states_LD).abs().max().item()}


@pytest.mark.parametrize(("method", "sharding"), [*((method, "fsdp2") for method in METHODS), *ZERO_SKD])
def test_layers_give_the_loss_curve_of_whole_models(config, tmp_path, method, sharding):
    """Steps, validations, token views, scores, saving and the export."""
    keys = {"max_steps": 3, "batch_size": 3, "eps": 0.01, "warmup": 0.0, "validate_every": 2, "micro_batch_tokens": 16}
    layered, whole = outputs(config(method, sharding=sharding, **keys), tmp_path)
    for each in (layered, whole):
        assert as_ranks(lambda rank, each=each: run_train(each, measure=measured), 2) == [0, 0]
    assert curve(layered) == curve(whole)
    assert validations(layered) == validations(whole)
    assert len(validations(whole)) == 3
    assert farthest(end(layered, 3), end(whole, 3)) == 0


def test_layers_of_every_family_run_in_their_order(config, tmp_path):
    for family in FAMILIES:
        save_tiny(tmp_path / family, family, seed=7, hidden=16)
    config = config(batch_size=3)

    def look(rank):
        for family in FAMILIES:
            layered, whole = (open_run({**each, "teacher": str(tmp_path / family)}, ROWS) for each in forms(config))
            require_equal(roll_out_step(layered, 0)[0], roll_out_step(whole, 0)[0])

    assert as_ranks(look, 2) == [0, 0]


def test_several_teachers_of_other_families_judge_in_turn(config, tmp_path):
    """One process has prompts of a teacher that the other one has none of."""
    for name, family, seed in (("code", "gpt2", 5), ("chat", "qwen3", 6)):
        save_tiny(tmp_path / name, family, seed=seed, hidden=24)
    teachers = {"math": config()["teacher"], "code": tmp_path / "code", "chat": tmp_path / "chat"}
    prompts = replace(ROWS, routes=[["math", "code", "math", "chat", "math"][i % 5] for i in range(10)])
    config = config(batch_size=10)

    def look(rank):
        pairs = [skd.load_pair(teachers, config["student"], device="cpu") for _ in range(2)]
        runs = [open_run(each, prompts, pair) for each, pair in zip(forms(config), pairs, strict=True)]
        layered, whole = (roll_out_step(run, 0)[0] for run in runs)
        require_equal(layered, whole)
        assert set(layered.routes) == {"math", "code"} | ({"chat"} if rank == 0 else set())

    assert as_ranks(look, 2) == [0, 0]


@pytest.mark.parametrize("kind", ["model", "student", "adapter_off"])
def test_evidence_that_is_computed_again_teaches_the_same(settings, tmp_path, kind):
    """Forwards of the teacher stand between those in which the student learns."""
    keys = {"eps": 0.01, "warmup": 0.0, "max_steps": 2, "validate_every": None, "save_every": None, "sharding": "fsdp2"}
    found = config_of(settings, "skd", gather="layer", **keys)
    found["sampling"]["evidence"] = "recompute"
    layered, whole = outputs(found, tmp_path)

    def run_whole(config):
        train(config, pair=pair_of(config, kind), prompts=OWN, validation=OWN, display=False)

    for each in (layered, whole):
        assert as_ranks(lambda rank, each=each: run_whole(each), 2) == [0, 0]
    assert curve(layered) == curve(whole)
    assert farthest(end(layered, 2), end(whole, 2)) == 0


def test_a_tied_head_and_a_copy_in_bf16_sample_and_learn_as_whole_ones(config, tmp_path):
    save_tiny(tmp_path / "tied", "gemma2", seed=3, hidden=16)
    keys = {"max_steps": 2, "validate_every": 1, "precision": "bf16", "gradient_checkpointing": True}
    found = {**config(**keys), "student": str(tmp_path / "tied")}
    layered, whole = outputs(found, tmp_path)
    for each in (layered, whole):
        pair = skd.load_pair(each["teacher"], each["student"], sample_dtype="bfloat16", device="cpu")
        assert as_ranks(lambda rank, each=each, pair=pair: run_train(each, pair=pair), 2) == [0, 0]
    assert curve(layered) == curve(whole)
    assert farthest(end(layered, 2), end(whole, 2)) == 0


def test_a_run_goes_on_whole_in_one_process_and_a_layer_at_a_time_in_another_number(config, tmp_path):
    keys = {"max_steps": 4, "save_every": 1, "keep": 4, "eps": 0.01, "warmup": 0.0, "micro_batch_tokens": 8}
    mixed = config(**keys)
    through = {**mixed, "train": {**mixed["train"], "sharding": "none", "gather": "step"}}
    alone = {**through, "output": mixed["output"]}
    through = {**through, "output": str(tmp_path / "through")}
    run_train(through)
    for way in (3, 1, 2):
        if way == 1:
            run_train(alone, resume="must")
        else:
            assert run_as_ranks(mixed, way) == [0] * way
        assert farthest(end(mixed), end(through)) < 1e-5
        for step in (3, 4):  # as if it had been stopped after step 2
            shutil.rmtree(Path(mixed["output"]) / "checkpoints" / f"step-{step}")


def struck(config, rank, fault):
    """A run in which something happens to a process between two layers of the first validation or step."""

    def work(mine):
        left, gather = [40], lockstep._gather

        def gathered(pieces, weights):
            gather(pieces, weights)
            left[0] -= 1
            if mine == rank and not left[0]:
                fault()

        lockstep._gather = gathered
        run_train(config)

    return work


@pytest.mark.parametrize("rank", [0, 1])
def test_a_process_killed_in_the_middle_of_a_round_ends_the_others(config, rank):
    config = config(max_steps=2, batch_size=5)
    codes = as_ranks(struck(config, rank, lambda: os.kill(os.getpid(), signal.SIGKILL)), 2)
    assert codes[rank] == -signal.SIGKILL
    assert codes[1 - rank] == 6
    assert run_as_ranks(config, 2) == [0, 0]


def test_a_process_that_hangs_in_the_middle_of_a_round_is_the_one_that_is_named(config):
    config = config(max_steps=2, rank_timeout_seconds=15)
    codes = as_ranks(struck(config, 1, lambda: time.sleep(3600)), 2)
    assert codes[0] == 6
    assert codes[1] in (6, -signal.SIGKILL)
    cause = json.loads((Path(config["output"]) / ".first-cause").read_text())["cause"]
    place = r"rank 1 \(last heard of at (step \d, )?train/lockstep\.py:\d+ \w+\) made no progress for 15 s"
    assert re.match(rf"error\[SKD-P03\] rank \d: {place}", cause)


def test_a_process_that_loses_its_server_leaves_after_the_others_are_done(config):
    """All then save the last whole step together."""
    config = config(batch_size=6)

    def look(rank):
        left = [2]

        def check():
            left[0] -= 1
            if rank == 1 and not left[0]:
                raise RemoteError(Problem("SKD-R02", "teacher", "gone", "wait"))

        run = replace(open_run(config), check=check)
        with pytest.raises(RemoteError, match="gone" if rank else "another process has lost the server"):
            roll_out_step(run, 0)
        with run.spread.read_by_main():
            weights = [weight.isnan().any() for weight in run.pair.student.parameters()]
            assert not any(weights) if rank == 0 else all(weights)

    assert as_ranks(look, 2) == [0, 0]


def test_models_that_no_device_can_hold_are_loaded_in_the_hosts_memory(config, monkeypatch):
    devices = []
    monkeypatch.setattr("skd.train.setup.load_pair", lambda *models, device, **keys: devices.append(device))
    for each in forms(config()):
        _load(config_of_run(each), SimpleNamespace(device="cuda:3"))
    assert devices == ["cpu", "cuda:3"]

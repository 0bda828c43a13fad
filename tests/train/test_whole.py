"""What a process of a run in shards holds of the models that are not being trained, and when."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import skd
from skd.models import score
from skd.train import train
from skd.train.step import redo_step, train_step
from tests.train.conftest import open_pair, open_run
from tests.train.test_ranks import as_ranks
from tests.train.test_self_distillation import OWN, config_of, pair_of
from tests.train.test_spread import SHARDINGS, curve, farthest


def held(models):
    """Bytes of the weights of models, each memory once."""
    storages = {
        weight.untyped_storage().data_ptr(): weight.untyped_storage() for m in models for weight in m.parameters()
    }
    return sum(storage.nbytes() for storage in storages.values())


@pytest.mark.parametrize("sharding", SHARDINGS)
def test_between_visits_a_process_holds_its_part_and_the_teachers_head(settings, sharding):
    config = settings(student="steady", sharding=sharding)

    def look(rank):
        expected = open_pair(config)
        pair = skd.load_pair(config["teacher"], config["student"], sample_dtype="bfloat16", device="cpu")
        models = [pair.teacher, pair.student, pair.sampling_student]
        whole, head = held(models), pair.teacher.get_output_embeddings().weight.nbytes
        run = open_run(config, pair=pair)
        for _ in range(2):
            assert head <= held(models) < head + 1000 < whole / 3
            part = sum(getattr(piece, "bytes_n", torch.empty(0)).nbytes for piece in run.spread.models.pieces.all)
            assert 2 * part == held([expected.teacher]) - head
            with run.spread.visit(), run.spread.visit():
                assert held(models) == whole
                assert farthest(dict(pair.student.named_parameters()), dict(expected.student.named_parameters())) == 0
                assert farthest(dict(pair.teacher.named_parameters()), dict(expected.teacher.named_parameters())) == 0
                for master, copied in zip(pair.student.parameters(), pair.sampling_student.parameters(), strict=True):
                    assert torch.equal(master.bfloat16(), copied)
            for model in models[1:]:
                assert all(weight.isnan().all() for weight in model.parameters())

    assert as_ranks(look, 2) == [0, 0]


def test_a_use_out_of_turn_is_nan(settings):
    config = settings(student="steady", sharding="fsdp2")

    def look(rank):
        run = open_run(config)
        for model in (run.pair.student, run.pair.teacher):
            states = score(model, [torch.tensor([2, 3])], [torch.tensor([4])])
            assert states[0].isnan().all()

    assert as_ranks(look, 2) == [0, 0]


@pytest.mark.parametrize("evidence", ["keep", "recompute"])
@pytest.mark.parametrize("kind", ["model", "student", "average", "adapter_off"])
def test_every_teacher_teaches_in_shards_what_it_does_whole(settings, tmp_path, kind, evidence):
    def config(name, **keys):
        steady = {"eps": 0.01, "warmup": 0.0, "max_steps": 3, "validate_every": None, "save_every": None}
        found = config_of(settings, "skd", **steady, **keys)
        found["sampling"]["evidence"] = evidence
        return {**found, "output": str(tmp_path / name)}

    def run_whole(config):
        train(config, pair=pair_of(config, kind), prompts=OWN, validation=OWN, display=False)

    whole, sharded = config("whole"), config("sharded", sharding="fsdp2")
    run_whole(whole)
    assert as_ranks(lambda rank: run_whole(sharded), 2) == [0, 0]
    for step, other in zip(curve(sharded), curve(whole), strict=True):
        assert step == pytest.approx(other, abs=1e-5, rel=1e-5)
    ends = [Path(each["output"]) / "checkpoints" / "step-3" for each in (whole, sharded)]
    for file in ("student.safetensors", "optimizer.safetensors"):
        assert farthest(*(load_file(end / file) for end in ends)) < 1e-5


@pytest.mark.parametrize("sharding", SHARDINGS)
def test_a_step_that_is_not_finite_can_be_taken_again_in_shards(settings, sharding):
    config = settings(student="steady", sharding=sharding, method="sft")

    def fail(rank):
        run = open_run(config)
        train_step(run, 0)
        with run.spread.visit():
            weights = {name: weight.clone() for name, weight in run.pair.student.named_parameters()}
        weights["lm_head.weight"][5] = float("inf")
        run.spread.reloaded(weights, {}, Path())
        with pytest.raises(skd.NumericsError, match="SKD-T01"):
            train_step(run, 1)

    def again(rank):
        loss, _ = redo_step(open_run(config), Path(config["output"]) / "nonfinite-step-1.json")
        assert not torch.tensor(loss).isfinite()

    assert as_ranks(fail, 2) == [0, 0]
    dump = Path(config["output"]) / "nonfinite-step-1"
    assert "lm_head.weight" in json.loads(dump.with_suffix(".json").read_text())["parameters"]
    assert load_file(dump.with_suffix(".safetensors"))["lm_head.weight"][5].isinf().all()
    assert as_ranks(again, 2) == [0, 0]

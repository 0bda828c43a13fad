"""Shards learn what whole copies learn, and a checkpoint does not show which of them wrote it.

Those of DeepSpeed are tested where it is installed: `pip install 'skd[deepspeed]'`.
"""

import json
import shutil
from importlib.util import find_spec
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from skd.errors import ConfigError
from skd.sampling.clock import Clock
from skd.train.step import _gradients, roll_out_step
from tests.tiny import save_tiny
from tests.train.conftest import open_run, run_train
from tests.train.test_ranks import as_ranks, run_as_ranks

DEEPSPEED = [
    pytest.mark.skipif(find_spec("deepspeed") is None, reason="DeepSpeed is not installed"),
    pytest.mark.filterwarnings("ignore"),
]
ZERO = [pytest.param(name, marks=DEEPSPEED) for name in ("zero2", "zero3")]
SHARDINGS = ["fsdp2", *ZERO]
OFFLOADED = pytest.param(("zero3", True), marks=DEEPSPEED)
WAYS = [("fsdp2", False), *(pytest.param((name, False), marks=DEEPSPEED) for name in ("zero2", "zero3")), OFFLOADED]


@pytest.fixture(autouse=True)
def no_weight_is_small(monkeypatch):
    """DeepSpeed leaves small weights whole, and those of the tests all are."""
    monkeypatch.setattr("skd.train.zero.PERSISTENT", 0)


@pytest.fixture
def config(settings, tmp_path):
    def build(name, **keys):
        # A large eps keeps the updates smooth in the gradients: Adam's own would turn rounding near 0 into whole steps.
        steady = {"student": "steady", "max_steps": 4, "micro_batch_tokens": 8, "eps": 0.01, "warmup": 0.0}
        return {**settings(**{**steady, "clip_norm": 0.5, "weight_decay": 0.1, **keys}), "output": str(tmp_path / name)}

    return build


def end(config, step=4):
    directory = Path(config["output"]) / "checkpoints" / f"step-{step}"
    return load_file(directory / "student.safetensors") | load_file(directory / "optimizer.safetensors")


def curve(config):
    rows = [json.loads(line) for line in (Path(config["output"]) / "metrics.jsonl").read_text().splitlines()]
    return [(row["loss"], row["grad_norm"]) for row in rows if "lr" in row]


def farthest(one, other):
    assert one.keys() == other.keys()
    return max((one[name] - other[name]).abs().max().item() for name in one)


@pytest.mark.parametrize("way", WAYS, ids=str)
def test_shards_give_the_loss_curve_of_whole_copies(config, way):
    whole, sharded = config("whole"), config("sharded", sharding=way[0], offload=way[1])
    assert run_as_ranks(whole, 2) == [0, 0]
    assert run_as_ranks(sharded, 2) == [0, 0]
    for step, other in zip(curve(sharded), curve(whole), strict=True):
        assert step == pytest.approx(other, abs=1e-5, rel=1e-5)
    assert curve(whole)[0][1] > 0.5  # the gradients are clipped, too
    assert farthest(end(sharded), end(whole)) < 1e-5
    exported = [Path(each["output"]) / "student" / "model.safetensors" for each in (sharded, whole)]
    assert farthest(*map(load_file, exported)) < 1e-5


@pytest.mark.parametrize("sharding", ["fsdp2", ZERO[1]])
def test_shards_learn_in_bf16_with_checkpointed_activations_and_a_tied_head(config, sharding, tmp_path):
    save_tiny(tmp_path / "tied", "gemma2", seed=3, hidden=16)
    keys = {"precision": "bf16", "gradient_checkpointing": True}
    whole, sharded = ({**config(name, **keys), "student": str(tmp_path / "tied")} for name in ("whole", "sharded"))
    run_train(whole)
    sharded["train"]["sharding"] = sharding
    assert run_as_ranks(sharded, 2) == [0, 0]
    assert farthest(end(sharded), end(whole)) < 1e-4


@pytest.mark.parametrize("way", WAYS, ids=str)
def test_a_sharded_run_goes_on_whole_and_in_another_number_of_processes(config, way):
    through, mixed = config("through"), config("mixed", sharding=way[0], offload=way[1], save_every=1, keep=4)
    run_train(through)
    assert run_as_ranks(mixed, 3) == [0, 0, 0]  # which cannot share 16 evenly
    for step in (3, 4):  # as if it had been stopped after step 2
        shutil.rmtree(Path(mixed["output"]) / "checkpoints" / f"step-{step}")
    alone = {**mixed, "train": {**mixed["train"], "sharding": "none", "offload": False}}
    run_train(alone, resume="must")
    assert farthest(end(mixed), end(through)) < 1e-5
    for step in (3, 4):
        shutil.rmtree(Path(mixed["output"]) / "checkpoints" / f"step-{step}")
    assert run_as_ranks(mixed, 2) == [0, 0]
    assert farthest(end(mixed), end(through)) < 1e-5


def test_shards_need_processes(settings):
    with pytest.raises(ConfigError, match="SKD-P09"):
        open_run(settings(sharding="fsdp2"))


def test_without_deepspeed_the_way_out_is_said_before_anything_is_loaded(settings, monkeypatch):
    monkeypatch.setattr("skd.train.setup.is_initialized", lambda: True)
    monkeypatch.setattr("skd.train.setup.find_spec", lambda name: None)
    with pytest.raises(ConfigError) as caught:
        open_run(settings(sharding="zero3"))
    assert str(caught.value) == (
        "error[SKD-P09] train.sharding: is zero3, and DeepSpeed is not installed; pip install 'skd[deepspeed]', or "
        "write fsdp2"
    )


@pytest.mark.parametrize("sharding", ["none", *SHARDINGS])
def test_two_processes_have_the_gradients_of_one(config, tmp_path, sharding):
    """Of the same global batch; the order of the samples is asserted, too."""
    alone, together = config("alone"), config("together", sharding=sharding)

    def gradients(config, rank, name):
        run = open_run(config)
        rollout, _, sample_ids = roll_out_step(run, 0)
        _gradients(run, 0, rollout, Clock(run.accelerator.device))
        whole = dict(run.spread.gradients())
        if rank == 0:
            save_file(whole, tmp_path / f"{name}.safetensors")
            (tmp_path / f"{name}.json").write_text(json.dumps(sample_ids))

    gradients(alone, 0, "alone")
    assert as_ranks(lambda rank: gradients(together, rank, "together"), 2) == [0, 0]
    assert (tmp_path / "together.json").read_text() == (tmp_path / "alone.json").read_text()
    one, two = (load_file(tmp_path / f"{name}.safetensors") for name in ("alone", "together"))
    largest = max(gradient.abs().max() for gradient in one.values())
    assert largest > 0.1
    # DeepSpeed divides before it sums.
    assert farthest(one, two) < 1e-6 * (largest if sharding in ("zero2", "zero3") else 1.0)

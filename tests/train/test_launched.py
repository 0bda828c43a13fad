import pytest

from skd.config import RunConfig
from skd.errors import ConfigError
from skd.train.launched import _asked_by_launcher, as_launched

ZERO3 = {"ACCELERATE_USE_DEEPSPEED": "true", "ACCELERATE_DEEPSPEED_ZERO_STAGE": "3"}
FSDP = {"ACCELERATE_USE_FSDP": "true"}


@pytest.fixture
def launched(monkeypatch):
    """The sharding of a run under a launcher's variables."""

    def launch(variables, **train):
        _asked_by_launcher.cache_clear()
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        config = as_launched(RunConfig(method="sft", student="s", data={"train": "x"}, train=train))
        return config.train.sharding, config.train.offload

    yield launch
    _asked_by_launcher.cache_clear()


def test_without_a_launcher_nothing_changes(launched):
    assert launched({}) == ("none", False)


def test_the_released_file_asks_for_stage_3_in_the_memory_of_the_cpu(launched):
    """config/deepspeed_zero3.yaml of the code published with the paper."""
    cpu = {f"ACCELERATE_DEEPSPEED_OFFLOAD_{what}_DEVICE": "cpu" for what in ("OPTIMIZER", "PARAM")}
    assert launched({**ZERO3, **cpu, "ACCELERATE_DEEPSPEED_ZERO3_INIT": "true"}) == ("zero3", True)


def test_a_sharding_of_the_config_goes_before_the_launch_file(launched):
    assert launched(ZERO3, sharding="fsdp2") == ("fsdp2", False)


@pytest.mark.parametrize(
    ("variables", "found"),
    [
        ({**ZERO3, "ACCELERATE_DEEPSPEED_ZERO_STAGE": "1"}, "has zero_stage: 1; write 2 or 3"),
        (
            {**ZERO3, "ACCELERATE_DEEPSPEED_OFFLOAD_PARAM_DEVICE": "nvme"},
            "has offload_.*_device: nvme; write cpu",
        ),
        (
            {**FSDP, "FSDP_OFFLOAD_PARAMS": "true"},
            "has fsdp_offload_params: true; write false",
        ),
    ],
)
def test_what_there_is_not_is_refused(launched, variables, found):
    with pytest.raises(ConfigError, match=r"SKD-P09\] the file of accelerate launch: " + found):
        launched(variables)


def test_what_does_not_go_with_shards_is_said_there_too(launched):
    with pytest.raises(ConfigError, match=r"SKD-C10\] .*train.precision is fp16"):
        launched(FSDP, precision="fp16")

import pytest
import torch

from skd.errors import ResourceError
from skd.train.memory_faults import memory_faults
from skd.train.step import train_step
from tests.train.conftest import open_run

OUT_OF_MEMORY = [
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nmore"),
    RuntimeError("[enforce fail at alloc_cpu.cpp:120] DefaultCPUAllocator: can't allocate memory: you tried to"),
    MemoryError(),
]


def raising(error):
    def work(*arguments, **options):
        raise error

    return work


@pytest.mark.parametrize("error", OUT_OF_MEMORY)
@pytest.mark.parametrize(("name", "doing"), [("module", "the student learns"), ("policy", "responses are sampled")])
def test_a_step_says_what_was_largest_and_what_to_lower(settings, error, name, doing, monkeypatch):
    run = open_run(settings(method="supervised_kd"))
    target = type(run.spread.module) if name == "module" else type(run.policy)
    monkeypatch.setattr(target, "forward" if name == "module" else "rollout", raising(error))
    with pytest.raises(ResourceError, match=rf"SKD-T12\] step 1: memory ran out while {doing} \(.+\); of 4") as caught:
        train_step(run, 1)
    assert caught.value.exit_code == 8
    assert "the largest, " in str(caught.value)
    assert str(caught.value).endswith(
        "; lower train.micro_batch_tokens or sampling.slots, or set train.gradient_checkpointing: true, and resume "
        "from the last checkpoint"
    )


def test_the_largest_row_is_named():
    with (
        pytest.raises(ResourceError, match="of 3 rows the largest, 7, has 30 tokens"),
        memory_faults(0, "x", {5: 1, 7: 30, 9: 3}),
    ):
        raise MemoryError


def test_other_errors_pass():
    with pytest.raises(RuntimeError, match="shapes"), memory_faults(0, "x", {}):
        raise RuntimeError("shapes do not fit")

"""The parts of a step against sums that can be done by hand."""

from __future__ import annotations

from typing import Any

import pytest

from skd.plan import MACHINES, MachineConfig, Shape, step_cost
from skd.plan.cost import Prices
from tests.plan.test_work import SHAPE, work
from tests.tiny import tiny_model

ONE = 1e9
"""What a rate of 1 in the file means."""


def machine(**changes: Any) -> MachineConfig:
    """One whose rates are all so high that nothing costs anything, but for what is given."""
    fast = {"float32": 1e12, "bfloat16": 1e12}
    values = {
        "name": "m",
        "source": "a test",
        "memory_gib": 1,
        "weights_gbs": fast,
        "stream_gbs": 1e12,
        "tflops": fast,
        "launch_us": 1e-12,
        "overlap": False,
    }
    return MachineConfig.model_validate({**values, **changes})


def seconds(parts: Any) -> dict[str, float]:
    return {name: cost.total for name, cost in parts.items()}


def test_a_shape_is_that_of_the_model() -> None:
    model = tiny_model("llama", seed=1, hidden=64, layers=3, intermediate_size=192, num_key_value_heads=2)
    found = Shape.of(model)
    assert found.num_weights == pytest.approx(sum(p.numel() for p in model.parameters()), rel=0.01)
    assert (found.layers, found.hidden, found.inner, found.key_heads) == (3, 64, 192, 2)
    assert found.trained == sum(p.numel() for p in model.parameters())


def test_arithmetic_alone_is_two_operations_for_each_weight_and_token() -> None:
    slow = machine(tflops={"float32": 1e-3, "bfloat16": 1e-3})
    body = Prices(slow).body(SHAPE, "float32", rows=4, new=3, context=0)
    assert body.total == pytest.approx(2 * SHAPE.body * 12 / ONE, rel=1e-3)
    parts = seconds(step_cost(work(), slow))
    # Twelve draft forwards, and four looks at blocks of three: the teacher's layers have four times the weights.
    head, keys = 2 * SHAPE.head * 6 * 12, 4 * SHAPE.layers * 6 * 12 * (8 + 6) * SHAPE.heads * SHAPE.head_size
    assert parts["draft"] == pytest.approx((2 * SHAPE.body * 6 * 12 + head + keys) / ONE, rel=1e-3)
    assert parts["judge"] == pytest.approx((8 * SHAPE.body * 6 * 12 + head + keys) / ONE, rel=1e-3)


def test_packed_weights_are_read_at_their_own_rate_and_packed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("skd.plan.work.worth_packing", lambda sizes: max(sizes) > 0)
    fast = {"float32": 1e12, "bfloat16": 1e12}
    halved = {"weights_gbs": {"float32": 2, "bfloat16": 2}, "tflops": fast, "packing_gbs": 1e12}
    slow = machine(weights_gbs={"float32": 1, "bfloat16": 1}, packed=halved)
    plain, found = (seconds(step_cost(work(packed_mb=megabytes), slow)) for megabytes in (0, 1000))
    assert [found[part] for part in ("draft", "judge")] == pytest.approx([plain["draft"] / 2, plain["judge"] / 2])
    assert found["forward"] == plain["forward"]
    packing = machine(packed={**halved, "weights_gbs": fast, "packing_gbs": 1})
    cost = seconds(step_cost(work(packed_mb=1000), packing))
    assert cost["draft"] == pytest.approx(4 * (SHAPE.body + SHAPE.head) / ONE, rel=1e-3)
    assert cost["judge"] == pytest.approx(4 * (4 * SHAPE.body + SHAPE.head) / ONE, rel=1e-3)


def test_weights_alone_are_read_once_in_each_forward_whatever_the_rows() -> None:
    slow = machine(weights_gbs={"float32": 1, "bfloat16": 1})
    one, many = (Prices(slow).body(SHAPE, "float32", rows=rows, new=1, context=0).total for rows in (1, 64))
    assert one == pytest.approx(many) == pytest.approx(4 * SHAPE.body / ONE, rel=1e-3)
    assert Prices(slow).body(SHAPE, "bfloat16", rows=1, new=1, context=0).total == pytest.approx(one / 2)


def test_the_slowest_counts_where_the_machine_does_all_at_once() -> None:
    slow = {"weights_gbs": {"float32": 1, "bfloat16": 1}, "tflops": {"float32": 1e-3, "bfloat16": 1e-3}}
    apart, at_once = (
        Prices(machine(**slow, overlap=overlap)).body(SHAPE, "float32", rows=8, new=1, context=0)
        for overlap in (False, True)
    )
    assert apart.total == pytest.approx(apart.weights + apart.arithmetic, rel=1e-3)
    assert at_once.total == pytest.approx(max(apart.weights, apart.arithmetic))
    assert at_once.limit == "arithmetic"


def test_a_teacher_that_judged_reads_no_evidence_and_one_that_did_not_does() -> None:
    slow = machine(tflops={"float32": 1e-3, "bfloat16": 1e-3})
    assert set(step_cost(work(), slow)) == {"prefill", "draft", "judge", "rest", "forward", "backward", "optimiser"}
    assert "evidence" in step_cost(work(recompute=True), slow)
    alone = step_cost(work(writer="student"), slow)
    assert "judge" not in alone
    assert "evidence" in alone
    supervised = step_cost(work(writer="data_set"), slow)
    assert set(supervised) == {"evidence", "forward", "backward", "optimiser"}
    assert "evidence" not in step_cost(work(writer="data_set", teacher=None), slow)


def test_a_server_that_reads_everything_anew_makes_judging_dearer() -> None:
    slow = machine(tflops={"float32": 1e-3, "bfloat16": 1e-3})
    local, served = (step_cost(work(rescored=rescored), slow)["judge"].total for rescored in (False, True))
    assert served > 3 * local


def test_every_gpu_plans_a_large_pair() -> None:
    large = Shape.llama(
        layers=28, hidden=3584, inner=18944, heads=28, key_heads=4, vocab_size=152_064, tied=False, size=128
    )
    assert large.num_weights == pytest.approx(7.6e9, rel=0.01)  # Qwen2.5-7B has 7.61 billion
    for gpu in MACHINES.values():
        cost = step_cost(work(teacher=large, teacher_dtype="bfloat16"), gpu)["judge"]
        assert cost.limit in ("reading weights", "starting operations")

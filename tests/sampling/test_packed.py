"""Products of packed weights are torch's own, up to rounding; a rollout packs the weights that it begins with."""

import copy
import gc

import pytest
import torch
from torch.nn.functional import linear

from skd.sampling import Eager, packed
from skd.sampling.calibrate import measured_costs
from skd.sampling.packed import KeptCopies, Packing, packed_products
from skd.types import Prompts
from tests.sampling.cases import Case, assert_same, expected
from tests.tiny import FAMILIES, tiny_model

pytestmark = pytest.mark.skipif(not packed.worth_packing([2**40]), reason="this torch has no oneDNN")


@pytest.fixture
def packs(monkeypatch):
    """However small a weight is, it is packed; yields all that were, in order."""
    monkeypatch.setattr(packed, "_SMALL_WEIGHT", 1)
    monkeypatch.setattr(packed, "_SMALL_MODEL", 1)
    weights, make = [], packed.packed
    monkeypatch.setattr(packed, "packed", lambda weight: (weights.append(weight), make(weight))[1])
    return weights


@pytest.mark.parametrize("family", FAMILIES)
def test_a_rollout_is_what_the_oracle_writes(family, packs):
    case = Case(family, cap=8)
    assert_same(case.run(slots=3, block=4), expected(case))
    heads = [model.get_output_embeddings().weight.data_ptr() for model in (case.pair.teacher, case.pair.student)]
    assert set(heads) <= {weight.data_ptr() for weight in packs}


def test_each_rollout_packs_anew_and_so_sees_changed_weights(packs):
    case = Case(cap=8)
    pair = copy.deepcopy(case.pair)
    case.run(pair)
    count = len(packs)
    with torch.no_grad():
        pair.student.get_output_embeddings().weight.mul_(-1.0)
    changed, plain = case.run(pair), case.run(pair, execution=Eager(0))
    assert len(packs) == 2 * count, "once for each rollout, and not at all without megabytes"
    assert [ids.tolist() for ids in changed.response_ids] == [ids.tolist() for ids in plain.response_ids]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("rows", [(1,), (7,), (3, 5), (300,)])
@pytest.mark.parametrize("with_bias", [False, True])
def test_a_product_is_the_plain_one(dtype, rows, with_bias, packs):
    weight, bias = torch.randn(40, 24).to(dtype), torch.randn(40).to(dtype) if with_bias else None
    states = torch.randn(*rows, 24).to(dtype)
    with Packing(10**6):
        linear(states[:1], weight, bias)
        found = linear(states, weight, bias)
    wanted = linear(states.double(), weight.double(), None if bias is None else bias.double())
    assert len(packs) == 1
    assert found.dtype == dtype
    torch.testing.assert_close(found.double(), wanted, rtol=2e-2 if dtype == torch.bfloat16 else 1e-5, atol=1e-5)


def test_what_is_not_packed(packs, monkeypatch):
    wide, other = torch.randn(8, 6), torch.randn(8, 6)
    with Packing(wide.nbytes):
        linear(torch.randn(2, 6, dtype=torch.float64), torch.randn(8, 6, dtype=torch.float64))
        assert not packs, "another type of number"
        linear(torch.randn(2, 6), wide)
        linear(torch.randn(2, 6), other)
        assert [weight is wide for weight in packs] == [True], "the second does not fit"
    monkeypatch.setattr(packed, "_SMALL_WEIGHT", 49)
    with Packing(10**6):
        linear(torch.randn(2, 6), wide)
    assert len(packs) == 1, "a small weight"


def test_a_frozen_teachers_copies_stay_and_change_no_bit(packs):
    case, execution = Case(cap=8), Eager(kept=KeptCopies())
    pair = copy.deepcopy(case.pair)
    fresh = case.run(pair, slots=2, execution=Eager())
    count = len(packs)
    for _ in range(2):
        again = case.run(pair, slots=2, execution=execution)
        assert [ids.tolist() for ids in again.response_ids] == [ids.tolist() for ids in fresh.response_ids]
        assert all(map(torch.equal, again.evidence, fresh.evidence))
    student = {weight.data_ptr() for weight in pair.student.parameters()}
    third = packs[2 * count :]
    assert 0 < len(third) < count
    assert {weight.data_ptr() for weight in third} <= student
    with torch.no_grad():
        pair.student.get_output_embeddings().weight.mul_(-1.0)
    changed, plain = case.run(pair, execution=execution), case.run(pair, execution=Eager(0))
    assert [ids.tolist() for ids in changed.response_ids] == [ids.tolist() for ids in plain.response_ids]


def test_costs_are_measured_with_weights_that_are_packed_already(packs):
    measured_costs(Case().pair, Prompts([[2, 3], [4]], range(2)), 2)
    assert packs
    assert len({weight.data_ptr() for weight in packs}) == len(packs)


def packed_by(models, megabytes, frozen, kept, packs):
    """The numbers of these models whose heads were packed in a rollout that multiplies them all."""
    before = len(packs)
    with torch.inference_mode(), packed_products(models, megabytes, frozen, kept):
        for model in models:
            linear(torch.randn(2, 32), model.get_output_embeddings().weight)
    heads = [weight.data_ptr() for weight in packs[before:]]
    return [number for number, m in enumerate(models) if m.get_output_embeddings().weight.data_ptr() in heads]


def test_what_is_kept_leaves_room_for_the_models_of_a_rollout(packs, monkeypatch):
    one, other, student = (tiny_model("llama", seed=seed).requires_grad_(False) for seed in range(3))
    size = sum(weight.nbytes for weight in one.parameters()) / 10**6
    kept = KeptCopies()
    assert packed_by([student, one], 3 * size, one, kept, packs) == [0, 1]
    assert packed_by([student, one], 3 * size, one, kept, packs) == [0]
    assert packed_by([student, other], 3 * size, other, kept, packs) == [0, 1]
    assert packed_by([student, one], 3 * size, one, kept, packs) == [0], "both teachers' copies have room"
    head = one.get_output_embeddings().weight.nbytes / 10**6
    assert packed_by([student, other], 2 * size + head / 2, other, kept, packs) == [0, 1], "one's are given up"
    assert packed_by([student, one], 2 * size + head / 2, one, kept, packs) == [0, 1]
    assert packed_by([student, one], 1.5 * size, one, kept, packs) == [0, 1]
    assert packed_by([student, one], 1.5 * size, one, kept, packs) == [0, 1], "not kept where not all has room"
    assert packed_by([student, one], 3 * size, None, kept, packs) == [0, 1], "not frozen"


def test_copies_go_with_their_model(packs):
    kept, model = KeptCopies(), tiny_model("llama", seed=0)
    packed_by([model], 10, model, kept, packs)
    assert not kept.of(model), "its weights are trained"
    packed_by([model.requires_grad_(False)], 10, model, kept, packs)
    assert len(kept.of(model)) == 1
    packs.clear()
    del model
    gc.collect()
    assert not kept._models


def test_small_models_are_left_alone(packs, monkeypatch):
    model = tiny_model("llama", seed=0)
    with packed_products([model, None], 1):
        assert torch.overrides._get_current_function_mode_stack()
    monkeypatch.setattr(packed, "_SMALL_MODEL", model.num_parameters() + 1)
    for models, megabytes in (([model], 1), ([None], 1)):
        with packed_products(models, megabytes):
            assert not torch.overrides._get_current_function_mode_stack()

"""The parts of the memory estimate against tensors that are really there."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import PreTrainedModel

from skd.check.memory import Estimate, estimate
from skd.config import RunConfig, config_of
from skd.models.head import body
from skd.sampling import packed
from skd.sampling.cache import AttentionForm, CursorCache, CursorModel
from skd.sampling.prompts import PromptCache, PromptReader
from skd.train.optimizer import adamw
from skd.types import Prompts
from tests.tiny import tiny_model

ROWS = Prompts(ids=[[2] * 24] * 4, sample_ids=range(4), references=[[3] * 40] * 4)


def config(method: str = "supervised_kd", **overrides: Any) -> RunConfig:
    teacher = None if method == "sft" else "t"
    values = {"method": method, "teacher": teacher, "student": "s", "data": {"train": "rows.json"}}
    keys = {
        "train.batch_size": 4,
        "sampling.max_new_tokens": 40,
        **{k.replace("__", "."): v for k, v in overrides.items()},
    }
    return config_of(values, keys)


def llama(**keys: Any) -> PreTrainedModel:
    return tiny_model("llama", seed=1, hidden=64, intermediate_size=192, num_key_value_heads=4, **keys)


def saved_bytes(model: PreTrainedModel, rows: int, length: int) -> int:
    """What one forward keeps for its backward pass, without weights."""
    weights = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    alive = []
    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: (alive.append(tensor), keep(tensor))[1], lambda x: x):
        output = body(model.train())(input_ids=torch.full((rows, length), 2), use_cache=False)
    assert output.last_hidden_state.requires_grad
    return sum(kept.values())


def training(found: Estimate) -> dict[str, int]:
    return dict(found.phases[0])


def test_activations_are_what_autograd_keeps_and_grow_with_layers_and_tokens() -> None:
    for layers, rows in ((2, 4), (6, 4), (2, 2)):
        model, prompts = llama(layers=layers), ROWS.select(range(rows))
        found = training(estimate(config(train__batch_size=rows), model, None, prompts))["activations"]
        transient = rows * 64 * 4 * (3 * 192 + 2 * 64)
        assert found - transient == pytest.approx(saved_bytes(model, rows, 64), rel=0.15)


def test_grouped_keys_are_counted_as_they_are_kept() -> None:
    model = tiny_model("llama", seed=1, hidden=64, intermediate_size=192, num_key_value_heads=1)
    found = training(estimate(config(), model, None, ROWS))["activations"] - 4 * 64 * 4 * (3 * 192 + 2 * 64)
    assert found == pytest.approx(saved_bytes(model, 4, 64), rel=0.15)


def test_a_micro_batch_bounds_the_activations_and_checkpointing_lowers_them() -> None:
    model = llama(layers=6)
    whole, half, checkpointed = (
        training(estimate(config(**keys), model, None, ROWS))["activations"]
        for keys in ({}, {"train__micro_batch_tokens": 128}, {"train__gradient_checkpointing": True})
    )
    assert half * 2 == whole
    assert checkpointed < whole / 2


def test_weights_gradients_and_optimiser_are_the_tensors_of_a_step() -> None:
    model, teacher = llama(), tiny_model("llama", seed=2, hidden=32, dtype=torch.bfloat16)
    settings = config(teacher__dtype="bfloat16")
    optimizer = adamw(model, settings.train)
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    found = estimate(settings, model, teacher, ROWS)
    assert found.fixed["student weights"] == _size(model.parameters())
    assert found.fixed["teacher weights"] == _size(teacher.parameters())
    assert training(found)["gradients"] == _size(p.grad for p in model.parameters() if p.grad is not None)
    moments = [state[key] for state in optimizer.state.values() for key in ("exp_avg", "exp_avg_sq")]
    assert found.fixed["optimiser"] == _size(moments)


def test_caches_are_the_tensors_of_the_sampler() -> None:
    model = tiny_model("llama", seed=1, hidden=32)
    found = dict(estimate(config("on_policy"), model, model, ROWS).phases[-1])
    cache = CursorCache(num_rows=4, capacity=64)
    cache.at_start(torch.arange(4))
    for layer in range(2):
        states = torch.zeros(4, 2, 64, 8)
        cache.update(states, states, layer)
    assert found["caches"] == 2 * _size([*cache.keys, *cache.values])


def test_kept_prompts_are_their_keys_and_values_within_the_budget() -> None:
    teacher, kept = tiny_model("llama", seed=1, hidden=32), PromptCache(1)
    body = CursorModel(
        teacher.base_model, AttentionForm(False, None), 512, CursorCache(num_rows=len(ROWS), capacity=64)
    )
    with torch.no_grad():
        PromptReader(body, kept).fill(range(len(ROWS)), [torch.tensor(ids) for ids in ROWS.ids])
    unlike = len({tuple(ids) for ids in ROWS.ids})
    found = estimate(config(sampling__prompt_cache_mb=1), teacher, teacher, ROWS).fixed["kept prompts"]
    assert found * unlike == kept.num_bytes * len(ROWS)
    assert estimate(config(), teacher, teacher, ROWS).fixed["kept prompts"] == 0


@pytest.mark.skipif(torch.cuda.is_available(), reason="weights are packed on a CPU")
def test_packed_weights_are_the_copies_of_a_rollout(monkeypatch: pytest.MonkeyPatch) -> None:
    model, copies, make = llama(), list[torch.Tensor](), packed.packed

    def found(method: str, **changes: Any) -> tuple[int, int]:
        whole = estimate(config(method, **changes), model, model, ROWS)
        return whole.fixed["kept packed weights"], whole.phases[-1]["packed weights"]

    monkeypatch.setattr(packed, "_SMALL_WEIGHT", 1)
    assert found("skd") == (0, 0), "a small model"
    monkeypatch.setattr(packed, "_SMALL_MODEL", 1)
    monkeypatch.setattr(packed, "packed", lambda weight: (copies.append(weight), make(weight))[1])
    with torch.inference_mode(), packed.packed_products([model], 10):
        model(torch.zeros(1, 2, dtype=torch.int64))
    size = _size(copies)
    assert [found("on_policy"), found("skd"), found("supervised_kd")] == [(0, size), (size, size), (0, 0)]
    assert found("skd", teacher={"kind": "average", "decay": 0.5}) == (0, 2 * size), "not frozen"
    assert found("skd", train__sharding="fsdp2") == (0, 2 * size), "gathered anew at each step"
    assert found("skd", sampling__packed_mb=0) == (0, 0)


def test_the_teachers_states_are_kept_for_every_response_token() -> None:
    model, teacher = llama(), tiny_model("llama", seed=2, hidden=32)
    found = training(estimate(config("skd"), model, teacher, ROWS))
    assert found["kept teacher states"] == _size([torch.zeros(4 * 40, 32)])


def test_only_the_largest_phase_counts() -> None:
    found = Estimate({"weights": 10}, [{"a": 1, "b": 2}, {"c": 7}, {}])
    assert found.peak == 17
    assert found.text() == "about 17 bytes at the peak: weights 10 bytes, c 7 bytes"


def _size(tensors: Any) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)

"""The rates of this CPU, measured in some seconds: products, copies, started operations, passes over a vocabulary.

Seconds are those of the processor, so that waiting for it does not count. Each is the median of some runs.
"""

from __future__ import annotations

import os
import platform
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import linear
from transformers import LlamaConfig, LlamaForCausalLM

from skd.objectives import HiddenStates, Objective, ResponseTokens, TeacherView, chunked_loss
from skd.objectives.divergences import ForwardKL
from skd.plan.cost import LAUNCHES_OF_A_LAYER
from skd.plan.machine import MachineConfig, PackedConfig, RatesConfig
from skd.sampling.cache import AttentionForm, CursorCache, CursorModel
from skd.sampling.packed import Packing, packed, worth_packing
from skd.sampling.warp import Warp, draw, kth_largest
from skd.types import STUDENT, Head

__all__ = ["calibrated"]

_FEW, _SOME, _MANY = 8, 128, 512
"""Rows of the two products whose times give both rates: few and many; few and some, where weights are packed."""
_DTYPES = torch.float32, torch.bfloat16
_WIDTH, _INNER = 768, 2304
_VOCABULARY = 32_768
_TOKENS, _ROWS = 64, 16
"""Tokens of a loss, rows of a round."""


def calibrated() -> MachineConfig:
    """This machine with the threads that torch has now; some 5 seconds."""
    weights, products = zip(*(_products(dtype, _MANY) for dtype in _DTYPES), strict=True)
    stream = _stream()
    per_logit = 4.0 / stream
    return MachineConfig(
        name="cpu",
        source=f"measured with {torch.get_num_threads()} threads of {platform.machine()}, torch {torch.__version__}",
        memory_gib=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30,
        weights_gbs=RatesConfig(float32=weights[0] / 1e9, bfloat16=weights[1] / 1e9),
        stream_gbs=stream / 1e9,
        tflops=RatesConfig(float32=products[0] / 1e12, bfloat16=products[1] / 1e12),
        packed=_packed(),
        launch_us=1e6 * _layer() / LAUNCHES_OF_A_LAYER,
        overlap=False,
        loss_passes=_loss() / per_logit,
        draw_passes=_draw() / per_logit,
        judge_passes=_judge() / per_logit,
    )


def _median(run: Callable[[], Any], times: int = 5) -> float:
    """CPU seconds after one run that does not count. Not the least: a step is not taken at the best of moments."""
    found = []
    for _ in range(times + 1):
        started = time.process_time()
        run()
        found.append(time.process_time() - started)
    return statistics.median(found[1:])


@torch.inference_mode()
def _products(dtype: torch.dtype, most: int) -> tuple[float, float]:
    """Bytes of weights a second, and operations a second: t = bytes / a + operations / b at few rows and ``most``."""
    layers = _layers(dtype)
    count = sum(weight.numel() for weight in layers)

    def seconds(rows: int) -> float:
        states = torch.randn(rows, _WIDTH).to(dtype)
        return _median(lambda: [linear(states, weight) for weight in layers])

    few, many = seconds(_FEW), seconds(most)
    per_row = (many - few) / (most - _FEW)
    reading = max(few - _FEW * per_row, few / 10)
    return count * layers[0].element_size() / reading, 2.0 * count / per_row


def _layers(dtype: torch.dtype) -> list[Tensor]:
    """Half of the weights are a head, which is read more slowly than the small matrices of layers."""
    return [torch.randn(size, _WIDTH).to(dtype) for size in (*[_INNER] * 12, _VOCABULARY)]


def _packed() -> PackedConfig | None:
    """The same where weights are packed."""
    if not worth_packing([sys.maxsize]):
        return None
    rates = []
    for dtype in _DTYPES:
        with Packing(sys.maxsize):
            rates.append(_products(dtype, _SOME))
    weights, products = zip(*rates, strict=True)
    layers = _layers(torch.float32)
    seconds = _median(lambda: [packed(weight) for weight in layers])
    return PackedConfig(
        weights_gbs=RatesConfig(float32=weights[0] / 1e9, bfloat16=weights[1] / 1e9),
        tflops=RatesConfig(float32=products[0] / 1e12, bfloat16=products[1] / 1e12),
        packing_gbs=sum(weight.nbytes for weight in layers) / seconds / 1e9,
    )


def _stream() -> float:
    """Bytes read and written a second by a copy that no cache holds."""
    source = torch.randn(2**25)
    target = torch.empty_like(source)
    return 2 * source.nbytes / _median(lambda: target.copy_(source))


@torch.inference_mode()
def _layer() -> float:
    """Seconds of a layer on 32 rows of width 64: its operations are started, and hardly anything else."""

    def forwards(layers: int) -> float:
        config = LlamaConfig(
            vocab_size=64, hidden_size=64, intermediate_size=192, num_hidden_layers=layers, num_attention_heads=4
        )
        module, form = LlamaForCausalLM(config).eval().base_model, AttentionForm(False, None)
        body = CursorModel(module, form, 64, CursorCache(num_rows=32, capacity=32))
        ids, cursor = torch.zeros(32, 1, dtype=torch.int64), torch.full((32,), 8)
        return _median(lambda: [body.forward(ids, cursor, 16) for _ in range(10)]) / 10

    return (forwards(12) - forwards(2)) / 10


def _loss() -> float:
    """Seconds for each logit of the loss with its gradient, heads too narrow for their products to count."""
    hidden = torch.randn(_TOKENS, 8, requires_grad=True)
    head = Head(torch.randn(_VOCABULARY, 8, requires_grad=True))
    teacher: TeacherView = HiddenStates(torch.randn(_TOKENS, 8), Head(torch.randn(_VOCABULARY, 8)))
    ids = torch.arange(_TOKENS)
    tokens = ResponseTokens(ids, torch.full((_TOKENS,), STUDENT, dtype=torch.uint8), ids)
    objective, weights = Objective(ForwardKL()), torch.ones(_TOKENS)
    seconds = _median(
        lambda: chunked_loss(hidden, head, tokens, weights, objective, teacher=teacher).loss.backward(), times=3
    )
    return seconds / (_TOKENS * _VOCABULARY)


@torch.inference_mode()
def _draw() -> float:
    logits, noise = torch.randn(_ROWS, _VOCABULARY), torch.rand(_ROWS, dtype=torch.float64)
    return _median(lambda: draw(Warp().log_probs(logits), noise)) / logits.numel()


@torch.inference_mode()
def _judge() -> float:
    logits = torch.randn(_ROWS, _VOCABULARY)
    return _median(lambda: kth_largest(logits, 25)) / logits.numel()

"""How a loss is cut: within its budget, never below one token, in tiles on a CPU only."""

from __future__ import annotations

import pytest

from skd.objectives import DEFAULT_BUDGET_BYTES, Cut

VOCABULARIES = [64, 49_152, 262_144]


@pytest.mark.parametrize("device", ["cpu", "cuda"])
@pytest.mark.parametrize("vocab_size", VOCABULARIES)
@pytest.mark.parametrize("budget_bytes", [2**26, DEFAULT_BUDGET_BYTES])
def test_a_cut_fits_its_budget(vocab_size: int, device: str, budget_bytes: int) -> None:
    cut = Cut.of(vocab_size, device, budget_bytes)
    assert cut.num_bytes(vocab_size, 10**6, with_teacher=True) <= budget_bytes
    assert 1 <= cut.tile <= cut.chunk


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_a_budget_below_one_token_still_takes_one_token_at_a_time(device: str) -> None:
    assert Cut.of(262_144, device, 1) == Cut(1, 1)


def test_an_accelerator_gets_no_tiles_and_a_cpu_small_ones() -> None:
    accelerator, cpu = Cut.of(49_152, "cuda"), Cut.of(49_152, "cpu")
    assert accelerator.tile == accelerator.chunk
    assert cpu.tile < cpu.chunk


def test_without_a_teacher_or_with_few_tokens_less_is_held() -> None:
    cut = Cut(8, 2)
    assert cut.num_bytes(10, 100, with_teacher=True) == 4 * 10 * (2 * 8 + 16 * 2)
    assert cut.num_bytes(10, 100, with_teacher=False) == 4 * 10 * (8 + 16 * 2)
    assert cut.num_bytes(10, 1, with_teacher=True) == 4 * 10 * (2 + 16)

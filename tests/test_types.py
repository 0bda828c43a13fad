from __future__ import annotations

import pytest
import torch

from skd.types import Prompts, Rollout


def prompts() -> Prompts:
    return Prompts([[5], [6], [7]], [0, 1, 2], [[2, 3], [4], []], [[True, False], [True], []])


def test_prompts_select_references_with_their_masks() -> None:
    chosen = prompts().select([1, 0])
    assert chosen == Prompts([[6], [5]], [1, 0], [[4], [2, 3]], [[True], [True, False]])
    assert Prompts([[6], [5]], [1, 0]).select([1]).reference_masks is None


@pytest.mark.parametrize(
    ("masks", "message"),
    [
        ([[True]], "reference_masks has 1 entries and ids has 2; one for every prompt"),
        ([[True], [True, True]], "an entry of reference_masks is not as long as its reference"),
    ],
)
def test_masks_must_fit(masks: list[list[bool]], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Prompts([[6], [5]], [1, 0], [[4], [2]], masks)
    with pytest.raises(ValueError, match="reference_masks"):
        Prompts([[6], [5]], [1, 0], None, masks)


def test_a_rollout_selects_masks() -> None:
    ids = [torch.tensor([2, 3]), torch.tensor([4])]
    masks = [torch.tensor([False, True]), torch.tensor([True])]
    rollout = Rollout(ids, ids, ids, torch.zeros(2, dtype=torch.bool), [0, 1], [0, 0], masks=masks)
    chosen = rollout.select([1]).masks
    assert chosen is not None
    assert [mask.tolist() for mask in chosen] == [[True]]
    assert rollout.select([1]).evidence is None

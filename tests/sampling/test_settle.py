"""The probe that tells at load whether masks and cache are what a model wants, for windows of any length."""

from dataclasses import replace

import pytest
import torch

from skd.sampling import cache
from skd.sampling.cache import AttentionForm, settle_attention
from tests.tiny import FAMILIES, WINDOWED, tiny_model


@pytest.mark.parametrize("family", WINDOWED)
@pytest.mark.parametrize("window", [3, 8, 100, 4096])
def test_a_window_is_found_whatever_its_length_and_left_as_it_was(family, window):
    model = tiny_model(family, seed=1, window=window)
    form = settle_attention(model)
    assert form is not None
    assert form.window == window
    assert model.config.sliding_window == window


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_has_a_form(family):
    assert settle_attention(tiny_model(family, seed=1)) is not None


@pytest.mark.parametrize("family", WINDOWED)
@pytest.mark.parametrize("window", [8, 4096])
@pytest.mark.parametrize("error", [-1, 1, None])
def test_a_mask_that_means_another_window_is_refused(family, window, error, monkeypatch):
    right = AttentionForm.masks

    def wrong(form, position_BG, num_keys, dtype):
        assert form.window is not None
        return right(replace(form, window=None if error is None else form.window + error), position_BG, num_keys, dtype)

    monkeypatch.setattr(AttentionForm, "masks", wrong)
    assert settle_attention(tiny_model(family, seed=1, window=window)) is None


def test_a_cache_that_does_not_rewind_is_refused(monkeypatch):
    right = cache.CursorCache.at_cursors

    def drifting(self, position_BG, num_keys):
        right(self, position_BG - torch.arange(2).unsqueeze(1), num_keys)

    monkeypatch.setattr(cache.CursorCache, "at_cursors", drifting)
    assert settle_attention(tiny_model("llama", seed=1)) is None

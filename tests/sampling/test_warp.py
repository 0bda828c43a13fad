"""Warps and draws against numpy float64 and against exact distributions."""

import numpy as np
import pytest
import torch
from scipy.stats import chisquare

from skd.errors import ConfigError
from skd.sampling import Warp
from skd.sampling.noise import Purpose, uniform
from skd.sampling.warp import draw
from tests.oracles import warp as oracle
from tests.oracles.draw import draw as naive_draw
from tests.oracles.draw import draw_margin

LARGE = 262_144


def random_logits(rows, vocab, seed=0, scale=2.0):
    return torch.randn(rows, vocab, generator=torch.Generator().manual_seed(seed)) * scale


@pytest.mark.parametrize("temperature", [0.0, 0.2, 0.5, 1.0, 1.7])
@pytest.mark.parametrize("top_p", [1e-6, 0.3, 0.5, 0.95, 1.0])
def test_log_probs_are_the_oracles(temperature, top_p):
    logits = random_logits(20, 64)
    logp = Warp(temperature, top_p).log_probs(logits)
    assert logp.dtype == torch.float32
    wanted = np.stack([oracle.warp(row, temperature, top_p) for row in logits.numpy()])
    np.testing.assert_allclose(logp.exp().numpy(), wanted, atol=2e-6)
    np.testing.assert_array_equal(torch.isneginf(logp).numpy(), wanted == 0.0)


def test_zero_temperature_takes_the_lowest_id_of_a_tie():
    logp = Warp(0.0).log_probs(torch.tensor([[1.0, 3.0, 3.0, 3.0], [2.0, 2.0, 2.0, 2.0]]))
    assert logp.tolist() == [[-np.inf, 0.0, -np.inf, -np.inf], [0.0, -np.inf, -np.inf, -np.inf]]


def test_ids_that_tie_at_the_border_of_top_p_all_stay():
    logits = torch.tensor([[0.5, 0.125, 0.125, 0.125, 0.125]]).log()
    kept = Warp(1.0, 0.6).log_probs(logits).isfinite()
    assert kept.all()
    assert Warp(1.0, 0.45).log_probs(logits).isfinite().tolist() == [[True, False, False, False, False]]


def test_logits_of_minus_infinity_stay_impossible():
    logits = torch.tensor([[0.0, -torch.inf, 1.0, -torch.inf]])
    for warp in (Warp(), Warp(0.5, 0.9), Warp(0.0)):
        logp = warp.log_probs(logits)
        assert not logp.isnan().any()
        assert torch.isneginf(logp[0, [1, 3]]).all()
        assert float(logp.exp().sum()) == pytest.approx(1.0)


@pytest.mark.parametrize("vocab", [1, 2, 5, 64, 1000, 4097])
def test_draw_is_the_naive_inverse_cdf(vocab):
    logp = Warp(0.7, 0.95).log_probs(random_logits(64, vocab, seed=vocab))
    u = uniform(3, Purpose.DRAFT, 0, torch.arange(64), 0, vocab)
    ids = draw(logp, u)
    assert ids.dtype == torch.int64
    for row in range(64):
        probs = logp[row].exp().double().numpy()
        assert draw_margin(probs, float(u[row])) > 1e-7 or vocab == 1
        assert int(ids[row]) == naive_draw(probs, float(u[row]))


def test_100_000_draws_over_five_tokens_have_the_exact_distribution():
    logits = torch.tensor([0.3, -torch.inf, 1.9, -1.0, 0.8])
    n = 100_000
    u = uniform(0, Purpose.DRAFT, 0, torch.arange(n), 0, 0)
    ids = draw(Warp(0.8).log_probs(logits).expand(n, 5), u)
    counts = np.bincount(ids.numpy(), minlength=5)
    wanted = oracle.warp(logits.numpy(), 0.8)
    assert counts[1] == 0
    possible = wanted > 0
    assert chisquare(counts[possible], n * wanted[possible]).pvalue > 1e-3


def test_draws_over_262_144_ids_have_the_exact_distribution_in_eight_cells():
    logp = Warp(0.9).log_probs(random_logits(1, LARGE, scale=1.0))[0]
    probs = logp.exp().double().numpy()
    cells = np.minimum((probs.cumsum() / probs.sum() * 8).astype(int), 7)
    wanted = np.bincount(cells, weights=probs / probs.sum())
    u = uniform(1, Purpose.DRAFT, 0, torch.arange(1024), 0, 0)
    ids = torch.cat([draw(logp.expand(64, LARGE), part) for part in u.split(64)]).numpy()
    assert chisquare(np.bincount(cells[ids], minlength=8), 1024 * wanted).pvalue > 1e-3
    borders = probs.cumsum() / probs.sum()
    naive = np.searchsorted(borders, u.numpy(), side="right")
    near = np.minimum(abs(borders[naive] - u.numpy()), abs(borders[naive - 1] - u.numpy())) < 1e-12
    np.testing.assert_array_equal(ids[~near], naive[~near])
    assert near.mean() < 0.01


@pytest.mark.parametrize("vocab", [5, 64, 1000, LARGE])
@pytest.mark.parametrize("u", [2.0**-54, 1e-9, 0.5, 1.0 - 2.0**-53, 1.0 - 1e-9])
def test_an_id_of_probability_zero_is_never_drawn(vocab, u):
    logits = torch.zeros(1, vocab)
    possible = torch.zeros(vocab, dtype=torch.bool)
    possible[vocab // 3 : vocab // 2 : 2] = True
    logits[:, ~possible] = -torch.inf
    chosen = draw(Warp().log_probs(logits), torch.tensor([u], dtype=torch.float64))
    assert bool(possible[chosen])
    if u in (2.0**-54, 1.0 - 2.0**-53):
        assert int(chosen) == int(possible.nonzero()[0 if u < 0.5 else -1])


@pytest.mark.parametrize(
    ("temperature", "top_p", "text"),
    [
        (-0.1, 1.0, r"temperature: is -0\.1; it must be 0 or more and finite"),
        (float("nan"), 1.0, "temperature: is nan"),
        (1.0, 0.0, r"top_p: is 0\.0; it must be in \(0, 1\]"),
        (1.0, 1.1, r"top_p: is 1\.1"),
    ],
)
def test_impossible_warps_are_refused(temperature, top_p, text):
    with pytest.raises(ConfigError, match=text):
        Warp(temperature, top_p)

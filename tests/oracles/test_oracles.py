"""The oracles hold against published vectors and against each other."""

import numpy as np
import pytest
import torch

from tests.oracles import enumerate as exact
from tests.oracles import interleave as oracle
from tests.oracles import philox
from tests.oracles.draw import draw
from tests.oracles.warp import nucleus, warp
from tests.tiny import EOS_ID, FAMILIES, WINDOWED, tiny_model, tiny_tokenizer


@pytest.mark.parametrize(
    ("counter", "key", "words"),
    [
        ((0, 0, 0, 0), (0, 0), "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
        ((0xFFFFFFFF,) * 4, (0xFFFFFFFF,) * 2, "408f276d 41c83b0e a20bc7c6 6d5451fd"),
        (
            (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
            (0xA4093822, 0x299F31D0),
            "d16cfe09 94fdcceb 5001e420 24126ea1",
        ),
    ],
)
def test_philox_gives_the_known_answers_of_random123(counter, key, words):
    assert philox.philox(counter, key) == tuple(int(word, 16) for word in words.split())


def test_uniforms_of_different_purposes_differ_and_fill_the_interval():
    values = [philox.uniform(7, p, 0, s, 0, i) for p in range(3) for s in range(10) for i in range(100)]
    assert len(set(values)) == len(values)
    assert 0.0 < min(values) < 0.001
    assert 0.999 < max(values) < 1.0
    assert np.mean(values) == pytest.approx(0.5, abs=0.02)


def test_warp_by_hand():
    logits = np.log([0.5, 0.2, 0.2, 0.1])
    np.testing.assert_allclose(warp(logits), [0.5, 0.2, 0.2, 0.1])
    np.testing.assert_allclose(warp(logits, 0.5), np.array([25, 4, 4, 1]) / 34)
    np.testing.assert_allclose(warp(logits, 1.0, 0.5), [1, 0, 0, 0])
    np.testing.assert_allclose(warp(logits, 1.0, 0.6), np.array([5, 2, 2, 0]) / 9)  # the tie at the border stays
    np.testing.assert_allclose(warp(np.array([1.0, 3.0, 3.0]), 0.0), [0, 1, 0])
    assert nucleus(np.array([0.25] * 4), 0.3).all()


def test_draw_by_hand():
    probs = np.array([0.0, 0.5, 0.0, 0.5, 0.0])
    assert [draw(probs, u) for u in (1e-9, 0.4999, 0.5, 0.9999999999)] == [1, 1, 3, 3]


@pytest.mark.parametrize("family", FAMILIES)
def test_tiny_models_spread_their_probability_and_read_their_context(family):
    model = tiny_model(family, seed=1)
    ids = torch.randint(2, 64, (4, 24), generator=torch.Generator().manual_seed(3))
    changed = ids.clone()
    changed[:, 8] = (changed[:, 8] - 1) % 62 + 2
    with torch.no_grad():
        logits, other = (model(input_ids=x, use_cache=False).logits for x in (ids, changed))
    assert 1.0 < float(logits.std(dim=-1).mean()) < 2.5
    assert torch.equal(logits[:, :8], other[:, :8])
    assert float((logits - other)[:, -1].abs().mean()) > 0.05
    assert model.config.eos_token_id == model.generation_config.eos_token_id == EOS_ID == tiny_tokenizer().eos_token_id


@pytest.mark.parametrize("family", WINDOWED)
def test_tiny_windows_change_the_prediction_beyond_the_window_only(family):
    near, far = (tiny_model(family, seed=1, window=window) for window in (8, 100))
    far.load_state_dict(near.state_dict())
    ids = torch.randint(2, 64, (2, 20), generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        difference = (near(input_ids=ids, use_cache=False).logits - far(input_ids=ids, use_cache=False).logits).abs()
    assert float(difference[:, :8].max()) < 1e-6
    assert float(difference[:, 8:].mean()) > 0.05


V, CAP, N = 5, 3, 2000
STUDENT_WARP, TEACHER_WARP = (0.8, 0.9), (0.7, 1.0)


@pytest.fixture(scope="module")
def tables():
    """Memoised next-token logits of a student and a teacher over 5 tokens."""
    models = [tiny_model("llama", seed=seed, vocab_size=V) for seed in (1, 2)]
    prompt, memory = [2, 3], {}

    def table(which):
        def logits(prefix):
            if (which, prefix) not in memory:
                memory[which, prefix] = oracle.next_logits(models[which], [*prompt, *prefix], V)
            return memory[which, prefix][0]

        return logits

    return prompt, table, memory


@pytest.mark.parametrize(
    ("gate", "step"),
    [
        (oracle.top_k(2), lambda s, t: exact.skd_step(s, t, 2, STUDENT_WARP, TEACHER_WARP)),
        (oracle.ipd(0.4), lambda s, t: exact.ipd_step(s, t, 0.4, STUDENT_WARP, TEACHER_WARP)),
    ],
    ids=["top_k", "ipd"],
)
def test_the_token_by_token_oracle_has_the_enumerated_distribution(gate, step, tables, monkeypatch):
    prompt, table, memory = tables
    student, teacher = table(0), table(1)
    expected = exact.responses(step(student, teacher), CAP, frozenset({EOS_ID}))
    assert sum(expected.values()) == pytest.approx(1.0)

    def remembered(model, ids, vocab_size):
        (teacher if model else student)(tuple(ids[len(prompt) :]))
        return memory[model, tuple(ids[len(prompt) :])]

    monkeypatch.setattr(oracle, "next_logits", remembered)
    rows = []
    for response in range(N):
        written = oracle.interleave(
            0,
            1,
            prompt,
            gate=gate,
            vocab_size=V,
            max_new_tokens=CAP,
            student_warp=STUDENT_WARP,
            teacher_warp=TEACHER_WARP,
            stop_ids=frozenset({EOS_ID}),
            response=response,
        )
        rows.append(list(zip(written.ids, written.authors, strict=True)))
    assert exact.chi_square_p(exact.counts(rows), expected) > 1e-3


def test_enumerated_ipd_is_the_mixture(tables):
    _, table, _ = tables
    probabilities = exact.ipd_step(table(0), table(1), 0.3)((2,))
    tokens = np.zeros(V)
    for (token, _), p in probabilities.items():
        tokens[token] += p
    np.testing.assert_allclose(tokens, 0.7 * warp(table(0)((2,))) + 0.3 * warp(table(1)((2,))))

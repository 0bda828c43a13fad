"""Pairs that cannot be sampled from as they are: padded vocabularies, different ones, state that cannot be rewound."""

from __future__ import annotations

import json

import pytest

import skd
from skd.errors import ModelError
from tests.sampling.cases import VOCAB, Case, assert_same, expected
from tests.tiny import save_tiny


@pytest.mark.parametrize("family", ["qwen2", "llama"])
def test_padded_vocabularies_are_cut_to_the_shared_ids(family):
    case = Case(family, teacher_only=(("padded_vocab", 80),), student_only=(("padded_vocab", 72),))
    pair = case.pair
    assert pair.vocab_size == VOCAB
    assert pair.teacher_head().weight_VD.shape[0] == pair.student_head().weight_VD.shape[0] == VOCAB
    uncut = [model.config.vocab_size for model in case.models]
    assert uncut == [80, 72]
    assert_same(case.run(slots=2), expected(case))


def test_padding_really_holds_probability_in_that_test():
    from tests.oracles.interleave import next_logits
    from tests.oracles.warp import softmax

    case = Case("qwen2", teacher_only=(("padded_vocab", 80),))
    logits, _ = next_logits(case.models[0], [5, 9], 80)
    assert softmax(logits)[VOCAB:].sum() > 0.05


def test_different_vocabularies_are_refused_with_the_first_ids_that_differ(tmp_path):
    teacher, student = (save_tiny(tmp_path / name, "llama", seed=1) for name in ("teacher", "student"))
    path = student / "tokenizer.json"
    tokenizer = json.loads(path.read_text())
    vocab = tokenizer["model"]["vocab"]
    vocab["t11"], vocab["t40"] = vocab["t40"], vocab["t11"]
    path.write_text(json.dumps(tokenizer))
    with pytest.raises(ModelError) as caught:
        skd.load_pair(teacher, student, device="cpu")
    text = str(caught.value)
    assert "11" in text
    assert "t11" in text
    assert "t40" in text


@pytest.mark.parametrize("role", ["teacher", "student"])
def test_a_family_whose_state_cannot_be_rewound_is_refused_by_name(role, tmp_path):
    places = {"teacher": save_tiny(tmp_path / "llama", "llama", seed=1)}
    places["student"] = places["teacher"]
    places[role] = save_tiny(tmp_path / "mamba", "mamba", seed=1)
    with pytest.raises(ModelError) as caught:
        skd.load_pair(places["teacher"], places["student"], device="cpu")
    assert "mamba" in str(caught.value).lower()

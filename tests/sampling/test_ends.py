"""Where a response ends: stop ids, stop strings, the cap, the context; and the edges of a batch."""

from dataclasses import replace

import pytest
import torch

import skd
from skd.errors import DataError, ModelError, NumericsError, SkdError
from skd.types import Prompts
from tests.sampling.cases import PROMPT_IDS, Case, assert_same, expected
from tests.tiny import tiny_tokenizer

MANY_STOPS = (("eos_token_id", (1, 7, 9, 20, 33, 41, 50, 60)),)


def lengths(rollout):
    return [len(ids) for ids in rollout.response_ids]


@pytest.mark.parametrize("gate", ["top_k", "accept_all", "accept_none"])
@pytest.mark.parametrize("block", [1, 5, 8])
def test_a_stop_id_ends_the_response_and_is_part_of_it(gate, block):
    case = Case(gate=gate, cap=9, responses=4, both=MANY_STOPS)
    stops = set(MANY_STOPS[0][1])
    assert case.pair.stop_ids == stops
    truth = expected(case)
    ended = [len(written.ids) for written in truth if not written.truncated]
    assert 1 in ended  # at position 0
    assert any(length in (2, 3, 4, 7) for length in ended)  # inside a draft
    assert any(written.truncated for written in truth)
    rollout = case.run(block=block, slots=3)
    assert_same(rollout, truth)
    for ids, cut in zip(rollout.response_ids, rollout.truncated, strict=True):
        assert not set(ids[:-1].tolist()) & stops
        assert bool(cut) == (int(ids[-1]) not in stops)


def test_a_stop_id_at_the_cap_is_an_end_and_not_a_cut():
    case = Case(cap=9, responses=4, both=MANY_STOPS)
    length = next(len(w.ids) for w in expected(case) if not w.truncated and 1 < len(w.ids) < 9)
    at_cap = replace(case, cap=length)
    truth = expected(at_cap)
    assert any(len(w.ids) == length and not w.truncated for w in truth)
    assert any(len(w.ids) == length and w.truncated for w in truth)
    for block in (1, 5):
        assert_same(at_cap.run(block=block, slots=3), truth)


@pytest.mark.parametrize("cap", [1, 2, 5, 6])
@pytest.mark.parametrize("gate", ["top_k", "accept_all", "accept_none"])
def test_the_cap_is_exact_whatever_the_block(cap, gate):
    case = Case(gate=gate, cap=cap)
    for block in (1, 5, 8):
        rollout = case.run(block=block, slots=2)
        assert max(lengths(rollout)) == cap
        assert_same(rollout, expected(case))


def test_more_prompts_than_slots_fill_the_slots_that_finish():
    prompts = tuple(tuple(range(2 + i, 3 + i + i % 5)) for i in range(17))
    case = Case(prompts=prompts, samples=tuple(range(17)), cap=9, both=MANY_STOPS)
    for slots in (2, 5):
        assert_same(case.run(slots=slots, block=3), expected(case))


def test_a_prompt_of_one_token_is_enough():
    case = Case(prompts=((9,),), samples=(4,))
    assert_same(case.run(), expected(case))


def test_a_later_longer_prompt_fits_the_slot_of_a_short_one():
    case = Case(prompts=((9,), tuple(range(10, 50)), (8, 3)), samples=(0, 1, 2), cap=8)
    assert_same(case.run(slots=1), expected(case))


def test_no_prompts_give_an_empty_rollout():
    rollout = skd.interleave(Case().pair, Prompts([], []), gate=skd.TopK(5), max_new_tokens=4)
    assert len(rollout) == rollout.num_tokens == rollout.stats.rounds == 0
    assert rollout.truncated.shape == (0,)
    assert rollout.text() == []


def test_an_empty_prompt_is_refused_with_its_row():
    with pytest.raises((DataError, ModelError)) as caught:
        skd.interleave(Case().pair, Prompts([[4], []], [0, 5]), gate=skd.TopK(5), max_new_tokens=4)
    assert "5" in str(caught.value)


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_a_prompt_and_cap_beyond_the_context_are_refused_with_both_numbers(family):
    case = Case(family, cap=30, prompts=((3,), tuple(range(2, 22))), samples=(0, 1), both=(("max_positions", 48),))
    with pytest.raises((DataError, ModelError)) as caught:
        case.run()
    text = str(caught.value)
    assert "48" in text
    assert "50" in text or ("20" in text and "30" in text)


def stop_string_cases():
    """Stop strings cut from what the oracle writes without any, so that each one is met mid-response."""
    words = tiny_tokenizer()
    for seed in (1, 2):
        free = Case(seed=seed, cap=10)
        ids = max((written.ids for written in expected(free)), key=len)
        i = len(ids) // 2
        here, there = words.decode(ids[i]), words.decode(ids[i + 1])
        yield replace(free, stop_strings=(f"{here[-1]} {there}",))
        yield replace(free, stop_strings=("never written", here))


@pytest.mark.parametrize("index", range(4))
def test_a_stop_string_ends_the_response_with_the_token_that_completes_it(index):
    case = list(stop_string_cases())[index]
    truth = expected(case)
    free = expected(replace(case, stop_strings=()))
    assert any(len(a.ids) < len(b.ids) for a, b in zip(truth, free, strict=True))
    for block in (1, 5):
        assert_same(case.run(block=block, slots=2), truth)


def test_a_stop_string_in_the_prompt_does_not_stop():
    prompt = PROMPT_IDS[2]
    text = tiny_tokenizer().decode(list(prompt))
    case = Case(prompts=(prompt,), samples=(0,), cap=6)
    with_stop = case.run(stop_strings=(text[-6:] + " ",))
    assert torch.equal(with_stop.response_ids[0], case.run().response_ids[0])


@pytest.mark.parametrize("name", ["block", "slots", "max_new_tokens", "responses_per_prompt"])
def test_impossible_numbers_are_refused(name):
    with pytest.raises((ValueError, SkdError)):
        Case().run(**{name: 0})


@pytest.mark.parametrize(
    ("gate", "role"),
    [("top_k", "teacher"), ("top_k", "student"), ("accept_all", "student"), ("accept_none", "teacher")],
)
def test_a_model_that_is_not_finite_stops_the_run(gate, role):
    case = Case(gate=gate, prompts=((5, 6),), samples=(3,), both=(("layers", 1),))
    norm = getattr(case.pair, role).base_model.norm.weight
    before = norm.detach().clone()
    try:
        with torch.no_grad():
            norm[0] = float("nan")
        with pytest.raises(NumericsError, match=f"prompt 3: .*{role}"):
            case.run()
    finally:
        with torch.no_grad():
            norm.copy_(before)


def test_an_empty_stop_string_is_refused():
    with pytest.raises(SkdError, match="stop_strings"):
        Case().run(stop_strings=("",))


@pytest.mark.parametrize(
    ("prompts", "arguments", "text"),
    [
        ("t5 t6", {}, r"prompts: is the text 't5 t6'; write \[TEXT\]"),
        (["t5"], {"stop_strings": "t9"}, r"stop_strings: is the text 't9'; write \['t9'\]"),
        (Prompts([[5], [64]], [0, 7]), {}, r"prompt 7: holds an id outside 0\.\.63"),
        (Prompts([[-1]], [3]), {}, "prompt 3: holds an id outside"),
        (["t5", "t6"], {"epoch": [0]}, "epoch: has 1 entries for 2 prompts"),
    ],
)
def test_arguments_that_cannot_be_meant_are_refused(prompts, arguments, text):
    with pytest.raises(SkdError, match=text):
        skd.interleave(Case().pair, prompts, max_new_tokens=3, **arguments)


def test_of_prompts_that_are_too_long_the_longest_is_shown_and_all_are_counted():
    pair = Case("llama", both=(("max_positions", 48),)).pair
    with pytest.raises(DataError, match=r"prompt 6: prompt 45 \+ response 8 = 53 tokens .* 48 \(2 of 3 prompts do\)"):
        skd.interleave(pair, Prompts([[5], [5] * 45, [5] * 41], [1, 6, 9]), max_new_tokens=8)


def test_prompts_need_one_sample_id_and_one_reference_each():
    with pytest.raises(ValueError, match="sample_ids has 1 entries and ids has 2; one for every prompt"):
        Prompts([[5], [6]], [0])
    with pytest.raises(ValueError, match="references has 0 entries and ids has 1"):
        Prompts([[5]], [0], [])

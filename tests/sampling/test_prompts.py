"""Prompts are read once: shared by the responses to them, kept over rollouts, and never another result for it."""

from dataclasses import replace

import pytest
import torch

import skd
from skd.errors import ConfigError
from tests.sampling.cases import PROMPT_IDS, STUDENT, Case, assert_same, directory, expected
from tests.tiny import FAMILIES, WINDOWED

TOKENS = sum(len(ids) - 1 for ids in PROMPT_IDS)
"""Prompt tokens that go into a cache: all but the last of each prompt."""
OWN = ((9, 8, 7, 6, 5, 4, 3, 2), (33,), (12, 13), (2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13), (40, 41, 42, 43, 44, 45))


def assert_same_bits(one, other):
    for name in ("response_ids", "authors", "evidence"):
        for mine, theirs in zip(getattr(one, name), getattr(other, name), strict=True):
            assert torch.equal(mine, theirs), name


@pytest.mark.parametrize("family", FAMILIES)
def test_kept_prompts_change_no_bit_and_the_second_rollout_reads_none(family):
    case, kept = Case(family), skd.PromptCache(1)
    first = case.run(block=4, slots=3, kept_prompts=kept)
    assert_same(first, expected(case))
    assert (first.stats.teacher_read, first.stats.teacher_reused) == (TOKENS, 0)
    second = case.run(block=4, slots=3, kept_prompts=kept)
    assert (second.stats.teacher_read, second.stats.teacher_reused) == (0, TOKENS)
    assert_same_bits(first, second)
    assert_same_bits(first, case.run(block=4, slots=3, kept_prompts=skd.PromptCache(0)))


@pytest.mark.parametrize("family", WINDOWED)
@pytest.mark.parametrize("gate", ["top_k", "accept_none"])
def test_kept_prompts_longer_than_the_window(family, gate):
    both = (("softcap", 5.0), ("window", 8)) if family == "gemma2" else (("window", 8),)
    prompt = tuple(range(10, 30))
    case = Case(family, gate=gate, prompts=(prompt, prompt[:3]), samples=(0, 1), cap=16, both=both)
    kept = skd.PromptCache(1)
    first, second = (case.run(slots=2, kept_prompts=kept) for _ in range(2))
    assert second.stats.teacher_read == 0
    assert_same(second, expected(case))
    assert_same_bits(first, second)


def test_other_company_changes_no_bit_of_what_the_teacher_reads():
    case, kept = Case(), skd.PromptCache(1)
    for prompt, sample in zip(case.prompts, case.samples, strict=True):
        replace(case, prompts=(prompt,), samples=(sample,)).run(kept_prompts=kept)
    together = case.run(slots=3, kept_prompts=kept)
    assert together.stats.teacher_read == 0
    assert_same_bits(together, case.run(slots=3, kept_prompts=skd.PromptCache(1)))


def test_a_full_cache_keeps_what_it_has_within_its_budget():
    case, whole = Case(), skd.PromptCache(1)
    truth = case.run(slots=3, kept_prompts=whole)
    half = skd.PromptCache(whole.num_bytes / 2e6)
    for _ in range(3):
        rollout = case.run(slots=3, kept_prompts=half)
        assert_same_bits(rollout, truth)
    assert 0 < rollout.stats.teacher_reused < TOKENS
    assert rollout.stats.teacher_read + rollout.stats.teacher_reused == TOKENS
    assert 0 < half.num_bytes <= whole.num_bytes / 2


def test_the_cache_counts_the_bytes_of_keys_and_values():
    case, kept = Case(), skd.PromptCache(1)
    case.run(kept_prompts=kept)
    config = case.models[0].config
    size = config.hidden_size // config.num_attention_heads
    assert kept.num_bytes == TOKENS * 2 * config.num_hidden_layers * config.num_key_value_heads * size * 4


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("slots", [2, 4, 20])
def test_the_responses_to_a_prompt_share_one_reading(family, slots):
    case = Case(family, responses=4, cap=6)
    rollout = case.run(block=3, slots=slots)
    assert_same(rollout, expected(case))
    stats = rollout.stats
    assert (stats.student_read, stats.student_reused) == (TOKENS, 3 * TOKENS)
    assert (stats.teacher_read, stats.teacher_reused) == (TOKENS, 3 * TOKENS)


def test_each_model_shares_its_own_prompt():
    case = Case(teacher_prompts=OWN, responses=3, cap=6)
    rollout = case.run(block=3, slots=4)
    assert_same(rollout, expected(case))
    assert (rollout.stats.student_read, rollout.stats.teacher_read) == (TOKENS, sum(len(ids) - 1 for ids in OWN))


def test_rows_that_were_dropped_share_nothing():
    ends = (("eos_token_id", (1, 7, 9, 20, 33, 41, 50, 60)),)
    case = Case(responses=5, cap=10, both=ends)
    assert_same(case.run(slots=7, block=2, kept_prompts=skd.PromptCache(1)), expected(case))


def test_two_teachers_in_one_cache_are_kept_apart():
    one, kept = Case(), skd.PromptCache(1)
    other = replace(one, teacher_only=(("seed", 5),))
    one.run(kept_prompts=kept)
    assert other.run(kept_prompts=kept).stats.teacher_read == TOKENS
    for case in (one, other):
        again = case.run(kept_prompts=kept)
        assert again.stats.teacher_read == 0
        assert_same(again, expected(case))


@pytest.mark.parametrize("teacher", [skd.CurrentStudent(), skd.MovingAverage(0.5)])
def test_nothing_is_kept_of_a_teacher_that_changes(teacher):
    place = directory("llama", tuple(sorted(STUDENT.items())))
    pair, kept = skd.load_pair(teacher, place, device="cpu"), skd.PromptCache(1)
    Case().run(pair, kept_prompts=kept)
    assert kept.num_bytes == 0


@pytest.mark.parametrize("megabytes", [-1, float("nan"), float("inf")])
def test_an_impossible_budget_is_refused(megabytes):
    with pytest.raises(ConfigError, match="must be 0 or more and finite"):
        skd.PromptCache(megabytes)

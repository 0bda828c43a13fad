"""The rounds that the cost model plays against the sampler's own, and the step that a config asks for."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

import skd
from skd.config import config_of
from skd.plan import MACHINES, Shape, Work, step_cost
from skd.plan.work import played
from skd.types import Prompts
from tests.tiny import save_tiny

SHAPE = Shape.llama(layers=2, hidden=32, inner=96, heads=2, key_heads=2, vocab_size=64, tied=True)
PROMPTS = Prompts(ids=[[2] * n for n in range(1, 9)], sample_ids=range(8), references=[[3] * 5] * 8)


def work(**changes: object) -> Work:
    whole = Work(
        student=SHAPE,
        teacher=replace(SHAPE, body=4 * SHAPE.body),
        prompts=[8] * 6,
        responses=[12] * 6,
        writer="interleaved",
        alpha=1.0,
        block=3,
        slots=6,
        student_dtype="float32",
        teacher_dtype="float32",
        precision="float32",
        micro_batch_tokens=1000,
        checkpointing=False,
        recompute=False,
    )
    return replace(whole, **changes)  # type: ignore[arg-type]


def test_drafts_that_are_all_kept_take_a_round_for_each_block() -> None:
    assert played(work()) == (Counter({(6, 3): 4}), 1)


def test_blocks_follow_the_costs_that_a_run_recorded() -> None:
    values = {"teacher": "t", "student": "s", "data": {"train": "rows.json"}}
    blocks = []
    for look in (1e6, 0):
        costs = {"kind": "measured", "microseconds": {"student": [1, 0], "teacher": [look, 0]}}
        config = config_of({**values, "sampling": {"costs": costs}})
        found = Work.of(config, {"student": SHAPE, "teacher": SHAPE}, PROMPTS, 0.9, "cpu")
        blocks.append(max(block for _, block in played(found)[0]))
    assert blocks == [5, 1]  # all of a response, and one token


def test_drafts_that_are_never_kept_take_a_round_for_each_token() -> None:
    assert played(work(alpha=0.0)) == (Counter({(6, 3): 10, (6, 2): 1, (6, 1): 1}), 1)


def test_rows_that_ended_are_dropped_and_their_slots_filled() -> None:
    rounds, fills = played(work(responses=[3, 3, 3, 3, 12, 12]))
    assert rounds == Counter({(6, 3): 1, (2, 3): 3})
    assert fills == 1
    rounds, fills = played(work(slots=2))
    assert rounds == Counter({(2, 3): 12})
    assert fills == 3


def test_the_rounds_are_those_of_the_sampler_where_all_is_kept(tmp_path: Path) -> None:
    paths = [str(save_tiny(tmp_path / role, "llama", seed=seed)) for seed, role in enumerate(("teacher", "student"))]
    pair = replace(skd.load_pair(*paths, device="cpu"), stop_ids=frozenset())
    rollout = skd.interleave(pair, Prompts([[2] * 4] * 5, range(5)), gate=skd.TopK(10**6), block=4, max_new_tokens=10)
    rounds, _ = played(work(prompts=[4] * 5, responses=[10] * 5, block=4))
    assert sum(rounds.values()) == rollout.stats.rounds
    assert sum(rows * block * times for (rows, block), times in rounds.items()) == rollout.stats.drafted


def test_a_step_has_the_rows_lengths_and_numbers_of_its_config() -> None:
    values = {"teacher": {"path": "t", "dtype": "bfloat16"}, "student": "s", "data": {"train": "rows.json"}}
    config = config_of(values, {"train.batch_size": 4, "sampling.max_new_tokens": 9, "policy.block": 2})
    found = Work.of(config, {"student": SHAPE, "teacher": SHAPE}, PROMPTS, 0.7, "cpu")
    assert found.prompts == [2, 4, 6, 8]
    assert found.responses == [5] * 4
    assert (found.writer, found.block, found.teacher_dtype) == ("interleaved", 2, "bfloat16")
    assert Work.of(config, {"student": SHAPE}, PROMPTS, 0.7, "cpu", 7.0).tokens == 28
    alone = config_of({**values, "method": "supervised_kd"}, {"train.batch_size": 4})
    assert Work.of(alone, {"student": SHAPE}, PROMPTS, 0.7, "cpu").writer == "data_set"


@pytest.mark.parametrize("writer", ["student", "teacher"])
def test_a_model_alone_writes_three_tokens_between_two_looks(writer: str) -> None:
    assert played(work(writer=writer)) == (Counter({(6, 3): 4}), 1)


def test_of_several_teachers_the_largest_counts() -> None:
    by = {"maths": {"path": "a", "dtype": "bfloat16"}, "law": "b"}
    teacher = {"kind": "routed", "route": "domain", "by": by}
    config = config_of({"teacher": teacher, "student": "s", "data": {"train": "rows.json"}}, {"train.batch_size": 2})
    large = replace(SHAPE, body=9 * SHAPE.body)
    found = Work.of(config, {"student": SHAPE, "teacher.by.maths": large, "teacher.by.law": SHAPE}, PROMPTS, 0.7, "cpu")
    assert found.teacher == large
    assert found.teacher_dtype == "bfloat16"


def test_prompts_that_the_teacher_keeps_cost_nothing_from_the_second_epoch_on() -> None:
    values = {"teacher": "t", "student": "s", "data": {"train": "rows.json"}}
    config = config_of(values, {"train.batch_size": 2, "sampling.prompt_cache_mb": 8})
    kept = Work.of(config, {"student": SHAPE, "teacher": SHAPE}, PROMPTS, 0.7, "cpu")
    parts = [step_cost(one, MACHINES["l4"])["prefill"].total for one in (kept, replace(kept, prompts_kept=False))]
    assert parts[0] == pytest.approx(parts[1] / 2)

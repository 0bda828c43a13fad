"""The memory estimate of one of several processes, against sums worked by hand."""

from __future__ import annotations

from typing import Any

import pytest

from skd.check.environment import Machine
from skd.check.memory import Estimate, check_memory, estimate_all
from skd.check.report import Part
from skd.check.shards import in_shards
from skd.config import RunConfig
from tests.check.test_memory import ROWS, config, llama

STUDENT, TEACHER = llama(layers=3), llama(layers=5, vocab_size=100)
ALL = sum(weight.numel() for weight in STUDENT.parameters())
TAUGHT = sum(weight.numel() for weight in TEACHER.parameters())
LAYER = sum(weight.numel() for weight in STUDENT.model.layers[0].parameters())
HEAD, TAUGHT_HEAD = STUDENT.lm_head.weight.numel(), TEACHER.lm_head.weight.numel()
FRAME, TAUGHT_FRAME = HEAD + 64, TAUGHT_HEAD + 64


def held(count: int = 2, **keys: Any) -> tuple[RunConfig, Estimate]:
    asked = config(**{"teacher.dtype": "bfloat16", "student.dtype": "bfloat16", "train.sharding": "fsdp2", **keys})
    built = {"student": STUDENT, "teacher": TEACHER}
    return asked, in_shards(estimate_all(asked, built, ROWS), asked, built, count)


@pytest.mark.parametrize("gather", ["step", "layer"])
def test_between_visits_a_process_holds_its_share_and_the_teachers_head(gather: str) -> None:
    _, found = held(**{"train.gather": gather})
    weights = {name: size for name, size in found.fixed.items() if not name.startswith("kept")}
    assert weights == {
        "student weights": 2 * ALL,
        "optimiser": 4 * ALL,
        "teacher weights": TAUGHT,
        "teachers' heads": 2 * TAUGHT_HEAD,
    }
    assert found.phases[0]["gradients"] == 2 * ALL
    assert found.phases[0]["gathered to learn"] == 4 * (HEAD + FRAME + LAYER)


def test_inside_a_visit_all_is_whole_or_heads_and_a_frame_and_a_layer() -> None:
    whole, layered = (held(**{"train.gather": gather})[1].phases for gather in ("step", "layer"))
    assert [phase.get("gathered models") for phase in whole] == [None, *[6 * ALL + 2 * TAUGHT] * (len(whole) - 1)]
    largest = max(4 * (FRAME + LAYER), 2 * (TAUGHT_FRAME + LAYER))
    assert layered[1]["gathered models"] == 6 * HEAD + largest < whole[1]["gathered models"] / 2
    again = held(**{"sampling.evidence": "recompute"})[1].phases
    assert again[0]["gathered models"] == 6 * ALL + 2 * TAUGHT


def test_under_zero2_the_students_weights_stay_whole() -> None:
    _, found = held(**{"train.sharding": "zero2"})
    assert found.fixed["student weights"] == 4 * ALL
    assert found.phases[0]["gathered to learn"] == 0


@pytest.mark.parametrize("count", [1, 2])
def test_one_process_does_not_know_how_many_will_share_the_weights(count: int) -> None:
    part = Part("resources")
    check_memory(part, held(count)[1], Machine((), None, 1000))
    assert (len(part.errors), len(part.warnings)) == ((0, 1) if count == 1 else (1, 0))
    assert f"at the peak of one of {count} processes: " in part.facts[0]

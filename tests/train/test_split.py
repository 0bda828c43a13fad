"""Where a step's time and memory went."""

import pytest
import torch

from skd.train.split import padding, peak_mb
from skd.train.step import row_batches, train_step
from tests.train.conftest import open_run

PARTS = ("prefill", "draft", "judge", "rest", "evidence", "data", "forward", "backward", "optimiser", "idle")


@pytest.mark.parametrize(
    ("method", "some", "none"),
    [
        ("skd", ("prefill", "draft", "judge", "rest", "forward", "backward", "optimiser"), ("evidence",)),
        ("on_policy", ("prefill", "draft", "evidence", "forward", "backward", "optimiser"), ("judge",)),
        ("supervised_kd", ("evidence", "forward", "backward", "optimiser"), ("prefill", "draft", "judge", "rest")),
    ],
)
def test_the_parts_of_a_step_add_up_to_it(settings, method, some, none):
    metrics = train_step(open_run(settings(method=method)), 0).metrics
    parts = {part: metrics[f"seconds_{part}"] for part in PARTS}
    assert sum(parts.values()) == pytest.approx(metrics["seconds"])
    assert all(parts[part] > 0 for part in some)
    assert all(parts[part] == 0 for part in none if part != "evidence")
    assert parts["evidence"] < parts["forward"] or "evidence" in some
    assert metrics["peak_mb"] > 0


def test_padding_is_what_the_micro_batches_add(settings):
    run = open_run(settings(method="supervised_kd", batch_size=8))
    rollout = train_step(run, 0).rollout
    lengths = [len(p) + len(r) for p, r in zip(rollout.prompt_ids, rollout.response_ids, strict=True)]
    (whole,) = row_batches(rollout, 10_000, "cpu")
    assert padding(rollout, [whole]) == pytest.approx(1 - sum(lengths) / (len(lengths) * max(lengths)))
    assert padding(rollout, [[row] for row in whole]) == 0.0
    assert padding(rollout, []) is None


def test_a_process_has_some_memory():
    assert peak_mb(torch.device("cpu")) > 10

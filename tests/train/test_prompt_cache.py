"""What the teacher makes of prompts, kept over the epochs of a run."""

import pytest

from skd import faults
from skd.train.step import train_step
from tests.train.conftest import ROWS, end_state, open_run, run_train


def cached(config, megabytes=1):
    return {**config, "sampling": {**config["sampling"], "prompt_cache_mb": megabytes}}


def test_the_second_epoch_reads_no_prompt(settings):
    run = open_run(cached(settings(batch_size=5)))
    first, second = ([train_step(run, step).metrics for step in steps] for steps in ((0, 1), (2, 3)))
    tokens = sum(len(ids) - 1 for ids in ROWS.ids)
    assert sum(metrics["prompt_read"] for metrics in first) <= tokens
    assert [metrics["prompt_read"] for metrics in second] == [0, 0]
    assert sum(metrics["prompt_reused"] for metrics in second) == tokens


def test_without_it_every_epoch_reads_them(settings):
    run = open_run(settings(batch_size=5))
    assert sum(train_step(run, step).metrics["prompt_read"] for step in (2, 3)) > 0


class Stop(Exception):
    """In place of a crash."""


def test_a_resumed_run_has_the_same_bits(settings, tmp_path):
    config = cached(settings(batch_size=5))
    run_train({**config, "output": str(tmp_path / "whole")})
    seen = []

    def interrupt(name):
        seen.append(name)
        if seen.count("step") == 3:
            raise Stop

    with faults.hooked(interrupt), pytest.raises(Stop):
        run_train(config)
    run_train(config)
    assert end_state(config["output"], 6) == end_state(tmp_path / "whole", 6)


def test_a_full_cache_has_the_same_bits(settings, tmp_path):
    # One kilobyte-sized budget cannot be said in megabytes, so the twin is a cache that never holds a thing.
    config = settings(batch_size=5)
    whole, none = open_run(cached(config)), open_run(cached({**config, "output": str(tmp_path / "none")}))
    none.policy.sampling.kept_prompts._budget = 0
    for step in range(4):
        ours, theirs = train_step(whole, step), train_step(none, step)
        assert ours.metrics["loss"] == theirs.metrics["loss"]
        assert ours.metrics["grad_norm"] == theirs.metrics["grad_norm"]

"""Each sign is said once, with its step and a way out, and only after it has lasted."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from skd.errors import DataError
from skd.policies import Interleaved, Mixture, Student
from skd.sampling import AcceptAll
from skd.train import train
from skd.train.watch import Watch, weights_mark
from skd.types import Rollout
from tests.train.conftest import ROWS, open_pair

FINE = {"loss": 0.5, "grad_norm": 1.0, "truncated_share": 0.1, "acceptance_rate": 0.7}
FINE |= {"responses": 16, "skipped": 0}


def watched(steps, metrics=FINE, *, policy=None, moving=True):
    """(step, warning) of a run in which every step is alike."""
    student = nn.Linear(2, 2)
    watch = Watch.over(policy or Interleaved(), lambda: weights_mark(student))
    found = []
    for step in range(1, steps + 1):
        if moving:
            with torch.no_grad():
                student.weight += 0.5
        found += [(step, text) for text in watch.step(step, metrics)]
    return found + [("end", text) for text in watch.end(steps)]


def test_a_healthy_run_is_told_nothing():
    assert watched(300) == []


@pytest.mark.parametrize(
    ("metrics", "step", "text"),
    [
        ({"loss": 0.0}, 10, "warning[SKD-T06] step 10: for 10 steps now the loss is exactly 0; check that teacher"),
        ({"grad_norm": 0.0}, 10, "warning[SKD-T13] step 10: for 10 steps now the gradient is exactly 0, so nothing"),
        ({"truncated_share": 0.51}, 50, "warning[SKD-G02] step 50: for 50 steps now more than half of the responses"),
        ({"acceptance_rate": 1.0}, 50, "warning[SKD-G10] step 50: for 50 steps now every drafted token was kept"),
        ({"acceptance_rate": 0.0}, 50, "warning[SKD-G10] step 50: for 50 steps now no drafted token was kept"),
    ],
)
def test_each_sign_is_said_once_when_it_has_lasted(metrics, step, text):
    ((when, said),) = watched(200, FINE | metrics)
    assert when == step
    assert said.startswith(text)
    assert "; " in said


@pytest.mark.parametrize("metrics", [{"truncated_share": 0.5}, {"acceptance_rate": None}, {"truncated_share": None}])
def test_what_is_no_sign(metrics):
    assert watched(200, FINE | metrics) == []


@pytest.mark.parametrize("policy", [Student(), Interleaved(gate=AcceptAll()), Mixture((Interleaved(),), (1.0,))])
def test_acceptance_is_not_watched_where_no_gate_judges(policy):
    assert watched(200, FINE | {"acceptance_rate": 1.0}, policy=policy) == []


def test_a_sign_that_stops_in_between_starts_anew():
    watch = Watch.over(Interleaved(), lambda: 0)
    for step in range(1, 45):
        zero = FINE | {"loss": 0.0 if step % 9 else 0.1}
        assert watch.step(step, zero) == []


def test_weights_that_do_not_move_are_said_after_fifty_steps_or_at_the_end():
    text = "no weight of the student has changed; raise train.lr, or check the loss"
    assert watched(200, moving=False) == [(50, f"warning[SKD-T13] step 50: after 50 steps {text}")]
    assert watched(3, moving=False) == [("end", f"warning[SKD-T13] step 3: after 3 steps {text}")]


def test_more_than_one_response_in_twenty_without_tokens_stops_the_run_once_a_hundred_were_seen():
    with pytest.raises(DataError) as caught:
        watched(200, FINE | {"skipped": 1})
    assert str(caught.value) == (
        "error[SKD-D11] step 7: 7 of 112 responses had no token to learn from; more than 5% is no training; check the "
        "data, the end token and sampling.stop_strings; older checkpoints are untouched"
    )
    assert caught.value.exit_code == 3


def test_fewer_are_skipped_and_counted_at_the_end():
    text = "20 of 400 responses had no token to learn from and were skipped; check the data and the end token"
    assert watched(20, FINE | {"responses": 20, "skipped": 1}) == [("end", f"warning[SKD-D11] step 20: {text}")]


def test_empty_responses_and_wholly_masked_ones_have_no_token_to_learn_from():
    rollout = Rollout(
        prompt_ids=[torch.ones(1, dtype=torch.int64)] * 3,
        response_ids=[torch.ones(length, dtype=torch.int64) for length in (0, 2, 2)],
        authors=[torch.ones(length, dtype=torch.uint8) for length in (0, 2, 2)],
        truncated=torch.zeros(3, dtype=torch.bool),
        sample_ids=[0, 1, 2],
        response_index=[0] * 3,
    )
    assert rollout.num_untrainable == 1
    masks = [torch.zeros(0, dtype=torch.bool), torch.tensor([False, False]), torch.tensor([False, True])]
    assert replace(rollout, masks=masks).num_untrainable == 2


def test_the_mark_sees_one_bit_and_an_exchange_of_two_weights():
    one, other = nn.Linear(3, 3), nn.Linear(3, 3)
    mark = weights_mark(one)
    assert mark == weights_mark(one)
    with torch.no_grad():
        one.bias[0] = torch.nextafter(one.bias[0], torch.tensor(9.0))
    assert weights_mark(one) != mark
    assert weights_mark(nn.Sequential(one, other)) != weights_mark(nn.Sequential(other, one))


def test_a_run_that_learns_nothing_says_so(settings, capsys):
    config = settings(max_steps=2, lr=1e-30)
    train(config, pair=open_pair(config), prompts=ROWS, validation=ROWS)
    assert "warning[SKD-T13] step 2: after 2 steps no weight" in " ".join(capsys.readouterr().err.split())


def test_a_run_whose_responses_are_empty_stops_and_keeps_its_checkpoints(settings):
    references = [[] if i % 2 else list(ids) for i, ids in enumerate(ROWS.references)]
    config = settings(method="supervised_kd", max_steps=40, save_every=10, validate_every=None)
    with pytest.raises(DataError, match=r"SKD-D11.* step 25: 50 of 100 responses had no token"):
        train(config, pair=open_pair(config), prompts=replace(ROWS, references=references), display=False)
    assert {path.name for path in (Path(config["output"]) / "checkpoints").iterdir()} == {"step-10", "step-20"}

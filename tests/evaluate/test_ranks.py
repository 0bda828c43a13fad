"""Several processes score each item once, and what they write is what one process writes."""

import json
import os
import re
import signal
import time
from dataclasses import replace

import pytest

from skd.errors import ConfigError, NumericsError, Problem, SkdError
from skd.evaluate.extra import Extra
from skd.evaluate.ranks import Ranks
from skd.evaluate.run import Decoding, evaluate_tasks
from skd.evaluate.samples import Samples
from skd.evaluate.workload import Choice
from skd.faults import hooked
from tests.train.test_ranks import as_ranks

MODEL = "builtin:number_words/student"
CHOICE = Choice("number_words", size=23)


def measure(out, ranks=None):
    (result,) = evaluate_tasks(MODEL, [CHOICE], [out], Decoding(slots=2, temperature=0.7), ranks=ranks or Ranks())
    return result


def measure_as_ranks(out, size, hook=lambda rank, name: None, timeout_seconds=1800.0):
    """The same in forked processes that find each other over gloo; each says what it scored, or why it did not."""

    def work(rank):
        try:
            with hooked(lambda name: hook(rank, name)):
                result = measure(out, Ranks.of_launcher(timeout_seconds))
            out.with_suffix(f".rank{rank}").write_text(json.dumps([result.score, list(result.responses)]))
        except SkdError as error:
            out.with_suffix(f".error{rank}").write_text(str(error))
            raise

    return as_ranks(work, size)


def test_three_ranks_write_what_one_process_writes(tmp_path):
    alone = measure(tmp_path / "alone.jsonl")
    assert measure_as_ranks(tmp_path / "together.jsonl", 3) == [0, 0, 0]
    assert (tmp_path / "together.jsonl").read_text() == (tmp_path / "alone.jsonl").read_text()
    first, second = (json.loads((tmp_path / f"{name}.summary.json").read_text()) for name in ("alone", "together"))
    assert {**first, "seconds": 0} == {**second, "seconds": 0}
    for rank in range(3):
        score, responses = json.loads((tmp_path / f"together.rank{rank}").read_text())
        assert (score, responses) == (alone.score, list(alone.responses))


def test_ranks_go_on_where_one_process_was_killed(tmp_path, monkeypatch):
    whole = measure(tmp_path / "whole.jsonl")
    append, calls = Samples.append, []

    def killed(self, samples):
        append(self, samples)
        calls.append(len(samples))
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Samples, "append", killed)
        with pytest.raises(KeyboardInterrupt):
            measure(tmp_path / "x.jsonl")
    assert calls == [8]
    assert measure_as_ranks(tmp_path / "x.jsonl", 2) == [0, 0]
    assert (tmp_path / "x.jsonl").read_text() == (tmp_path / "whole.jsonl").read_text()
    assert whole.n == CHOICE.size


def test_a_rank_that_ends_with_an_error_ends_the_others_with_one(tmp_path):
    (tmp_path / "x.jsonl.partial").write_text("of another evaluation\n")
    config_error, remote_error = 2, 6
    assert measure_as_ranks(tmp_path / "x.jsonl", 2) == [config_error, remote_error]


def test_a_share_is_every_nth_item():
    items = range(10, 17)
    shares = [Ranks(rank, 3).share(items) for rank in range(3)]
    assert shares == [[10, 13, 16], [11, 14], [12, 15]]


def raise_fault():
    raise NumericsError(Problem("SKD-T02", "a trial", "the logits are not finite", "do not try"))


def kill():
    os.kill(os.getpid(), signal.SIGKILL)


def stop():
    os.kill(os.getpid(), signal.SIGSTOP)


def sleep():
    time.sleep(3600)


def failing(fault, rank, at):
    """A hook by which a process meets its fault at the fourth of the points ``at``."""
    left = [4]

    def hook(mine, name):
        left[0] -= name == at
        if mine == rank and name == at and not left[0]:
            fault()

    return hook


@pytest.mark.parametrize(
    ("fault", "rank", "at", "code", "said"),
    [
        (raise_fault, 0, "judge", 7, r"SKD-P02\] rank 1: stopped because rank 0 did: error\[SKD-T02\] a trial: "),
        (raise_fault, 1, "round", 7, r"SKD-P02\] rank 0: stopped because rank 1 did: error\[SKD-T02\] a trial: "),
        (kill, 0, "round", -9, r"SKD-P02\] rank 1: rank 0 \(last heard of at \S+\.py:\d+ .+ it was killed"),
        (kill, 1, "judge", -9, r"SKD-P02\] rank 0: rank 1 \(last heard of at \S+\.py:\d+ .+ it was killed"),
        (stop, 0, "judge", -9, r"SKD-P03\] rank 1: rank 0 \(last .+ no progress for 20 s \(--rank-timeout\)"),
        (sleep, 1, "round", None, r"SKD-P03\] rank \d: rank 1 \(last .+ no progress for 20 s \(--rank-timeout\)"),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_one_that_fails_ends_both_with_the_cause_and_nothing_is_lost(tmp_path, capfd, fault, rank, at, code, said):
    out = tmp_path / "x.jsonl"
    codes = measure_as_ranks(out, 2, failing(fault, rank, at), 20.0)
    assert codes[1 - rank] == 6
    # One that only sleeps sees itself that it is late, and may be first to say so.
    assert codes[rank] in ([code] if code is not None else [6, -9])
    told = [path.read_text() for path in tmp_path.glob("x.error*")] + capfd.readouterr().err.splitlines()
    assert any(re.search(said, line) for line in told), told
    assert not out.exists()
    assert measure_as_ranks(out, 2) == [0, 0]
    measure(tmp_path / "alone.jsonl")
    assert out.read_text() == (tmp_path / "alone.jsonl").read_text()


def test_processes_that_measure_other_things_are_told_apart(tmp_path):
    def work(rank):
        with pytest.raises(ConfigError) as caught:
            list(evaluate_tasks(MODEL, [replace(CHOICE, seed=rank)], [None], ranks=Ranks.of_launcher()))
        assert str(caught.value).startswith("error[SKD-P07] rank 1: another model, task, data or decoding than rank 0")

    assert as_ranks(work, 2) == [0, 0]


def test_nobody_waits_for_what_the_main_process_measures_alone(tmp_path, monkeypatch):
    """Whatever it takes: the last exchange is before it, also where there are several tasks."""
    events = []
    for owner, name in ((Samples, "append"), (Extra, "scores")):
        before = getattr(owner, name)
        monkeypatch.setattr(owner, name, lambda *args, name=name, before=before: events.append(name) or before(*args))
    choices = [replace(CHOICE, size=2, seed=seed) for seed in (0, 1)]

    def work(rank):
        results = evaluate_tasks(MODEL, choices, [tmp_path / "a", tmp_path / "b"], ranks=Ranks.of_launcher())
        assert [result.n for result in results] == [2, 2]
        assert events == ["append", "append", "scores", "scores"]

    assert as_ranks(work, 2) == [0, 0]


def test_processes_leave_nothing_in_the_temporary_directory(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    assert measure_as_ranks(tmp_path / "x.jsonl", 2) == [0, 0]
    assert list((tmp_path / "temporary").iterdir()) == []

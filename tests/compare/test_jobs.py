"""A job is done once, continued when it was interrupted, and never silently repeated or counted when it changed."""

from __future__ import annotations

import pytest

from skd.compare.jobs import Job, run_jobs, state_of
from skd.errors import CheckpointError, NumericsError, Problem


class Worker:
    """Counts how often it worked, and fails as long as it is told to."""

    def __init__(self):
        self.calls, self.fails = [], 0

    def __call__(self, directory):
        self.calls.append(directory.name)
        if self.fails:
            self.fails -= 1
            raise RuntimeError("killed")
        return {"value": len(self.calls)}


@pytest.fixture
def worker():
    return Worker()


def job(tmp_path, worker, **identity):
    return Job("a / b", tmp_path / "job", identity or {"lr": 1.0}, worker)


def run(*jobs, redo=False):
    said = []
    return [record for _, record in run_jobs(jobs, redo=redo, say=said.append)], said


def test_a_finished_job_is_not_repeated(tmp_path, worker):
    assert state_of(job(tmp_path, worker)).kind == "to do"
    assert run(job(tmp_path, worker)) == ([{"value": 1}], ["[1/1] a / b"])
    assert run(job(tmp_path, worker)) == ([{"value": 1}], [])
    assert worker.calls == ["job"]


def test_an_interrupted_job_goes_on_in_its_directory(tmp_path, worker):
    worker.fails = 1
    with pytest.raises(RuntimeError):
        run(job(tmp_path, worker))
    assert state_of(job(tmp_path, worker)).kind == "started"
    (tmp_path / "job" / "kept").touch()
    assert run(job(tmp_path, worker))[0] == [{"value": 2}]
    assert (tmp_path / "job" / "kept").exists()


def test_a_changed_job_is_refused_with_what_changed(tmp_path, worker):
    run(job(tmp_path, worker, train={"lr": 1.0}, k=5))
    changed = job(tmp_path, worker, train={"lr": 2.0}, k=5)
    assert str(state_of(changed)) == "stale: train.lr was 1.0, is 2.0"
    with pytest.raises(CheckpointError, match=r"SKD-K14.*a / b is stale: train.lr was 1.0, is 2.0; .*--redo"):
        run(changed)
    assert worker.calls == ["job"]


def test_nothing_is_done_when_a_later_one_is_stale(tmp_path, worker):
    other = Job("other", tmp_path / "other", {"x": 1}, worker)
    run(other)
    with pytest.raises(CheckpointError):
        run(job(tmp_path, worker), Job("other", tmp_path / "other", {"x": 2}, worker))
    assert worker.calls == ["other"]


def test_redo_keeps_the_old_one_aside(tmp_path, worker):
    for lr in (1.0, 2.0, 3.0):
        records, _ = run(job(tmp_path, worker, lr=lr), redo=True)
    assert records == [{"value": 3}]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["job", "job.old-1", "job.old-2"]


def test_a_record_that_cannot_be_read_is_said(tmp_path, worker):
    run(job(tmp_path, worker))
    (tmp_path / "job" / "record.json").write_text("{")
    with pytest.raises(CheckpointError, match="SKD-K05"):
        run(job(tmp_path, worker))


def test_a_run_that_diverges_stops_no_other(tmp_path, worker):
    def diverge(directory):
        raise NumericsError(Problem("SKD-T01", "step 3", "the loss is nan", "lower the rate"))

    jobs = [Job("bad", tmp_path / "bad", {"x": 1}, diverge), job(tmp_path, worker)]
    seen = []
    with pytest.raises(NumericsError, match="the loss is nan"):
        seen.extend(record for _, record in run_jobs(jobs, redo=False, say=print))
    assert worker.calls == ["job"]
    assert state_of(jobs[0]).kind == "started"

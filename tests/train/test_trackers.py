"""Trackers get the numbers and the responses, and cannot stop a run."""

import json
import os
import sqlite3
import sys

import pytest
from accelerate import PartialState

from skd.train import trackers
from skd.train.trackers import Destination, Trackers
from tests.train.conftest import run_train

VIEW = {"responses": [{"prompt": "two plus", "pieces": ["it", " is"], "authors": [1, 2]}]}


@pytest.fixture
def tell(tmp_path):
    """Gives a step and its responses to a tracker; returns what was said."""
    PartialState(cpu=True)

    def told(name):
        said = []
        log = Trackers([name], Destination(tmp_path, {"train": {"lr": 0.5}, "method": "skd"}, -1), said.append)
        log.numbers("train", 1, {"loss": 0.5, "acceptance_rate": None, "grad_norm": float("inf")})
        log.numbers("validation", 1, {"loss": 0.25})
        log.completions(1, VIEW)
        log.close()
        return said

    return told


def text_of(directory):
    return "".join(path.read_text(errors="replace") for path in sorted(directory.rglob("*")) if path.is_file())


def test_tensorboard(tell, tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    assert tell("tensorboard") == []
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert events.Tags()["scalars"] == ["train/loss", "validation/loss"]
    assert events.Scalars("validation/loss")[0].value == 0.25


@pytest.mark.filterwarnings("ignore")
def test_wandb_without_a_key_is_offline(tell, tmp_path, monkeypatch):
    pytest.importorskip("wandb")
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.delenv("WANDB_MODE", raising=False)
    assert tell("wandb") == []
    (run,) = (tmp_path / "wandb").glob("offline-run-*")
    assert list(run.glob("*.wandb"))
    (table,) = run.rglob("*.table.json")
    rows = json.loads(table.read_text())
    assert rows["columns"] == trackers.COLUMNS
    assert rows["data"] == [[1, "two plus", "it is", "it[[ is]]", 1, 1]]


@pytest.mark.filterwarnings("ignore")
def test_mlflow(tell, tmp_path, monkeypatch):
    pytest.importorskip("mlflow")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    assert tell("mlflow") == []
    (metric,) = (tmp_path / "mlruns").rglob("metrics/train/loss")
    assert metric.read_text().split()[1:] == ["0.5", "1"]
    (parameter,) = (tmp_path / "mlruns").rglob("params/train.lr")
    assert parameter.read_text() == "0.5"
    (table,) = (tmp_path / "mlruns").rglob("completions.json")
    assert "it[[ is]]" in table.read_text()


@pytest.mark.filterwarnings("ignore")
def test_two_runs_of_one_process_have_a_folder_each(tmp_path, monkeypatch):
    pytest.importorskip("mlflow")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    PartialState(cpu=True)
    for name in ("a", "b"):
        log = Trackers(["mlflow"], Destination(tmp_path / name, {}, -1), print)
        log.numbers("train", 1, {"loss": 0.5})
        log.close()
        assert len(list((tmp_path / name / "mlruns").rglob("metrics/train/loss"))) == 1


@pytest.mark.filterwarnings("ignore")
def test_an_mlflow_server_that_is_gone_is_asked_a_few_times_only(tell, monkeypatch):
    pytest.importorskip("mlflow")
    for name in ("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "MLFLOW_HTTP_REQUEST_TIMEOUT"):
        monkeypatch.setenv(name, "")  # so that what is set in its place goes with this test
        monkeypatch.delenv(name)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR", "0")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    (said,) = tell("mlflow")
    assert said.startswith("warning[SKD-L04] tracker mlflow: ")
    assert os.environ["MLFLOW_HTTP_REQUEST_MAX_RETRIES"] == "2"


@pytest.mark.filterwarnings("ignore")
def test_trackio(tell, tmp_path, monkeypatch):
    # Read when it is imported, which nothing else in the tests does.
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))
    pytest.importorskip("trackio")
    assert tell("trackio") == []
    (base,) = (tmp_path / "trackio").glob("skd*.db")
    with sqlite3.connect(base) as connection:
        rows = [row[0] for row in connection.execute("select metrics from metrics")]
    stored = b"".join(row if isinstance(row, bytes) else row.encode() for row in rows)
    for part in (b"train/loss", b"validation/loss", b"completions"):
        assert part in stored


class Broken:
    """Fails at one of its methods."""

    def __init__(self, method):
        self.method, self.calls = method, []

    def __getattr__(self, name):
        def call(*arguments, **keywords):
            self.calls.append(name)
            if name == self.method:
                raise ConnectionError("no route to host\nand more")

        return call


@pytest.mark.parametrize("method", ["start", "store_init_configuration", "log", "log_table", "finish"])
def test_one_that_fails_is_said_once_and_left_out(tell, monkeypatch, method):
    broken = Broken(method)
    monkeypatch.setattr(trackers, "TRACKERS", {"wandb": lambda run: broken})
    assert tell("wandb") == [
        "warning[SKD-L04] tracker wandb: no route to host; it gets nothing more of this run, which goes on, "
        "and metrics.jsonl has everything"
    ]
    assert broken.calls[-1] == method
    assert broken.calls.count(method) == 1


def test_a_package_that_is_missing_is_said(tell, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    (said,) = tell("wandb")
    assert "tracker wandb: " in said
    assert "wandb" in said


def test_a_run_goes_on_without_its_tracker(settings, monkeypatch):
    monkeypatch.setattr(trackers, "TRACKERS", {"mlflow": lambda run: Broken("log")})
    result = run_train(settings(trackers=["mlflow"], max_steps=2))
    steps = [row["step"] for row in map(json.loads, result.metrics.read_text().splitlines())]
    assert steps[-1] == result.step == 2

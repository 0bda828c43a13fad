"""Training from files against training with the teacher in memory: loss and gradient of a step, and whole runs."""

import shutil

import pytest
import torch

from skd.cli import main
from skd.train import train
from skd.types import STUDENT, TEACHER
from tests.responses.conftest import from_files, open_run, stored
from tests.train.conftest import end_state
from tests.train.test_methods import distance, divergence, ipd, log_probs_of, reported_step

IPD = {"method": "ipd", "objective": {"loss": {"kind": "policy_gradient", "clip": 0.2}, "teacher": {"kind": "nll"}}}
OBJECTIVES = [
    {"method": "supervised_kd"},
    {"method": "supervised_kd", "objective": {"loss": "reverse_kl"}},
    {"method": "supervised_kd", "objective": {"loss": {"kind": "jsd", "beta": 0.3}, "reduction": "sequence"}},
    {"method": "supervised_kd", "objective": {"weights": {"kind": "teacher_top_k", "k": 5}}},
    {"method": "seq_kd"},
    {"method": "seq_kd", "objective": {"loss": "total_variation"}},
    {"method": "taid"},
    IPD,
]


@pytest.mark.parametrize("keys", OBJECTIVES, ids=str)
def test_a_step_from_files_that_hold_the_vocabulary_is_the_step_with_the_teacher(config, write, keys):
    directory = write(64)
    live, live_gradients = reported_step(open_run(stored(config, directory, config["teacher"], **keys)))
    report, gradients = reported_step(open_run(stored(config, directory, **keys)))
    assert report.metrics["loss"] == pytest.approx(live.metrics["loss"], rel=1e-5, abs=1e-6)
    assert distance(gradients, live_gradients) < 1e-5
    for name in ("loss_student", "loss_teacher", "nll_teacher", "kl_student"):
        assert report.metrics[name] == pytest.approx(live.metrics[name], rel=1e-4, abs=1e-5)


def bucketed(logp_LV, ids_LK):
    """Float64 [L, K + 1] from the probabilities themselves: the ids, then the sum of all others."""
    others_LV = logp_LV.exp().scatter(-1, ids_LK, 0.0)
    return torch.cat([logp_LV.gather(-1, ids_LK), others_LV.sum(-1, keepdim=True).log()], -1)


@pytest.mark.parametrize("kind", ["forward_kl", "reverse_kl"])
@pytest.mark.parametrize("k", [1, 5, 40])
def test_a_step_from_fewer_ids_is_the_bucketed_definition(config, write, kind, k):
    directory = write(k)
    report, gradients = reported_step(
        open_run(stored(config, directory, method="supervised_kd", objective={"loss": kind}))
    )
    pair = open_run(stored(config, directory, config["teacher"])).pair
    losses, full = [], []
    for s, t in log_probs_of(pair, report.rollout):
        top = t.topk(k).indices
        losses.append(divergence(kind, bucketed(s, top), bucketed(t, top)))
        full.append(divergence(kind, s, t))
    loss = torch.cat(losses).mean()
    loss.backward()
    assert report.metrics["loss"] == pytest.approx(loss.item(), rel=1e-5)
    assert loss < torch.cat(full).mean()
    assert distance(gradients, {name: p.grad for name, p in pair.student.named_parameters()}) < 1e-5


def test_authors_reach_the_loss(config, write):
    report, gradients = reported_step(open_run(stored(config, write(3), **IPD)))
    pair = open_run(stored(config, write(3), config["teacher"])).pair
    rollout = report.rollout
    assert {int(author) for authors in rollout.authors for author in authors} == {STUDENT, TEACHER}
    rows = zip(log_probs_of(pair, rollout), rollout.response_ids, rollout.authors, strict=True)
    loss = torch.cat([ipd(s, t, response, authors) for (s, t), response, authors in rows]).mean()
    loss.backward()
    assert report.metrics["loss"] == pytest.approx(loss.item(), rel=1e-5)
    assert distance(gradients, {name: p.grad for name, p in pair.student.named_parameters()}) < 1e-5


def test_runs_from_the_same_files_are_the_same_and_no_teacher_is_there(config, write, models, tmp_path):
    teacher = tmp_path / "teacher"
    shutil.copytree(models / "teacher", teacher)
    directory = write(8, teacher=str(teacher))
    shutil.rmtree(teacher)
    changed = stored(config, directory, method="supervised_kd")
    changed["data"]["validation"] = from_files(directory)
    states = []
    for name in ("one", "two"):
        result = train({**changed, "output": str(tmp_path / name)}, display=False)
        states.append(end_state(result.run_dir, 3))
    assert states[0] == states[1]
    assert '"teacher"' in (tmp_path / "one/checkpoints/step-3/state.json").read_text()  # as the writer of the files
    run = open_run({**changed, "sampling": {"evidence": "recompute"}})
    assert run.pair.teacher is None
    reported_step(run)


def test_files_that_changed_between_run_and_resume_are_refused(config, write, tmp_path):
    from skd.errors import CheckpointError

    directory = write(8)
    changed = stored(config, directory, method="supervised_kd")
    train(changed, display=False)
    shutil.rmtree(directory)
    write(9)
    with pytest.raises(CheckpointError, match=r"SKD-M21.*responses\.digest was"):
        train(changed, display=False)


def test_from_the_command_line_with_the_built_in_pair(tmp_path, capsys):
    recipe, files, run = "recipes/number_words/skd.yaml", str(tmp_path / "files"), str(tmp_path / "run")
    assert main(["generate", "--config", recipe, "data.train.size=20", "--to", files, "--evidence", "top_k=16"]) == 0
    assert f"{files}: 20 responses, " in capsys.readouterr().out
    source = f"{{kind: responses, path: {files}}}"
    changes = ["teacher=null", "policy=data_set", f"data.train={source}", f"data.validation={source}"]
    changes += ["train.max_steps=3", "train.batch_size=8", "train.trackers=[]", f"output={run}"]
    assert main(["train", recipe, *changes]) == 0
    assert main(["evaluate", run, "--size", "20"]) == 0
    assert "20" in capsys.readouterr().out

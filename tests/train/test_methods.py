"""A step by every method against its definition, and what must hold of every method over a whole run."""

import os
import signal

import pytest
import torch

import skd
from skd import faults
from skd.train.step import train_step
from skd.types import DATA, STUDENT, TEACHER
from tests.tiny import save_tiny
from tests.train.conftest import end_state, open_pair, open_run, run_train
from tests.train.test_loop import at

AUTHORS = {
    "sft": {DATA},
    "supervised_kd": {DATA},
    "seq_kd": {TEACHER},
    "on_policy": {STUDENT},
    "skd": {STUDENT, TEACHER},
}
BETA = 0.3


def divergence(kind, s, t):
    """Float64 [L] from log-probs [L, V]."""
    if kind == "forward_kl":
        return (t.exp() * (t - s)).sum(-1)
    if kind == "reverse_kl":
        return (s.exp() * (s - t)).sum(-1)
    m = torch.log(BETA * t.exp() + (1 - BETA) * s.exp())
    return BETA * (t.exp() * (t - m)).sum(-1) + (1 - BETA) * (s.exp() * (s - m)).sum(-1)


def defined_loss(pair, rollout, kind, temperature, reduction):
    """The loss of these responses as it is defined: one full forward per response, softmax in float64."""
    per_response = []
    for prompt, response in zip(rollout.prompt_ids, rollout.response_ids, strict=True):
        ids_1T = torch.cat([prompt, response])[None]
        s, t = (
            torch.log_softmax(model(ids_1T).logits[0, len(prompt) - 1 : -1].double() / temperature, -1)
            for model in (pair.student, pair.teacher)
        )
        nll = -s[torch.arange(len(response)), response]
        per_response.append(nll if kind == "nll" else divergence(kind, s, t))
    if reduction == "token":
        return torch.cat(per_response).mean()
    return torch.stack([losses.mean() for losses in per_response]).mean()


def config_of(settings, method, kind="forward_kl", temperature=1.0, reduction="token"):
    """A run whose responses are of several lengths, written by all that may write in its method."""
    config = settings(method=method, student="steady", batch_size=6, micro_batch_tokens=16)
    config["objective"] = {"kind": kind, "temperature": temperature, "reduction": reduction}
    if kind == "jsd":
        config["objective"]["beta"] = BETA
    if AUTHORS[method] != {DATA}:
        config["sampling"] |= {"responses_per_prompt": 2, "teacher": {"temperature": 1.0}}
    if method == "skd":
        config["policy"] = {"kind": "interleaved", "gate": {"kind": "top_k", "k": 20}, "block": 3}
    return config


def run_of(config, **keys):
    pair = open_pair(config)
    pair.stop_ids = frozenset(range(1, 64, 6))
    return open_run(config, pair=pair, **keys)


def reported_step(run):
    """The report of a step and its gradients before clipping."""
    gradients = {}

    def keep(name):
        if name == "backward":
            gradients.update({name: p.grad.clone() for name, p in run.pair.student.named_parameters()})

    with faults.hooked(keep):
        return train_step(run, 0), gradients


def distance(found, expected):
    """Norm of the difference of two gradients, as a share of the second's."""
    difference = torch.cat([(found[name] - expected[name]).flatten() for name in expected]).norm()
    return float(difference / torch.cat([gradient.flatten() for gradient in expected.values()]).norm())


@pytest.mark.parametrize("method", list(AUTHORS))
@pytest.mark.parametrize("kind", ["nll", "forward_kl", "reverse_kl", "jsd"])
@pytest.mark.parametrize(("temperature", "reduction"), [(1.0, "token"), (2.5, "sequence")])
def test_loss_and_gradient_of_a_step_are_the_defined_ones(settings, method, kind, temperature, reduction):
    config = config_of(settings, method, kind, temperature, reduction)
    report, gradients = reported_step(run_of(config))
    rollout = report.rollout
    assert len(rollout) == (6 if AUTHORS[method] == {DATA} else 12)
    assert {int(author) for authors in rollout.authors for author in authors} == AUTHORS[method]
    assert len({len(ids) for ids in rollout.response_ids}) > 1

    pair = open_pair(config)
    loss = defined_loss(pair, rollout, kind, temperature, reduction)
    loss.backward()
    assert report.metrics["loss"] == pytest.approx(loss.item(), rel=1e-5)
    assert distance(gradients, {name: p.grad for name, p in pair.student.named_parameters()}) < 1e-5


@pytest.mark.parametrize("method", ["supervised_kd", "seq_kd", "on_policy", "skd"])
@pytest.mark.parametrize("kind", ["forward_kl", "reverse_kl", "jsd"])
@pytest.mark.parametrize(("evidence", "limit"), [("recompute", 1e-6), ("keep", 5e-6)])
def test_a_student_that_is_the_teacher_has_nothing_to_learn(settings, method, kind, evidence, limit):
    # Kept evidence comes from products of other shapes than the training forward, so only rounding is left: it moves
    # these hidden states by 1e-6, and the gradient with them. Recomputed evidence has the same shapes.
    config = config_of(settings, method, kind)
    config["teacher"] = config["student"]
    config["sampling"]["evidence"] = evidence
    config["train"]["micro_batch_tokens"] = 8192
    report, gradients = reported_step(run_of(config))
    assert abs(report.metrics["loss"]) <= 1e-7
    assert max(gradient.abs().max().item() for gradient in gradients.values()) <= limit


@pytest.mark.parametrize("family", ["qwen2", "gemma2", "gpt2"])
def test_a_llama_student_learns_from_a_teacher_of_another_family_size_and_padding(settings, tmp_path, family):
    config = config_of(settings, "skd")
    config["teacher"] = str(save_tiny(tmp_path / "teacher", family, seed=1, hidden=48, padded_vocab=80, softcap=5.0))
    config["student"] = str(save_tiny(tmp_path / "student", "llama", seed=2, hidden=16, padded_vocab=72))
    report, gradients = reported_step(run_of(config))
    pair = open_pair(config)

    class Cut(torch.nn.Module):
        def __init__(self, model):
            super().__init__()
            self.model = model

        def forward(self, ids):
            output = self.model(ids)
            output.logits = output.logits[..., :64]
            return output

    cut = type("CutPair", (), {"student": Cut(pair.student), "teacher": Cut(pair.teacher)})
    loss = defined_loss(cut, report.rollout, "forward_kl", 1.0, "token")
    loss.backward()
    assert report.metrics["loss"] == pytest.approx(loss.item(), rel=1e-5)
    assert distance(gradients, {name: p.grad for name, p in pair.student.named_parameters()}) < 1e-5
    assert not gradients["lm_head.weight"][64:].any()


@pytest.mark.parametrize("method", ["supervised_kd", "on_policy", "skd"])
def test_kept_and_recomputed_evidence_train_the_same_student(settings, tmp_path, method):
    trained = []
    for evidence in ("keep", "recompute"):
        config = config_of(settings, method)
        config["sampling"] |= {"evidence": evidence}
        pair = open_pair(config)
        run_train({**config, "output": str(tmp_path / evidence)}, pair=pair)
        trained.append({name: parameter.detach().clone() for name, parameter in pair.student.named_parameters()})
    start = {name: parameter.detach() for name, parameter in open_pair(config).student.named_parameters()}
    moved = {name: trained[0][name] - start[name] for name in start}
    other = {name: trained[1][name] - start[name] for name in start}
    assert distance(other, moved) < 1e-5


@pytest.mark.parametrize("method", ["seq_kd", "supervised_kd"])
def test_resume_is_bit_for_bit_by_the_methods_that_other_tests_leave_out(settings, tmp_path, method):
    config = settings(method=method)
    run_train({**config, "output": str(tmp_path / "whole")})
    with at("step", 3, lambda: os.kill(os.getpid(), signal.SIGTERM)), pytest.raises(SystemExit):
        run_train(config)
    run_train(config, resume="must")
    assert end_state(config["output"], 6) == end_state(tmp_path / "whole", 6)


def test_resume_is_bit_for_bit_with_a_half_precision_copy_and_several_responses(settings, tmp_path):
    config = config_of(settings, "skd")

    def opened():
        return skd.load_pair(config["teacher"], config["student"], device="cpu", sample_dtype="bfloat16")

    run_train({**config, "output": str(tmp_path / "whole")}, pair=opened())
    with at("step", 3, lambda: os.kill(os.getpid(), signal.SIGTERM)), pytest.raises(SystemExit):
        run_train(config, pair=opened())
    run_train(config, resume="must", pair=opened())
    assert end_state(config["output"], 6) == end_state(tmp_path / "whole", 6)

"""A step by every method against its definition, and what must hold of every method over a whole run."""

import os
import signal
from dataclasses import replace

import pytest
import torch

import skd
from skd import faults
from skd.train.step import train_step
from skd.types import DATA, STUDENT, TEACHER
from tests.tiny import save_tiny
from tests.train.conftest import ROWS, end_state, open_pair, open_run, run_train
from tests.train.test_loop import at

AUTHORS = {
    "sft": {DATA},
    "supervised_kd": {DATA},
    "seq_kd": {TEACHER},
    "on_policy": {STUDENT},
    "skd": {STUDENT, TEACHER},
    "imitkd": {STUDENT, DATA},
    "mixed_skd": {STUDENT, TEACHER, DATA},
    "adaswitch": {STUDENT, TEACHER},
    "ipd": {STUDENT, TEACHER},
    "ca_opd": {STUDENT, TEACHER},
}
BETA = 0.3
GATES = {
    "skd": {"kind": "top_k", "k": 20},
    "adaswitch": {"kind": "switch_once", "factor": 1.2},
    "ipd": {"kind": "interpolated", "g": 0.5},
    "ca_opd": {"kind": "min_prob", "floor": 0.02},
}


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
    loss = {"kind": "jsd", "beta": BETA} if kind == "jsd" else kind
    config["objective"] = {"loss": loss, "teacher": loss, "temperature": temperature, "reduction": reduction}
    if AUTHORS[method] != {DATA}:
        config["sampling"] |= {"responses_per_prompt": 2, "teacher": {"temperature": 1.0}}
    if method in GATES:
        config["policy"] = {"gate": GATES[method], "block": 3}
    if method == "mixed_skd":
        parts = [
            {"weight": 1, "policy": {"kind": "interleaved", "gate": GATES["skd"]}},
            {"weight": 1, "policy": "data_set"},
        ]
        config["policy"] = {"parts": parts}
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
            trained = run.pair.student.named_parameters()
            gradients.update({name: p.grad.clone() for name, p in trained if p.requires_grad})

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
    assert DATA in AUTHORS[method] or len(rollout) == 12
    assert len(set(rollout.sample_ids)) == 6
    assert {int(author) for authors in rollout.authors for author in authors} == AUTHORS[method]
    assert len({len(ids) for ids in rollout.response_ids}) > 1

    pair = open_pair(config)
    loss = defined_loss(pair, rollout, kind, temperature, reduction)
    loss.backward()
    assert report.metrics["loss"] == pytest.approx(loss.item(), rel=1e-5)
    assert distance(gradients, {name: p.grad for name, p in pair.student.named_parameters()}) < 1e-5


@pytest.mark.parametrize("method", ["supervised_kd", "seq_kd", "on_policy", "skd"])
@pytest.mark.parametrize("kind", ["forward_kl", "reverse_kl", "jsd"])
@pytest.mark.parametrize(
    ("evidence", "dtype", "budget", "limit"),
    [
        ("recompute", torch.float32, 8192, 1e-6),
        ("recompute", torch.float32, 16, 1e-6),
        ("keep", torch.float64, 16, 1e-6),
        ("keep", torch.float32, 16, 1e-5),
    ],
)
def test_a_student_that_is_the_teacher_has_nothing_to_learn(settings, method, kind, evidence, dtype, budget, limit):
    # The norm of the whole gradient. In float32 the sampler's forward over a block and the training forward over a
    # response differ in their last bits, because products of other shapes are summed in another order; in float64
    # nothing of that is left, so it is rounding and not another teacher.
    config = config_of(settings, method, kind)
    config["teacher"] = config["student"]
    config["sampling"]["evidence"] = evidence
    config["train"]["micro_batch_tokens"] = budget
    run = run_of(config)
    run.pair.student.to(dtype)
    run.pair.teacher.to(dtype)
    report, gradients = reported_step(run)
    assert abs(report.metrics["loss"]) <= 1e-7
    assert torch.cat([gradient.flatten() for gradient in gradients.values()]).norm() <= limit


def log_probs_of(pair, rollout):
    """Per response: float64 log-probs [L, V] of the student and the teacher, by one full forward each."""
    for prompt, response in zip(rollout.prompt_ids, rollout.response_ids, strict=True):
        ids_1T = torch.cat([prompt, response])[None]
        yield tuple(
            torch.log_softmax(model(ids_1T).logits[0, len(prompt) - 1 : -1].double(), -1)
            for model in (pair.student, pair.teacher)
        )


def written(logp_LV, ids_L):
    return logp_LV[torch.arange(len(ids_L)), ids_L]


def ipd(s, t, response, authors):
    """Policy gradient at ratio 1 on the student's tokens, NLL on the teacher's."""
    mine = written(s, response)
    advantage = (written(t, response) - mine).detach()
    return torch.where(authors == TEACHER, -mine, -advantage * (mine - mine.detach()).exp())


def ca_opd(s, t, response, authors):
    return torch.where(authors == TEACHER, -written(s, response), divergence("forward_kl", s, t))


def veto(s, t, response, authors):
    target = torch.log_softmax(t + s.detach(), -1)  # beta is 1 at the first step
    return divergence("forward_kl", s, target)


def taid(s, t, response, authors):
    target = torch.log_softmax(0.4 * t + 0.6 * s.detach(), -1)
    return divergence("forward_kl", s, target)


def skewed(s, t, response, authors):
    return (t.exp() * (t - torch.log(0.1 * t.exp() + 0.9 * s.exp()))).sum(-1)


def opd(s, t, response, authors):
    mine = written(s, response)
    return -(written(t, response) - mine).detach() * (mine - mine.detach()).exp()


@pytest.mark.parametrize(
    ("method", "defined"),
    [("ipd", ipd), ("ca_opd", ca_opd), ("veto", veto), ("taid", taid), ("distillm", skewed), ("opd", opd)],
)
def test_loss_and_gradient_of_a_successors_step_are_the_defined_ones(settings, method, defined):
    config = settings(method=method, student="steady", batch_size=6, micro_batch_tokens=16)
    if method in GATES:
        config["policy"] = {"gate": GATES[method]}
    run = run_of(config)
    report, gradients = reported_step(run)
    pair, rollout = open_pair(config), report.rollout
    losses = [
        defined(s, t, response, authors)
        for (s, t), response, authors in zip(
            log_probs_of(pair, rollout), rollout.response_ids, rollout.authors, strict=True
        )
    ]
    loss = torch.cat(losses).mean()
    loss.backward()
    assert report.metrics["loss"] == pytest.approx(loss.item(), rel=2e-5, abs=1e-6)
    assert distance(gradients, {name: p.grad for name, p in pair.student.named_parameters()}) < 1e-5


@pytest.mark.parametrize("reduction", ["token", "sequence"])
def test_selectkd_divides_by_the_tokens_that_pass_the_teachers_test(settings, reduction):
    config = settings(method="selectkd", student="steady", batch_size=6, micro_batch_tokens=16)
    config["objective"] = {"weights": {"k": 20}, "reduction": reduction}
    report, gradients = reported_step(run_of(config))
    pair, rollout, per_response = open_pair(config), report.rollout, []
    for (s, t), response in zip(log_probs_of(pair, rollout), rollout.response_ids, strict=True):
        passes = written(t, response) >= t.topk(20).values[:, -1]
        per_response.append(divergence("forward_kl", s, t)[passes])
    assert 0 < sum(map(len, per_response)) < rollout.num_tokens
    whole = torch.cat(per_response).mean()
    loss = whole if reduction == "token" else torch.stack([part.mean() for part in per_response if len(part)]).mean()
    loss.backward()
    assert report.metrics["loss"] == pytest.approx(loss.item(), rel=1e-5)
    assert distance(gradients, {name: p.grad for name, p in pair.student.named_parameters()}) < 1e-5


def test_losses_likelihoods_and_divergences_are_logged_by_author(settings):
    config = config_of(settings, "mixed_skd", "reverse_kl")
    report, _ = reported_step(run_of(config))
    pair, rollout = open_pair(config), report.rollout
    tokens = {name: [] for name in ("data", "student", "teacher")}
    for (s, t), response, authors in zip(
        log_probs_of(pair, rollout), rollout.response_ids, rollout.authors, strict=True
    ):
        row = torch.stack([divergence("reverse_kl", s, t), -written(s, response), divergence("forward_kl", s, t)])
        for name, author in (("data", DATA), ("student", STUDENT), ("teacher", TEACHER)):
            tokens[name].append(row[:, authors == author])
    for name, columns in tokens.items():
        for quantity, expected in zip(("loss", "nll", "kl"), torch.cat(columns, dim=1).mean(1), strict=True):
            assert report.metrics[f"{quantity}_{name}"] == pytest.approx(expected.item(), rel=1e-4), (quantity, name)


def test_masked_tokens_are_context_only(settings):
    """The loss over a masked reference is the mean over the tokens that count, and no gradient comes from the rest."""
    config = settings(method="supervised_kd", student="steady", batch_size=4, micro_batch_tokens=16)
    masks = [[i % 2 == 0 for i, _ in enumerate(ids)] for ids in ROWS.references]
    run = run_of(config, prompts=replace(ROWS, reference_masks=masks))
    report, gradients = reported_step(run)
    pair, rollout = open_pair(config), report.rollout
    losses = [
        divergence("forward_kl", s, t)[mask]
        for (s, t), mask in zip(log_probs_of(pair, rollout), rollout.masks, strict=True)
    ]
    loss = torch.cat(losses).mean()
    loss.backward()
    assert report.metrics["loss"] == pytest.approx(loss.item(), rel=1e-5)
    assert distance(gradients, {name: p.grad for name, p in pair.student.named_parameters()}) < 1e-5


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

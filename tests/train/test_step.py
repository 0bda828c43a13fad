import json
from dataclasses import replace

import pytest
import torch

from skd import faults
from skd.errors import NumericsError
from skd.models import score
from skd.train import batch as batch_module
from skd.train.step import train_step
from skd.types import Prompts
from tests.tiny import save_tiny
from tests.train.conftest import ROWS, open_run


def step_with_gradients(run, step=0):
    """The metrics of a step and the gradients it had before clipping."""
    gradients = {}

    def keep(name):
        if name == "backward":
            for parameter, tensor in run.pair.student.named_parameters():
                gradients[parameter] = tensor.grad.clone()

    with faults.hooked(keep):
        report = train_step(run, step)
    return report.metrics, gradients


def assert_same_gradients(found, expected):
    """Equal up to 1e-6 of the whole gradient's norm."""
    assert found.keys() == expected.keys()
    difference = torch.cat([(found[name] - expected[name]).flatten() for name in expected]).norm()
    assert difference <= 1e-6 * torch.cat([gradient.flatten() for gradient in expected.values()]).norm()


def successor_table(directory, size=16):
    """A student that always says id + 1 (the last id: id 2), whatever came before."""
    from transformers import AutoModelForCausalLM

    save_tiny(directory, "llama", seed=0, vocab_size=size, hidden=size, layers=1)
    model = AutoModelForCausalLM.from_pretrained(directory)
    with torch.no_grad():
        for layer in model.model.layers:
            layer.self_attn.o_proj.weight.zero_()
            layer.mlp.down_proj.weight.zero_()
        model.model.embed_tokens.weight.copy_(torch.eye(size))
        model.model.norm.weight.fill_(1.0)
        model.lm_head.weight.copy_(20 * torch.eye(size).roll(1, dims=0))
        model.lm_head.weight[2] = 20 * torch.eye(size)[size - 1]
    model.save_pretrained(directory)
    return directory


def follow(start, length, size=16):
    ids = [start]
    while len(ids) < length:
        ids.append(2 if ids[-1] == size - 1 else ids[-1] + 1)
    return ids


@pytest.fixture
def successor_run(settings, tmp_path):
    config = settings(method="sft", lr=1e-6)
    config["student"] = config["teacher"] = str(successor_table(tmp_path / "successor"))
    ids = [follow(2 + i, 9) for i in range(4)]
    rows = Prompts([row[: 1 + i] for i, row in enumerate(ids)], range(4), [row[1 + i :] for i, row in enumerate(ids)])
    return open_run(config, rows)


def test_successor_table_has_loss_zero(successor_run):
    metrics, gradients = step_with_gradients(successor_run)
    assert metrics["loss"] <= 1e-6
    assert max(gradient.abs().max().item() for gradient in gradients.values()) <= 1e-5


@pytest.mark.parametrize("shift", [-1, 1])
def test_successor_table_has_a_large_loss_with_any_other_shift(successor_run, monkeypatch, shift):
    right = batch_module.predicting

    def shifted(hidden_BTD, prompts, responses):
        return right(hidden_BTD.roll(-shift, dims=1), prompts, responses)

    monkeypatch.setattr(batch_module, "predicting", shifted)
    metrics, _ = step_with_gradients(successor_run)
    assert metrics["loss"] > 1.0


@pytest.mark.parametrize("reduction", ["token", "sequence"])
@pytest.mark.parametrize("kind", ["nll", "forward_kl"])
def test_micro_batches_do_not_change_the_gradients(settings, reduction, kind):
    found = []
    for budget in (64, 16, 1):
        config = settings(method="supervised_kd", student="steady", batch_size=8, micro_batch_tokens=budget)
        config["objective"] = {"loss": kind, "reduction": reduction}
        found.append(step_with_gradients(open_run(config)))
    (whole, whole_gradients), *others = found
    assert max(gradient.abs().max().item() for gradient in whole_gradients.values()) > 1e-3
    for metrics, gradients in others:
        assert metrics["loss"] == pytest.approx(whole["loss"], abs=1e-6)
        assert_same_gradients(gradients, whole_gradients)


def test_sft_gradient_is_that_of_the_plain_cross_entropy(settings):
    run = open_run(settings(method="sft", student="steady", batch_size=10, micro_batch_tokens=16))
    student = run.pair.student
    total, tokens = torch.zeros(()), 0
    for prompt, response in zip(ROWS.ids, ROWS.references, strict=True):
        logits_TV = student(torch.tensor([prompt + response])).logits[0, len(prompt) - 1 : -1]
        total = total + torch.nn.functional.cross_entropy(logits_TV, torch.tensor(response), reduction="sum")
        tokens += len(response)
    (total / tokens).backward()
    expected = {name: parameter.grad.clone() for name, parameter in student.named_parameters()}
    metrics, gradients = step_with_gradients(run)
    assert metrics["loss"] == pytest.approx((total / tokens).item(), abs=1e-6)
    assert metrics["tokens"] == tokens
    assert_same_gradients(gradients, expected)


def test_teacher_equal_to_the_student_teaches_nothing(settings):
    config = settings(method="on_policy", student="steady")
    config["teacher"] = config["student"]
    metrics, gradients = step_with_gradients(open_run(config))
    assert abs(metrics["loss"]) <= 1e-7
    assert max(gradient.abs().max().item() for gradient in gradients.values()) <= 1e-6


def test_kept_and_recomputed_evidence_give_the_same_gradients(settings):
    config = settings(student="steady")
    _, kept = step_with_gradients(open_run(config))
    config["sampling"] = {**config["sampling"], "evidence": "recompute"}
    _, recomputed = step_with_gradients(open_run(config))
    assert_same_gradients(kept, recomputed)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_gradient_checkpointing_does_not_change_the_gradients(settings, precision):
    _, plain = step_with_gradients(open_run(settings(precision=precision)))
    _, saved = step_with_gradients(open_run(settings(precision=precision, gradient_checkpointing=True)))
    assert_same_gradients(plain, saved)


def test_dropout_is_on_while_training_and_off_afterwards(settings):
    run = open_run(settings(method="sft"))
    steady = open_run(settings(method="sft", student="steady"))
    assert train_step(run, 0).metrics["loss"] != train_step(steady, 0).metrics["loss"]
    assert not run.pair.student.training
    assert run.pair.teacher is not None
    assert not run.pair.teacher.training
    assert all(parameter.grad is None for parameter in run.pair.teacher.parameters())


def test_empty_responses_are_a_step_with_gradient_zero(settings):
    rows = replace(ROWS, references=[[] for _ in ROWS.ids])
    run = open_run(settings(method="sft"), rows)
    metrics, gradients = step_with_gradients(run)
    assert metrics["loss"] == 0.0
    assert metrics["tokens"] == 0
    assert metrics["grad_norm"] == 0.0
    assert all(not gradient.any() for gradient in gradients.values())


def test_metrics_add_up(settings):
    report = train_step(open_run(settings(batch_size=8)), 0)
    metrics, rollout = report.metrics, report.rollout
    assert metrics["tokens"] == rollout.num_tokens
    assert metrics["acceptance_rate"] == pytest.approx(rollout.acceptance_rate)
    assert metrics["replaced_share"] == pytest.approx(rollout.replaced_share)
    written = metrics["replaced_share"]
    mean = (1 - written) * metrics["loss_student"] + written * metrics["loss_teacher"]
    assert metrics["loss"] == pytest.approx(mean, abs=1e-6)
    assert metrics["loss_data"] is None
    assert metrics["tokens_per_second"] > 0
    assert len(report.sample_ids) == len(report.epochs) == 8


def test_trained_ids_are_the_sampled_ids(settings, monkeypatch):
    run = open_run(settings(batch_size=4, micro_batch_tokens=16))
    trained = []
    module = run.spread.module
    forward = module.forward
    monkeypatch.setattr(module, "forward", lambda batch: (trained.append(batch.tokens.ids_N), forward(batch))[1])
    rollout = train_step(run, 0).rollout
    assert sorted(torch.cat(trained).tolist()) == sorted(torch.cat(rollout.response_ids).tolist())
    hidden = score(run.pair.student, rollout.prompt_ids, rollout.response_ids)
    assert [len(states) for states in hidden] == [len(ids) for ids in rollout.response_ids]


@pytest.mark.parametrize("poison", ["loss", "gradient"])
def test_nonfinite_stops_before_the_update(settings, poison):
    run = open_run(settings(method="sft"))
    student = run.pair.student
    weights = {name: parameter.detach().clone() for name, parameter in student.named_parameters()}
    embedding = student.get_input_embeddings().weight
    if poison == "loss":
        with torch.no_grad():
            student.get_output_embeddings().weight[5] = float("nan")
        weights["lm_head.weight"] = student.get_output_embeddings().weight.detach().clone()
    else:
        embedding.register_hook(lambda gradient: gradient * float("inf"))
    with pytest.raises(NumericsError, match=r"step 0: .*no update was made") as caught:
        train_step(run, 0)
    assert caught.value.exit_code == 7
    for name, parameter in student.named_parameters():
        torch.testing.assert_close(parameter.detach(), weights[name], rtol=0, atol=0, equal_nan=True)
    assert not run.optimizer.state
    dump = json.loads((run.run_dir / "nonfinite-step-0.json").read_text())
    assert len(dump["responses"]) == 4
    assert {row["sample_id"] for row in dump["responses"]} <= set(ROWS.sample_ids)
    assert dump["parameters"]

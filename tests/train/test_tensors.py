from pathlib import Path

import pytest
import torch
from torch import nn
from torch.optim import AdamW

from skd.errors import CheckpointError
from skd.train.tensors import optimizer_tensors, restore_optimizer, restore_student, student_tensors

HERE = Path("step-1")


def model():
    torch.manual_seed(0)
    made = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 4), nn.Linear(4, 4))
    made[2].weight = made[1].weight
    return made


def trained(steps=2):
    student = model()
    optimizer = AdamW(student.parameters(), lr=0.1)
    for _ in range(steps):
        student(torch.ones(2, 3)).square().sum().backward()
        optimizer.step()
        optimizer.zero_grad()
    return student, optimizer


def test_tied_weights_are_saved_once():
    assert set(student_tensors(model())) == {"0.weight", "0.bias", "1.weight", "1.bias", "2.bias"}


def test_restored_optimizer_takes_the_same_next_step():
    student, optimizer = trained()
    other = model()
    restored = AdamW(other.parameters(), lr=0.1)
    restore_student(other, student_tensors(student), HERE)
    restore_optimizer(restored, other, optimizer_tensors(optimizer, student), HERE)
    for one, its in ((student, optimizer), (other, restored)):
        one(torch.full((2, 3), 2.0)).square().sum().backward()
        its.step()
    for name, tensor in student_tensors(student).items():
        assert torch.equal(student_tensors(other)[name], tensor)
    again = optimizer_tensors(restored, other)
    assert all(torch.equal(again[name], tensor) for name, tensor in optimizer_tensors(optimizer, student).items())


def test_restored_state_is_a_copy():
    student, optimizer = trained()
    saved = {name: tensor.clone() for name, tensor in optimizer_tensors(optimizer, student).items()}
    other = model()
    restored = AdamW(other.parameters(), lr=0.1)
    restore_optimizer(restored, other, saved, HERE)
    kept = {name: tensor.clone() for name, tensor in saved.items()}
    other(torch.ones(2, 3)).sum().backward()
    restored.step()
    assert all(torch.equal(saved[name], tensor) for name, tensor in kept.items())


@pytest.mark.parametrize("change", ["missing", "unknown", "shape"])
def test_weights_of_another_model_are_refused(change):
    tensors = dict(student_tensors(model()))
    tensor = tensors.pop("0.bias")
    if change == "unknown":
        tensors |= {"0.bias": tensor, "9.bias": tensor}
    if change == "shape":
        tensors["0.bias"] = tensor[:1]
    with pytest.raises(CheckpointError, match=r"9\.bias" if change == "unknown" else r"0\.bias"):
        restore_student(model(), tensors, HERE)


@pytest.mark.parametrize("change", ["half", "unknown", "shape"])
def test_state_of_another_model_is_refused(change):
    student, optimizer = trained()
    tensors = optimizer_tensors(optimizer, student)
    if change == "half":
        del tensors["exp_avg_sq.0.bias"]
    elif change == "unknown":
        tensors["exp_avg.9.bias"] = tensors["exp_avg.0.bias"]
    else:
        tensors["exp_avg.0.bias"] = tensors["exp_avg.0.bias"][:1]
    with pytest.raises(CheckpointError, match=r"9\.bias" if change == "unknown" else r"0\.bias"):
        restore_optimizer(AdamW(student.parameters()), student, tensors, HERE)

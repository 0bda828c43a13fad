"""A teacher made of the student, for every family."""

import pytest
import torch

import skd
from tests.tiny import FAMILIES, save_tiny


@pytest.fixture(scope="module", params=FAMILIES)
def place(request, tmp_path_factory):
    return save_tiny(tmp_path_factory.mktemp("own") / request.param, request.param, seed=2, hidden=32)


IDS = torch.tensor([[5, 9, 3, 7, 2]])


def test_the_current_student_follows_every_update_in_the_same_memory(place):
    pair = skd.load_pair(skd.CurrentStudent(), place, device="cpu")
    pair.teacher.eval()
    pair.student.eval()
    with torch.no_grad():
        for parameter in pair.student.parameters():
            parameter.add_(0.01 * torch.randn_like(parameter))
        pair.updated()
        assert torch.equal(pair.student(IDS).logits, pair.teacher(IDS).logits)
    assert sum(p.numel() for p in pair.student.parameters()) == sum(p.numel() for p in pair.teacher.parameters())
    assert {p.data_ptr() for p in pair.student.parameters()} == {p.data_ptr() for p in pair.teacher.parameters()}
    pair.student(IDS).logits.sum().backward()
    assert all(parameter.grad is None for parameter in pair.teacher.parameters())


def test_the_average_starts_as_the_student_and_moves_by_its_share(place):
    pair = skd.load_pair(skd.MovingAverage(0.75), place, device="cpu")
    assert torch.equal(pair.student(IDS).logits, pair.teacher(IDS).logits)
    start = [parameter.detach().clone() for parameter in pair.student.parameters()]
    with torch.no_grad():
        for parameter in pair.student.parameters():
            parameter.add_(1.0)
    pair.updated()
    for before, now in zip(start, pair.teacher.parameters(), strict=True):
        torch.testing.assert_close(now, before + 0.25)
    assert not any(parameter.requires_grad for parameter in pair.teacher.parameters())


def test_where_it_came_from_is_on_record(place):
    pair = skd.load_pair(skd.MovingAverage(0.75), place, device="cpu")
    assert pair.provenance["teacher"]["made"] == "the moving average of the student, decay 0.75"
    assert pair.provenance["teacher"]["digest"] == pair.provenance["student"]["digest"]

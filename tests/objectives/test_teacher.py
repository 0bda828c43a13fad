"""What is known of the teacher: hidden states are all of it, top log-probs a coarser picture that says no more."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from torch import Tensor

from skd.errors import ConfigError
from skd.objectives import (
    JSD,
    ForwardKL,
    HiddenStates,
    ReverseKL,
    TeacherView,
    TokenLoss,
    Tokens,
    TopLogProbs,
    TotalVariation,
    log_probs,
)
from skd.types import Head
from tests.objectives.tokens import response, tokens, top_log_probs
from tests.objectives.twins import DIVERGENCES, twin
from tests.oracles import divergences as oracle

N, V = 10, 40
ALL = slice(None)
IDS = torch.randint(V, (N,), generator=torch.Generator().manual_seed(4))


def pair(spread: float = 2.0, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Logits of the student, a leaf, and log-probs of the teacher."""
    student_NV, teacher_NV = spread * torch.randn(2, N, V, generator=torch.Generator().manual_seed(seed))
    return student_NV.clone().requires_grad_(), log_probs(teacher_NV)


def seen_through(teacher: TeacherView, student_logp_NV: Tensor, rows: slice = ALL) -> Tokens:
    """The tokens as a loss sees them with this teacher."""
    ids_N = IDS[rows]
    written_N = student_logp_NV.gather(-1, ids_N.unsqueeze(-1)).squeeze(-1)
    student_NB, teacher_NB, teacher_written_N = teacher.compare(student_logp_NV, ids_N, 1.0, rows)
    return Tokens(response(ids_N), student_NB, written_N, teacher_NB, teacher_written_N)


# ---- hidden states


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_hidden_states_give_the_whole_teacher_for_any_slice(temperature: float) -> None:
    generator = torch.Generator().manual_seed(0)
    hidden_ND, head = torch.randn(N, 5, generator=generator), Head(torch.randn(V, 5, generator=generator), softcap=3.0)
    student_logp_NV, _ = pair()
    rows = slice(3, 8)
    compared = HiddenStates(hidden_ND, head).compare(student_logp_NV[rows], IDS[rows], temperature, rows)
    expected_NV = torch.log_softmax(head.logits(hidden_ND).double() / temperature, -1).float()[rows]
    assert torch.equal(compared[0], student_logp_NV[rows])
    torch.testing.assert_close(compared[1], expected_NV, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(compared[2], expected_NV[torch.arange(5), IDS[rows]], rtol=1e-6, atol=1e-6)
    assert len(HiddenStates(hidden_ND, head)) == N


# ---- top log-probs: against the float64 oracle


@pytest.mark.parametrize("loss", DIVERGENCES, ids=repr)
@pytest.mark.parametrize("k", [1, 5, V - 1])
@pytest.mark.parametrize("spread", [0.5, 3.0])
def test_a_divergence_over_buckets_equals_the_float64_oracle_in_value_and_gradient(
    loss: TokenLoss, k: int, spread: float
) -> None:
    student_logits_NV, teacher_logp_NV = pair(spread)
    teacher = top_log_probs(teacher_logp_NV, k, IDS)
    loss_N = loss(seen_through(teacher, log_probs(student_logits_NV)))
    loss_N.sum().backward()

    ids_NK = teacher.ids_NK.numpy()
    student_NV = oracle.softmax(student_logits_NV.detach().double().numpy())
    teacher_NK = np.take_along_axis(oracle.softmax(teacher_logp_NV.double().numpy()), ids_NK, -1)
    left_N1 = np.maximum(0.0, 1.0 - teacher_NK.sum(-1, keepdims=True))
    teacher_NB = np.concatenate([teacher_NK, left_N1], -1)
    expected_N, grad_NB = twin(loss, oracle.buckets(student_NV, ids_NK), teacher_NB, IDS.numpy())
    expected_NV = oracle.buckets_grad(grad_NB, student_NV, ids_NK)
    np.testing.assert_allclose(loss_N.detach().numpy(), expected_N, rtol=1e-5, atol=1e-7)
    assert student_logits_NV.grad is not None
    error = np.linalg.norm(student_logits_NV.grad.numpy() - expected_NV) / np.linalg.norm(expected_NV)
    assert error <= 1e-5


def test_buckets_by_hand() -> None:
    """Student (1/2, 1/4, 1/8, 1/8), teacher (1/4, 1/2, 0, 1/4), whose two most probable ids are 1 and one of 1/4."""
    student_NV = torch.tensor([[0.5, 0.25, 0.125, 0.125]])
    teacher = TopLogProbs(
        ids_NK=torch.tensor([[1, 0]]),
        logp_NB=torch.tensor([[0.5, 0.25, 0.25]]).log(),
        written_logp_N=torch.tensor([0.25]).log(),
    )
    student_NB, teacher_NB, written_N = teacher.compare(student_NV.log(), torch.tensor([3]), 1.0, ALL)
    torch.testing.assert_close(student_NB.exp(), torch.tensor([[0.25, 0.5, 0.25]]))
    torch.testing.assert_close(teacher_NB.exp(), torch.tensor([[0.5, 0.25, 0.25]]))
    assert written_N.exp().item() == pytest.approx(0.25)
    seen = Tokens(response(torch.tensor([3])), student_NB, torch.tensor([0.125]).log(), teacher_NB, written_N)
    assert ForwardKL()(seen).item() == pytest.approx(0.25 * math.log(2))  # 1/2 ln 2 + 1/4 ln 1/2 + 0
    assert TotalVariation()(seen).item() == pytest.approx(0.25)


def test_an_empty_bucket_counts_nothing() -> None:
    """0 log 0 = 0: a teacher sure of its one id, and a student sure of it too."""
    sure = TopLogProbs(torch.tensor([[2]]), torch.tensor([[0.0, -math.inf]]), torch.tensor([0.0]))
    for student, expected in [([0.25, 0.25, 0.5], math.log(2)), ([0.0, 0.0, 1.0], 0.0)]:
        student_logp_NV = torch.tensor([student]).log()
        student_NB, teacher_NB, written_N = sure.compare(student_logp_NV, torch.tensor([2]), 1.0, ALL)
        seen = Tokens(response(torch.tensor([2])), student_NB, student_logp_NV[:, 2], teacher_NB, written_N)
        assert ForwardKL()(seen).item() == pytest.approx(expected)
        assert ReverseKL()(seen).item() == (math.inf if expected else 0.0)


@pytest.mark.parametrize("loss", DIVERGENCES, ids=repr)
def test_with_the_whole_vocabulary_known_it_is_the_full_divergence_in_value_and_gradient(loss: TokenLoss) -> None:
    student_logits_NV, teacher_logp_NV = pair()
    student_logp_NV = log_probs(student_logits_NV)
    full_N = loss(tokens(student_logp_NV, teacher_logp_NV, IDS))
    known_N = loss(seen_through(top_log_probs(teacher_logp_NV, V, IDS), student_logp_NV))
    torch.testing.assert_close(known_N, full_N, rtol=1e-6, atol=0)
    full_NV, known_NV = (
        torch.autograd.grad(loss_N.sum(), student_logits_NV, retain_graph=True)[0] for loss_N in (full_N, known_N)
    )
    torch.testing.assert_close(known_NV, full_NV, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("loss", DIVERGENCES, ids=repr)
@pytest.mark.parametrize("spread", [0.5, 3.0])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_fewer_ids_never_say_more(loss: TokenLoss, spread: float, seed: int) -> None:
    """The data processing inequality: putting ids together cannot tell two distributions further apart."""
    student_logits_NV, teacher_logp_NV = pair(spread, seed)
    student_logp_NV = log_probs(student_logits_NV.detach())
    by_k = [
        loss(seen_through(top_log_probs(teacher_logp_NV, k, IDS), student_logp_NV)) for k in (1, 2, 5, 10, V - 1, V)
    ]
    by_k.append(loss(tokens(student_logp_NV, teacher_logp_NV, IDS)))
    for fewer_N, more_N in itertools.pairwise(by_k):
        assert (fewer_N <= more_N * (1 + 1e-5) + 1e-7).all()
    assert (by_k[0] < 0.9 * by_k[-1]).any()
    assert (by_k[0] >= -1e-7).all()


def test_the_bucket_is_felt() -> None:
    """A student right about the ratio of the known ids, and wrong about all the mass outside them."""
    teacher_logp_NV = torch.tensor([[0.6, 0.3, 0.1, 0.0]]).log()
    teacher = TopLogProbs(torch.tensor([[0, 1]]), torch.tensor([[0.6, 0.3, 0.1]]).log(), teacher_logp_NV[:, 0])
    student_NB, teacher_NB, _ = teacher.compare(torch.tensor([[0.06, 0.03, 0.5, 0.41]]).log(), IDS[:1], 1.0, ALL)
    seen = Tokens(response(IDS[:1]), student_NB, student_NB[:, 0], teacher_NB, teacher_NB[:, 0])
    assert ForwardKL()(seen).item() == pytest.approx(0.9 * math.log(10) + 0.1 * math.log(0.1 / 0.91), rel=1e-5)


# ---- zeros


@pytest.mark.parametrize("loss", DIVERGENCES, ids=repr)
@pytest.mark.parametrize("k", [1, 2, 4, 5])
def test_gradients_are_finite_wherever_the_student_or_the_bucket_has_no_mass(loss: TokenLoss, k: int) -> None:
    patterns = torch.cartesian_prod(*[torch.tensor([False, True])] * 5)[:-1]
    generator = torch.Generator().manual_seed(k)
    student_NV, teacher_NV = 2 * torch.randn(2, len(patterns), 5, generator=generator)
    logits_NV = student_NV.masked_fill(patterns, -math.inf).requires_grad_()
    for left in (True, False):
        # Without anything left the teacher's known ids have all its mass.
        unknown_NV = teacher_NV < teacher_NV.topk(k).values[:, -1:]
        kept_NV = teacher_NV if left else teacher_NV.masked_fill(unknown_NV, -math.inf)
        ids_N = torch.zeros(len(patterns), dtype=torch.long)
        teacher = top_log_probs(log_probs(kept_NV), k, ids_N)
        student_NB, teacher_NB, _ = teacher.compare(torch.log_softmax(logits_NV, -1), ids_N, 1.0, ALL)
        loss_N = loss(Tokens(response(ids_N), student_NB, student_NB[:, 0], teacher_NB, teacher_NB[:, 0]))
        assert not loss_N.isnan().any()
        (grad_NV,) = torch.autograd.grad(loss_N.sum(), logits_NV)
        assert grad_NV.isfinite().all()


# ---- use


def test_slices_belong_to_their_tokens() -> None:
    student_logits_NV, teacher_logp_NV = pair()
    teacher, student_logp_NV = top_log_probs(teacher_logp_NV, 5, IDS), log_probs(student_logits_NV.detach())
    whole_N = JSD()(seen_through(teacher, student_logp_NV))
    rows = slice(3, 8)
    seen = seen_through(teacher, student_logp_NV[rows], rows)
    torch.testing.assert_close(JSD()(seen), whole_N[rows], rtol=1e-6, atol=0)
    assert seen.teacher_written_N is not None
    assert torch.equal(seen.teacher_written_N, teacher_logp_NV[torch.arange(N), IDS][rows])
    assert len(teacher) == N


@pytest.mark.parametrize("temperature", [0.5, 2.0])
def test_stored_log_probs_at_another_temperature_are_refused(temperature: float) -> None:
    student_logits_NV, teacher_logp_NV = pair()
    with pytest.raises(ConfigError) as caught:
        top_log_probs(teacher_logp_NV, 5, IDS).compare(log_probs(student_logits_NV), IDS, temperature, ALL)
    assert str(caught.value) == (
        f"error[SKD-T10] objective.temperature: is {temperature}, and stored log-probs of the teacher are those at "
        "temperature 1; write 1, or load the teacher"
    )


def test_another_vocabulary_is_a_fault_of_the_caller() -> None:
    teacher = HiddenStates(torch.zeros(N, 3), Head(torch.zeros(V + 1, 3)))
    with pytest.raises(ValueError, match="teacher's head has 41 ids and the student's 40; cut both first"):
        teacher.compare(pair()[1], IDS, 1.0, ALL)


def test_prepared_hidden_states_are_cut_off_and_cast_once_for_autocast() -> None:
    hidden_ND = torch.randn(N, 3, requires_grad=True)
    teacher = HiddenStates(hidden_ND, Head(torch.randn(V, 3, requires_grad=True), torch.zeros(V)))
    assert teacher.prepared(4).head.weight_VD.dtype == torch.float32
    with torch.autocast("cpu", torch.bfloat16):
        prepared = teacher.prepared(4)
    assert prepared.head.bias_V is not None
    assert prepared.head.weight_VD.dtype == prepared.head.bias_V.dtype == torch.bfloat16
    assert not prepared.hidden_ND.requires_grad
    assert not prepared.head.weight_VD.requires_grad
    assert teacher.head.weight_VD.requires_grad

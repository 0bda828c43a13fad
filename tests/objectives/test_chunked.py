"""chunked_loss against the whole-batch formula in value and gradient, its weights, its edges, and its memory shape."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import pytest
import torch
from torch import Tensor

from skd.errors import ConfigError
from skd.objectives import (
    JSD,
    NLL,
    ByAuthor,
    Cut,
    ForwardKL,
    HiddenStates,
    Objective,
    PerAuthor,
    PolicyGradient,
    ResponseTokens,
    ReverseKL,
    SampledReverseKL,
    SkewKL,
    SkewReverseKL,
    Taid,
    TeacherView,
    TokenLoss,
    Tokens,
    TopLogProbs,
    TotalVariation,
    Veto,
    chunked_loss,
    log_probs,
)
from skd.schedule import Schedule
from skd.types import DATA, STUDENT, TEACHER, Head, LossSum
from tests.objectives.tokens import response, top_log_probs

DIVERGENCES: list[TokenLoss] = [
    ForwardKL(),
    ReverseKL(),
    JSD(),
    JSD(0.2),
    SkewKL(),
    SkewReverseKL(0.3),
    TotalVariation(),
]
SAMPLED: list[TokenLoss] = [PolicyGradient(), PolicyGradient(clip=0.2), SampledReverseKL()]
BY_AUTHOR = PerAuthor(data=NLL(), student=PolicyGradient(clip=0.2), teacher=JSD(0.2))
LOSSES: list[TokenLoss] = [NLL(), *DIVERGENCES, *SAMPLED, BY_AUTHOR]
ALONG = Schedule(0.2, 0.9, over="response", tokens=6)
OBJECTIVES = [
    *map(Objective, LOSSES),
    Objective(ForwardKL(), Veto(0.5)),
    Objective(JSD(ALONG), Veto(ALONG)),
    Objective(ReverseKL(), Taid(ALONG)),
]
N, D, D_TEACHER, V, K = 11, 5, 7, 23, 6


def name(objective: object) -> str:
    """The loss alone says it where the target is the plain one."""
    if not isinstance(objective, Objective):
        return repr(objective)
    return f"{objective.token_loss}-{objective.target}".removesuffix("-Plain()")


@dataclass(frozen=True)
class Batch:
    hidden_ND: Tensor
    head: Head
    tokens: ResponseTokens
    weights_N: Tensor
    teacher: TeacherView | None

    def leaves(self) -> list[Tensor]:
        parts = (self.hidden_ND, self.head.weight_VD, self.head.bias_V)
        return [x for x in parts if x is not None and x.requires_grad]

    def at(self, index: Tensor | slice) -> Batch:
        teacher = HiddenStates(hidden_states(self).hidden_ND[index], hidden_states(self).head)
        return Batch(self.hidden_ND[index], self.head, self.tokens.at(index), self.weights_N[index], teacher)


def hidden_states(data: Batch) -> HiddenStates:
    assert isinstance(data.teacher, HiddenStates)
    return data.teacher


def batch(seed: int = 0, *, bias: bool = False, scale: float = 1.0, softcap: float | None = None) -> Batch:
    generator = torch.Generator().manual_seed(seed)

    def random(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    weight_VD = (random(V, D) / 2).requires_grad_()
    teacher = HiddenStates(random(N, D_TEACHER), Head(random(V, D_TEACHER) / 2, random(V) if bias else None))
    hidden_ND = random(N, D).requires_grad_()
    head = Head(weight_VD, random(V).requires_grad_() if bias else None, scale, softcap)
    ids_N = torch.randint(V, (N,), generator=generator)
    authors_N = torch.tensor([DATA, STUDENT, TEACHER, STUDENT])[torch.arange(N) % 4]
    # A student that has moved on a little since: some ratios are clipped, most are not.
    written_N = log_probs(head.logits(hidden_ND)).detach()[torch.arange(N), ids_N]
    return Batch(
        hidden_ND=hidden_ND,
        head=head,
        tokens=response(ids_N, authors_N, rollout_logp_N=written_N + 0.2 * random(N)),
        weights_N=torch.rand(N, generator=generator) + 0.1,
        teacher=replace(teacher, head=replace(teacher.head, scale=scale, softcap=softcap)),
    )


def with_top(data: Batch, k: int = K) -> Batch:
    """The same teacher, of whom only the ``k`` most probable ids are known."""
    known = hidden_states(data)
    logp_NV = log_probs(known.head.logits(known.hidden_ND))
    return replace(data, teacher=top_log_probs(logp_NV, k, data.tokens.ids_N))


def summed(
    data: Batch, objective: Objective, chunk: int = N, progress: float = 0.0, tile: int | None = None
) -> LossSum:
    return chunked_loss(
        data.hidden_ND,
        data.head,
        data.tokens,
        data.weights_N,
        objective,
        teacher=data.teacher,
        progress=progress,
        cut=Cut(chunk, tile or chunk),
    )


def chunked(data: Batch, loss: Objective | TokenLoss, chunk: int = N, tile: int | None = None) -> tuple[Tensor, Tensor]:
    result = summed(data, loss if isinstance(loss, Objective) else Objective(loss), chunk, tile=tile)
    return result.loss, result.token_loss_N


def whole_tokens(data: Batch, temperature: float = 1.0) -> Tokens:
    """All logits at once, on the graph."""
    student_logp_NV = log_probs(data.head.logits(data.hidden_ND) / temperature)
    written_N = student_logp_NV[torch.arange(len(data.tokens)), data.tokens.ids_N]
    assert data.teacher is not None
    compared = data.teacher.compare(student_logp_NV, data.tokens.ids_N, temperature, slice(None))
    return Tokens(data.tokens, compared[0], written_N, compared[1], compared[2])


def whole(data: Batch, loss: Objective | TokenLoss) -> tuple[Tensor, Tensor]:
    """The slow twin: all logits at once, autograd through everything."""
    objective = loss if isinstance(loss, Objective) else Objective(loss)
    token_loss_N = objective.token_losses(whole_tokens(data, objective.temperature))
    return (token_loss_N * data.weights_N).sum(), token_loss_N


def grads(loss: Tensor, leaves: Sequence[Tensor]) -> list[Tensor]:
    return list(torch.autograd.grad(loss, leaves))


def rounding(loss: Objective | TokenLoss) -> float:
    """What a token's loss may be off by beside 1e-6 of itself. A sampled loss is a difference of two log-probs of a few
    nats, each of which is rounded; every other loss here is a sum of terms that are not negative."""
    token_loss = loss.token_loss if isinstance(loss, Objective) else loss
    return 1e-6 if token_loss.needs_rollout_logp else 0.0


def assert_same_value(value: Tensor, expected: Tensor, data: Batch, loss: Objective | TokenLoss) -> None:
    torch.testing.assert_close(value, expected, rtol=1e-6, atol=rounding(loss) * data.weights_N.sum().item())


def assert_same_gradient(grad: Tensor, expected: Tensor, loss: Objective | TokenLoss) -> None:
    """Equal to 1e-6 of its norm: what is left is the order of the sums. The slope of k3 is itself a difference, of
    numbers that are large where the teacher finds the token far more probable than the student."""
    token_loss = loss.token_loss if isinstance(loss, Objective) else loss
    limit = 3e-5 if token_loss == SampledReverseKL() else 1e-6
    assert (grad - expected).norm() <= limit * expected.norm()


@pytest.mark.parametrize("objective", OBJECTIVES, ids=name)
@pytest.mark.parametrize("evidence", ["hidden states", "top log-probs"])
@pytest.mark.parametrize(("chunk", "tile"), [(1, 1), (3, 3), (4, 3), (5, 2), (N, N), (2 * N, 4)])
def test_chunked_is_whole_in_value_and_gradient(objective: Objective, evidence: str, chunk: int, tile: int) -> None:
    data = batch() if evidence == "hidden states" else with_top(batch())
    value, token_loss_N = chunked(data, objective, chunk, tile)
    expected, expected_N = whole(data, objective)
    assert_same_value(value, expected, data, objective)
    torch.testing.assert_close(token_loss_N, expected_N.detach(), rtol=1e-6, atol=max(1e-7, rounding(objective)))
    assert not token_loss_N.requires_grad
    for grad, expected_grad in zip(grads(value, data.leaves()), grads(expected, data.leaves()), strict=True):
        assert_same_gradient(grad, expected_grad, objective)


@pytest.mark.parametrize("loss", LOSSES, ids=name)
@pytest.mark.parametrize(("scale", "softcap"), [(1.0, None), (0.25, None), (1.0, 2.0), (2.0, 3.0)])
@pytest.mark.parametrize("temperature", [1.0, 0.5, 2.0])
def test_bias_scale_softcap_and_temperature_are_in_both_value_and_gradient(
    loss: TokenLoss, scale: float, softcap: float | None, temperature: float
) -> None:
    data = batch(bias=True, scale=scale, softcap=softcap)
    objective = Objective(loss, temperature=temperature)
    value, _ = chunked(data, objective, chunk=4)
    expected, _ = whole(data, objective)
    assert_same_value(value, expected, data, objective)
    assert len(data.leaves()) == 3
    for grad, expected_grad in zip(grads(value, data.leaves()), grads(expected, data.leaves()), strict=True):
        assert_same_gradient(grad, expected_grad, loss)


def test_temperature_divides_both_logits_and_no_factor_is_put_back() -> None:
    """One token, two ids: logits (0, 2 ln 3) at T = 2 are the probabilities (1/4, 3/4), against (1/2, 1/2)."""
    data = Batch(
        hidden_ND=torch.ones(1, 1, requires_grad=True),
        head=Head(torch.tensor([[0.0], [2 * math.log(3)]])),
        tokens=response(torch.tensor([0])),
        weights_N=torch.ones(1),
        teacher=HiddenStates(torch.ones(1, 1), Head(torch.zeros(2, 1))),
    )
    objective = Objective(ForwardKL(), temperature=2.0)
    value, _ = chunked(data, objective)
    assert value.item() == pytest.approx(0.5 * math.log(4 / 3), rel=1e-6)
    # (S - T) . W / temperature = (1/4) (2 ln 3) / 2
    (grad,) = grads(value, [data.hidden_ND])
    assert grad.item() == pytest.approx(0.25 * math.log(3), rel=1e-6)
    # The teacher is tempered too: with the roles swapped the number is the other KL.
    swapped = replace(data, head=Head(torch.zeros(2, 1)), teacher=HiddenStates(torch.ones(1, 1), data.head))
    assert chunked(swapped, objective)[0].item() == pytest.approx(0.1308120359, rel=1e-6)


def test_a_tied_weight_gets_the_gradient_of_both_uses() -> None:
    embedding_VD = torch.randn(V, D, generator=torch.Generator().manual_seed(5)).requires_grad_()
    data, ids_N = batch(), torch.arange(N)
    data = replace(data, tokens=replace(data.tokens, ids_N=data.tokens.ids_N % (V - 2)))

    def tied(function: object) -> Tensor:
        hidden_ND = torch.tanh(embedding_VD[ids_N])
        # Cut to the shared ids, as a padded vocabulary is: the head is a view of the parameter.
        head = Head(embedding_VD[: V - 2])
        teacher = HiddenStates(hidden_states(data).hidden_ND, Head(hidden_states(data).head.weight_VD[: V - 2]))
        tied_batch = replace(data, hidden_ND=hidden_ND, head=head, teacher=teacher)
        value, _ = function(tied_batch, ForwardKL())  # type: ignore[operator]
        return grads(value, [embedding_VD])[0]

    assert_same_gradient(tied(chunked), tied(whole), ForwardKL())


@pytest.mark.parametrize("loss", OBJECTIVES, ids=name)
def test_tokens_of_weight_0_add_nothing_in_value_or_gradient(loss: Objective) -> None:
    data = batch()
    kept = torch.tensor([0, 2, 3, 7])
    weights_N = torch.zeros(N).index_copy(0, kept, data.weights_N[kept])
    value, token_loss_N = chunked(replace(data, weights_N=weights_N), loss, chunk=3)
    expected, _ = chunked(data.at(kept), loss, chunk=3)
    assert_same_value(value, expected, data.at(kept), loss)
    assert (token_loss_N != 0).all(), "the token losses themselves are reported for every token"
    for grad, expected_grad in zip(grads(value, data.leaves()), grads(expected, data.leaves()), strict=True):
        assert_same_gradient(grad, expected_grad, loss)


def without_id(head: Head, token: int) -> Head:
    assert head.bias_V is not None
    bias_V = head.bias_V.detach().index_fill(0, torch.tensor([token]), -math.inf)
    return replace(head, bias_V=bias_V.requires_grad_(head.bias_V.requires_grad))


@pytest.mark.parametrize(
    ("objective", "who"),
    [
        (Objective(ForwardKL()), "student"),
        (Objective(NLL()), "student"),
        (Objective(ReverseKL()), "teacher"),
        (Objective(ReverseKL(), Veto(0.5)), "teacher"),
        (Objective(PolicyGradient()), "teacher"),
        (Objective(PolicyGradient(clip=0.2)), "teacher"),
        (Objective(SampledReverseKL()), "teacher"),
    ],
    ids=name,
)
def test_an_infinite_loss_of_weight_0_does_not_poison_the_sum(objective: Objective, who: str) -> None:
    data = batch(bias=True)
    data = replace(data, tokens=replace(data.tokens, ids_N=torch.full((N,), 4)))
    if who == "student":
        data = replace(data, head=without_id(data.head, 4))
    else:
        data = replace(data, teacher=replace(hidden_states(data), head=without_id(hidden_states(data).head, 4)))
    value, token_loss_N = chunked(replace(data, weights_N=torch.zeros(N)), objective, chunk=4)
    assert token_loss_N.isinf().all()
    assert value.item() == 0.0
    assert all((grad == 0).all() for grad in grads(value, data.leaves()))
    value, _ = chunked(data, objective, chunk=4)
    assert value.isinf()
    assert all(grad.isfinite().all() for grad in grads(value, data.leaves()))


@pytest.mark.parametrize("loss", LOSSES, ids=name)
@pytest.mark.parametrize("reduction", ["token", "sequence"])
def test_1x8_2x4_and_8x1_micro_batches_give_equal_gradients(loss: TokenLoss, reduction: str) -> None:
    lengths = [1, 3, 2, 5, 0, 4, 1, 6]
    objective = Objective(loss, reduction=reduction)  # type: ignore[arg-type]
    generator = torch.Generator().manual_seed(7)
    hidden = [torch.randn(length, D, generator=generator) for length in lengths]
    targets = [torch.randint(V, (length,), generator=generator) for length in lengths]
    teacher = [torch.randn(length, D_TEACHER, generator=generator) for length in lengths]
    weights, total = objective.reduced([torch.ones(length) for length in lengths])
    data = batch()

    def gradient(size: int) -> Tensor:
        weight_VD = data.head.weight_VD.detach().requires_grad_()
        for start in range(0, len(lengths), size):
            rows = slice(start, start + size)
            ids_N = torch.cat(targets[rows])
            micro = Batch(
                torch.cat(hidden[rows]),
                Head(weight_VD),
                response(ids_N, ids_N % 3),
                torch.cat(weights[rows]),
                HiddenStates(torch.cat(teacher[rows]), hidden_states(data).head),
            )
            (chunked(micro, loss, chunk=4)[0] / total).backward()
        assert weight_VD.grad is not None
        return weight_VD.grad

    one = gradient(8)
    for size in (4, 2, 1):
        assert (gradient(size) - one).abs().max() <= 1e-6
    assert one.abs().max() > 1e-3


@pytest.mark.parametrize(
    "loss",
    [
        *map(Objective, [*DIVERGENCES, *SAMPLED, PerAuthor(ReverseKL(), PolicyGradient(), JSD())]),
        Objective(JSD(), Taid()),
    ],
    ids=name,
)
def test_a_student_equal_to_its_teacher_has_nothing_to_learn(loss: Objective) -> None:
    data = batch(bias=True, softcap=3.0)
    teacher_head = replace(data.head, weight_VD=data.head.weight_VD.detach())
    fresh = replace(data.tokens, rollout_logp_N=None)
    data = replace(data, tokens=fresh, teacher=HiddenStates(data.hidden_ND.detach(), teacher_head))
    value, token_loss_N = chunked(data, loss, chunk=4)
    assert token_loss_N.abs().max() <= 1e-7
    assert all(grad.abs().max() <= 1e-6 for grad in grads(value, data.leaves()))


# ---- edges


@pytest.mark.parametrize("loss", OBJECTIVES, ids=name)
def test_no_tokens_give_loss_0_and_zero_gradients_on_the_graph(loss: Objective) -> None:
    data = batch(bias=True)
    result = summed(data.at(slice(0)), loss)
    value = result.loss
    assert value.item() == 0.0
    assert result.token_kl_N is not None
    assert result.token_loss_N.shape == result.token_nll_N.shape == result.token_kl_N.shape == (0,)
    assert all((grad == 0).all() for grad in grads(value, data.leaves()))


def test_nll_needs_no_teacher() -> None:
    data = batch()
    result = summed(replace(data, teacher=None), Objective(NLL()))
    torch.testing.assert_close(result.loss, whole(data, NLL())[0], rtol=1e-6, atol=0)
    assert result.token_kl_N is None


@pytest.mark.parametrize("loss", [ReverseKL(), PolicyGradient(), PerAuthor(NLL(), NLL(), ReverseKL())], ids=name)
def test_a_divergence_without_a_teacher_is_refused(loss: TokenLoss) -> None:
    with pytest.raises(ConfigError) as caught:
        chunked(replace(batch(), teacher=None), loss)
    assert str(caught.value) == (
        f"error[SKD-T09] objective: {type(loss).__name__} compares with a teacher, and there is none; "
        "give the teacher, or choose the objective nll"
    )


def test_rows_that_do_not_belong_together_are_refused() -> None:
    data = batch()
    teacher, top = hidden_states(data), with_top(data).teacher
    assert isinstance(top, TopLogProbs)
    with pytest.raises(ValueError, match="weights_N has 10 rows and student_hidden_ND has 11"):
        chunked(replace(data, weights_N=data.weights_N[1:]), NLL())
    with pytest.raises(ValueError, match="tokens has 3 rows and student_hidden_ND has 11; one row per token"):
        chunked(replace(data, tokens=data.tokens.at(slice(3))), NLL())
    with pytest.raises(ValueError, match="teacher has 1 rows"):
        chunked(replace(data, teacher=replace(teacher, hidden_ND=teacher.hidden_ND[:1])), ForwardKL())
    with pytest.raises(ValueError, match="teacher has 2 rows"):
        chunked(replace(data, teacher=replace(top, ids_NK=top.ids_NK[:2])), ForwardKL())
    with pytest.raises(ValueError, match="teacher's head has 20 ids and the student's 23"):
        chunked(replace(data, teacher=replace(teacher, head=Head(teacher.head.weight_VD[:20]))), ForwardKL())


# ---- what the logs show


@pytest.mark.parametrize("objective", OBJECTIVES, ids=name)
@pytest.mark.parametrize("evidence", ["hidden states", "top log-probs"])
def test_every_objective_reports_nll_and_kl_to_the_teacher_by_their_definitions(
    objective: Objective, evidence: str
) -> None:
    """In float64; the KL is to the teacher itself, whatever the target, and over what is known of it."""
    data = batch(bias=True)
    known = data if evidence == "hidden states" else with_top(data)
    result = summed(known, objective, chunk=4)
    seen = whole_tokens(known)
    assert seen.teacher_logp_NV is not None
    student_logp_NV, teacher_logp_NV = seen.student_logp_NV.detach().double(), seen.teacher_logp_NV.double()
    kl_N = (teacher_logp_NV.exp() * (teacher_logp_NV - student_logp_NV)).sum(-1)
    logits_NV = data.head.logits(data.hidden_ND).detach().double()
    nll_N = torch.nn.functional.cross_entropy(logits_NV, data.tokens.ids_N, reduction="none")
    assert result.token_kl_N is not None
    torch.testing.assert_close(result.token_nll_N.double(), nll_N, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(result.token_kl_N.double(), kl_N, rtol=1e-5, atol=1e-6)
    logs = (result.token_loss_N, result.token_nll_N, result.token_kl_N)
    assert not any(log.requires_grad for log in logs)
    assert all(log.dtype == torch.float32 for log in logs)


def test_the_logs_of_nll_without_a_gradient_are_those_with_one() -> None:
    data, objective = batch(), Objective(JSD(), Veto(0.5))
    with torch.no_grad():
        without = summed(data, objective, chunk=4)
    trained = summed(data, objective, chunk=4)
    assert without.token_kl_N is not None
    assert trained.token_kl_N is not None
    assert torch.equal(without.token_nll_N, trained.token_nll_N)
    assert torch.equal(without.token_kl_N, trained.token_kl_N)


# ---- schedules and weights


@pytest.mark.parametrize("progress", [0.0, 0.25, 1.0])
def test_progress_reaches_loss_and_target(progress: float) -> None:
    data, value = batch(), 0.9 - 0.8 * progress
    scheduled = Objective(JSD(Schedule(0.9, 0.1)), Veto(Schedule(0.9, 0.1)))
    expected, _ = chunked(data, Objective(JSD(value), Veto(value)))
    found = summed(data, scheduled, chunk=4, progress=progress).loss
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=0)


def test_the_objectives_own_weights_are_not_looked_at() -> None:
    data = batch()
    assert torch.equal(chunked(data, Objective(weights=ByAuthor(0, 0, 0)))[0], chunked(data, Objective())[0])


@pytest.mark.parametrize("k", [1, K, V])
def test_top_log_probs_of_all_ids_are_the_teacher_and_of_fewer_say_less(k: int) -> None:
    data = batch(bias=True)
    full, full_N = chunked(data, ForwardKL(), chunk=4)
    value, token_loss_N = chunked(with_top(data, k), ForwardKL(), chunk=4)
    assert (token_loss_N <= full_N * (1 + 1e-5)).all()
    if k == V:
        torch.testing.assert_close(token_loss_N, full_N, rtol=1e-4, atol=0)
        for grad, expected in zip(grads(value, data.leaves()), grads(full, data.leaves()), strict=True):
            assert (grad - expected).norm() <= 1e-5 * expected.norm()
    else:
        assert token_loss_N.sum() < 0.99 * full_N.sum()


def test_top_log_probs_at_another_temperature_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"SKD-T10.* stored log-probs of the teacher are those at temperature 1"):
        chunked(with_top(batch()), Objective(temperature=2.0))


# ---- only what is needed


@dataclass(frozen=True)
class Recorder:
    """A token loss that notes the chunk sizes and whether autograd was recording."""

    calls: list[tuple[int, bool]]
    needs_teacher: bool = True
    needs_rollout_logp: bool = False

    def __call__(self, tokens: Tokens) -> Tensor:
        assert tokens.teacher_logp_NV is not None
        assert tokens.teacher_written_N is not None
        assert not tokens.teacher_logp_NV.requires_grad
        assert not tokens.teacher_written_N.requires_grad
        self.calls.append((len(tokens.student_logp_NV), tokens.student_logp_NV.requires_grad))
        return ForwardKL()(tokens)


def test_without_grad_mode_or_leaves_no_gradient_is_computed() -> None:
    data, recorder = batch(), Recorder([])
    with torch.no_grad():
        value, _ = chunked(data, recorder, chunk=4)
    assert not value.requires_grad
    detached = replace(data, hidden_ND=data.hidden_ND.detach(), head=Head(data.head.weight_VD.detach()))
    value, _ = chunked(detached, recorder, chunk=4)
    assert not value.requires_grad
    assert recorder.calls == [(4, False), (4, False), (3, False)] * 2


@pytest.mark.parametrize("part", ["hidden", "weight", "bias"])
def test_each_input_alone_gets_its_gradient(part: str) -> None:
    data = batch(bias=True)
    expected = dict(zip(("hidden", "weight", "bias"), grads(whole(data, JSD())[0], data.leaves()), strict=True))
    tensors = dict(zip(("hidden", "weight", "bias"), (x.detach() for x in data.leaves()), strict=True))
    tensors[part].requires_grad_()
    alone = replace(data, hidden_ND=tensors["hidden"], head=Head(tensors["weight"], tensors["bias"]))
    (grad,) = grads(chunked(alone, JSD(), chunk=4)[0], alone.leaves())
    assert_same_gradient(grad, expected[part], JSD())


def test_the_loss_sees_a_tile_at_a_time() -> None:
    data, recorder = batch(), Recorder([])
    chunked(data, recorder, chunk=5, tile=3)
    assert recorder.calls == [(3, True), (2, True)] * 2 + [(1, True)]


def test_backward_scales_by_the_incoming_gradient_and_runs_once() -> None:
    data = batch()
    once = grads(chunked(data, ForwardKL(), chunk=4)[0], data.leaves())
    value, _ = chunked(data, ForwardKL(), chunk=4)
    thrice = torch.autograd.grad(3 * value, data.leaves(), retain_graph=True)
    for a, b in zip(once, thrice, strict=True):
        torch.testing.assert_close(3 * a, b)
    with pytest.raises(RuntimeError, match="inplace"):
        torch.autograd.grad(value, data.leaves())


def test_a_trainable_teacher_gets_no_gradient() -> None:
    data = batch()
    teacher = hidden_states(data)
    teacher.hidden_ND.requires_grad_()
    teacher.head.weight_VD.requires_grad_()
    chunked(data, ForwardKL(), chunk=4)[0].backward()
    assert teacher.hidden_ND.grad is None
    assert teacher.head.weight_VD.grad is None


# ---- precision


@pytest.mark.parametrize("loss", LOSSES, ids=name)
def test_under_bf16_autocast_only_the_product_is_bf16(loss: TokenLoss) -> None:
    data = batch(bias=True, softcap=5.0)
    with torch.autocast("cpu", torch.bfloat16):
        value, token_loss_N = chunked(data, loss, chunk=4)
    assert value.dtype == token_loss_N.dtype == torch.float32

    # The twin: logits from a bf16 product, normalised in float64.
    def product(hidden_ND: Tensor, head: Head) -> Tensor:
        assert head.bias_V is not None
        parts = (x.detach().bfloat16() for x in (hidden_ND, head.weight_VD, head.bias_V))
        return 5.0 * torch.tanh(torch.nn.functional.linear(*parts).double() / 5.0)

    student_logp_NV = torch.log_softmax(product(data.hidden_ND, data.head), -1).float()
    teacher = hidden_states(data)
    teacher_logp_NV = torch.log_softmax(product(teacher.hidden_ND, teacher.head), -1).float()
    written = torch.arange(N), data.tokens.ids_N
    tokens = Tokens(data.tokens, student_logp_NV, student_logp_NV[written], teacher_logp_NV, teacher_logp_NV[written])
    expected_N = loss(tokens)
    torch.testing.assert_close(token_loss_N, expected_N, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(value, (expected_N * data.weights_N).sum(), rtol=1e-5, atol=0)
    for grad, expected_grad, leaf in zip(
        grads(value, data.leaves()), grads(whole(data, loss)[0], data.leaves()), data.leaves(), strict=True
    ):
        assert grad.dtype == leaf.dtype
        assert (grad - expected_grad).norm() <= 0.03 * expected_grad.norm()


def test_under_autocast_evaluating_first_does_not_cost_the_weight_its_gradient() -> None:
    """Autocast caches casts; one made without grad mode must not serve the training call after it."""
    data = batch()
    with torch.autocast("cpu", torch.bfloat16):
        with torch.no_grad():
            chunked(data, ForwardKL(), chunk=4)
        value, _ = chunked(data, ForwardKL(), chunk=4)
    assert grads(value, [data.head.weight_VD])[0].abs().max() > 0


def test_bf16_weights_keep_their_dtype_and_sum_their_gradient_in_float32() -> None:
    """Chunks add up before the one rounding to bf16, so the chunk size does not show in the gradient."""
    data = batch()
    head = Head(data.head.weight_VD.detach().bfloat16().requires_grad_())
    data = replace(data, head=head, hidden_ND=data.hidden_ND.detach().bfloat16())
    by_chunk = [grads(chunked(data, ForwardKL(), chunk=chunk)[0], [head.weight_VD])[0] for chunk in (1, N)]
    assert by_chunk[0].dtype == torch.bfloat16
    difference = (by_chunk[0] - by_chunk[1]).float().norm() / by_chunk[1].float().norm()
    assert difference <= 0.01

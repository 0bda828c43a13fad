"""chunked_loss against the whole-batch formula in value and gradient, its weights, its edges, and its memory shape."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import pytest
import torch
from torch import Tensor

from skd.errors import ConfigError
from skd.objectives import JSD, NLL, ForwardKL, Objective, ReverseKL, TokenLoss, chunked_loss, log_probs
from skd.objectives import chunked as chunked_module
from skd.types import Head

LOSSES = [NLL(), ForwardKL(), ReverseKL(), JSD(), JSD(0.2)]
N, D, D_TEACHER, V = 11, 5, 7, 23


@dataclass(frozen=True)
class Batch:
    hidden_ND: Tensor
    head: Head
    target_ids_N: Tensor
    weights_N: Tensor
    teacher_hidden_ND: Tensor
    teacher_head: Head

    def leaves(self) -> list[Tensor]:
        parts = (self.hidden_ND, self.head.weight_VD, self.head.bias_V)
        return [x for x in parts if x is not None and x.requires_grad]


def batch(seed: int = 0, *, bias: bool = False, scale: float = 1.0, softcap: float | None = None) -> Batch:
    generator = torch.Generator().manual_seed(seed)

    def random(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    weight_VD = (random(V, D) / 2).requires_grad_()
    return Batch(
        hidden_ND=random(N, D).requires_grad_(),
        head=Head(weight_VD, random(V).requires_grad_() if bias else None, scale, softcap),
        target_ids_N=torch.randint(V, (N,), generator=generator),
        weights_N=torch.rand(N, generator=generator) + 0.1,
        teacher_hidden_ND=random(N, D_TEACHER),
        teacher_head=Head(random(V, D_TEACHER) / 2, random(V) if bias else None, scale, softcap),
    )


def chunked(data: Batch, loss: TokenLoss, temperature: float = 1.0, chunk: int = N) -> tuple[Tensor, Tensor]:
    result = chunked_loss(
        data.hidden_ND,
        data.head,
        data.target_ids_N,
        data.weights_N,
        loss,
        temperature=temperature,
        teacher_hidden_ND=data.teacher_hidden_ND,
        teacher_head=data.teacher_head,
        budget_bytes=chunk * chunked_module._ROWS_PER_TOKEN * 4 * V,
    )
    return result.loss, result.token_loss_N


def whole(data: Batch, loss: TokenLoss, temperature: float = 1.0) -> tuple[Tensor, Tensor]:
    """The slow twin: all logits at once, autograd through everything."""
    student_logits_NV = data.head.logits(data.hidden_ND)
    teacher_logits_NV = data.teacher_head.logits(data.teacher_hidden_ND)
    student_logp_NV, teacher_logp_NV = (
        log_probs(student_logits_NV / temperature),
        log_probs(teacher_logits_NV / temperature),
    )
    token_loss_N = loss(student_logp_NV, teacher_logp_NV, data.target_ids_N)
    return (token_loss_N * data.weights_N).sum(), token_loss_N


def grads(loss: Tensor, leaves: Sequence[Tensor]) -> list[Tensor]:
    return list(torch.autograd.grad(loss, leaves))


def assert_same_gradient(grad: Tensor, expected: Tensor) -> None:
    """Equal to 1e-6 of its norm: what is left is the order of the sums."""
    assert (grad - expected).norm() <= 1e-6 * expected.norm()


@pytest.mark.parametrize("loss", LOSSES, ids=repr)
@pytest.mark.parametrize("chunk", [1, 3, 4, N, 2 * N])
def test_chunked_is_whole_in_value_and_gradient(loss: TokenLoss, chunk: int) -> None:
    data = batch()
    value, token_loss_N = chunked(data, loss, chunk=chunk)
    expected, expected_N = whole(data, loss)
    torch.testing.assert_close(value, expected, rtol=1e-6, atol=0)
    torch.testing.assert_close(token_loss_N, expected_N.detach(), rtol=1e-6, atol=1e-7)
    assert not token_loss_N.requires_grad
    for grad, expected_grad in zip(grads(value, data.leaves()), grads(expected, data.leaves()), strict=True):
        assert_same_gradient(grad, expected_grad)


@pytest.mark.parametrize("loss", LOSSES, ids=repr)
@pytest.mark.parametrize(("scale", "softcap"), [(1.0, None), (0.25, None), (1.0, 2.0), (2.0, 3.0)])
@pytest.mark.parametrize("temperature", [1.0, 0.5, 2.0])
def test_bias_scale_softcap_and_temperature_are_in_both_value_and_gradient(
    loss: TokenLoss, scale: float, softcap: float | None, temperature: float
) -> None:
    data = batch(bias=True, scale=scale, softcap=softcap)
    value, _ = chunked(data, loss, temperature, chunk=4)
    expected, _ = whole(data, loss, temperature)
    torch.testing.assert_close(value, expected, rtol=1e-6, atol=0)
    assert len(data.leaves()) == 3
    for grad, expected_grad in zip(grads(value, data.leaves()), grads(expected, data.leaves()), strict=True):
        assert_same_gradient(grad, expected_grad)


def test_temperature_divides_both_logits_and_no_factor_is_put_back() -> None:
    """One token, two ids: logits (0, 2 ln 3) at T = 2 are the probabilities (1/4, 3/4), against (1/2, 1/2)."""
    data = Batch(
        hidden_ND=torch.ones(1, 1, requires_grad=True),
        head=Head(torch.tensor([[0.0], [2 * math.log(3)]])),
        target_ids_N=torch.tensor([0]),
        weights_N=torch.ones(1),
        teacher_hidden_ND=torch.ones(1, 1),
        teacher_head=Head(torch.zeros(2, 1)),
    )
    value, _ = chunked(data, ForwardKL(), temperature=2.0)
    assert value.item() == pytest.approx(0.5 * math.log(4 / 3), rel=1e-6)
    # (S - T) . W / temperature = (1/4) (2 ln 3) / 2
    (grad,) = grads(value, [data.hidden_ND])
    assert grad.item() == pytest.approx(0.25 * math.log(3), rel=1e-6)
    # The teacher is tempered too: with the roles swapped the number is the other KL.
    swapped = replace(data, head=data.teacher_head, teacher_head=data.head)
    assert chunked(swapped, ForwardKL(), temperature=2.0)[0].item() == pytest.approx(0.1308120359, rel=1e-6)


def test_a_tied_weight_gets_the_gradient_of_both_uses() -> None:
    embedding_VD = torch.randn(V, D, generator=torch.Generator().manual_seed(5)).requires_grad_()
    data, ids_N = batch(), torch.arange(N)

    def tied(function: object) -> Tensor:
        hidden_ND = torch.tanh(embedding_VD[ids_N])
        # Cut to the shared ids, as a padded vocabulary is: the head is a view of the parameter.
        head = Head(embedding_VD[: V - 2])
        teacher_head = Head(data.teacher_head.weight_VD[: V - 2])
        tied_batch = replace(data, hidden_ND=hidden_ND, head=head, teacher_head=teacher_head)
        value, _ = function(tied_batch, ForwardKL())  # type: ignore[operator]
        return grads(value, [embedding_VD])[0]

    assert_same_gradient(tied(chunked), tied(whole))


@pytest.mark.parametrize("loss", LOSSES, ids=repr)
def test_tokens_of_weight_0_add_nothing_in_value_or_gradient(loss: TokenLoss) -> None:
    data = batch()
    kept = torch.tensor([0, 2, 3, 7])
    weights_N = torch.zeros(N).index_copy(0, kept, data.weights_N[kept])
    value, token_loss_N = chunked(replace(data, weights_N=weights_N), loss, chunk=3)
    only = Batch(
        data.hidden_ND[kept],
        data.head,
        data.target_ids_N[kept],
        data.weights_N[kept],
        data.teacher_hidden_ND[kept],
        data.teacher_head,
    )
    expected, _ = chunked(only, loss, chunk=3)
    torch.testing.assert_close(value, expected, rtol=1e-6, atol=0)
    assert (token_loss_N > 0).all(), "the token losses themselves are reported for every token"
    for grad, expected_grad in zip(grads(value, data.leaves()), grads(expected, data.leaves()), strict=True):
        assert_same_gradient(grad, expected_grad)


def test_an_infinite_loss_of_weight_0_does_not_poison_the_sum() -> None:
    data = batch(bias=True)
    assert data.head.bias_V is not None
    bias_V = data.head.bias_V.detach().index_fill(0, torch.tensor([4]), -math.inf).requires_grad_()
    data = replace(data, head=replace(data.head, bias_V=bias_V))
    value, token_loss_N = chunked(replace(data, weights_N=torch.zeros(N)), ForwardKL(), chunk=4)
    assert token_loss_N.isinf().all()
    assert value.item() == 0.0
    assert all((grad == 0).all() for grad in grads(value, data.leaves()))
    value, _ = chunked(data, ForwardKL(), chunk=4)
    assert value.isinf()
    assert all(grad.isfinite().all() for grad in grads(value, data.leaves()))


@pytest.mark.parametrize("loss", LOSSES, ids=repr)
@pytest.mark.parametrize("reduction", ["token", "sequence"])
def test_1x8_2x4_and_8x1_micro_batches_give_equal_gradients(loss: TokenLoss, reduction: str) -> None:
    lengths = [1, 3, 2, 5, 0, 4, 1, 6]
    objective = Objective(loss, reduction=reduction)  # type: ignore[arg-type]
    generator = torch.Generator().manual_seed(7)
    hidden = [torch.randn(length, D, generator=generator) for length in lengths]
    targets = [torch.randint(V, (length,), generator=generator) for length in lengths]
    teacher = [torch.randn(length, D_TEACHER, generator=generator) for length in lengths]
    data, total = batch(), objective.total_weight(lengths)

    def gradient(size: int) -> Tensor:
        weight_VD = data.head.weight_VD.detach().requires_grad_()
        for start in range(0, len(lengths), size):
            rows = slice(start, start + size)
            micro = Batch(
                torch.cat(hidden[rows]),
                Head(weight_VD),
                torch.cat(targets[rows]),
                torch.cat(objective.token_weights(lengths[rows])),
                torch.cat(teacher[rows]),
                data.teacher_head,
            )
            (chunked(micro, loss, chunk=4)[0] / total).backward()
        assert weight_VD.grad is not None
        return weight_VD.grad

    one = gradient(8)
    for size in (4, 2, 1):
        assert (gradient(size) - one).abs().max() <= 1e-6
    assert one.abs().max() > 1e-3


@pytest.mark.parametrize("loss", LOSSES[1:], ids=repr)
def test_a_student_equal_to_its_teacher_has_nothing_to_learn(loss: TokenLoss) -> None:
    data = batch(bias=True, softcap=3.0)
    teacher_head = replace(data.head, weight_VD=data.head.weight_VD.detach())
    data = replace(data, teacher_hidden_ND=data.hidden_ND.detach(), teacher_head=teacher_head)
    value, token_loss_N = chunked(data, loss, chunk=4)
    assert token_loss_N.abs().max() <= 1e-7
    assert all(grad.abs().max() <= 1e-6 for grad in grads(value, data.leaves()))


# ---- edges


@pytest.mark.parametrize("loss", LOSSES, ids=repr)
def test_no_tokens_give_loss_0_and_zero_gradients_on_the_graph(loss: TokenLoss) -> None:
    data = batch(bias=True)
    empty = Batch(
        data.hidden_ND[:0],
        data.head,
        data.target_ids_N[:0],
        data.weights_N[:0],
        data.teacher_hidden_ND[:0],
        data.teacher_head,
    )
    value, token_loss_N = chunked(empty, loss)
    assert value.item() == 0.0
    assert token_loss_N.shape == (0,)
    assert all((grad == 0).all() for grad in grads(value, data.leaves()))


def test_nll_needs_no_teacher() -> None:
    data = batch()
    result = chunked_loss(data.hidden_ND, data.head, data.target_ids_N, data.weights_N, NLL(), temperature=1.0)
    torch.testing.assert_close(result.loss, whole(data, NLL())[0], rtol=1e-6, atol=0)


def test_a_divergence_without_a_teacher_is_refused() -> None:
    data = batch()
    with pytest.raises(ConfigError) as caught:
        chunked_loss(data.hidden_ND, data.head, data.target_ids_N, data.weights_N, ReverseKL(), temperature=1.0)
    assert str(caught.value) == (
        "error[SKD-T09] objective: ReverseKL compares with a teacher, and there is none; "
        "give the teacher, or choose the objective nll"
    )


def test_rows_that_do_not_belong_together_are_refused() -> None:
    data = batch()
    with pytest.raises(ValueError, match="weights_N has 10 rows and student_hidden_ND has 11"):
        chunked(replace(data, weights_N=data.weights_N[1:]), NLL())
    with pytest.raises(ValueError, match="teacher_hidden_ND has 1 rows"):
        chunked(replace(data, teacher_hidden_ND=data.teacher_hidden_ND[:1]), ForwardKL())
    with pytest.raises(ValueError, match="teacher's head has 20 ids and the student's 23"):
        chunked(replace(data, teacher_head=Head(data.teacher_head.weight_VD[:20])), ForwardKL())


# ---- only what is needed


@dataclass(frozen=True)
class Recorder:
    """A token loss that notes the chunk sizes and whether autograd was recording."""

    calls: list[tuple[int, bool]]
    needs_teacher: bool = True

    def __call__(self, student_logp_NV: Tensor, teacher_logp_NV: Tensor | None, target_ids_N: Tensor) -> Tensor:
        assert teacher_logp_NV is not None
        assert not teacher_logp_NV.requires_grad
        self.calls.append((len(student_logp_NV), student_logp_NV.requires_grad))
        return ForwardKL()(student_logp_NV, teacher_logp_NV, target_ids_N)


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
    assert_same_gradient(grad, expected[part])


def test_a_budget_below_one_token_still_takes_one_token_at_a_time() -> None:
    data, recorder = batch(), Recorder([])
    chunked(data, recorder, chunk=0)
    assert recorder.calls == [(1, True)] * N


def test_backward_scales_by_the_incoming_gradient_and_may_run_twice() -> None:
    data = batch()
    value, _ = chunked(data, ForwardKL(), chunk=4)
    once = torch.autograd.grad(value, data.leaves(), retain_graph=True)
    thrice = torch.autograd.grad(3 * value, data.leaves())
    for a, b in zip(once, thrice, strict=True):
        torch.testing.assert_close(3 * a, b)


def test_a_trainable_teacher_gets_no_gradient() -> None:
    data = batch()
    data.teacher_hidden_ND.requires_grad_()
    data.teacher_head.weight_VD.requires_grad_()
    chunked(data, ForwardKL(), chunk=4)[0].backward()
    assert data.teacher_hidden_ND.grad is None
    assert data.teacher_head.weight_VD.grad is None


# ---- precision


@pytest.mark.parametrize("loss", LOSSES, ids=repr)
def test_under_bf16_autocast_only_the_product_is_bf16(loss: TokenLoss) -> None:
    data = batch(bias=True, softcap=5.0)
    with torch.autocast("cpu", torch.bfloat16):
        value, token_loss_N = chunked(data, loss, chunk=4)
    assert value.dtype == token_loss_N.dtype == torch.float32

    # The twin: logits from a bf16 product, everything after it in float64.
    def product(hidden_ND: Tensor, head: Head) -> Tensor:
        assert head.bias_V is not None
        parts = (x.detach().bfloat16() for x in (hidden_ND, head.weight_VD, head.bias_V))
        return 5.0 * torch.tanh(torch.nn.functional.linear(*parts).double() / 5.0)

    student_logp_NV = torch.log_softmax(product(data.hidden_ND, data.head), -1)
    teacher_logp_NV = torch.log_softmax(product(data.teacher_hidden_ND, data.teacher_head), -1)
    expected_N = loss(student_logp_NV, teacher_logp_NV, data.target_ids_N)
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

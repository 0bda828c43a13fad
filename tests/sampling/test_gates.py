"""Gates, one block at a time, against the oracle's gates."""

from dataclasses import replace

import pytest
import torch

from skd.errors import ConfigError
from skd.sampling import (
    AcceptAll,
    AcceptNone,
    Drafted,
    Interpolated,
    MinProb,
    SwitchOnce,
    TopK,
    TopP,
    Warp,
    teacher_draw,
)
from skd.schedule import Schedule
from tests.oracles import interleave as oracle
from tests.oracles.warp import warp

B, G, V = 6, 5, 32


def block(logits_BGV: torch.Tensor, ids_BG: torch.Tensor) -> Drafted:
    b, g, _ = logits_BGV.shape
    noise = torch.rand(2, b, g, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    return Drafted(
        ids_BG=ids_BG,
        teacher_logits_BGV=logits_BGV,
        teacher_warp=Warp(0.7),
        position_BG=torch.arange(g).expand(b, g),
        progress=0.0,
        student_logits_BGV=logits_BGV.flip(-1),
        student_warp=Warp(0.9),
        accept_noise_BG=noise[0],
        replace_noise_BG=noise[1],
        state_BS=torch.zeros(b, 0),
    )


@pytest.fixture
def random_block():
    generator = torch.Generator().manual_seed(4)
    logits = 2.0 * torch.randn(B, G, V, generator=generator)
    return block(logits, torch.randint(0, V, (B, G), generator=generator))


@pytest.mark.parametrize(
    ("gate", "truth"),
    [
        (TopK(1), oracle.top_k(1)),
        (TopK(12), oracle.top_k(12)),
        (TopK(V), oracle.top_k(V)),
        (TopK(10 * V), oracle.top_k(10 * V)),
        (TopP(0.3), oracle.top_p(0.3)),
        (TopP(0.9), oracle.top_p(0.9)),
        (TopP(1.0), oracle.top_p(1.0)),
        (TopK(Schedule(20, 2, over="response", tokens=4)), oracle.falling_top_k(20, 2, 4)),
        (TopK(Schedule(12, 2)), oracle.top_k(12)),
        (MinProb(0.01), oracle.min_prob(0.01)),
        (MinProb(Schedule(0.05, 0.01, scale="log")), oracle.min_prob(0.05)),
        (Interpolated(0.3), oracle.ipd(0.3)),
        (Interpolated(1.0), oracle.ipd(1.0)),
        (AcceptAll(), oracle.accept_all),
        (AcceptNone(), oracle.accept_none),
    ],
    ids=lambda value: "oracle" if callable(value) else repr(value),
)
def test_verdict_and_replacement_are_the_oracles(gate, truth, random_block):
    verdict = gate.judge(random_block)
    for column in range(G):
        view = random_block.at(torch.full((B,), column))
        replacement = verdict.replacement(view)
        assert replacement.shape == (B, 1)
        for row in range(B):
            logits = random_block.teacher_logits_BGV[row, column].double().numpy()
            student = random_block.student_logits_BGV[row, column].double().numpy()
            look = oracle.Look(
                int(random_block.ids_BG[row, column]),
                column,
                logits,
                student,
                warp(student, 0.9),
                warp(logits, 0.7),
                float(random_block.accept_noise_BG[row, column]),
                float(random_block.replace_noise_BG[row, column]),
                {},
            )
            wanted = truth(look)
            assert bool(verdict.keep_BG[row, column]) == wanted.keep
            if not wanted.keep:
                assert int(replacement[row, 0]) == wanted.replacement


def test_ids_that_tie_with_the_kth_are_among_the_k():
    logits = torch.tensor([5.0, 3.0, 3.0, 3.0, 1.0]).expand(1, 5, 5).clone()
    verdict = TopK(2).judge(block(logits, torch.arange(5).unsqueeze(0)))
    assert verdict.keep_BG.tolist() == [[True, True, True, True, False]]


def test_the_gates_look_at_raw_logits_whatever_the_warp(random_block):
    cold = replace(random_block, teacher_warp=Warp(0.1, 0.2))
    for gate in (TopK(12), TopP(0.9)):
        assert torch.equal(gate.judge(cold).keep_BG, gate.judge(random_block).keep_BG)


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: TopK(0), "k: is 0; it must be 1 or more"),
        (lambda: TopK(-3), "k: is -3"),
        (lambda: TopP(0.0), r"p: is 0\.0; it must be in \(0, 1\]"),
        (lambda: TopP(1.5), r"p: is 1\.5"),
        (lambda: TopK(Schedule(25, 0)), "k: is 0; it must be 1 or more"),
        (lambda: MinProb(1.5), r"floor: is 1\.5; it must be in \[0, 1\]"),
        (lambda: Interpolated(Schedule(-0.1, 0.0)), r"g: is -0\.1; it must be in \[0, 1\]"),
        (lambda: SwitchOnce(0.0), r"factor: is 0\.0; it must be above 0"),
    ],
)
def test_impossible_gates_are_refused(make, text):
    with pytest.raises(ConfigError, match=text):
        make()


def test_schedules_over_training_follow_its_progress(random_block):
    for progress in (0.0, 0.5, 1.0):
        block_then = replace(random_block, progress=progress)
        for scheduled, gate in (
            (TopK(Schedule(20, 2)), TopK(round(20 - 18 * progress))),
            (MinProb(Schedule(0.04, 0.01)), MinProb(0.04 - 0.03 * progress)),
            (Interpolated(Schedule(0.9, 0.1)), Interpolated(0.9 - 0.8 * progress)),
        ):
            assert torch.equal(scheduled.judge(block_then).keep_BG, gate.judge(block_then).keep_BG)


def test_equal_distributions_are_never_told_apart(random_block):
    """Rounding may reject one in ten million; the replacement is then a draw from the teacher, not id 0 for nothing."""
    same = replace(random_block, student_logits_BGV=random_block.teacher_logits_BGV, student_warp=Warp(0.7))
    verdict = Interpolated(1.0).judge(same)
    assert verdict.keep_BG.all()
    at = same.at(torch.zeros(B, dtype=torch.long))
    assert torch.equal(verdict.replacement(at), teacher_draw(at))

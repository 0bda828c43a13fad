"""Compiled passes write what the oracle writes: one graph per shape, no break, the same shapes in every rollout."""

from dataclasses import replace

import pytest
import torch

import skd
from skd.sampling import Compiled, Drafted, Warp
from skd.schedule import Schedule
from tests.sampling.cases import VOCAB, Case, assert_same, expected
from tests.tiny import FAMILIES, WINDOWED


class Counting:
    """A backend that counts its graphs and runs them as they are."""

    def __init__(self):
        self.graphs = 0

    def __call__(self, graph, inputs):
        self.graphs += 1
        return graph.forward


@pytest.fixture(autouse=True)
def _forget_graphs():
    torch._dynamo.reset()


@pytest.mark.parametrize("family", FAMILIES)
def test_compiled_passes_write_what_the_oracle_writes(family):
    case = Case(family, cap=8)
    assert_same(case.run(slots=3, block=4, execution=Compiled("eager")), expected(case))


@pytest.mark.parametrize("family", WINDOWED)
def test_compiled_passes_behind_a_sliding_window(family):
    both = (("softcap", 5.0), ("window", 8)) if family == "gemma2" else (("window", 8),)
    prompt = tuple(range(10, 30))
    case = Case(family, prompts=(prompt, prompt[:3]), samples=(0, 1), cap=12, both=both)
    assert_same(case.run(slots=2, execution=Compiled("eager")), expected(case))


@pytest.mark.parametrize("gate", ["top_k", "top_p", "accept_all", "accept_none"])
def test_every_gate_and_traced_gradients_of_nothing(gate):
    case = Case(gate=gate, cap=8, student_warp=(0.0, 1.0))
    rollout = case.run(slots=3, block=4, execution=Compiled("aot_eager"))
    assert_same(rollout, expected(case))
    eager = case.run(slots=3, block=4)
    for mine, theirs in zip(rollout.evidence, eager.evidence, strict=True):
        torch.testing.assert_close(mine, theirs, atol=1e-5, rtol=0)


def test_the_next_rollouts_compile_nothing_new():
    counting = Counting()
    compiled, case = Compiled(counting), Case(cap=20, responses=2, both=(("eos_token_id", (1, 7, 20, 33)),))
    assert_same(case.run(slots=4, execution=compiled), expected(case))
    first = counting.graphs
    assert 2 <= first <= 5  # one draft step, looks at blocks of 1, 2, 4 and 8
    for seed in (5, 6):
        again = replace(case, seed=seed)
        assert_same(again.run(slots=4, execution=compiled), expected(again))
    assert counting.graphs <= 5


def test_attention_looks_at_one_more_bucket_when_a_response_outgrows_the_last():
    counting = Counting()
    case = Case(gate="accept_all", prompts=((5,) * 55,), samples=(0,), cap=40, student_warp=(1.0, 1.0))
    case.run(execution=Compiled(counting), evidence=False)
    assert counting.graphs == 2


def test_a_student_that_learns_is_what_is_sampled_from():
    case, compiled = Case(cap=8), Compiled("eager")
    pair = skd.load_pair(case.pair.teacher.name_or_path, case.pair.student.name_or_path, device="cpu")
    case.run(pair, slots=3, execution=compiled)
    with torch.no_grad():
        for parameter in pair.student.parameters():
            parameter.mul_(1.1)
    ours, plain = case.run(pair, slots=3, execution=compiled), case.run(pair, slots=3)
    assert [ids.tolist() for ids in ours.response_ids] == [ids.tolist() for ids in plain.response_ids]
    assert [ids.tolist() for ids in ours.response_ids] != [ids.tolist() for ids in case.run().response_ids]


GATES = [
    skd.TopK(7),
    skd.TopK(Schedule(3, 9, over="response", tokens=4)),
    skd.TopP(0.8),
    skd.MinProb(0.02),
    skd.Interpolated(0.3),
    skd.SwitchOnce(1.5),
]


@pytest.mark.parametrize("gate", GATES, ids=lambda gate: type(gate).__name__)
@pytest.mark.parametrize("vocab_size", [VOCAB, 1100], ids=["one level", "two levels"])
def test_no_gate_asks_a_tensor_what_to_do(gate, vocab_size):
    generator = torch.Generator().manual_seed(0)

    def noise():
        return torch.rand(3, 4, dtype=torch.float64, generator=generator)

    def logits():
        return torch.randn(3, 4, vocab_size, generator=generator)

    drafted = Drafted(
        ids_BG=torch.randint(vocab_size, (3, 4), generator=generator),
        teacher_logits_BGV=logits(),
        teacher_warp=Warp(0.7, 0.9),
        position_BG=torch.arange(4).expand(3, 4),
        progress=0.0,
        accept_noise_BG=noise(),
        replace_noise_BG=noise(),
        state_BS=torch.zeros(3, gate.state_size),
        student_logits_BGV=logits(),
        student_warp=Warp(0.8, 0.95),
    )

    def judged(drafted):
        verdict = gate.judge(drafted)
        return verdict.keep_BG, verdict.replacement(drafted.at(torch.tensor([0, 1, 3]))), verdict.state_BGS

    compiled = torch.compile(judged, backend="aot_eager", fullgraph=True, dynamic=False)
    for mine, theirs in zip(compiled(drafted), judged(replace(drafted)), strict=True):
        assert theirs is None if mine is None else torch.equal(mine, theirs)

"""A teacher behind HTTP decides and teaches as the same teacher in this process."""

import pytest
import torch

import skd
from skd.engines.answers import dense_logits, packed, unpacked
from skd.objectives import HiddenStates, Objective, ResponseTokens, TopLogProbs, chunked_loss, top_evidence
from skd.sampling.warp import CutWarp
from skd.types import Prompts

TOP = 20
PROMPTS = Prompts(ids=[[2 + i % 50, 3 + i % 7, 4 + i % 5][: 1 + i % 3] for i in range(60)], sample_ids=list(range(60)))


def sampled(pair, gate, **keys):
    warp = {} if pair.server is not None else {"teacher_warp": CutWarp(0.7, 1.0, TOP)}
    defaults = {"teacher_warp": skd.Warp(0.7), "max_new_tokens": 24, "seed": 5, "slots": 16, "block": 2}
    return skd.interleave(pair, PROMPTS, gate=gate, **{**defaults, **warp, **keys})


@pytest.mark.parametrize("gate", [skd.TopK(8), skd.MinProb(0.03), skd.Interpolated(0.5)])
def test_a_thousand_blocks_are_judged_as_by_the_local_teacher(served_pair, directory, gate):
    """Every row of every round is one block; a decision or a replacement that differed would change what follows."""
    local = sampled(skd.load_pair(directory / "teacher", directory / "student", device="cpu"), gate)
    served = sampled(served_pair, gate)
    assert served.stats.drafted / 2 > 1000 / 3  # for each of the three gates
    assert [ids.tolist() for ids in served.response_ids] == [ids.tolist() for ids in local.response_ids]
    assert [by.tolist() for by in served.authors] == [by.tolist() for by in local.authors]
    assert 0.1 < served.acceptance_rate < 0.95


@pytest.mark.parametrize("loss", [skd.ForwardKL(), skd.ReverseKL(), skd.JSD(0.5)])
def test_losses_on_the_same_support_are_the_local_teachers(served_pair, directory, loss):
    pair = skd.load_pair(directory / "teacher", directory / "student", device="cpu")
    local, served = sampled(pair, skd.TopK(8)), sampled(served_pair, skd.TopK(8))
    student_ND = torch.cat([torch.randn(len(ids), 16) for ids in local.response_ids])
    ids_N, author_N = torch.cat(local.response_ids), torch.cat(local.authors)
    tokens = ResponseTokens(ids_N, author_N, torch.zeros_like(ids_N))
    teacher_N = HiddenStates(torch.cat(local.evidence), pair.teacher_head())
    known = [top_evidence(teacher_N, ids_N, TOP), *served.evidence]
    views = [TopLogProbs(e.ids_LK, e.logp_LB, e.written_L) for e in (known[0], joined(known[1:]))]
    ours, theirs = (
        chunked_loss(student_ND, pair.student_head(), tokens, torch.ones(len(ids_N)), Objective(loss), teacher=view)
        for view in views
    )
    assert (ours.token_loss_N - theirs.token_loss_N).abs().max() < 1e-3
    assert (views[0].written_logp_N - views[1].written_logp_N).abs().max() < 1e-4


def joined(parts):
    columns = ([getattr(part, name) for part in parts] for name in ("ids_LK", "logp_LB", "written_L"))
    return type(parts[0])(*map(torch.cat, columns))


def test_the_data_set_and_the_student_alone_need_one_request_per_response(served_pair, server):
    prompts = Prompts(PROMPTS.ids[:5], list(range(5)), references=[[5, 6, 7, 1][: i % 5] for i in range(5)])
    before = server.completions
    rollout = skd.DataSet().rollout(served_pair, prompts, skd.policies.RolloutKey(0, [0] * 5))
    assert server.completions - before == 1 + 4  # the probe, and the responses that have tokens
    assert [len(part) for part in rollout.evidence] == [0, 1, 2, 3, 4]
    before = server.completions
    sampled(served_pair, skd.AcceptAll())
    assert server.completions - before == 1 + len(PROMPTS)


def test_the_teacher_alone_writes_as_the_local_one(served_pair, directory):
    pair = skd.load_pair(directory / "teacher", directory / "student", device="cpu")
    few = {"max_new_tokens": 4}
    local, served = sampled(pair, skd.AcceptNone(), **few), sampled(served_pair, skd.AcceptNone(), **few)
    assert [ids.tolist() for ids in served.response_ids] == [ids.tolist() for ids in local.response_ids]


def test_the_tokens_that_are_read_again_are_counted(served_pair):
    before = dict(served_pair.engine.usage)
    rollout = skd.interleave(served_pair, Prompts([[2, 3, 4]], [0]), gate=skd.MinProb(0.0), block=2, max_new_tokens=6)
    used = {name: count - before[name] for name, count in served_pair.engine.usage.items()}
    rounds = rollout.stats.rounds
    sent = sum(3 + 2 * number + 2 for number in range(rounds))
    assert used["teacher_tokens"] == sent
    assert used["teacher_rescored"] == sum(3 + 2 * number for number in range(1, rounds))
    assert used["teacher_requests"] == rounds
    assert used["teacher_retries"] == 0


def test_what_is_packed_comes_back_with_the_log_prob_of_the_token_committed():
    hidden_LD, head = torch.randn(4, 8), skd.types.Head(torch.randn(12, 8))
    drafted_L = torch.tensor([0, 3, 7, 11])
    evidence = top_evidence(HiddenStates(hidden_LD, head), drafted_L, 5)
    kept = unpacked(packed(evidence), drafted_L)
    assert torch.equal(kept.ids_LK, evidence.ids_LK)
    assert torch.equal(kept.logp_LB, evidence.logp_LB)
    assert torch.allclose(kept.written_L, evidence.written_L)
    replaced_L = evidence.ids_LK[:, 2]
    assert torch.equal(unpacked(packed(evidence), replaced_L).written_L, evidence.logp_LB[:, 2])


def test_dense_logits_are_a_distribution_that_agrees_with_all_that_is_known():
    hidden_LD, head = torch.randn(6, 8), skd.types.Head(torch.randn(40, 8))
    written_L = torch.tensor([0, 3, 7, 11, 39, 20])
    evidence = top_evidence(HiddenStates(hidden_LD, head), written_L, 5)
    dense_LV = dense_logits(evidence, written_L, 40)
    true_LV = head.logits(hidden_LD).log_softmax(-1)
    assert (dense_LV.exp().sum(-1) - 1).abs().max() < 1e-5
    assert torch.allclose(dense_LV.gather(-1, evidence.ids_LK), true_LV.gather(-1, evidence.ids_LK), atol=1e-6)
    written = (values.gather(-1, written_L.unsqueeze(-1)) for values in (dense_LV, true_LV))
    assert torch.allclose(*written, atol=1e-6)
    assert (dense_LV.topk(5).indices.sort().values == evidence.ids_LK.sort().values).all()

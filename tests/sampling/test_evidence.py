"""What the teacher computed to judge a draft is what one full forward computes of the finished response."""

import pytest
import torch

from tests.sampling.cases import Case
from tests.tiny import FAMILIES, WINDOWED


def assert_evidence(case, rollout):
    teacher, vocab = case.models[0], case.pair.vocab_size
    head = case.pair.teacher_head()
    assert rollout.evidence is not None
    for prompt, ids, evidence in zip(rollout.prompt_ids, rollout.response_ids, rollout.evidence, strict=True):
        assert evidence.shape == (len(ids), teacher.config.hidden_size)
        with torch.no_grad():
            logits = teacher(input_ids=torch.cat([prompt, ids])[None], use_cache=False).logits
            truth = logits[0, len(prompt) - 1 : -1, :vocab].log_softmax(-1)
            torch.testing.assert_close(head.logits(evidence).log_softmax(-1), truth, atol=1e-5, rtol=0)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("gate", ["top_k", "accept_all", "accept_none"])
def test_evidence_is_the_hidden_state_that_predicts_each_token(family, gate):
    case = Case(family, gate=gate, cap=8)
    assert_evidence(case, case.run(slots=2, block=3))


@pytest.mark.parametrize("family", WINDOWED)
@pytest.mark.parametrize("gate", ["top_k", "accept_all"])
def test_evidence_behind_a_sliding_window(family, gate):
    both = (("softcap", 5.0), ("window", 8)) if family == "gemma2" else (("window", 8),)
    prompt = tuple(range(10, 22))
    case = Case(family, gate=gate, prompts=(prompt, prompt[:3]), samples=(0, 1), cap=20, both=both)
    assert_evidence(case, case.run(slots=2))


def test_evidence_with_ends_inside_drafts_and_slots_refilled():
    case = Case(gate="top_k", cap=10, responses=4, both=(("eos_token_id", (1, 7, 9, 20, 33, 41, 50, 60)),))
    assert_evidence(case, case.run(slots=3, block=8))

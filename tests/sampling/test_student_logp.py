"""The log-probs kept while sampling are those of one full forward of the student, before any warp."""

import pytest
import torch

from skd.types import STUDENT, TEACHER
from tests.sampling.cases import Case
from tests.tiny import FAMILIES


def assert_student_logp(case, rollout):
    student, vocab = case.models[1], case.pair.vocab_size
    assert rollout.student_logp is not None
    for prompt, ids, logp_L in zip(rollout.prompt_ids, rollout.response_ids, rollout.student_logp, strict=True):
        assert logp_L.shape == ids.shape
        assert logp_L.dtype == torch.float32
        assert logp_L.device.type == "cpu"
        with torch.no_grad():
            logits = student(input_ids=torch.cat([prompt, ids])[None], use_cache=False).logits[0, :, :vocab]
        truth_LV = logits[len(prompt) - 1 : -1].log_softmax(-1)
        torch.testing.assert_close(logp_L, truth_LV.gather(-1, ids[:, None]).squeeze(-1), atol=1e-5, rtol=0)


@pytest.mark.parametrize("gate", ["top_k", "top_k_strict", "top_p"])
@pytest.mark.parametrize("block", [1, 3, 5, 8])
def test_kept_and_replaced_tokens_have_the_students_raw_log_prob(gate, block):
    case = Case(gate=gate, responses=2)
    rollout = case.run(block=block, slots=3, student_logp=True)
    assert {int(author) for authors in rollout.authors for author in authors} == {STUDENT, TEACHER}
    assert_student_logp(case, rollout)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("gate", ["top_k", "accept_all"])
def test_every_family_gives_its_raw_log_probs(family, gate):
    case = Case(family, gate=gate, cap=8)
    assert_student_logp(case, case.run(slots=2, student_logp=True))


def test_the_log_probs_follow_their_tokens_where_slots_are_refilled_and_drafts_end():
    case = Case(gate="top_k", cap=10, responses=4, both=(("eos_token_id", (1, 7, 9, 20, 33, 41, 50, 60)),))
    rollout = case.run(slots=3, block=8, student_logp=True)
    assert_student_logp(case, rollout)
    assert_student_logp(case, rollout.select([5, 0, 7]))


def test_a_padded_student_is_normalised_over_the_shared_ids():
    case = Case("qwen2", student_only=(("padded_vocab", 72),))
    assert_student_logp(case, case.run(slots=2, student_logp=True))


def test_they_change_no_token_and_are_kept_only_when_asked_for():
    case = Case()
    without, with_them = case.run(slots=2), case.run(slots=2, student_logp=True)
    assert without.student_logp is None
    assert [ids.tolist() for ids in without.response_ids] == [ids.tolist() for ids in with_them.response_ids]


def test_a_teacher_alone_has_none():
    assert Case(gate="accept_none").run(student_logp=True).student_logp is None

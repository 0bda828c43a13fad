"""A teacher with prompts of its own: the same tokens as the token-by-token oracle, and the evidence of its own view."""

from dataclasses import replace

import pytest
import torch

from skd.errors import DataError
from skd.types import STUDENT, TEACHER
from tests.sampling.cases import PROMPT_IDS, Case, assert_same, expected
from tests.tiny import FAMILIES, WINDOWED

OWN = ((9, 8, 7, 6, 5, 4, 3, 2), (33,), (12, 13), (2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13), (40, 41, 42, 43, 44, 45))
"""Longer than the student's, shorter, of the same length; none ends with the same token."""


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(("block", "slots"), [(5, 2), (3, 7), (1, 1)])
def test_sampled_ids_are_the_oracles(family, block, slots):
    case = Case(family, teacher_prompts=OWN, responses=2)
    truth = expected(case)
    assert {author for written in truth for author in written.authors} == {STUDENT, TEACHER}
    assert_same(case.run(block=block, slots=slots), truth)


@pytest.mark.parametrize("family", WINDOWED)
def test_the_window_slides_over_the_prompt_that_each_model_reads(family):
    both = (("softcap", 5.0), ("window", 8)) if family == "gemma2" else (("window", 8),)
    long = tuple(range(10, 30))
    case = Case(family, prompts=(long[:3], long), samples=(0, 1), teacher_prompts=(long, long[:2]), cap=16, both=both)
    assert_same(case.run(block=5, slots=2), expected(case))


@pytest.mark.parametrize("gate", ["accept_all", "accept_none"])
def test_the_limits_read_their_own_prompt(gate):
    case = Case(gate=gate, teacher_prompts=OWN)
    assert_same(case.run(slots=2), expected(case))


def test_the_same_prompts_given_twice_change_nothing():
    case = Case()
    plain, twice = case.run(slots=3), replace(case, teacher_prompts=PROMPT_IDS).run(slots=3)
    assert [ids.tolist() for ids in plain.response_ids] == [ids.tolist() for ids in twice.response_ids]
    assert [ids.tolist() for ids in plain.authors] == [ids.tolist() for ids in twice.authors]


@pytest.mark.parametrize("gate", ["top_k", "accept_all", "accept_none"])
def test_evidence_is_what_the_teacher_sees_behind_its_own_prompt(gate):
    case = Case(gate=gate, teacher_prompts=OWN, cap=8)
    rollout = case.run(slots=2, block=3)
    teacher, vocab, head = case.models[0], case.pair.vocab_size, case.pair.teacher_head()
    assert [ids.tolist() for ids in rollout.read_by_teacher] == [list(ids) for ids in OWN]
    for prompt, ids, evidence in zip(OWN, rollout.response_ids, rollout.evidence, strict=True):
        with torch.no_grad():
            logits = teacher(input_ids=torch.cat([torch.tensor(prompt), ids])[None], use_cache=False).logits
        truth = logits[0, len(prompt) - 1 : -1, :vocab].log_softmax(-1)
        torch.testing.assert_close(head.logits(evidence).log_softmax(-1), truth, atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("own", "said"),
    [
        ((), "teacher's prompt 0: has no tokens"),
        ((64,), r"teacher's prompt 0: holds an id outside 0\.\.63"),
        (tuple([5] * 10), r"teacher's prompt 0: prompt 10 \+ response 7 = 17 tokens exceed the context of 16"),
    ],
)
def test_prompts_that_the_teacher_cannot_read_are_refused(own, said):
    case = Case(prompts=((5,),), samples=(0,), teacher_prompts=(own,), cap=7, both=(("max_positions", 16),))
    with pytest.raises(DataError, match=said):
        case.run()

"""The batched sampler with its blocks, cursors and slots writes what the token-by-token oracle writes."""

from dataclasses import replace

import pytest
import torch

import skd
from skd.types import STUDENT, TEACHER, Prompts
from tests.sampling.cases import GATES, PROMPT_IDS, VOCAB, Case, assert_same, directory, expected, greedy, model
from tests.tiny import FAMILIES, WINDOWED

BLOCKS, SLOTS = (1, 3, 5, 8, None), (1, 2, 7)
MATRIX = [("llama", block, slots) for block in BLOCKS for slots in SLOTS] + [
    (family, block, slots) for family in FAMILIES if family != "llama" for block, slots in ((5, 2), (3, 7))
]


@pytest.mark.parametrize(("family", "block", "slots"), MATRIX)
def test_sampled_ids_are_the_oracles_for_any_block_and_slots(family, block, slots):
    case = Case(family)
    truth = expected(case)
    authors = {author for written in truth for author in written.authors}
    assert authors == {STUDENT, TEACHER}
    assert_same(case.run(block=block, slots=slots), truth)


@pytest.mark.parametrize("family", FAMILIES)
def test_greedy_ids_are_the_oracles_for_any_block_slots_and_order(family):
    case = greedy(Case(family, cap=8))
    truth = expected(case)
    assert_same(case.run(block=5, slots=2), truth)
    backwards = replace(case, prompts=case.prompts[::-1], samples=case.samples[::-1])
    assert_same(backwards.run(block=4, slots=3), truth[::-1])


@pytest.mark.parametrize("order", [(4, 3, 2, 1, 0), (2, 0, 4, 1, 3)])
def test_the_order_of_the_prompts_does_not_matter(order):
    case = Case()
    truth = expected(case)
    shuffled = replace(
        case, prompts=tuple(case.prompts[i] for i in order), samples=tuple(case.samples[i] for i in order)
    )
    assert_same(shuffled.run(slots=2), [truth[i] for i in order])


def test_every_prompt_alone_gives_its_row_of_the_batch():
    case = Case()
    for i, truth in enumerate(expected(case)):
        alone = replace(case, prompts=(case.prompts[i],), samples=(case.samples[i],))
        assert_same(alone.run(), [truth])


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("gate", ["accept_all", "accept_none"])
def test_the_limits_of_the_gate_are_one_model_alone(family, gate):
    case = Case(family, gate=gate, cap=6)
    rollout = case.run(slots=2)
    author = STUDENT if gate == "accept_all" else TEACHER
    assert all((authors == author).all() for authors in rollout.authors)
    assert_same(rollout, expected(case))


@pytest.mark.parametrize("slots", SLOTS)
def test_k_of_the_whole_vocabulary_is_accept_all(slots):
    every, all_ranks = (Case(gate=gate).run(slots=slots) for gate in ("accept_all", "top_k_all"))
    assert [ids.tolist() for ids in every.response_ids] == [ids.tolist() for ids in all_ranks.response_ids]
    assert [ids.tolist() for ids in every.authors] == [ids.tolist() for ids in all_ranks.authors]


@pytest.mark.parametrize("gate", ["top_p", "top_k_strict"])
@pytest.mark.parametrize("block", [1, 5])
def test_other_gates_give_the_oracles_ids(gate, block):
    case = Case(gate=gate)
    assert_same(case.run(block=block, slots=3), expected(case))


def test_two_families_of_different_size_interleave():
    case = Case("gemma2", "gpt2")
    assert_same(case.run(slots=3), expected(case))


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_the_last_position_of_the_context_is_used(family):
    case = Case(family, cap=7, both=(("max_positions", 16),))
    assert max(len(ids) for ids in case.prompts) + case.cap == 16
    assert_same(case.run(slots=2, block=8), expected(case))


@pytest.mark.parametrize("family", WINDOWED)
@pytest.mark.parametrize(("block", "slots"), [(3, 3), (5, 2)])
def test_sliding_windows_are_kept_across_blocks_and_rejections(family, block, slots):
    prompt = tuple(range(10, 22))
    both = (("softcap", 5.0), ("window", 8)) if family == "gemma2" else (("window", 8),)
    case = Case(family, prompts=(prompt, prompt[:5], prompt[:1]), samples=(0, 1, 2), cap=24, both=both, seed=4)
    truth = expected(case)
    row = truth[0]
    assert TEACHER in row.authors
    assert len(prompt) + len(row.ids) > 2 * 8
    assert_same(case.run(block=block, slots=slots), truth)


@pytest.mark.parametrize("family", WINDOWED)
def test_the_window_test_would_see_a_lost_window(family):
    prompt = tuple(range(10, 22))
    case = Case(family, prompts=(prompt,), samples=(0,), cap=24, both=(("window", 8),), seed=4)
    wide = replace(case, both=(("window", 100),))
    for one, other in zip(case.models, wide.models, strict=True):
        other.load_state_dict(one.state_dict())
    assert expected(case)[0].ids != expected(wide)[0].ids


def test_several_responses_to_a_prompt_come_prompt_major_each_with_its_own_noise():
    case = Case(responses=3)
    rollout = case.run(slots=4)
    assert rollout.response_index == [0, 1, 2] * len(PROMPT_IDS)
    assert rollout.sample_ids == [sample for sample in case.samples for _ in range(3)]
    assert [tuple(ids.tolist()) for ids in rollout.prompt_ids] == [ids for ids in case.prompts for _ in range(3)]
    assert_same(rollout, expected(case))
    assert len({tuple(ids.tolist()) for ids in rollout.response_ids[:3]}) == 3


@pytest.mark.parametrize(("seed", "epoch"), [(12, 0), (11, 3), (2**40 + 5, 0)])
def test_seed_and_epoch_key_the_noise(seed, epoch):
    case = Case(seed=seed, epoch=epoch)
    rollout = case.run(slots=2)
    assert_same(rollout, expected(case))
    assert [ids.tolist() for ids in rollout.response_ids] != [ids.tolist() for ids in Case().run().response_ids]


def test_strings_are_prompts_numbered_from_zero():
    pair = Case().pair
    prompts = ["t5 t9 t30", "t7"]
    by_text = skd.interleave(pair, prompts, gate=GATES["top_k"][0], max_new_tokens=8)
    by_ids = skd.interleave(pair, Prompts([[5, 9, 30], [7]], [0, 1]), gate=GATES["top_k"][0], max_new_tokens=8)
    assert [ids.tolist() for ids in by_text.response_ids] == [ids.tolist() for ids in by_ids.response_ids]
    assert [ids.tolist() for ids in by_text.prompt_ids] == [[5, 9, 30], [7]]
    assert by_text.text() == [pair.tokenizer.decode(ids, skip_special_tokens=True) for ids in by_ids.response_ids]


def test_dropout_is_off_while_sampling_and_the_mode_is_restored():
    case = Case("gpt2")
    assert case.models[1].config.resid_pdrop > 0
    pair = case.pair
    pair.student.train()
    try:
        assert_same(case.run(slots=2), expected(case))
        assert pair.student.training
    finally:
        pair.student.eval()


def test_sampling_leaves_torchs_generator_and_the_weights_alone():
    case = Case()
    before = torch.random.get_rng_state()
    rollout = case.run()
    assert torch.equal(torch.random.get_rng_state(), before)
    for loaded, fresh in zip((case.pair.teacher, case.pair.student), case.models, strict=True):
        for (name, weight), truth in zip(loaded.named_parameters(), fresh.parameters(), strict=True):
            assert torch.equal(weight, truth), name
    assert not any(evidence.requires_grad for evidence in rollout.evidence or [])


@pytest.mark.parametrize("gate", ["top_k", "top_k_strict"])
def test_kept_tokens_are_in_the_top_k_of_a_full_rescoring_and_all_others_are_the_teachers(gate):
    k = GATES[gate][0].k
    case = Case(gate=gate, responses=2)
    rollout = case.run(slots=3)
    teacher = model("llama", tuple(sorted(case.teacher_kw.items())))
    kept = replaced = 0
    for prompt, ids, authors in zip(rollout.prompt_ids, rollout.response_ids, rollout.authors, strict=True):
        with torch.no_grad():
            logits = teacher(input_ids=torch.cat([prompt, ids])[None], use_cache=False).logits[0, len(prompt) - 1 : -1]
        inside = logits.gather(-1, ids[:, None]).squeeze(-1) >= logits.topk(k).values[:, -1] - 1e-4
        assert bool(inside[authors == STUDENT].all())
        assert set(authors.tolist()) <= {STUDENT, TEACHER}
        kept, replaced = kept + int((authors == STUDENT).sum()), replaced + int((authors == TEACHER).sum())
    assert kept > 10
    assert replaced > 10


def test_a_student_that_is_the_teacher_is_always_accepted():
    own = (("hidden", 48), ("seed", 1))
    case = greedy(Case(student_only=own))
    rollout = case.run(gate=skd.TopK(1))
    assert rollout.acceptance_rate == 1.0
    assert rollout.stats.replaced == 0
    assert all((authors == STUDENT).all() for authors in rollout.authors)


@pytest.mark.parametrize("gate", ["top_k", "top_k_strict", "accept_all", "accept_none"])
@pytest.mark.parametrize("block", [1, 5])
def test_statistics_add_up(gate, block):
    rollout = Case(gate=gate).run(block=block, slots=2)
    stats = rollout.stats
    authors = torch.cat(rollout.authors)
    assert stats.kept == int((authors == STUDENT).sum()) == int(stats.kept_by_position.sum())
    assert stats.replaced == int((authors == TEACHER).sum()) == int(stats.replaced_by_position.sum())
    assert stats.kept + stats.replaced == rollout.num_tokens
    for position in range(max(len(ids) for ids in rollout.response_ids)):
        here = [int(row[position]) for row in rollout.authors if len(row) > position]
        assert int(stats.kept_by_position[position]) == here.count(STUDENT)
        assert int(stats.replaced_by_position[position]) == here.count(TEACHER)
    assert stats.wasted >= 0
    assert rollout.replaced_share == pytest.approx(stats.replaced / rollout.num_tokens)
    assert stats.rounds > 0
    if gate == "accept_none":
        assert stats.drafted == 0


def test_acceptance_rate_does_not_depend_on_the_block_but_waste_does():
    one, eight = (Case(gate="top_k_strict").run(block=block, slots=7) for block in (1, 8))
    assert one.acceptance_rate == eight.acceptance_rate
    assert one.stats.wasted < eight.stats.wasted
    assert one.stats.wasted == one.stats.replaced


def test_bf16_runs_and_its_kept_tokens_are_in_the_top_k_of_the_judged_logits():
    case = Case(cap=24)
    places = [directory("llama", tuple(sorted(kw.items()))) for kw in (case.teacher_kw, case.student_kw)]
    pair = skd.load_pair(*places, device="cpu", teacher_dtype="bfloat16", sample_dtype="bfloat16")
    assert next(pair.student.parameters()).dtype == torch.float32
    rollout = case.run(pair, slots=2)
    head, k = pair.teacher_head(), GATES["top_k"][0].k
    assert rollout.evidence is not None
    ulp = 2.0**-6
    for ids, authors, hidden in zip(rollout.response_ids, rollout.authors, rollout.evidence, strict=True):
        assert hidden.dtype == torch.bfloat16
        logits = head.logits(hidden)
        chosen = logits.gather(-1, ids[:, None]).squeeze(-1)
        assert bool((chosen >= logits.topk(k).values[:, -1] - ulp)[authors == STUDENT].all())
    assert 0.0 < rollout.acceptance_rate < 1.0
    again = case.run(pair, slots=2)
    assert [ids.tolist() for ids in again.response_ids] == [ids.tolist() for ids in rollout.response_ids]


def test_all_ids_are_of_the_shared_vocabulary():
    rollout = Case(responses=4).run()
    assert all(int(ids.min()) >= 0 and int(ids.max()) < VOCAB for ids in rollout.response_ids if len(ids))


@pytest.mark.parametrize("gate", ["top_k", "accept_all", "accept_none"])
def test_a_rollout_can_be_trained_on_although_it_was_sampled_in_inference_mode(gate):
    rollout = Case(gate=gate).run(slots=2, student_logp=gate != "accept_none")
    tensors = [*rollout.response_ids, *rollout.authors, *(rollout.evidence or []), *(rollout.student_logp or [])]
    assert not any(tensor.is_inference() for tensor in tensors)
    weight = torch.ones((), requires_grad=True)
    sum((weight * tensor.float()).sum() for tensor in tensors).backward()
    assert weight.grad is not None

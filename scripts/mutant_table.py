"""The faults that ``make mutants`` plants. Each is a mistake that distillation code has really been published with."""

from __future__ import annotations

from scripts.mutants import Mutant

__all__ = ["MUTANTS"]

_DIVERGENCES = "src/skd/objectives/divergences.py"
_SAMPLED = "src/skd/objectives/sampled.py"
_TARGETS = "src/skd/objectives/targets.py"
_TEACHER = "src/skd/objectives/teacher.py"
_GATE = "src/skd/sampling/gate.py"
_GATES = "src/skd/sampling/gates.py"
_SAMPLER = "src/skd/sampling/sampler.py"
_SLOTS = "src/skd/sampling/slots.py"
_CACHE = "src/skd/sampling/cache.py"
_SCORE = "src/skd/models/score.py"

# The fewest tests that must see a fault: the tests run once for each mutant, and all of them once before.
_TEST_BLOCKS = "tests/sampling/test_interleave.py::test_other_gates_give_the_oracles_ids"
_TEST_EVIDENCE = "tests/sampling/test_evidence.py::test_evidence_with_ends_inside_drafts_and_slots_refilled"
_TEST_GATES = "tests/sampling/test_gates.py"
_TEST_SCORE = (
    "tests/sampling/test_evidence.py::test_evidence_is_the_hidden_state_that_predicts_each_token[accept_all-llama]"
)
_TEST_WINDOWS = "tests/sampling/test_interleave.py::test_sliding_windows_are_kept_across_blocks_and_rejections"

MUTANTS: tuple[Mutant, ...] = (
    Mutant(
        "flipped KL sign",
        _DIVERGENCES,
        "return kl(tokens.given_teacher(), tokens.student_logp_NV.float())",
        "return -kl(tokens.given_teacher(), tokens.student_logp_NV.float())",
        ("tests/objectives/test_divergences.py",),
    ),
    Mutant(
        "policy gradient uphill",
        _SAMPLED,
        "advantage_N = teacher_N - old_N",
        "advantage_N = old_N - teacher_N",
        ("tests/objectives/test_sampled.py",),
    ),
    Mutant(
        "veto turned into praise",
        _TARGETS,
        "return _geometric(tokens, 1.0, tokens.value(self.beta))",
        "return _geometric(tokens, 1.0, -tokens.value(self.beta))",
        ("tests/objectives/test_targets.py",),
    ),
    Mutant(
        "mass outside the top log-probs dropped",
        _TEACHER,
        "_bucketed(student_logp_CV, self.ids_NK[rows]), self.logp_NB[rows], ",
        "_bucketed(student_logp_CV, self.ids_NK[rows])[:, :-1], self.logp_NB[rows, :-1], ",
        ("tests/objectives/test_teacher.py",),
    ),
    Mutant(
        "dropped mask",
        _CACHE,
        "unseen = future if self.window is None else future | (key_S <= query_BG1 - self.window)",
        "unseen = future",
        (_TEST_WINDOWS,),
    ),
    Mutant(
        "shift by one",
        _SCORE,
        "hidden_TD[prompt - 1 : prompt - 1 + response]",
        "hidden_TD[prompt : prompt + response]",
        (_TEST_SCORE,),
    ),
    Mutant(
        "skipped rewind",
        _SLOTS,
        "self.cursor_B = self.cursor_B + count_B",
        "self.cursor_B = self.cursor_B + torch.where(count_B > 0, self.ids_BW.shape[1] - self._cap, 0)",
        (_TEST_BLOCKS,),
    ),
    Mutant(
        "top-K after warping",
        _GATES,
        "logits_BGV, k = drafted.teacher_logits_BGV, drafted.value(self.k)",
        "logits_BGV, k = drafted.teacher_drawn_logp_BGV, drafted.value(self.k)",
        (_TEST_GATES,),
    ),
    Mutant(
        "re-drawn token tested",
        _SAMPLER,
        "verdict = settings.gate.judge(drafted)",
        "from dataclasses import replace\n"
        "        again = self._student.write(  # type: ignore[union-attr]\n"
        "            slots.pending_B, slots.cursor_B, places.accept_noise_BG, places.num_keys, False\n"
        "        )\n"
        "        verdict = settings.gate.judge(replace(drafted, ids_BG=again.ids_BG))",
        (_TEST_BLOCKS,),
    ),
    Mutant(
        "replacement from the student",
        _GATE,
        "return draw(rejected.teacher_drawn_logp_BGV, rejected.replace_noise_BG)",
        "return rejected.ids_BG",
        (_TEST_GATES,),
    ),
    Mutant(
        "evidence of the wrong row",
        _SLOTS,
        "expand_as(values), values)",
        "expand_as(values), values.roll(1, dims=0))",
        (_TEST_EVIDENCE,),
    ),
)

"""The student as draft model: exact whatever the student, counted as by the slow oracle, timed side by side."""

import json

import numpy as np
import pytest
import torch

from skd.cli import main
from skd.evaluate import drafter as module
from skd.evaluate.drafter import Drafting, drafter, drafter_speed, looks, with_student
from skd.evaluate.extra import Drafters
from skd.evaluate.run import evaluate_tasks
from skd.evaluate.workload import Choice
from skd.models import load_pair
from skd.types import STUDENT, TEACHER, Prompts
from tests.oracles import enumerate as exact
from tests.oracles import interleave as oracle
from tests.sampling.cases import NEAR_TIE
from tests.tiny import EOS_ID, save_tiny, tiny_model

VOCAB, CAP = 64, 12
PROMPTS = Prompts(ids=[[3, 4, 5], [6, 7], [8, 9, 10, 11]], sample_ids=[0, 1, 2])


@torch.no_grad()
def relative():
    """A student that often agrees with the teacher of seed 1: its weights, moved towards another model."""
    student, other = (tiny_model("llama", seed=seed) for seed in (1, 2))
    for weight, far in zip(student.parameters(), other.parameters(), strict=True):
        weight.lerp_(far, 0.1)
    return student


@pytest.fixture(scope="module")
def directories(tmp_path_factory):
    """The teacher, its relative, a stranger."""
    folder = tmp_path_factory.mktemp("models")
    paths = [save_tiny(folder / str(seed), "llama", seed=seed) for seed in (1, 2, 3)]
    relative().save_pretrained(paths[1])
    return paths


@pytest.fixture(scope="module")
def pair(directories):
    return load_pair(directories[0], directories[1])


def slow(temperature, gate, seed=5):
    """Every prompt by the oracle: one token after the other, no cache, no block."""
    models = [relative(), tiny_model("llama", seed=1)]
    warp = (temperature, 1.0)
    return [
        oracle.interleave(
            *models,
            ids,
            gate=gate,
            vocab_size=VOCAB,
            max_new_tokens=CAP,
            student_warp=warp,
            teacher_warp=warp,
            stop_ids=frozenset({EOS_ID}),
            seed=seed,
            sample=sample,
        )
        for ids, sample in zip(PROMPTS.ids, PROMPTS.sample_ids, strict=True)
    ]


@pytest.mark.parametrize("block", [1, 2, 5])
@pytest.mark.parametrize("temperature", [0.0, 0.7])
def test_ids_and_authors_are_those_of_exact_decoding_token_by_token(pair, temperature, block):
    truth = slow(temperature, oracle.ipd(1.0))
    assert min(margin for written in truth for margin in written.margins) > NEAR_TIE
    rollout = Drafting(CAP, temperature=temperature, seed=5, block=block).together(pair, PROMPTS)
    assert [ids.tolist() for ids in rollout.response_ids] == [written.ids for written in truth]
    assert [authors.tolist() for authors in rollout.authors] == [written.authors for written in truth]
    assert {author for written in truth for author in written.authors} == {STUDENT, TEACHER}
    kept, tokens = (sum(w.authors.count(STUDENT) for w in truth), sum(len(w.ids) for w in truth))
    scores = drafter(pair, PROMPTS, Drafting(CAP, temperature=temperature, seed=5, block=block))
    assert scores["draft_acceptance"].value == kept / tokens
    assert scores["draft_kept"].value == kept / sum(looks(w.authors, block) for w in truth)
    assert scores["draft_length"].value == pytest.approx(
        scores["draft_kept"].value / scores["draft_acceptance"].value if kept else 1.0
    )


def test_greedy_drafting_writes_what_the_teacher_writes_alone(pair):
    truth = slow(0.0, oracle.accept_none)
    drafting = Drafting(CAP)
    for rollout in (drafting.alone(pair, PROMPTS), drafting.together(pair, PROMPTS)):
        assert [ids.tolist() for ids in rollout.response_ids] == [written.ids for written in truth]


def test_sampled_responses_have_the_teachers_distribution(directories):
    """Every response of three tokens out of five is written down with its probability under the teacher alone."""
    size, cap, prompt, n = 5, 3, (2, 4), 20_000
    student, teacher = (tiny_model("llama", seed=seed, vocab_size=size) for seed in (2, 1))

    def step_of(model):
        logits = {}

        def raw(prefix):
            if prefix not in logits:
                logits[prefix] = oracle.next_logits(model, [*prompt, *prefix], size)[0]
            return logits[prefix]

        return exact.responses(exact.teacher_step(raw, (0.8, 1.0)), cap, frozenset({EOS_ID}))

    folder = directories[0].parent
    paths = [save_tiny(folder / f"small{seed}", "llama", seed=seed, vocab_size=size) for seed in (1, 2)]
    prompts = Prompts([list(prompt)] * n, list(range(n)))
    rollout = Drafting(cap, temperature=0.8, seed=3, slots=2_000).together(load_pair(*paths), prompts)
    seen = exact.counts([[(token, -1) for token in ids.tolist()] for ids in rollout.response_ids])
    assert 0.1 < rollout.acceptance_rate < 0.95
    assert exact.chi_square_p(seen, step_of(teacher)) > 1e-3
    assert exact.chi_square_p(seen, step_of(student)) < 1e-6


def test_a_stop_string_ends_drafting_too(pair):
    plain = Drafting(CAP).alone(pair, PROMPTS)
    longest = max(range(3), key=lambda i: len(plain.response_ids[i]))
    word = plain.text()[longest].split()[1]
    ended = Drafting(CAP, stop_strings=(word,)).together(pair, PROMPTS)
    assert len(ended.response_ids[longest]) <= 2 < len(plain.response_ids[longest])


def test_a_model_drafts_perfectly_for_itself(directories):
    scores = drafter(load_pair(directories[0], directories[0]), PROMPTS, Drafting(CAP))
    assert scores["draft_acceptance"].value == 1.0
    assert scores["draft_length"].value == scores["draft_kept"].value > 3


def test_looks_of_the_teacher():
    s, t = STUDENT, TEACHER
    assert looks([s] * 5, 5) == 1
    assert looks([s] * 6, 5) == 2
    assert looks([s, t, t, s, s], 5) == 3
    assert looks([], 5) == 0


def test_the_sides_take_turns_and_the_ratio_is_of_sums(monkeypatch):
    order, clock = [], iter(np.cumsum([0.0, 4.0, 0.0, 2.0, 0.0, 8.0, 0.0, 2.0] * 2))
    ways = {name: lambda prompt, name=name: order.append((name, prompt)) for name in ("alone", "together")}
    monkeypatch.setattr(module, "ROUNDS", 2)
    seconds = module._seconds(ways, ["p", "q"], lambda: float(next(clock)))
    warm = [("alone", "p"), ("together", "p")]
    assert order == warm + [("alone", "p"), ("together", "p"), ("alone", "q"), ("together", "q")] * 2
    assert seconds.sum(axis=1).tolist() == [[8.0, 4.0], [16.0, 4.0]]


def test_speed_of_several_students_beside_one_teacher(pair, directories, monkeypatch):
    monkeypatch.setattr(module, "_seconds", lambda ways, prompts, now: np.array([[[6.0, 3.0, 2.0]], [[2.0, 1.0, 2.0]]]))
    pairs = {"after": pair, "before": with_student(pair, directories[2])}
    scores = drafter_speed(pairs, PROMPTS.select([0, 1]), Drafting(CAP))
    assert {name: score.value for name, score in scores.items()} == {"after": 2.0, "before": 2.0}
    assert scores["before"].interval_95 == (1.0, 3.0)
    assert scores["after"].signature == "cpu seconds|block:5|temperature:0|one response at a time"


def test_another_student_shares_the_teacher(pair, directories):
    other = with_student(pair, directories[2])
    assert other.teacher is pair.teacher
    assert other.student is not pair.student
    own = load_pair(directories[0], directories[2])
    drafting = Drafting(CAP)
    assert drafter(other, PROMPTS, drafting) == drafter(own, PROMPTS, drafting)


def test_before_and_after_stand_side_by_side(directories, tmp_path):
    (tmp_path / "t.yaml").write_text("prompt: '{q}'\nreference: '{a}'\nmetric: exact\nmax_new_tokens: 6\n")
    (tmp_path / "r.jsonl").write_text('{"q": "t5 t6", "a": "t7 t8"}\n{"q": "t9", "a": "t4"}\n')
    choice, out = Choice(str(tmp_path / "t.yaml"), str(tmp_path / "r.jsonl")), tmp_path / "o.jsonl"
    drafters = Drafters(block=3, timed=True, before=str(directories[2]))
    (result,) = evaluate_tasks(directories[1], [choice], [out], teacher=directories[0], drafters=drafters)
    names = ["draft_acceptance", "draft_length", "draft_kept"]
    added = [*names, *(f"{name}_before" for name in names), "draft_speedup", "draft_speedup_before"]
    assert [name for name in result.scores if name.startswith("draft")] == added
    assert result.scores["draft_speedup"].value > 0
    summary = json.loads((tmp_path / "o.summary.json").read_text())
    assert summary["model_before"]["path"] == str(directories[2])
    assert "block:3" in summary["scores"]["draft_speedup"]["signature"]


@pytest.mark.parametrize("option", ["--drafter", "--drafter-before x", "--draft-block 3"])
def test_a_draft_model_needs_a_teacher(option, capsys):
    assert main(["evaluate", "no-such-model", *option.split()]) == 2
    name = option.split()[0]
    assert f"error[SKD-C10] {name}: is given, and there is no teacher to draft for" in capsys.readouterr().err

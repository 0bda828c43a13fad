from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

import skd
from skd.errors import ConfigError
from skd.policies import DataSet, Mixture, Policy, RolloutKey, Sampling, Staged, Student, Teacher
from skd.schedule import Schedule
from skd.types import DATA, STUDENT, TEACHER, Prompts, Rollout, SamplerStats, merged
from tests.tiny import save_tiny

SAMPLING = Sampling(max_new_tokens=4, responses_per_prompt=2, evidence=True)


def test_the_data_sets_responses_keep_their_masks(tmp_path: Path) -> None:
    pair = skd.load_pair(None, save_tiny(tmp_path, "llama", seed=1), device="cpu")
    key = RolloutKey(seed=0, epochs=[0, 0])
    prompts = Prompts([[5, 6], [7]], [3, 4], [[2, 3, 1], [4]], [[False, True, True], [False]])
    rollout = DataSet(evidence=False).rollout(pair, prompts, key)
    assert rollout.masks is not None
    assert [mask.tolist() for mask in rollout.masks] == [[False, True, True], [False]]
    assert [ids.tolist() for ids in rollout.response_ids] == [[2, 3, 1], [4]]
    assert [authors.tolist() for authors in rollout.authors] == [[DATA] * 3, [DATA]]
    unmasked = Prompts(prompts.ids, prompts.sample_ids, prompts.references)
    assert DataSet(evidence=False).rollout(pair, unmasked, key).masks is None


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> skd.Pair:
    directory = tmp_path_factory.mktemp("models")
    teacher, student = save_tiny(directory / "t", "llama", seed=1), save_tiny(directory / "s", "llama", seed=2)
    return skd.load_pair(teacher, student, device="cpu")


def prompts(count: int, first: int = 0) -> Prompts:
    ids = [[2 + i % 9, 3 + i % 7] for i in range(first, first + count)]
    return Prompts(ids, range(first, first + count), [[5, 6, 7, 1][i % 4 :] for i in range(count)])


def key_of(count: int, seed: int = 0, epoch: int = 0, progress: float = 0.0) -> RolloutKey:
    return RolloutKey(seed, [epoch] * count, progress)


@dataclass(frozen=True)
class Named:
    """A policy that writes its own number."""

    number: int
    responses: int = 1

    def rollout(self, pair: skd.Pair, prompts: Prompts, key: RolloutKey) -> Rollout:
        rows = [i for i in range(len(prompts)) for _ in range(self.responses)]
        ids = [torch.tensor([self.number])] * len(rows)
        return Rollout(
            prompt_ids=[torch.tensor(list(prompts.ids[i])) for i in rows],
            response_ids=ids,
            authors=[torch.tensor([STUDENT], dtype=torch.uint8)] * len(rows),
            truncated=torch.zeros(len(rows), dtype=torch.bool),
            sample_ids=[prompts.sample_ids[i] for i in rows],
            response_index=list(range(self.responses)) * len(prompts),
            stats=SamplerStats(kept=len(rows)),
        )


def numbers(rollout: Rollout) -> list[int]:
    return [int(ids[0]) for ids in rollout.response_ids]


def test_a_mixture_writes_each_response_by_one_policy_in_the_order_of_the_prompts(pair: skd.Pair) -> None:
    mixture = Mixture((Student(SAMPLING), Teacher(SAMPLING), DataSet()), (1.0, 1.0, 2.0))
    given, key = prompts(12), key_of(12)
    rollout = mixture.rollout(pair, given, key)
    assert list(dict.fromkeys(rollout.sample_ids)) == list(given.sample_ids)
    chosen = mixture.choose(given, key)
    assert set(chosen) == {0, 1, 2}
    for sample_id, authors in zip(rollout.sample_ids, rollout.authors, strict=True):
        assert set(authors.tolist()) == {(STUDENT, TEACHER, DATA)[chosen[sample_id]]}
    alone = Student(SAMPLING).rollout(pair, given, key)
    mine = {(s, i): ids.tolist() for s, i, ids in zip(*columns(rollout), strict=True) if chosen[s] == 0}
    theirs = {(s, i): ids.tolist() for s, i, ids in zip(*columns(alone), strict=True)}
    assert mine
    assert mine.items() <= theirs.items()
    assert rollout.evidence is not None
    assert [len(hidden) for hidden in rollout.evidence] == [len(ids) for ids in rollout.response_ids]


def test_a_mixture_writes_nothing_to_no_prompts(pair: skd.Pair) -> None:
    """Of a step with fewer prompts than processes."""
    rollout = Mixture((Student(SAMPLING), DataSet()), (1.0, 1.0)).rollout(pair, prompts(0), key_of(0))
    assert (len(rollout), rollout.evidence) == (0, [])


def columns(rollout: Rollout) -> tuple[list[int], list[int], list[torch.Tensor]]:
    return rollout.sample_ids, rollout.response_index, rollout.response_ids


def test_the_coin_depends_on_seed_epoch_and_row_only(pair: skd.Pair) -> None:
    mixture = Mixture((Named(0), Named(1)), (0.5, 0.5))
    whole = mixture.choose(prompts(40), key_of(40))
    halves = [mixture.choose(prompts(20, first), key_of(20)) for first in (0, 20)]
    assert whole == halves[0] + halves[1]
    ranks = [mixture.choose(prompts(40).select(range(r, 40, 2)), key_of(20)) for r in (0, 1)]
    assert [ranks[i % 2][i // 2] for i in range(40)] == whole
    assert mixture.choose(prompts(40), key_of(40, epoch=1)) != whole != mixture.choose(prompts(40), key_of(40, seed=1))


@pytest.mark.parametrize(("weights", "share"), [((0.3, 0.7), 0.7), ((3, 1), 0.25), ((1, 0), 0.0), ((0, 2), 1.0)])
def test_the_shares_of_a_mixture_are_its_weights(weights: tuple[float, float], share: float) -> None:
    chosen = Mixture((Named(0), Named(1)), weights).choose(prompts(4000), key_of(4000))
    assert sum(chosen) / 4000 == pytest.approx(share, abs=0.03 if 0 < share < 1 else 0)


def test_the_weights_of_a_mixture_may_change_over_the_training() -> None:
    mixture = Mixture((Named(0), Named(1)), (1.0, Schedule(0.0, 1.0)))
    means = [sum(mixture.choose(prompts(2000), key_of(2000, progress=p))) / 2000 for p in (0.0, 0.5, 1.0)]
    assert means == pytest.approx([0.0, 1 / 3, 0.5], abs=0.03)
    dying = Mixture((Named(0),), (Schedule(1.0, 0.0),))
    with pytest.raises(ConfigError, match="all weights are 0 when 100% of the training is done"):
        dying.choose(prompts(1), key_of(1, progress=1.0))


@pytest.mark.parametrize("total_steps", [2, 4, 5, 10, 99, 100])
@pytest.mark.parametrize("share", [0.1, 0.5, 0.75])
def test_stages_follow_each_other_after_their_share_of_the_steps(
    pair: skd.Pair, total_steps: int, share: float
) -> None:
    staged = Staged((Named(0), Named(1)), (share, 1 - share))
    steps = range(total_steps)
    by = [
        numbers(staged.rollout(pair, prompts(1), key_of(1, progress=step / max(total_steps - 1, 1))))[0]
        for step in steps
    ]
    assert by == sorted(by)
    assert abs(by.count(0) - share * total_steps) <= 1
    if (share * total_steps).is_integer():
        assert by.count(0) == share * total_steps


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: Mixture((), ()), "has 0 policies and 0 weights"),
        (lambda: Mixture((Named(0),), (1.0, 1.0)), "has 1 policies and 2 weights"),
        (lambda: Mixture((Named(0),), (-1.0,)), "has a negative weight"),
        (lambda: Staged((Named(0), Named(1)), (0.5, 0.4)), r"shares \(0\.5, 0\.4\); give one share for each"),
    ],
)
def test_impossible_mixtures_and_stages_are_refused(make: Policy, text: str) -> None:
    with pytest.raises(ConfigError, match=text):
        make()  # type: ignore[operator]


def test_merging_keeps_the_responses_of_a_prompt_together_and_adds_the_statistics(pair: skd.Pair) -> None:
    def part(number: int, responses: int, places: Sequence[int]) -> tuple[Sequence[int], Rollout]:
        whole = prompts(4)
        return places, Named(number, responses).rollout(pair, whole.select(places), key_of(len(places)))

    rollout = merged([part(1, 2, [3, 0]), part(2, 1, [1]), part(3, 3, [2])])
    assert numbers(rollout) == [1, 1, 2, 3, 3, 3, 1, 1]
    assert rollout.sample_ids == [0, 0, 1, 2, 2, 2, 3, 3]
    assert rollout.response_index == [0, 1, 0, 0, 1, 2, 0, 1]
    assert rollout.stats.kept == 8
    assert rollout.masks is rollout.evidence is None
    masked = merged([([0], part(1, 1, [0])[1].with_full_masks()), part(2, 1, [1])])
    assert masked.masks is not None
    assert [mask.tolist() for mask in masked.masks] == [[True], [True]]
    with pytest.raises(ValueError, match="nothing to merge"):
        merged([])

from __future__ import annotations

from pathlib import Path

import skd
from skd.policies import DataSet, RolloutKey
from skd.types import DATA, Prompts
from tests.tiny import save_tiny


def test_the_data_sets_responses_keep_their_masks(tmp_path: Path) -> None:
    pair = skd.load_pair(None, save_tiny(tmp_path, "llama", seed=1), device="cpu")
    key = RolloutKey(seed=0, epochs=[0, 0], step=0)
    prompts = Prompts([[5, 6], [7]], [3, 4], [[2, 3, 1], [4]], [[False, True, True], [False]])
    rollout = DataSet(evidence=False).rollout(pair, prompts, key)
    assert rollout.masks is not None
    assert [mask.tolist() for mask in rollout.masks] == [[False, True, True], [False]]
    assert [ids.tolist() for ids in rollout.response_ids] == [[2, 3, 1], [4]]
    assert [authors.tolist() for authors in rollout.authors] == [[DATA] * 3, [DATA]]
    unmasked = Prompts(prompts.ids, prompts.sample_ids, prompts.references)
    assert DataSet(evidence=False).rollout(pair, unmasked, key).masks is None

from pathlib import Path

import pytest

from skd.config import config_of, load_config
from skd.errors import CheckpointError
from skd.recorded import differences, other_settings
from skd.train import train
from skd.train.resume import find_start
from tests.train.conftest import ROWS, open_pair, run_train

BASE = {"student": "s", "teacher": "t", "data": {"train": "rows.json"}}


def table(before, after):
    return differences(config_of(before).model_dump(mode="json"), config_of(after).model_dump(mode="json"))


def test_equal_configurations_do_not_differ():
    assert table(BASE, {**BASE, "train": {"lr": 1e-5}}) == []


def test_differences_are_shown_as_a_table(tmp_path):
    found = table(BASE, {**BASE, "train": {"lr": 0.5, "keep": 9}, "policy": {"kind": "interleaved", "block": 3}})
    error = other_settings(tmp_path, found, ())
    assert error is not None
    assert error.exit_code == 5
    text = str(error)
    assert "--allow policy.block --allow train.lr" in text
    assert "train.lr" in text
    assert "1e-05" in text
    assert "0.5" in text
    assert "policy.block" in text
    assert "train.keep" not in text


@pytest.mark.parametrize(
    ("before", "after", "allowed"),
    [
        ({"max_steps": 5}, {"max_steps": 9}, True),
        ({"max_steps": 9}, {"max_steps": 5}, False),
        ({"max_steps": 9}, {}, False),
        ({"epochs": 1.0}, {"epochs": 2.0}, True),
        ({"samples_every": 5}, {"samples_every": None}, True),
        ({"micro_batch_tokens": 100}, {"micro_batch_tokens": 50}, True),
        ({"seed": 1}, {"seed": 2}, False),
        ({"batch_size": 4}, {"batch_size": 8}, False),
        ({"schedule": "linear"}, {"schedule": "cosine"}, False),
        ({"trackers": []}, {"trackers": ["tensorboard"]}, True),
        ({"validate_every": 5}, {"validate_every": 7}, True),
        ({"precision": "fp32"}, {"precision": "bf16"}, False),
    ],
)
def test_only_harmless_changes_are_allowed(tmp_path, before, after, allowed):
    found = table({**BASE, "train": before}, {**BASE, "train": after})
    assert found
    error = other_settings(tmp_path, found, ())
    assert allowed if error is None else "SKD-C15" in str(error)


@pytest.mark.parametrize(
    ("after", "allowed"),
    [
        ({"data": {"train": "moved.json"}}, True),
        ({"data": {"train": {"path": "rows.json", "limit": 3}}}, True),
        ({"student": "elsewhere/s"}, True),
        ({"data": {"train": "rows.json", "chat": "never"}}, False),
        ({"data": {"train": "rows.json", "validation": "rows.json"}}, False),
        ({"sampling": {"evidence": "recompute"}}, True),
        ({"sampling": {"max_new_tokens": 7}}, False),
        ({"method": "on_policy"}, False),
    ],
)
def test_what_is_known_by_its_content_may_lie_elsewhere(tmp_path, after, allowed):
    error = other_settings(tmp_path, table(BASE, {**BASE, **after}), ())
    assert allowed if error is None else "SKD-C15" in str(error)


def test_a_flag_allows_the_key_it_names_and_no_other(tmp_path):
    found = table(BASE, {**BASE, "train": {"lr": 0.5, "weight_decay": 0.1}})
    error = other_settings(tmp_path, found, ["train.lr"])
    assert error is not None
    assert "train.lr" not in str(error)
    assert "--allow train.weight_decay" in str(error)
    assert other_settings(tmp_path, found, ["train.lr", "train.weight_decay"]) is None


def test_no_flag_allows_another_position_in_the_data(tmp_path):
    error = other_settings(tmp_path, table(BASE, {**BASE, "train": {"batch_size": 9}}), ["train.batch_size"])
    assert "train.batch_size cannot change within a run" in str(error)


def test_a_run_goes_on_with_a_key_that_was_allowed(settings, capsys):
    config = settings(max_steps=2)
    run_train(config)
    config["train"] |= {"max_steps": 3, "lr": 0.02}
    with pytest.raises(CheckpointError, match=r"SKD-C15.*\n.*key.*\n.*train.lr +0.01 +0.02"):
        run_train(config)
    result = train(config, pair=open_pair(config), prompts=ROWS, validation=ROWS, allow=["train.lr"])
    assert result.step == 3
    assert "continuing with train.lr 0.02 (was 0.01)" in capsys.readouterr().err


def test_a_seed_that_is_null_is_drawn_once_recorded_and_kept(settings, tmp_path):
    config = settings(max_steps=2, seed=None)
    run_train(config)
    drawn = load_config(tmp_path / "run" / "config.yaml").train.seed
    assert isinstance(drawn, int)
    config["train"]["max_steps"] = 3
    run_train(config)
    assert load_config(tmp_path / "run" / "config.yaml").train.seed == drawn
    run_train({**config, "output": str(tmp_path / "other")})
    assert load_config(tmp_path / "other" / "config.yaml").train.seed != drawn  # but for one chance in 2**32


def test_resume_must_needs_a_checkpoint_and_auto_says_that_it_starts_afresh(tmp_path):
    said = []
    assert find_start(tmp_path, config_of(BASE), "auto", said.append) is None
    assert said == [f"no checkpoint in {tmp_path}: starting afresh"]
    with pytest.raises(CheckpointError, match="SKD-K07"):
        find_start(tmp_path, config_of(BASE), "must", said.append)


def test_a_student_that_no_run_made_is_not_replaced(tmp_path):
    said = []
    (tmp_path / "student").mkdir()
    assert find_start(tmp_path, config_of(BASE), "auto", said.append) is None
    (tmp_path / "student" / "model.safetensors").write_text("precious")
    with pytest.raises(CheckpointError, match=r"is there already, .*; move it away, or choose another output"):
        find_start(tmp_path, config_of(BASE), "auto", said.append)


def test_a_run_killed_before_the_best_checkpoint_was_named_names_it(settings):
    config = settings(max_steps=2, validate_every=1)
    run_train(config)
    path = Path(config["output"]) / "best.json"
    best = path.read_bytes()
    path.write_text('{"checkpoint": "step-1", "validation_loss": 9.0}')
    run_train(config)
    assert path.read_bytes() == best

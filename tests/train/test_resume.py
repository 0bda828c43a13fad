import pytest

from skd.config import config_of
from skd.errors import CheckpointError
from skd.train.resume import differences, find_start, refuse_differences

BASE = {"student": "s", "teacher": "t", "data": {"train": "rows.json"}}


def table(before, after):
    return differences(config_of(before).model_dump(mode="json"), config_of(after).model_dump(mode="json"))


def test_equal_configurations_do_not_differ():
    assert table(BASE, {**BASE, "train": {"lr": 1e-5}}) == []


def test_differences_are_shown_as_a_table(tmp_path):
    found = table(BASE, {**BASE, "train": {"lr": 0.5, "keep": 9}, "policy": {"kind": "interleaved", "block": 3}})
    with pytest.raises(CheckpointError) as caught:
        refuse_differences(tmp_path, found, print)
    assert caught.value.exit_code == 5
    text = str(caught.value)
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
    ],
)
def test_only_harmless_changes_are_allowed(tmp_path, before, after, allowed):
    said = []
    found = table({**BASE, "train": before}, {**BASE, "train": after})
    assert found
    if allowed:
        refuse_differences(tmp_path, found, said.append)
        assert len(said) == 1
    else:
        with pytest.raises(CheckpointError, match=r"SKD-K14"):
            refuse_differences(tmp_path, found, said.append)


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

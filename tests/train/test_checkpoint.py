import errno
import json
import os
import resource
import shutil
import stat

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file

from skd import faults, manifest
from skd.errors import CheckpointError, ResourceError
from skd.files import write_safetensors
from skd.train import checkpoint as ckpt
from skd.train import directory

FILES = ["config.yaml", "manifest.json", "optimizer.safetensors", "state.json", "student.safetensors"]
SAVE_POINTS = ["save.open", "save.model", "save.optim", "save.manifest", "save.rename", "save.prune"]


def state(step, best_step=None):
    best_loss = None if best_step is None else 0.5
    return ckpt.TrainState(
        step, 8 * step, 0.25 * step, 100, best_loss, best_step, "digest", "data", {"teacher": "t"}, {"torch": "2"}
    )


def tensors(step):
    weights = {"w": torch.full((2, 3), float(step)), "b": torch.arange(3.0)}
    moments = {
        "exp_avg.w": torch.ones(2, 3) * step,
        "exp_avg_sq.w": torch.ones(2, 3),
        "step.w": torch.tensor(float(step)),
    }
    return weights, moments


def save(run_dir, step, best_step=None, keep=2):
    return ckpt.save(run_dir, state(step, best_step), *tensors(step), "seed: 0\n", keep=keep)


def names(run_dir):
    return sorted(path.name for path in (run_dir / "checkpoints").iterdir())


def test_round_trip_is_exact_and_private(tmp_path):
    path = save(tmp_path, 3, best_step=3)
    loaded, weights, moments = ckpt.load(path)
    assert loaded == state(3, best_step=3)
    expected_weights, expected_moments = tensors(3)
    assert weights.keys() == expected_weights.keys()
    assert moments.keys() == expected_moments.keys()
    for name, tensor in {**expected_weights, **expected_moments}.items():
        assert torch.equal({**weights, **moments}[name], tensor)
    assert sorted(os.listdir(path)) == FILES
    assert all(stat.S_IMODE((path / name).stat().st_mode) == 0o600 for name in FILES)
    assert json.loads((tmp_path / "best.json").read_text()) == {"checkpoint": "step-3", "validation_loss": 0.5}


def test_our_safetensors_files_are_read_by_the_library(tmp_path):
    written = {
        "scalar": torch.tensor(3.0),
        "empty": torch.zeros(0, 4),
        "bf16": torch.randn(3, 5).bfloat16(),
        "strided": torch.arange(12.0).reshape(3, 4).T,
        "int": torch.arange(4),
    }
    write_safetensors(tmp_path / "x.safetensors", written)
    read = load_file(tmp_path / "x.safetensors")
    assert read.keys() == written.keys()
    assert all(torch.equal(read[name], written[name]) and read[name].dtype == written[name].dtype for name in written)
    write_safetensors(tmp_path / "none.safetensors", {})
    assert load_file(tmp_path / "none.safetensors") == {}


@pytest.fixture(scope="module")
def two_checkpoints(tmp_path_factory):
    run_dir = tmp_path_factory.mktemp("run")
    save(run_dir, 1)
    save(run_dir, 2)
    return run_dir


@settings(max_examples=300, deadline=None)
@given(name=st.sampled_from(FILES), where=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
def test_any_flipped_bit_is_refused_and_the_older_one_used(two_checkpoints, name, where, bit):
    path = two_checkpoints / "checkpoints" / "step-2" / name
    whole = path.read_bytes()
    index = int(where * len(whole))
    path.write_bytes(whole[:index] + bytes([whole[index] ^ (1 << bit)]) + whole[index + 1 :])
    try:
        found, refused = directory.latest_whole(two_checkpoints)
    finally:
        path.write_bytes(whole)
    assert found == two_checkpoints / "checkpoints" / "step-1"
    assert [refusal.name for refusal in refused] == ["step-2"]
    assert name in refused[0].reason
    assert directory.latest_whole(two_checkpoints)[0] == path.parent


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("harm", ["missing", "truncated", "longer", "empty", "link"])
def test_missing_and_truncated_files_are_refused_by_name(tmp_path, name, harm):
    save(tmp_path, 1)
    path = save(tmp_path, 2) / name
    whole = path.read_bytes()
    path.unlink()
    if harm == "link":
        (tmp_path / "elsewhere").write_bytes(b"{}")
        path.symlink_to(tmp_path / "elsewhere")
    elif harm != "missing":
        path.write_bytes({"truncated": whole[:-1], "longer": whole + b" ", "empty": b""}[harm])
    found, refused = directory.latest_whole(tmp_path)
    assert found is not None
    assert found.name == "step-1"
    assert name in str(refused[0])
    with pytest.raises(CheckpointError, match=name):
        ckpt.load(path.parent)


def test_swapped_files_and_renamed_directories_are_refused(tmp_path):
    one, two = save(tmp_path, 1), save(tmp_path, 2)
    os.rename(two, two.with_name("step-7"))
    found, refused = directory.latest_whole(tmp_path)
    assert found == one
    assert str(refused[0]) == "step-7 was refused: state.json is of step 2"
    os.rename(two.with_name("step-7"), two)
    (two / "student.safetensors").write_bytes((one / "student.safetensors").read_bytes())
    assert directory.defect(two) == "the SHA-256 of student.safetensors differs from the manifest"


def test_another_format_is_refused_with_both_versions(tmp_path, monkeypatch):
    monkeypatch.setattr(manifest, "FORMAT", 2)
    monkeypatch.setattr(ckpt, "FORMAT", 2)
    monkeypatch.setattr(directory, "FORMAT", 2)
    path = save(tmp_path, 1)
    monkeypatch.undo()
    assert directory.defect(path) == "manifest.json has format 2; this version reads 1"


def test_all_broken_is_an_error_and_none_is_none(tmp_path):
    assert directory.latest_whole(tmp_path) == (None, [])
    for step in (1, 2):
        (save(tmp_path, step) / "state.json").unlink()
    with pytest.raises(CheckpointError) as caught:
        directory.latest_whole(tmp_path)
    assert caught.value.exit_code == 5
    assert [problem.code for problem in caught.value.problems] == ["SKD-K06", "SKD-K06"]
    assert "step-2" in str(caught.value)
    assert "state.json is missing" in str(caught.value)


def test_pruning_keeps_two_and_the_best(tmp_path):
    for step in range(1, 7):
        save(tmp_path, step, best_step=2 if step >= 2 else None, keep=1)
    assert names(tmp_path) == ["step-2", "step-5", "step-6"]


def test_order_is_by_step_not_by_time_or_text(tmp_path):
    save(tmp_path, 10)
    save(tmp_path, 9)
    found, _ = directory.latest_whole(tmp_path)
    assert found is not None
    assert found.name == "step-10"


def test_pruning_deletes_only_what_we_made(tmp_path):
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "precious").write_text("x")
    checkpoints = tmp_path / "checkpoints"
    (checkpoints / "step-1").mkdir(parents=True)
    (checkpoints / "step-1" / "notes.txt").write_text("mine")
    (checkpoints / "step-0").symlink_to(outside)
    (checkpoints / "my-copy").mkdir()
    (checkpoints / ".tmp-step-9-1").symlink_to(outside)
    assert directory.remove_stale(tmp_path) == [".tmp-step-9-1"]
    for step in range(2, 7):
        save(tmp_path, step)
    assert names(tmp_path) == ["my-copy", "step-0", "step-1", "step-5", "step-6"]
    assert (outside / "precious").exists()


def test_what_killed_writes_left_in_a_run_is_removed_and_links_are_not_followed(tmp_path):
    run, outside = tmp_path / "run", tmp_path / "outside"
    for folder in (run, run / "tokens", outside):
        folder.mkdir(parents=True)
        (folder / ".tmp-step-0.json-7").write_text("{")
    (run / "checkpoints").symlink_to(outside)
    assert directory.remove_stale(run) == [".tmp-step-0.json-7"] * 2
    assert (outside / ".tmp-step-0.json-7").exists()
    assert [path.name for path in run.iterdir() if path.name.startswith(".tmp")] == []


def test_broken_checkpoint_of_the_same_step_gives_way_but_is_not_deleted(tmp_path):
    save(tmp_path, 1)
    (save(tmp_path, 2) / "state.json").write_text("{}")
    save(tmp_path, 2)
    assert directory.latest_whole(tmp_path) == (tmp_path / "checkpoints" / "step-2", [])
    assert f"refused-step-2-{os.getpid()}" in names(tmp_path)


@pytest.mark.parametrize("where", SAVE_POINTS)
def test_kill_inside_a_save_leaves_the_old_or_the_new_one_whole(tmp_path, where):
    for step in (1, 2):
        save(tmp_path, step)
    child = os.fork()
    if child == 0:
        with faults.hooked(lambda name: os._exit(9) if name == where else None):
            save(tmp_path, 3)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9
    found, refused = directory.latest_whole(tmp_path)
    assert found is not None
    assert found.name == ("step-3" if where == "save.prune" else "step-2")
    assert refused == []
    assert len(directory.remove_stale(tmp_path)) == (0 if where == "save.prune" else 1)
    save(tmp_path, 3)
    assert set(names(tmp_path)) >= {"step-2", "step-3"}
    assert not [name for name in names(tmp_path) if name.startswith(".tmp")]


@pytest.mark.parametrize("where", SAVE_POINTS[:5])
@pytest.mark.parametrize(("number", "code"), [(errno.ENOSPC, "SKD-K03"), (errno.EROFS, "SKD-K04")])
def test_disk_fault_keeps_the_old_one_and_names_the_bytes(tmp_path, where, number, code):
    save(tmp_path, 1)

    def fail(name):
        if name == where:
            raise OSError(number, os.strerror(number))

    with faults.hooked(fail), pytest.raises(ResourceError, match=r"about \d+ bytes .* \d+ bytes free") as caught:
        save(tmp_path, 2)
    assert caught.value.exit_code == 8
    assert caught.value.problems[0].code == code
    assert names(tmp_path) == ["step-1"]


def test_what_does_not_read_back_is_an_error_and_nothing_is_pruned(tmp_path, monkeypatch):
    for step in (1, 2):
        save(tmp_path, step)
    monkeypatch.setattr(ckpt, "defect", lambda path: "a flipped bit")
    with pytest.raises(CheckpointError, match="a flipped bit"):
        save(tmp_path, 3)
    assert names(tmp_path) == ["step-1", "step-2", "step-3"]


def test_disk_full_at_any_byte_leaves_the_old_one_whole(tmp_path):
    """RLIMIT_FSIZE stands in for a full disk: every file of a save ends early at one budget or another."""
    sizes = [path.stat().st_size for path in save(tmp_path, 1).iterdir()]
    for budget in range(0, max(sizes), 37):
        child = os.fork()
        if child == 0:
            code = 1
            try:
                resource.setrlimit(resource.RLIMIT_FSIZE, (budget, budget))
                save(tmp_path, 2)
            except ResourceError as error:
                code = 8 if error.problems[0].code == "SKD-K03" else 1
            finally:
                os._exit(code)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 8
        assert names(tmp_path) == ["step-1"]
        assert directory.defect(tmp_path / "checkpoints" / "step-1") is None


def test_a_run_needs_room_for_two_checkpoints(tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=215))
    weights = {"w": torch.zeros(9)}
    with pytest.raises(ResourceError, match="two checkpoints need 216 bytes, and 215 bytes are free"):
        ckpt.require_space(tmp_path, weights, {})
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=216))
    ckpt.require_space(tmp_path, weights, {})

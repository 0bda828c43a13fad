"""Models of the Hub whose weights are not on this machine: a stand-in serves them, to a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.check.bench import Bench
from tests.data.hub_stand_in import COMMIT, stand_in

OVERRIDES = ["student=owner/name", "student.revision=" + COMMIT]


def files_of(bench: Bench) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in bench.student.iterdir()}


def look(endpoint: str, home: Path, offline: bool = False) -> tuple[int, str]:
    """Exit code and output of ``skd check`` with the student of the stand-in."""
    environment = {
        **os.environ,
        "HF_ENDPOINT": endpoint,
        "HF_HOME": str(home),
        "HF_HUB_OFFLINE": "1" if offline else "0",
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "NO_PROXY": "127.0.0.1",
    }
    command = [sys.executable, "-m", "skd", "check", "run.yaml", *OVERRIDES]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=300)
    return done.returncode, done.stdout + done.stderr


def test_headers_are_read_by_name_and_no_weight_is_fetched(bench: Bench, tmp_path: Path) -> None:
    home = tmp_path / "home"
    with stand_in(files_of(bench), kind="models") as endpoint:
        code, output = look(endpoint, home)
    assert code == 0, output
    assert "6,736 parameters" in output
    assert "stored as F32; weights not fetched yet" in output
    assert not list(home.rglob("*.safetensors"))

    code, output = look(endpoint, home, offline=True)
    assert code == 0, output
    assert (
        "warning[SKD-M23] student 'owner/name': its weights are not on this machine, and the Hub was not reached to "
        "look at them (" in output
    )
    assert output.count("SKD-M23") == 1
    assert "; go online before the run starts" in output


def test_weights_that_do_not_fit_are_found_by_their_headers(bench: Bench, tmp_path: Path) -> None:
    bench.json("student/config.json", num_hidden_layers=3, layer_types=None)
    with stand_in(files_of(bench), kind="models") as endpoint:
        code, output = look(endpoint, tmp_path / "home")
    assert code == 4
    assert "error[SKD-M15] student '" in output
    assert "(missing: model.layers.2" in output


def test_shards_are_looked_at_and_a_wrong_type_is_found(bench: Bench, tmp_path: Path) -> None:
    bench.header(lambda header: header["model.norm.weight"].update(dtype="I32"))
    bench.shards()
    with stand_in(files_of(bench), kind="models") as endpoint:
        code, output = look(endpoint, tmp_path / "home")
    assert code == 4
    assert "error[SKD-M20] student 'owner/name': tensor 'model.norm.weight' is stored as I32" in output


def test_pickled_weights_are_refused_unfetched(bench: Bench, tmp_path: Path) -> None:
    (bench.student / "model.safetensors").rename(bench.student / "pytorch_model.bin")
    with stand_in(files_of(bench), kind="models") as endpoint:
        code, output = look(endpoint, tmp_path / "home")
    assert code == 4
    assert "error[SKD-M13] student 'owner/name': has no safetensors weights" in output
    assert not list((tmp_path / "home").rglob("*.bin"))

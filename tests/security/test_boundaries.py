"""A run writes under its output only, opens no connection and starts no program but its own template renderer."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from skd.check.environment import MINIMUM
from tests.check.bench import Bench
from tests.data.test_chat import CHATML

WATCHED = """
import json, os, sys

events = []

def watch(event, arguments):
    if event == "open":
        path, mode, flags = arguments
        if isinstance(path, (str, bytes)) and flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
            events.append(["write", os.path.abspath(os.fsdecode(path))])
    elif event in ("os.mkdir", "os.remove", "os.rmdir", "shutil.rmtree"):
        if arguments[-1] in (None, -1) or event in ("os.mkdir", "shutil.rmtree"):  # else inside a tree told of before
            events.append(["write", os.path.abspath(os.fsdecode(arguments[0]))])
    elif event in ("os.rename", "os.link", "os.symlink"):
        events.extend(["write", os.path.abspath(os.fsdecode(path))] for path in arguments[:2])
    elif event in ("socket.connect", "socket.getaddrinfo", "socket.bind", "urllib.Request"):
        events.append(["network", repr(arguments[1:])])
    elif event in ("subprocess.Popen", "os.system", "os.exec", "os.posix_spawn"):
        events.append(["program", [os.fsdecode(part) for part in arguments[1]] if arguments[1:] else event])
    elif event in ("pickle.find_class", "marshal.loads") and "importlib" not in repr(sys._getframe(1).f_code):
        events.append(["pickle", repr(arguments)])

sys.addaudithook(watch)
from skd.cli import main
codes = [main(arguments) for arguments in json.loads(sys.argv[1])]
found = [codes, list(events)]
with open(sys.argv[2], "w") as report:
    json.dump(found, report)
"""


def test_a_run_keeps_to_its_directory(bench: Bench, tmp_path: Path) -> None:
    bench.template(CHATML)
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    commands = [["check", "run.yaml"], ["train", "run.yaml"], ["train", "run.yaml"], ["report", "runs/x"]]
    # Libraries keep caches of their own where these say.
    caches = dict.fromkeys(("TMPDIR", "MPLCONFIGDIR", "TORCHINDUCTOR_CACHE_DIR"), str(temporary))
    environment = {key: value for key, value in os.environ.items() if key != "HF_HUB_OFFLINE"} | caches
    report = tmp_path / "events.json"
    command = [sys.executable, "-B", "-c", WATCHED, json.dumps(commands), str(report)]
    result = subprocess.run(command, env=environment, capture_output=True, timeout=300, check=False)
    assert result.returncode == 0, result.stderr
    codes, events = json.loads(report.read_text())
    assert codes == [0, 0, 0, 0]
    inside = (str(bench.root / "runs"), str(temporary), os.devnull, "/proc/self/", "/dev/")
    outside = [path for kind, path in events if kind == "write" and not path.startswith(inside)]
    assert outside == [], "\n".join(outside)
    # matplotlib asks fc-list which fonts there are, a CUDA build of torch ldconfig which libraries.
    asked = ("fc-list", "/sbin/ldconfig")
    programs = [command for kind, command in events if kind == "program" and command[0] not in asked]
    assert programs
    assert [command for command in programs if command[1:] != ["-m", "skd.rendering"]] == []
    assert [event for event in events if event[0] in ("network", "pickle")] == []


def test_the_oldest_versions_are_those_of_the_project() -> None:
    """``skd check`` refuses what the package metadata would not install."""
    text = (Path(__file__).parents[2] / "pyproject.toml").read_text(encoding="utf-8")
    for package, version in MINIMUM.items():
        assert f'"{package}>={".".join(map(str, version))}"' in text

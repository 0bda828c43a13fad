"""Data sets of the Hub, read from a stand-in on this machine by the real client in a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, NoReturn

import pytest

from skd.config import HubSource
from skd.data import hub
from skd.errors import RemoteError
from tests.data.hub_stand_in import COMMIT, stand_in

pytest.importorskip("datasets")

CARD = """---
configs:
- config_name: main
  data_files:
  - split: train
    path: main/train.jsonl
  - split: test
    path: main/test.jsonl
- config_name: chat
  data_files: chat.jsonl
---
"""
FILES = {
    "README.md": CARD.encode(),
    "main/train.jsonl": b'{"question": "q1", "answer": "a1"}\n{"question": "q2", "answer": "a2"}\n',
    "main/test.jsonl": b'{"question": "q3", "answer": "a3"}\n',
    "chat.jsonl": b'{"messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "yo"}]}\n',
}

READ = """
import json, sys
from skd.config import HubSource
from skd.data.sources import load_rows
from skd.errors import SkdError
for values in json.loads(sys.argv[1]):
    try:
        print(json.dumps([[row.prompt, row.response] for row in load_rows([HubSource(kind="hub", **values)])]))
    except SkdError as error:
        print(json.dumps([error.exit_code, str(error)]))
"""


def read(endpoint: str, home: Path, *sources: dict[str, Any], offline: bool = False) -> list[Any]:
    """What a process without other ties to a Hub gets for each source: rows, or exit code and message."""
    environment = {
        **os.environ,
        "HF_ENDPOINT": endpoint,
        "HF_HOME": str(home),
        "HF_HUB_OFFLINE": "1" if offline else "0",
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "NO_PROXY": "127.0.0.1",
    }
    command = [sys.executable, "-c", READ, json.dumps([{"id": "owner/name", **source} for source in sources])]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_rows_by_config_split_and_revision_and_from_the_cache_offline(tmp_path: Path) -> None:
    pinned = {"config": "main", "revision": COMMIT, "prompt_field": "question", "response_field": "answer"}
    with stand_in(FILES) as endpoint:
        found = read(
            endpoint,
            tmp_path,
            pinned,
            {**pinned, "share": 0.5},
            {**pinned, "split": "test"},
            {"config": "chat", "revision": "main"},
            {"config": "main"},
            {**pinned, "split": "dev"},
            {**pinned, "config": "mian"},
            {**pinned, "revision": "d" * 40},
            {"id": "owner/nothing"},
        )
    rows = [["q1", "a1"], ["q2", "a2"]]
    assert found[:4] == [rows, rows[:1], [["q3", "a3"]], [["hi", "yo"]]]
    code, message = found[4]
    assert code == 3
    assert message.startswith(
        "error[SKD-D04] owner/name[main/train] row 0: no field 'prompt'; the row has 'question', 'answer'; "
        "set prompt_field to the right name\n"
    )
    for (code, message), word in zip(found[5:], ("dev", "mian", "d" * 40, "owner/nothing"), strict=True):
        assert code == 6
        assert message.startswith("error[SKD-D16] owner/")
        assert word in message
        assert message.endswith(
            "; correct id, config, split or revision; a gated data set needs the environment variable HF_TOKEN"
        )

    offline = read(endpoint, tmp_path, pinned, {**pinned, "revision": "d" * 40}, {"id": "owner/other"}, offline=True)
    assert offline[0] == rows
    assert offline[1] == [
        6,
        f"error[SKD-D16] owner/name[main/train]: the Hub was not reached, and the cache holds commit {COMMIT}, not "
        f"{'d' * 40}; go online once, or correct revision",
    ]
    assert offline[2][0] == 6
    assert offline[2][1].startswith("error[SKD-D16] owner/other[train]: the Hub was not reached: ")
    assert offline[2][1].endswith("; check the network and HF_HUB_OFFLINE, or read a copy of its files with kind: file")


def test_a_script_is_never_run(tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    script = f"open({str(canary)!r}, 'w')".encode()
    with stand_in({**FILES, "name.py": script}) as endpoint:
        ((code, message),) = read(endpoint, tmp_path, {"config": "main"})
    assert code == 3
    assert message == (
        "error[SKD-D15] owner/name[main/train]: the data set is a script, and no script of it is run; "
        "choose a revision with data files, such as refs/convert/parquet"
    )
    assert not canary.exists()


def test_broken_files_are_named(tmp_path: Path) -> None:
    with stand_in({**FILES, "main/train.jsonl": b'{"prompt": "p"'}) as endpoint:
        ((code, message),) = read(endpoint, tmp_path, {"config": "main"})
    assert code == 3
    assert message.startswith("error[SKD-D02] owner/name[main/train]: its files cannot be read: ")


@pytest.mark.parametrize(
    ("error", "tries", "code"),
    [(ConnectionError("reset"), 3, "SKD-D16"), (ValueError("no such split"), 1, "SKD-D16")],
)
def test_a_hub_that_is_not_reached_is_asked_three_times(
    error: Exception, tries: int, code: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def fail(source: HubSource) -> NoReturn:
        asked.append(source)
        raise error

    monkeypatch.setattr(hub, "_loaded", fail)
    monkeypatch.setattr(hub, "RETRY_SECONDS", (0.0, 0.0))
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", False)
    with pytest.raises(RemoteError, match=code):
        list(hub.hub_records(HubSource(kind="hub", id="a/b")))
    assert len(asked) == tries

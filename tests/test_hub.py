"""Pushing a student: what is asked before, what arrives, and that a failure loses nothing; against a stand-in."""

import base64
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

import huggingface_hub.constants as constants
import pytest

from skd.config import HubConfig
from skd.errors import RemoteError
from skd.hub import push, require_access
from skd.train import train
from tests.train.conftest import ROWS, models, settings  # noqa: F401 - fixtures

pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")  # the client's own

TOKEN = "a-token-of-the-tests"
HUB = HubConfig(repo="me/student")


class StandIn(BaseHTTPRequestHandler):
    """Answers as the Hub does; ``server.files`` is what it was given."""

    def do_GET(self):
        path = urlsplit(self.path).path
        if self.headers["Authorization"] != f"Bearer {TOKEN}":
            self.answer(401, {"error": "Invalid credentials"})
        elif path == "/api/whoami-v2":
            token = {"accessToken": {"role": self.server.role}}
            self.answer(200, {"type": "user", "name": "me", "orgs": [{"name": "lab"}], "auth": token})
        else:
            self.answer(404, {})

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"] or 0))
        path = urlsplit(self.path).path
        if self.headers["Authorization"] != f"Bearer {TOKEN}" or self.server.fails:
            self.answer(403, {"error": "not allowed"})
        elif path == "/api/repos/create":
            self.server.created.append(json.loads(body))
            self.answer(200, {"url": f"{self.address()}/me/student"})
        elif path == "/api/validate-yaml":
            self.answer(200, {"errors": [], "warnings": []})
        elif "/preupload/" in path:
            names = [file["path"] for file in json.loads(body)["files"]]
            self.answer(200, {"files": [self.mode(name) for name in names]})
        elif path.endswith("/info/lfs/objects/batch"):
            self.answer(200, {"transfer": "basic", "objects": [self.place(one) for one in json.loads(body)["objects"]]})
        elif "/branch/" in path:
            self.server.branches.append(path.rpartition("/")[2])
            self.answer(200, {})
        elif "/commit/" in path:
            self.commit([json.loads(line) for line in body.splitlines()])
        else:
            self.answer(404, {})

    def do_PUT(self):
        self.server.uploads[self.path.rpartition("/")[2]] = self.rfile.read(int(self.headers["Content-Length"]))
        self.answer(200, {})

    def mode(self, name):
        how = "lfs" if name.endswith(".safetensors") else "regular"
        return {"path": name, "uploadMode": how, "shouldIgnore": False}

    def place(self, one):
        return {**one, "actions": {"upload": {"href": f"{self.address()}/upload/{one['oid']}", "header": {}}}}

    def commit(self, lines):
        for line in lines:
            value = line["value"]
            if line["key"] == "file":
                self.server.files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                self.server.files[value["path"]] = self.server.uploads[value["oid"]]
        at = {"commitUrl": f"{self.address()}/me/student/commit/abc", "commitOid": "abc"}
        self.answer(200, at | {"success": True})

    def address(self):
        return f"http://127.0.0.1:{self.server.server_port}"

    def answer(self, code, value):
        content = json.dumps(value).encode()
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *words):
        pass


@pytest.fixture
def hub(monkeypatch):
    server = ThreadingHTTPServer(("127.0.0.1", 0), StandIn)
    server.role, server.fails = "write", False
    server.files, server.uploads, server.created, server.branches = {}, {}, [], []
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    yield server
    server.shutdown()
    server.server_close()


def message(act):
    with pytest.raises(RemoteError) as caught:
        act()
    assert TOKEN not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("repo", ["me/student", "lab/student"])
def test_a_token_that_may_write_is_enough(hub, repo):
    assert require_access(HubConfig(repo=repo)) == "me"
    assert not hub.created


def test_without_a_token_nothing_is_asked(monkeypatch):
    monkeypatch.delenv("HF_TOKEN", raising=False)
    assert message(lambda: require_access(HUB)) == (
        "error[SKD-R04] hub me/student: the environment variable HF_TOKEN is not set; set it to a token that may write"
    )


def test_tokens_that_cannot_push_are_told_apart(hub, monkeypatch):
    assert "the token is of me, who is not in them; write hub.repo: me/..." in message(
        lambda: require_access(HubConfig(repo="them/student"))
    )
    hub.role = "read"
    assert "the token may only read" in message(lambda: require_access(HUB))
    monkeypatch.setenv("HF_TOKEN", "another-token-of-the-tests")
    assert "the Hub does not take the token" in message(lambda: require_access(HUB))


def test_a_hub_that_does_not_answer(hub, monkeypatch):
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    assert "check HF_TOKEN and the network" in message(lambda: require_access(HUB))


def test_every_file_arrives_on_the_branch(hub, tmp_path):
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "model.safetensors").write_bytes(b"weights")
    url = push(tmp_path, HubConfig(repo="me/student", revision="second"), "skd, 3 steps", "again")
    assert url.endswith("/me/student/commit/abc")
    assert hub.files == {"config.json": b"{}", "model.safetensors": b"weights"}
    assert hub.branches == ["second"]
    (made,) = hub.created
    assert (made["name"], made.get("private", made.get("visibility"))) in {("student", True), ("student", "private")}


@pytest.fixture
def config(settings):  # noqa: F811
    def build(**keys):
        return settings(max_steps=2, **keys) | {"hub": "me/student"}

    return build


def test_a_run_pushes_its_student_with_its_card(hub, config):
    result = train(config(), prompts=ROWS, display=False)
    assert hub.files["model.safetensors"] == (result.student_dir / "model.safetensors").read_bytes()
    card = hub.files["README.md"].decode()
    for said in (
        "` method ` | ` skd `",
        "` steps ` | ` 2 `",
        "` data 1 ` | ` rows.json `",
        "` training rows ` | ` 10 `",
    ):
        assert said in card
    assert not any("checkpoint" in name for name in hub.files)


def test_scores_that_came_later_are_pushed_by_the_same_command(hub, config):
    result = train(config(), prompts=ROWS, display=False)
    assert "gsm8k" not in hub.files["README.md"].decode()
    score = {"value": 0.25, "interval_95": [0.2, 0.31], "n": 200}
    scores = result.run_dir / "scores"
    scores.mkdir()
    (scores / "gsm8k.summary.json").write_text(json.dumps({"task": "gsm8k", "scores": {"exact_match": score}}))
    (scores / "broken.summary.json").write_text("{")
    steps = (result.run_dir / "metrics.jsonl").read_bytes()
    train(config(), prompts=ROWS, display=False)
    assert "` gsm8k, exact_match ` | ` 0.25 (95 % interval 0.2 to 0.31, n 200) `" in hub.files["README.md"].decode()
    assert (result.run_dir / "metrics.jsonl").read_bytes() == steps


def test_a_push_that_fails_loses_nothing_and_is_repeated_by_the_command_it_names(hub, config):
    hub.fails = True
    run = config()
    said = message(lambda: train(run, prompts=ROWS, display=False))
    assert f"the student in {run['output']}/student is whole, and could not be pushed" in said
    assert said.endswith(f"push it again by: skd train {run['output']}/config.yaml")
    hub.fails = False
    train(f"{run['output']}/config.yaml", prompts=ROWS, display=False)
    assert "model.safetensors" in hub.files


def test_a_run_that_could_not_push_does_not_start(hub, config):
    hub.role = "read"
    run = config()
    assert "the token may only read" in message(lambda: train(run, prompts=ROWS, display=False))


def test_a_finished_run_may_be_pushed_afterwards(hub, config):
    run = config()
    train({key: value for key, value in run.items() if key != "hub"}, prompts=ROWS, display=False)
    assert not hub.files
    train(run, prompts=ROWS, display=False)
    assert "model.safetensors" in hub.files

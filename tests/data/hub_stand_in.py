"""A server that answers the requests for the files of one data set or model as the Hub does, on this machine."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

__all__ = ["COMMIT", "stand_in"]

COMMIT = "c0ffee" + "0" * 34
"""The commit of the branch main."""


@contextmanager
def stand_in(
    files: Mapping[str, bytes], repo: str = "owner/name", kind: str = "datasets", commit: str = COMMIT
) -> Iterator[str]:
    """The address of a server that holds one data set (or of kind "models" one model), while the block runs.

    It has one commit, where the branch main stands.
    """

    class Handler(_Handler):
        files_path = f"/{repo}/resolve/" if kind == "models" else f"/{kind}/{repo}/resolve/"
        api_path, name, content, head = f"/api/{kind}/{repo}", repo, files, commit

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


class _Handler(BaseHTTPRequestHandler):
    files_path: str
    api_path: str
    name: str
    content: Mapping[str, bytes]
    head: str

    def do_GET(self) -> None:
        path = urlsplit(self.path).path
        repo, api = self.files_path, self.api_path
        if path.startswith(repo):
            revision, _, name = path.removeprefix(repo).partition("/")
            self._file(revision, name)
        elif path.startswith(f"{api}/tree/"):
            folder = path.removeprefix(f"{api}/tree/").partition("/")[2]
            self._answer(200, [self._entry(name) for name in self.content if name.startswith(folder)])
        elif path.startswith(api) and path.rpartition("/")[2] not in (self.name.partition("/")[2], "main", self.head):
            self._answer(404, {}, {"X-Error-Code": "RevisionNotFound"})
        elif path.startswith(api):
            names = [{"rfilename": name} for name in self.content]
            self._answer(200, {"id": self.name, "sha": self.head, "siblings": names})
        else:
            self._answer(404, {}, {"X-Error-Code": "RepoNotFound"})

    do_HEAD = do_GET

    def _file(self, revision: str, name: str) -> None:
        if revision not in (self.head, "main"):
            self._answer(404, {}, {"X-Error-Code": "RevisionNotFound"})
        elif name not in self.content:
            self._answer(404, {}, {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": self.head})
        else:
            headers = {"ETag": f'"{self._entry(name)["oid"]}"', "X-Repo-Commit": self.head}
            self._answer(200, self._ranged(self.content[name]), headers)

    def _ranged(self, content: bytes) -> bytes:
        first, _, last = self.headers.get("Range", "bytes=0-").removeprefix("bytes=").partition("-")
        return content[int(first) : int(last) + 1 if last else None]

    def _entry(self, name: str) -> dict[str, Any]:
        content = self.content[name]
        oid = hashlib.sha256(content).hexdigest()[:40]
        return {"type": "file", "path": name, "size": len(content), "oid": oid}

    def _answer(self, status: int, body: Any, headers: Mapping[str, str] | None = None) -> None:
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        for key, value in {**(headers or {}), "Content-Length": str(len(content))}.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content)

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""

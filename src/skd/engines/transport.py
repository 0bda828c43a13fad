"""JSON over HTTP with a limit on everything: time of a connection, of a silence, of a call; size of an answer; tries.

Written on the standard library's client: it follows no redirect and asks no proxy, so a key goes to the host of the
config and to no other. ``unix:PATH`` is a socket of this machine, which gets no key.
"""

from __future__ import annotations

import http.client
import json
import os
import select
import socket
import threading
import time
import weakref
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from skd.errors import Problem, RemoteError
from skd.text import shortened, visible

__all__ = ["TOKEN_VARIABLE", "Call", "Limits", "Transport"]

TOKEN_VARIABLE = "SKD_TEACHER_TOKEN"
"""Environment variable of the key that is sent as a bearer token; nothing else holds one."""

_AGAIN = frozenset({408, 425, 429, 500, 502, 503, 504})
_LONGEST_PAUSE = 10.0
_PIECE = 2**16
_LOOK = 0.5
"""Seconds between two looks whether a wait is to end early."""
_WAY_OUT = "see that the server runs, then run the same command"


@dataclass(frozen=True)
class Limits:
    """Seconds, and how often one call is tried."""

    connect: float = 5.0
    silence: float = 60.0
    """Longest wait for the next bytes of an answer."""
    total: float = 300.0
    """For a call with all its tries, and for all calls that are made at once."""
    tries: int = 5


@dataclass(frozen=True)
class Call:
    """One request and the largest answer that it may have."""

    path: str
    body: Mapping[str, Any] | None = None
    """JSON of a POST; None for a GET."""
    max_bytes: int = 2**20


class _Again(Exception):
    """A try that failed in a way that the next one may not; ``pause`` is what the server asked for, in seconds."""

    def __init__(self, reason: str, pause: float = 0.0) -> None:
        super().__init__(reason)
        self.pause = pause


@dataclass
class Transport:
    """Calls of one server. Connections are kept and used again; threads live for the length of ``all``."""

    url: str
    """scheme://host[:port][/path], or unix:PATH."""
    limits: Limits = field(default_factory=Limits)
    workers: int = 32
    """Calls at once."""
    retries: int = 0
    """Tries after the first one, of all calls so far."""
    whose: str = "teacher"
    """What the server holds, for messages."""

    def __post_init__(self) -> None:
        parts = urlsplit(self.url)
        self._secure, self._local = parts.scheme == "https", parts.scheme == "unix"
        self._base = "" if self._local else parts.path.rstrip("/")
        self._host, self._port = parts.hostname or "", parts.port or (443 if self._secure else 80)
        self._idle: list[http.client.HTTPConnection] = []
        self._open: set[http.client.HTTPConnection] = set()
        self._lock = threading.Lock()
        weakref.finalize(self, _close, self._idle)

    def one(self, call: Call) -> Any:
        """The JSON of one answer; see ``all``."""
        return self.all([call])[0]

    @property
    def place(self) -> str:
        """The server, for messages."""
        return f"{self.whose} at {self.url}"

    def all(self, calls: Sequence[Call], check: Callable[[], None] | None = None) -> list[Any]:
        """The JSON of the answers, in the order of the calls, which are made at once.

        ``check`` is called now and then; what it raises ends the calls. Raises RemoteError once a call has failed for
        good, or when time is up.
        """
        deadline = time.monotonic() + self.limits.total
        pool = ThreadPoolExecutor(min(self.workers, max(len(calls), 1)))
        stopped = threading.Event()
        try:
            futures = [pool.submit(self._answered, call, deadline, stopped) for call in calls]
            waiting = set(futures)
            while waiting and time.monotonic() < deadline:
                look = None if check is None else _LOOK
                left = max(deadline - time.monotonic(), 0.0)
                done, waiting = wait(waiting, timeout=min(left, look or left), return_when=FIRST_EXCEPTION)
                _raise_first(done)
                if check is not None:
                    check()
            if waiting:
                raise self._error("SKD-R02", f"gave no answer within {self.limits.total:g} seconds")
            return [future.result() for future in futures]
        finally:
            stopped.set()
            self._hang_up()
            pool.shutdown(wait=False, cancel_futures=True)

    def _answered(self, call: Call, deadline: float, stopped: threading.Event) -> Any:
        for number in range(self.limits.tries):
            try:
                return self._tried(call, deadline)
            except _Again as error:
                reason, pause = str(error), error.pause or min(0.5 * number, _LONGEST_PAUSE)
            if number + 1 == self.limits.tries or time.monotonic() + pause >= deadline or stopped.wait(pause):
                break
            with self._lock:
                self.retries += 1
        raise self._error("SKD-R03", f"failed {number + 1} times, last: {reason}")

    def _tried(self, call: Call, deadline: float) -> Any:
        connection = self._connection()
        try:
            status, headers, data = self._exchange(connection, call, deadline)
        except (OSError, http.client.HTTPException) as error:
            self._drop(connection)
            raise _Again(f"{type(error).__name__}: {error}") from error
        except BaseException:
            self._drop(connection)
            raise
        with self._lock:
            self._open.discard(connection)
            self._idle.append(connection)
        return self._content(status, headers, data)

    def _exchange(
        self, connection: http.client.HTTPConnection, call: Call, deadline: float
    ) -> tuple[int, Mapping[str, str], bytes]:
        if connection.sock is None:
            connection.connect()
        self._patient(connection, deadline)
        body = None if call.body is None else json.dumps(call.body).encode()
        headers = _headers(body, with_key=not self._local)
        connection.request("GET" if body is None else "POST", self._base + call.path, body, headers)
        response = connection.getresponse()
        pieces, size = [], 0
        while piece := response.read1(_PIECE):
            pieces.append(piece)
            size += len(piece)
            if size > call.max_bytes:
                raise self._error("SKD-R13", f"sent more than {call.max_bytes:,} bytes to {call.path}")
            self._patient(connection, deadline)
        if response.length:
            raise http.client.IncompleteRead(b"", response.length)
        response.close()  # or the connection would take no other request
        return response.status, {name.lower(): value for name, value in response.getheaders()}, b"".join(pieces)

    def _patient(self, connection: http.client.HTTPConnection, deadline: float) -> None:
        left = deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError("the time of the call is up")
        if connection.sock is not None:  # None once an answer that closes the connection has begun
            connection.sock.settimeout(min(self.limits.silence, left))

    def _content(self, status: int, headers: Mapping[str, str], data: bytes) -> Any:
        if status != 200:
            self._refuse(status, headers, data)
        if "json" not in headers.get("content-type", "").lower() or "content-encoding" in headers:
            raise _Again(f"its answer is {headers.get('content-type', 'of no type')} and not JSON")
        try:
            return json.loads(data)
        except (ValueError, RecursionError) as error:
            raise _Again(f"its answer is not JSON ({type(error).__name__})") from error

    def _refuse(self, status: int, headers: Mapping[str, str], data: bytes) -> None:
        said = shortened(visible(data[:2000].decode("utf-8", "replace")), 200)
        if status in _AGAIN:
            raise _Again(f"HTTP {status}: {said}", _seconds(headers.get("retry-after", "")))
        if status in (401, 403):
            remedy = f"set {TOKEN_VARIABLE} to the key that the server was started with"
            raise self._error("SKD-R04", f"refuses the key (HTTP {status})", remedy)
        if 300 <= status < 400:
            raise self._error("SKD-R16", f"redirects (HTTP {status})", "write the address that it leads to")
        raise self._error("SKD-R04", f"answers HTTP {status}: {said}")

    def _connection(self) -> http.client.HTTPConnection:
        with self._lock:
            # A server ends what was idle for some seconds (vLLM 5): each of those would cost a try.
            while self._idle and _ended(self._idle[-1]):
                self._idle.pop().close()
            if self._idle:
                connection = self._idle.pop()
            elif self._local:
                connection = _LocalConnection(self.url.removeprefix("unix:"), timeout=self.limits.connect)
            else:
                kind = http.client.HTTPSConnection if self._secure else http.client.HTTPConnection
                connection = kind(self._host, self._port, timeout=self.limits.connect)
            self._open.add(connection)
        return connection

    def _drop(self, connection: http.client.HTTPConnection) -> None:
        with self._lock:
            self._open.discard(connection)
        connection.close()

    def _hang_up(self) -> None:
        """End what still runs: a thread that waits for bytes sees the end of its connection."""
        with self._lock:
            for connection in self._open:
                if (sock := connection.sock) is not None:
                    with suppress(OSError):  # it may have ended by itself
                        sock.shutdown(socket.SHUT_RDWR)
            self._open.clear()

    def _error(self, code: str, found: str, remedy: str = _WAY_OUT) -> RemoteError:
        return RemoteError(Problem(code, self.place, found, remedy))


class _LocalConnection(http.client.HTTPConnection):
    """HTTP over a socket in the file system."""

    def __init__(self, path: str, timeout: float) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


def _ended(connection: http.client.HTTPConnection) -> bool:
    """Whether something came over an idle connection, which can only be its end."""
    if connection.sock is None:
        return False  # it is opened again
    looking = select.poll()
    looking.register(connection.sock, select.POLLIN)
    return bool(looking.poll(0))


def _close(connections: list[http.client.HTTPConnection]) -> None:
    for connection in connections:
        connection.close()


def _raise_first(done: set[Future[Any]]) -> None:
    for future in done:
        if (error := future.exception()) is not None:
            raise error


def _headers(body: bytes | None, *, with_key: bool) -> dict[str, str]:
    headers = {"Accept": "application/json", "Accept-Encoding": "identity"}
    if body is not None:
        headers["Content-Type"] = "application/json"
    if with_key and (token := os.environ.get(TOKEN_VARIABLE)):
        headers["Authorization"] = f"Bearer {token}"
    return headers


def _seconds(retry_after: str) -> float:
    return min(float(retry_after), _LONGEST_PAUSE) if retry_after.strip().isdigit() else 0.0

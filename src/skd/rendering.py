"""Chat templates are programs of a model repository: rendered in a child process that can be killed.

The child has no more than 5 seconds of wall time for a conversation and 1 GiB of memory, writes no file and holds no
key. It renders with transformers' own function, so the text is the one that ``apply_chat_template`` would give.
"""

from __future__ import annotations

import atexit
import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from skd.config.credentials import is_secret_variable
from skd.errors import ModelError, Problem

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

__all__ = ["TemplateRefusal", "render"]

SECONDS = 5.0
"""Wall time of one conversation."""
MEMORY_BYTES = 1 << 30
"""Address space of the child beyond what it has after its imports."""
_START_SECONDS = 120.0
_LONGEST_TEXT = 1 << 24


class TemplateRefusal(Exception):
    """A template raised: it does not take these messages, or is not valid."""


def render(
    tokenizer: PreTrainedTokenizerBase, messages: Sequence[Mapping[str, Any]], *, add_generation_prompt: bool
) -> str:
    """The text of a conversation by the tokenizer's chat template; the tokenizer must have one.

    Raises TemplateRefusal when the template raises, ModelError (SKD-M10) when it exceeds its time or memory.
    """
    request = {
        "template": tokenizer.get_chat_template(),
        "messages": list(messages),
        "add_generation_prompt": add_generation_prompt,
        "tokens": dict(tokenizer.special_tokens_map),
    }
    global _worker
    if _worker is None or not _worker.usable:
        _worker = _Worker()
    return _worker.render(request)


class _Worker:
    """The child, from the side of the parent. It ends with the parent, which closes its input."""

    def __init__(self) -> None:
        self._owner = os.getpid()
        self._process = subprocess.Popen(
            [sys.executable, "-m", "skd.rendering"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={name: value for name, value in os.environ.items() if not is_secret_variable(name)},
            start_new_session=True,
        )
        self._waiting = bytearray()
        if self._line(_START_SECONDS) is None:
            self.close()
            raise _exceeded("the process that renders chat templates did not start")

    @property
    def usable(self) -> bool:
        """Alive, and not inherited from a process that was forked: two may not share its pipes."""
        return self._owner == os.getpid() and self._process.poll() is None

    def render(self, request: Mapping[str, Any]) -> str:
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):
            self._process.stdin.write(json.dumps(request).encode() + b"\n")
            self._process.stdin.flush()
        line = self._line(SECONDS)
        if line is None:
            self.close()
            raise _exceeded(f"it did not end within {SECONDS:g} seconds, or ended its process")
        reply = json.loads(line)
        if "exceeded" in reply:
            raise _exceeded(reply["exceeded"])
        if "refusal" in reply:
            raise TemplateRefusal(reply["refusal"])
        return str(reply["text"])

    def _line(self, seconds: float) -> bytes | None:
        """The child's next line; None when it does not come in time or the child has gone."""
        assert self._process.stdout is not None
        descriptor, deadline = self._process.stdout.fileno(), time.monotonic() + seconds
        while b"\n" not in self._waiting:
            ready, _, _ = select.select([descriptor], [], [], max(0.0, deadline - time.monotonic()))
            data = os.read(descriptor, 1 << 20) if ready else b""
            if not data:
                return None
            self._waiting += data
        line, _, rest = bytes(self._waiting).partition(b"\n")
        self._waiting = bytearray(rest)
        return line

    def close(self) -> None:
        if self._owner != os.getpid():
            return
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with suppress(OSError):
                    pipe.close()


_worker: _Worker | None = None


@atexit.register
def _close() -> None:
    if _worker is not None:
        _worker.close()


def _exceeded(found: str) -> ModelError:
    return ModelError(
        Problem(
            "SKD-M10",
            "data.chat",
            f"the chat template was stopped: {found}",
            "read the chat_template of this tokenizer, which may be hostile, or set data.chat to never",
        )
    )


def _serve() -> None:
    """The child: one line of JSON in, one out, until its input ends."""
    from transformers.utils.chat_template_utils import render_jinja_template

    replies = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    _limit()
    replies.write("ready\n")
    replies.flush()
    for line in sys.stdin:
        # Without a handler the alarm ends the process, whatever it is doing: a child must not outlive a dead parent.
        signal.setitimer(signal.ITIMER_REAL, 2 * SECONDS)
        reply = _reply(render_jinja_template, json.loads(line))
        signal.setitimer(signal.ITIMER_REAL, 0)
        replies.write(json.dumps(reply) + "\n")
        replies.flush()


def _reply(render_jinja_template: Any, request: dict[str, Any]) -> dict[str, str]:
    try:
        texts, _ = render_jinja_template(
            conversations=[request["messages"]],
            chat_template=request["template"],
            add_generation_prompt=request["add_generation_prompt"],
            **request["tokens"],
        )
    except MemoryError:
        return {"exceeded": f"it wanted more than {MEMORY_BYTES >> 20} MiB of memory"}
    except Exception as error:  # whatever a template can raise is its own fault
        return {"refusal": f"{str(error) or type(error).__name__}"[:500]}
    if len(texts[0]) > _LONGEST_TEXT:
        return {"exceeded": f"it wrote {len(texts[0]):,} characters for one conversation"}
    return {"text": texts[0]}


def _limit() -> None:
    import resource

    for kind, value in _limits():
        with suppress(OSError, ValueError):
            resource.setrlimit(kind, (value, value))


def _limits() -> Iterator[tuple[int, int]]:
    import resource

    yield resource.RLIMIT_FSIZE, 0
    yield resource.RLIMIT_CORE, 0
    try:
        with open("/proc/self/statm", encoding="ascii") as file:
            pages = int(file.read().split()[0])
    except OSError:
        return  # macOS does not enforce a limit of the address space
    yield resource.RLIMIT_AS, pages * os.sysconf("SC_PAGE_SIZE") + MEMORY_BYTES


if __name__ == "__main__":
    _serve()

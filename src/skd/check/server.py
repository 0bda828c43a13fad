"""A teacher on a server: it is asked before anything is spent on it."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from skd.check.report import Part
from skd.config import ServerTeacher
from skd.errors import Problem

if TYPE_CHECKING:
    from skd.check.models import Words

__all__ = ["check_server"]

_THIS_MACHINE = frozenset({"localhost", "127.0.0.1", "::1"})


def check_server(key: str, teacher: ServerTeacher, words: Words) -> Part:
    """Version, model, log-probs and vocabulary of the server at a key of the config, with what is wrong noted."""
    from skd.engines import server_of

    part = Part(key)
    with part.noting():
        found = server_of(teacher).connect(words.tokenizer, words.vocab_size)
        part.facts += [f"{found.name} at {teacher.url}", f"context {found.context:,}"]
        part.facts.append(f"{teacher.top_logprobs:,} log-probs per token")
    address = urlsplit(teacher.url)
    if address.scheme == "http" and address.hostname not in _THIS_MACHINE:
        text = "sends its key and the data in the clear to another machine"
        part.warnings.append(Problem("SKD-R16", f"{key}.url", text, "use https, unless the network is your own"))
    return part

"""A chat template is a program of whoever made the tokenizer: before it runs here, it must come to an end elsewhere."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from skd.data.rows import Turn
from skd.errors import ModelError, Problem

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

__all__ = ["require_tame"]

logger = logging.getLogger(__name__)

SECONDS = 5
"""Of computing."""
WALL_SECONDS = 60
"""Of waiting, for systems without a limit on computing."""
BYTES = 1 << 30
SHAPES = 16
"""Conversations of different roles that are tried."""

_PROBE = Path(__file__).with_name("render_probe.py")


def require_tame(tokenizer: PreTrainedTokenizerBase, conversations: Sequence[Sequence[Turn]]) -> None:
    """Render one conversation of each shape in a child process, with a limit on time and memory.

    Raises ModelError (SKD-M10) for a template that does not end or wants more than 1 GiB, and (SKD-M08) for a tokenizer
    with several templates and no default. A template that writes the date is told of.
    """
    try:
        template = tokenizer.get_chat_template()
    except ValueError as error:
        found, remedy = str(error).splitlines()[0], "keep one template, or name one of them default"
        raise ModelError(Problem("SKD-M08", "data.chat", found, remedy)) from None
    if "strftime_now" in template:
        logger.warning("the chat template writes the date of today, so the same rows give other prompts tomorrow")
    shapes: dict[tuple[str, ...], Sequence[Turn]] = {}
    for turns in conversations:
        shapes.setdefault(tuple(turn.role for turn in turns), turns)
    tried = tuple(tuple((turn.role, turn.content) for turn in turns) for turns in list(shapes.values())[:SHAPES])
    tokens = {name: str(text) for name, text in tokenizer.special_tokens_map.items() if isinstance(text, str)}
    _probe(template, tried, tuple(tokens.items()))


@cache
def _probe(
    template: str, conversations: tuple[tuple[tuple[str, str], ...], ...], tokens: tuple[tuple[str, str], ...]
) -> None:
    messages = [[{"role": role, "content": content} for role, content in turns] for turns in conversations]
    task = {"template": template, "conversations": messages, "tokens": dict(tokens), "seconds": SECONDS, "bytes": BYTES}
    command, content = [sys.executable, str(_PROBE)], json.dumps(task)
    try:
        done = subprocess.run(command, input=content, capture_output=True, text=True, check=False, timeout=WALL_SECONDS)
        ended = done.returncode == 0
    except subprocess.TimeoutExpired:
        ended = False
    if not ended:
        found = f"the chat template computes longer than {SECONDS} s or wants more memory than 1 GiB"
        remedy = "set data.chat to never, or take a tokenizer whose template you trust"
        raise ModelError(Problem("SKD-M10", "data.chat", found, remedy))

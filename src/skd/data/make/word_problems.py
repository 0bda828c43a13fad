"""Arithmetic word problems with worked solutions: reasoning-gym's ``gsm_symbolic``.

Its templates follow GSM-Symbolic (Mirzadeh et al. 2024, arXiv 2410.05229). Some of its solutions are wrong, or rounded
where the text says nothing of it; rows whose equations do not hold are left out.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from importlib.metadata import version
from typing import Any

from skd.data.make.chains import follows
from skd.data.make.items import Item, Source
from skd.errors import ConfigError, Problem

__all__ = ["problems", "require_reasoning_gym"]

BLOCK = 2_000
MOST = 200_000
"""Draws after which a split that is still not full is left as it is."""
_URL = "https://github.com/open-thought/reasoning-gym"
_SUFFIX = " Give the result as your final answer. Do not include units."
_LONG_DECIMALS = re.compile(r"\.\d{4}")
"""Left from floating point; nobody would write them."""


def require_reasoning_gym() -> str:
    """The version of reasoning-gym. Raises ConfigError (SKD-C10) when it is not installed."""
    try:
        import reasoning_gym  # noqa: F401
    except ImportError:
        remedy = "pip install 'skd[data]', or pip install reasoning-gym"
        raise ConfigError(Problem("SKD-C10", "", "this task needs reasoning-gym, which is missing", remedy)) from None
    return version("reasoning-gym")


def problems(seed: int) -> Iterator[Item]:
    """Items with ``question`` and ``answer``, grouped by template; the answer ends ``#### N``."""
    source = Source(f"reasoning-gym {require_reasoning_gym()}, gsm_symbolic", "Apache-2.0", _URL)
    for template, entry in _draws(seed):
        chain, answer = entry["metadata"]["answer_cot"], entry["answer"]
        if follows(chain, answer) and not _LONG_DECIMALS.search(chain):
            question = entry["question"].removesuffix(_SUFFIX)
            fields = {"question": question, "answer": _one_paragraph(chain, answer)}
            yield Item(fields, f"gsm_symbolic {template}", source, f"template {template}")


def _draws(seed: int) -> Iterator[tuple[int, dict[str, Any]]]:
    import reasoning_gym

    for block in range(MOST // BLOCK):
        # Entry i is drawn from seed + i: blocks that far apart do not repeat each other.
        drawn = reasoning_gym.create_dataset("gsm_symbolic", size=BLOCK, seed=seed * MOST + block * BLOCK)
        yield from zip(drawn.task_indices, drawn, strict=True)


def _one_paragraph(chain: str, answer: str) -> str:
    """The task stops a response at an empty line, so the reference has none."""
    lines = [line.strip() for line in chain.splitlines() if line.strip() and not line.startswith("####")]
    return "\n".join([*lines, f"#### {answer}"])

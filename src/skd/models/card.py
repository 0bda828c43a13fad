"""The model card of an exported student: Markdown with the front matter that the Hub reads."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import PurePath
from typing import Any

import yaml

from skd.text import shortened, visible

__all__ = ["model_card"]

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")


def model_card(provenance: Mapping[str, Any], metrics: Mapping[str, Any]) -> str:
    """Markdown of a card: how the student was made (``provenance``) and what was measured (``metrics``).

    Both may nest; nested keys are joined by dots. ``base_model`` is named in the front matter when
    ``provenance["student"]`` (as ``Pair.provenance`` has it) holds a Hub id as ``path`` and its commit as ``revision``,
    so that a local path never claims to be a Hub id; of a local path the card shows the last name only.
    Values stand in code spans: nothing in them acts as Markdown, HTML or a link.
    Source of the front matter: https://huggingface.co/docs/hub/model-cards.
    """
    front = yaml.safe_dump(_front_matter(provenance), sort_keys=False, allow_unicode=False)
    parts = [
        f"---\n{front}---",
        "# Student distilled with skd",
        "A small language model trained to match a larger teacher with the `skd` library. It is a plain transformers "
        "directory: `AutoModelForCausalLM.from_pretrained(path)` loads it.",
        "## How it was made",
        _table(provenance) or "Nothing was recorded.",
        "## What was measured",
        _table(metrics) or "Nothing was measured.",
        "## Limits",
        "A student inherits the licence terms, errors and biases of its teacher, its starting weights and its data. "
        "Scores hold for the task, decoding settings and number of items named above.",
    ]
    return "\n\n".join(parts) + "\n"


def _front_matter(provenance: Mapping[str, Any]) -> dict[str, Any]:
    front: dict[str, Any] = {}
    student = provenance.get("student")
    if isinstance(student, Mapping) and _is_hub_model(student):
        front["base_model"] = str(student["path"])
    method = provenance.get("method")
    tags = ["skd", "knowledge-distillation"] + ([visible(str(method))] if method and method != "skd" else [])
    return {**front, "library_name": "transformers", "pipeline_tag": "text-generation", "tags": tags}


def _is_hub_model(model: Mapping[str, Any]) -> bool:
    return bool(model.get("revision")) and _HUB_ID.fullmatch(str(model.get("path", ""))) is not None


def _table(values: Mapping[str, Any]) -> str:
    rows = [f"| {_code(key)} | {_code(value)} |" for key, value in _flat(values)]
    return "\n".join(["| | |", "|---|---|", *rows]) if rows else ""


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    for key, value in values.items():
        if key == "path" and not _is_hub_model(values):
            yield f"{prefix}{key}", PurePath(str(value)).name
        elif isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        elif value is not None:
            yield f"{prefix}{key}", f"{value:.6g}" if isinstance(value, float) else str(value)


def _code(text: str) -> str:
    """A code span of one line, inside a table cell, whatever backticks and bars the text holds."""
    line = visible(shortened(text, 500)).replace("\n", "\\n").replace("\t", "\\t").replace("|", "\\|")
    fence = "`" * (1 + max((len(run) for run in re.findall("`+", line)), default=0))
    return f"{fence} {line} {fence}"

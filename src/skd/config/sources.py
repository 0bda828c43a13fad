"""Where prompts and references come from: the ``data`` section of a config file."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from skd.config.fields import Count, PathText, Section, Seed, Text, path_from_text

__all__ = ["DataConfig", "DataSource", "FileSource", "TaskSource"]


class FileSource(Section):
    """Rows from a JSON, JSON Lines, CSV or Parquet file."""

    kind: Literal["file"] = "file"
    """file, or task for generated rows."""
    path: PathText
    """The file."""
    prompt_field: Text = "prompt"
    """Key of the prompt in a row."""
    response_field: Text | None = "response"
    """Key of the reference response in a row; null when the rows have none."""
    field: Text | None = None
    """Key of a JSON object that holds the list of rows, such as instances."""
    limit: Count | None = None
    """Read at most this many rows."""


class TaskSource(Section):
    """Rows that the package generates itself."""

    kind: Literal["task"]
    """task, or file for rows of a file."""
    name: Literal["number_words", "dialogue"]
    """The task."""
    split: Literal["train", "validation", "test"]
    """Which part of the task; the parts share no row."""
    size: Count
    """Number of rows."""
    seed: Seed = 0
    """Chooses the rows."""


def _source_from_text(value: Any) -> Any:
    value = path_from_text(value)
    return {"kind": "file", **value} if isinstance(value, Mapping) and "kind" not in value else value


DataSource = Annotated[FileSource | TaskSource, Field(discriminator="kind"), BeforeValidator(_source_from_text)]
"""A file or a task; a plain string is the path of a file."""


class DataConfig(Section):
    """Prompts and references."""

    train: DataSource
    """Rows to train on."""
    validation: DataSource | None = None
    """Rows for validation; null for none."""
    chat: Literal["auto", "always", "never"] = "auto"
    """Use the tokenizer's chat template: auto uses it where there is one."""
    system: Text | None = None
    """System message of the chat template."""
    max_prompt_tokens: Count = 1024
    """Longest prompt."""
    on_long_prompt: Literal["error", "skip", "truncate_left"] = "error"
    """What happens to a longer one."""

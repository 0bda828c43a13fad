"""Where prompts and references come from: the ``data`` section of a config file."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    SerializerFunctionWrapHandler,
    WrapSerializer,
    model_validator,
)
from pydantic_core import PydanticCustomError

from skd.config.fields import Count, HubId, InRange, PathText, Real, Section, Seed, Text, not_empty, path_from_text

__all__ = [
    "PROMPT",
    "RESPONSE",
    "DataConfig",
    "DataSource",
    "FileSource",
    "HubSource",
    "ResponsesSource",
    "Sources",
    "TaskSource",
]

PROMPT, RESPONSE = "prompt", "response"
"""The fields of a row that are looked for when the config names no others."""

_SourceShare = Annotated[Real, AfterValidator(InRange(0, 1, open_low=True))]


class _Shape(Section):
    """What the rows of a file or of a Hub data set look like."""

    prompt_field: Text = PROMPT
    """Key of the prompt in a row. Rows without prompt may have instruction, dialogue or messages instead."""
    response_field: Text | None = RESPONSE
    """Key of the reference response in a row; null when the rows have none."""
    messages_field: Text | None = None
    """Key of a list of {role, content}, instead of prompt and response."""
    task: Text | None = None
    """Read rows as a task does: gsm8k, dialogsum, translation, math, or a file with a task of your own."""
    limit: Count | None = None
    """Read at most this many rows."""
    share: _SourceShare = 1.0
    """Share of the rows that is used, from the first row on."""

    @model_validator(mode="after")
    def _one_form(self) -> _Shape:
        for key, value, usual in (
            ("prompt_field", self.prompt_field, PROMPT),
            ("response_field", self.response_field, RESPONSE),
        ):
            for other in ("messages_field", "task"):
                if getattr(self, other) is not None and value != usual:
                    found = {"key": key, "other": other, "remedy": f"remove {key}"}
                    raise PydanticCustomError("idle_key", "{key} is given and {other} is too", found)
        return self


class _File(Section):
    kind: Literal["file"] = "file"
    """file; hub for a data set of the Hub, task for generated rows."""
    path: PathText
    """The file."""
    field: Text | None = None
    """Key of a JSON object that holds the list of rows; instances is found without it."""


class _Hub(Section):
    kind: Literal["hub"]
    """hub; file for rows of a file, task for generated rows."""
    id: HubId
    """Id of the data set, such as openai/gsm8k."""
    config: Text | None = None
    """Configuration of the data set, where it has several."""
    split: Text = "train"
    """Split of the data set."""
    revision: Text | None = None
    """Commit, tag or branch; a commit pins the rows. null: the newest."""


TaskName = Literal["number_words", "dialogue", "toy_translation", "sums"]
"""The tasks whose rows the package generates."""


# The keys of the last base come first: where the rows are, then what they look like.
class FileSource(_Shape, _File):
    """Rows from a JSON, JSON Lines, CSV or Parquet file."""


class HubSource(_Shape, _Hub):
    """Rows of a data set on the Hugging Face Hub; data files only, no script of it is run."""


class TaskSource(Section):
    """Rows that the package generates itself."""

    kind: Literal["task"]
    """task; file for rows of a file, hub for a data set of the Hub."""
    name: TaskName
    """The task."""
    split: Literal["train", "validation", "test"]
    """Which part of the task; the parts share no row."""
    size: Count
    """Number of rows."""
    seed: Seed = 0
    """Chooses the rows."""
    share: _SourceShare = 1.0
    """Share of the rows that is used, from the first row on."""


class ResponsesSource(Section):
    """Responses that skd generate stored, with their authors and, where they hold it, what the teacher thought."""

    kind: Literal["responses"]
    """responses, as token ids."""
    path: PathText
    """Directory that skd generate --to wrote."""


DataSource = Annotated[
    FileSource | HubSource | TaskSource | ResponsesSource,
    Field(discriminator="kind"),
    BeforeValidator(lambda value: path_from_text(value, kind="file")),
]
"""A file, a data set of the Hub, a task or stored responses; a plain string is the path of a file."""


def _list_of_one(value: Any) -> Any:
    return value if isinstance(value, (list, tuple)) else [value]


def _responses_alone(sources: tuple[DataSource, ...]) -> tuple[DataSource, ...]:
    # Token ids as they are and text that is yet to be encoded are not one set.
    if len(sources) > 1 and any(source.kind == "responses" for source in sources):
        expected = "stored responses alone, or a list of other sources"
        raise PydanticCustomError("bad_value", "{expected}", {"expected": expected})
    return sources


def _alone(value: Sequence[Any], dump: SerializerFunctionWrapHandler) -> Any:
    dumped = dump(value)
    return dumped[0] if len(dumped) == 1 else dumped


Sources = Annotated[
    tuple[DataSource, ...],
    AfterValidator(_responses_alone),
    AfterValidator(not_empty),
    BeforeValidator(_list_of_one),
    WrapSerializer(_alone),
]
"""One source or a list of them, whose rows follow one another; written as it is given."""


class DataConfig(Section):
    """Prompts and references."""

    train: Sources
    """Rows to train on: one source, or a list of them, whose rows the order of the run mixes."""
    validation: Sources | None = None
    """Rows for validation; null for none."""
    on_bad_row: Literal["error", "skip"] = "error"
    """What happens to a row that cannot be read: all are listed, and the run stops or goes on without them."""
    on_empty: Literal["error", "keep"] = "error"
    """Empty prompts and responses are an error, or kept: an empty response teaches to end at once."""
    on_leak: Literal["warn", "error"] = "warn"
    """What happens when validation rows are training rows too."""
    chat: Literal["auto", "always", "never"] = "auto"
    """Use the tokenizer's chat template: auto uses it where there is one."""
    system: Text | None = None
    """System message of the chat template, for rows that have none of their own."""
    train_on: Literal["last", "all"] = "last"
    """Which assistant turns of a conversation are learned from; all starts the response at the first one."""
    max_prompt_tokens: Count = 1024
    """Longest prompt."""
    on_long_prompt: Literal["error", "skip", "truncate_left"] = "error"
    """What happens to a longer one."""
    teacher_prompt: Annotated[Text, Field(min_length=1)] | None = None
    """What the teacher reads instead of the prompt, such as "{prompt} The answer is {response}."; null: the same."""

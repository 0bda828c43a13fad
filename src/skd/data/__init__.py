"""Rows in, batches of prompts out: tasks and files, chat templates, order, micro-batches.

Importing this package imports no torch; ``encode_prompts`` does when it is first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from skd.data.batching import micro_batches
from skd.data.file_tasks import FILE_TASKS, FileTask, Shape
from skd.data.order import batch_at, order
from skd.data.own_tasks import find_task
from skd.data.prompt_template import Template
from skd.data.rows import Row
from skd.data.sources import load_rows
from skd.data.tasks import TASKS, Task

if TYPE_CHECKING:
    from skd.data.chat import encode_prompts

__all__ = [
    "FILE_TASKS",
    "TASKS",
    "FileTask",
    "Row",
    "Shape",
    "Task",
    "Template",
    "batch_at",
    "encode_prompts",
    "find_task",
    "load_rows",
    "micro_batches",
    "order",
]


def __getattr__(name: str) -> Any:
    if name == "encode_prompts":
        from skd.data.chat import encode_prompts

        return encode_prompts
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

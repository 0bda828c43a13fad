"""What is said of a chat template before it is used. It is rendered by ``skd.rendering``, in a process of its own."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from skd.errors import ModelError, Problem

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

__all__ = ["require_template"]

logger = logging.getLogger(__name__)


def require_template(tokenizer: PreTrainedTokenizerBase) -> None:
    """The tokenizer has one template to use. One that writes the date is told of.

    Raises ModelError (SKD-M08) for a tokenizer with several templates and no default.
    """
    try:
        template = tokenizer.get_chat_template()
    except ValueError as error:
        found, remedy = str(error).splitlines()[0], "keep one template, or name one of them default"
        raise ModelError(Problem("SKD-M08", "data.chat", found, remedy)) from None
    if "strftime_now" in template:
        logger.warning("the chat template writes the date of today, so the same rows give other prompts tomorrow")

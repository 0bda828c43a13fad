"""Config files of the code published with the paper: read as they are and said in our terms."""

from __future__ import annotations

import logging

from skd.config.document import Document
from skd.config.legacy import handbook, kd_train

__all__ = ["in_our_terms"]

logger = logging.getLogger(__name__)


def in_our_terms(document: Document) -> Document:
    """The document itself, or its translation; keys that change nothing are said once, with what to do instead."""
    if kd_train.is_kd_train(document.data):
        translation = kd_train.translate(document)
    elif handbook.is_handbook(document.data):
        translation = handbook.translate(document)
    else:
        return document
    for note in translation.notes:
        logger.warning("%s", note)
    return translation.new

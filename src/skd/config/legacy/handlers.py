"""The handlers that both kinds of file share."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from skd.config.document import KeyPath
from skd.config.legacy.translation import Handler, Translation

__all__ = ["chosen", "moved", "unread", "used_elsewhere"]


def moved(path: str) -> Handler:
    """The value goes to ``path`` as it is."""

    def handle(translation: Translation, source: KeyPath, value: Any) -> None:
        translation.put(path, value, source)

    return handle


def chosen(path: str, values: Mapping[object, object]) -> Handler:
    """The value goes to ``path`` through a table; one that is not in it is refused."""

    def handle(translation: Translation, source: KeyPath, value: Any) -> None:
        if isinstance(value, (str, bool, int, float)) and value in values:
            translation.put(path, values[value], source)
        else:
            expected = ", ".join(map(str, values))
            translation.refuse(source, f"is {value!r:.40}, expected one of {expected}", "choose one of them", "SKD-C05")

    return handle


def unread(text: str) -> Handler:
    """The key changes nothing; ``text`` says why, or what to do instead."""

    def handle(translation: Translation, source: KeyPath, value: Any) -> None:
        translation.note(source, f"is not read: {text}")

    return handle


def used_elsewhere(translation: Translation, source: KeyPath, value: Any) -> None:
    """Read together with another key."""

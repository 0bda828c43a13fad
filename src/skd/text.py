"""Text from models, data and files, made safe to look at: what hides or moves other text is shown as an escape."""

from __future__ import annotations

import re

__all__ = ["shortened", "visible"]

# Joiners U+200C and U+200D stay: Assamese, Persian and emoji need them to be read at all.
_HIDDEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f"  # control characters, tab and newline apart
    "\xad\u061c\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff"  # invisible, line breaks, direction
    "\ud800-\udfff\ufdd0-\ufdef\ufff9-\ufffb\ufffe\uffff"  # surrogates, non-characters, annotations
    "\U000e0000-\U000e0fff]"  # tags: a whole hidden alphabet
)


def visible(text: str) -> str:
    r"""``text`` with control, direction and other hidden characters as escapes such as ``\x1b`` and ``\u202e``.

    Newline, tab and everything that has a shape of its own stay. The result can be encoded as UTF-8.
    """
    return _HIDDEN.sub(_escape, text)


def shortened(text: str, limit: int) -> str:
    """``text`` of at most ``limit`` characters, followed by the count of those left out when there are any."""
    left_out = len(text) - limit
    return text if left_out <= 0 else f"{text[:limit]} … ({left_out:,} more characters)"


def _escape(match: re.Match[str]) -> str:
    code = ord(match.group())
    if code < 0x100:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"

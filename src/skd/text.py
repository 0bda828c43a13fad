"""Text at the ends of the product: made safe to look at, and written whole or not at all."""

from __future__ import annotations

import contextlib
import errno
import os
import re
from collections.abc import Iterator
from pathlib import Path

from skd.errors import Problem, ResourceError

__all__ = ["require_writable", "shortened", "visible", "write_text"]

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


def write_text(path: Path, text: str) -> Path:
    """Replace the file at ``path``, making its directory: a reader meets the old file or the new one, never a part.

    Returns ``path``. Raises ResourceError when it cannot be written.
    """
    with _beside(path) as beside:
        with open(beside, "w", encoding="utf-8", newline="\n") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(beside, path)
    return path


def require_writable(path: Path) -> None:
    """Find out before long work that ``write_text`` would refuse ``path``; a file that is there is left as it is.

    Raises ResourceError.
    """
    with _beside(path) as beside:
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        beside.touch()


@contextlib.contextmanager
def _beside(path: Path) -> Iterator[Path]:
    """A temporary name in the directory of ``path``, which is made; gone afterwards."""
    beside = path.with_name(f".tmp-{path.name}-{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield beside
    except OSError as error:
        found = f"cannot be written ({error.strerror})"
        raise ResourceError(
            Problem("SKD-H09", str(path), found, "name a path that can be written, with room")
        ) from error
    finally:
        with contextlib.suppress(OSError):
            beside.unlink(missing_ok=True)


def _escape(match: re.Match[str]) -> str:
    code = ord(match.group())
    if code < 0x100:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"

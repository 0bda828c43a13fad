"""Responses on a terminal: each token in the colour of its author, hidden characters visible."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from skd.text import visible

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

__all__ = ["coloured_response", "legend", "terminal", "visible"]

# Indexed by author (types.DATA, STUDENT, TEACHER). The underline tells the teacher's tokens apart without colours, too.
_STYLES = ("", "green", "magenta underline")
_NAMES = ("data", "student", "teacher (replacement)")


def coloured_response(pieces: Sequence[str], authors: Sequence[int]) -> Text:
    """The response as rich text.

    Args:
        pieces: text of each token, L of them.
        authors: who wrote each (0 data set, 1 student, 2 teacher), L of them.

    Raises:
        ValueError: when the lengths differ.
    """
    from rich.text import Text

    text = Text()
    for piece, author in zip(pieces, authors, strict=True):
        text.append(visible(piece), _STYLES[author])
    return text


def legend() -> Text:
    """One line that names the author of each style."""
    from rich.text import Text

    parts = [Text(name, style) for name, style in zip(_NAMES, _STYLES, strict=True)]
    return Text("  ").join(parts)


def terminal(no_color: bool = False) -> Console:
    """Standard output for rich: plain when it is no terminal, without colours when NO_COLOR is set or asked."""
    from rich.console import Console

    class Terminal(Console):
        def on_broken_pipe(self) -> None:
            # Called while the error is handled. rich would exit with 1; skd.cli knows what a reader who left means.
            raise

    return Terminal(no_color=True if no_color else None, highlight=False, markup=False, soft_wrap=True, emoji=False)

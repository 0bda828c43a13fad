"""Summaries from Debian's package lists: a package's long description and the line by which its maintainer sums it up.

No dialogues: there are none with summaries that may be had offline. The task ``dialogsum`` reads them all the same.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from skd.data.make.items import Item, Source
from skd.data.make.machine import Machine

__all__ = ["descriptions_in", "summaries"]

LEAST_CHARACTERS, MOST_CHARACTERS = 120, 1_200
_PART = re.compile(
    r"\(.*\b(data|doc|documentation|debug\w*|development|headers?|libraries|plugin)\b.*\)$", re.IGNORECASE
)
"""Synopses that say which part of a program a package is, not what it does."""
_SOURCE = Source(
    "Debian package descriptions",
    "as the package described (free by the Debian Free Software Guidelines)",
    "https://packages.debian.org",
)


def summaries(machine: Machine) -> Iterator[Item]:
    """Items with ``dialogue`` (the long text) and ``summary``, grouped by the first paragraph.

    The packages made from one program share that paragraph; only the first of them is taken.
    """
    seen = set[str]()
    for path in machine.package_lists():
        for package, synopsis, text in descriptions_in(machine.read(path)):
            opening = text.split("\n", 1)[0].casefold()
            if opening not in seen and _is_summary(synopsis, text):
                seen.add(opening)
                yield Item({"dialogue": text, "summary": synopsis}, opening, _SOURCE, package)


def descriptions_in(text: str) -> Iterator[tuple[str, str, str]]:
    """(package, synopsis, long text) of every paragraph of a control file that has both; lists stay lines."""
    for paragraph in text.split("\n\n"):
        package = re.search(r"^Package: (\S+)$", paragraph, re.MULTILINE)
        found = re.search(r"^Description(?:-en)?: (\S[^\n]*)\n((?: [^\n]*(?:\n|$))+)", paragraph, re.MULTILINE)
        if package and found:
            yield package[1], found[1].strip(), _unwrapped(found[2])


def _unwrapped(lines: str) -> str:
    """One line per paragraph and per point of a list; " ." stands between paragraphs, points are indented further."""
    joined: list[str] = []
    new = True
    for line in lines.splitlines():
        point = line.startswith(("  ", " *", " -"))
        words = "" if line == " ." else " ".join(line.split())
        if words and (new or point or not joined):
            joined.append(words)
        elif words:
            joined[-1] += f" {words}"
        new = point or not words
    return "\n".join(joined)


def _is_summary(synopsis: str, text: str) -> bool:
    words = len(synopsis.split())
    return LEAST_CHARACTERS <= len(text) <= MOST_CHARACTERS and words >= 4 and not _PART.search(synopsis)

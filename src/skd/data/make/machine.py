"""Getting the sources: what is on this machine, and what apt and pip download into a folder of the caller's.

Nothing is installed, no package's script is run.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from skd.errors import DataError, Problem, RemoteError

__all__ = ["Machine"]

SECONDS = 300


class Machine:
    """This machine, with ``folder`` for what is downloaded; ``offline`` takes only what is there already."""

    LISTS = Path("/var/lib/apt/lists")
    INSTALLED = Path("/var/lib/dpkg/status")

    def __init__(self, folder: Path, offline: bool = False) -> None:
        self.folder = folder
        self.offline = offline

    def debian_package(self, name: str) -> Path | None:
        """The unpacked files of a Debian package; None where there is no apt, or it does not know the package."""
        folder = self.folder / name
        if not folder.is_dir() and self._can("apt-get", "dpkg"):
            download = self.folder / "debs" / name
            download.mkdir(parents=True, exist_ok=True)
            self._run(["apt-get", "download", "--quiet", name], download)
            for deb in sorted(download.glob("*.deb"))[-1:]:
                self._unpack(["dpkg", "-x", str(deb.resolve())], folder)
        return folder if folder.is_dir() else None

    def wheel(self, requirement: str, python_version: str) -> Path:
        """The wheel of ``NAME==VERSION``, without its dependencies.

        Raises RemoteError (SKD-D16) when pip does not get it.
        """
        name, _, version = requirement.partition("==")
        pattern = f"{name.replace('-', '_')}-{version}-*.whl"
        if not (found := sorted(self.folder.glob(pattern))) and not self.offline:
            self.folder.mkdir(parents=True, exist_ok=True)
            pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"]
            self._run([*pip, f"--python-version={python_version}", "--dest=.", requirement], self.folder)
            found = sorted(self.folder.glob(pattern))
        if not found:
            remedy = f"run pip download --no-deps {requirement} where there is a network, and put the wheel there"
            raise RemoteError(Problem("SKD-D16", str(self.folder), f"no wheel of {requirement}", remedy))
        return found[-1]

    def package_lists(self) -> list[Path]:
        """Files with long package descriptions, in English: apt's, or else those of the packages installed here.

        Raises DataError (SKD-D01) on a machine without dpkg.
        """
        mine = self.folder / "apt"
        found = _translations(mine) or _translations(self.LISTS)
        if not found and self._can("apt-get"):
            (mine / "partial").mkdir(parents=True, exist_ok=True)
            self._run(["apt-get", "-oAcquire::Languages=en", f"-oDir::State::Lists={mine.resolve()}", "update"], mine)
            found = _translations(mine)
        if not found and self.INSTALLED.is_file():
            found = [self.INSTALLED]
        if not found:
            remedy = "make the data on a Debian or Ubuntu machine and copy the files"
            raise DataError(Problem("SKD-D01", str(self.LISTS), "no package lists on this machine", remedy))
        return found

    def read(self, path: Path) -> str:
        """The text of a package list, which apt may have packed. Raises DataError (SKD-D02) when it cannot be read."""
        if not path.suffix:
            return path.read_text(encoding="utf-8", errors="replace")
        helper = ["/usr/lib/apt/apt-helper", "cat-file", str(path)]
        try:
            done = subprocess.run(helper, check=True, capture_output=True, timeout=SECONDS)
        except (subprocess.SubprocessError, OSError):
            problem = Problem("SKD-D02", str(path), "apt-helper cannot unpack it", "run apt-get update again")
            raise DataError(problem) from None
        return done.stdout.decode(errors="replace")

    def owners(self, paths: Sequence[Path]) -> dict[str, str]:
        """Path -> the Debian package that installed the file; files that none installed are missing."""
        if not paths or not shutil.which("dpkg"):
            return {}
        command = ["dpkg", "-S", *map(str, paths)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=False)
        found = (line.partition(": ") for line in done.stdout.splitlines())
        return {path: names.split(",")[0].split(":")[0] for names, _, path in found}

    def _can(self, *programs: str) -> bool:
        return not self.offline and all(shutil.which(program) for program in programs)

    def _run(self, command: Sequence[str], folder: Path) -> bool:
        try:
            subprocess.run(command, cwd=folder, check=True, capture_output=True, timeout=SECONDS)
        except (subprocess.SubprocessError, OSError):
            return False
        return True

    def _unpack(self, command: Sequence[str], folder: Path) -> None:
        """Unpack beside ``folder``, then rename: the folder is whole or not there."""
        beside = folder.with_name(f".{folder.name}.tmp")
        shutil.rmtree(beside, ignore_errors=True)
        if self._run([*command, str(beside.resolve())], folder.parent):
            beside.rename(folder)


def _translations(folder: Path) -> list[Path]:
    return sorted(folder.glob("*_Translation-en*")) if folder.is_dir() else []

"""The software and the machine: versions, GPUs, free memory. Nothing here makes a GPU context."""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from skd.check.report import Part
from skd.errors import ModelError, Problem

__all__ = ["Machine", "check_environment", "machine"]

MINIMUM = {"torch": (2, 10), "transformers": (5, 3), "jinja2": (3, 1, 6), "accelerate": (1, 10), "safetensors": (0, 5)}
"""Oldest versions without known holes that an untrusted model could use; SECURITY.md, rule 5."""
_CGROUP = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))


@dataclass(frozen=True)
class Machine:
    """What a run would have."""

    gpus: tuple[str, ...]
    """Names of the GPUs that the driver shows."""
    gpu_free: int | None
    """Free bytes of the first GPU; None without one."""
    ram_free: int
    """Bytes that a new process could use without swapping."""


def check_environment(part: Part, found: Machine) -> None:
    """Versions that are too old are errors (SKD-M12)."""
    part.facts.append(f"Python {platform.python_version()}")
    for package, minimum in MINIMUM.items():
        installed = _installed(package)
        if package in ("torch", "transformers"):
            part.facts.append(f"{package} {installed or 'missing'}")
        if installed is None or _numbers(installed) < minimum:
            part.errors.append(_too_old(package, installed, ".".join(map(str, minimum))))
    part.facts.append(", ".join(found.gpus) or "no GPU")
    part.facts.append(f"{size_text(found.ram_free)} of memory free")


def _too_old(package: str, installed: str | None, minimum: str) -> ModelError:
    found = f"is {installed}" if installed else "is not installed"
    remedy = f'run pip install "{package}>={minimum}"'
    return ModelError(Problem("SKD-M12", f"package {package}", f"{found}; {minimum} or newer is needed", remedy))


def _installed(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _numbers(text: str) -> tuple[int, ...]:
    """``2.13.0+cpu`` as (2, 13, 0)."""
    match = re.match(r"\d+(\.\d+)*", text)
    return tuple(int(number) for number in match.group().split(".")) if match else ()


def machine() -> Machine:
    """Asks the driver's own tool for GPUs, since torch would make a context to say how much is free."""
    lines = _nvidia_smi()
    gpus = tuple(line.rpartition(",")[0].strip() for line in lines)
    free = [int(line.rpartition(",")[2]) << 20 for line in lines]
    return Machine(gpus, free[0] if free else None, _ram_free())


def _nvidia_smi() -> list[str]:
    """``name, free MiB`` of each GPU."""
    program = shutil.which("nvidia-smi")
    if program is None or os.environ.get("CUDA_VISIBLE_DEVICES") == "":
        return []
    command = [program, "--query-gpu=name,memory.free", "--format=csv,noheader,nounits"]
    try:
        output = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return []
    return [line for line in output.splitlines() if line.rpartition(",")[2].strip().isdigit()]


def _ram_free() -> int:
    free = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    try:
        text = Path("/proc/meminfo").read_text(encoding="ascii")
        free = 1024 * int(text.partition("MemAvailable:")[2].split()[0])
    except (OSError, ValueError, IndexError):
        pass  # macOS: all memory that is built in
    for path in _CGROUP:
        try:
            free = min(free, int(path.read_text(encoding="ascii")))
        except (OSError, ValueError):
            continue
    return free


def size_text(num_bytes: float) -> str:
    """``1536`` as ``1.5 KiB``."""
    for unit in ("bytes", "KiB", "MiB", "GiB"):
        if num_bytes < 1024:
            return f"{num_bytes:.0f} {unit}" if unit == "bytes" or num_bytes >= 100 else f"{num_bytes:.1f} {unit}"
        num_bytes /= 1024
    return f"{num_bytes:.1f} TiB"

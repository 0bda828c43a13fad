"""Where and of what something was measured."""

from __future__ import annotations

import os
import platform
import subprocess
from datetime import datetime, timezone
from pathlib import Path

__all__ = ["described"]


def described() -> dict[str, str | int | None]:
    """Processor, cores, memory, Python, commit and date."""
    return {
        "processor": _after(Path("/proc/cpuinfo"), "model name"),
        "cores": os.cpu_count(),
        "memory": _after(Path("/proc/meminfo"), "MemTotal"),
        "python": platform.python_version(),
        "commit": _commit(),
        "date": datetime.now(timezone.utc).date().isoformat(),
    }


def _after(path: Path, key: str) -> str | None:
    lines = path.read_text().splitlines() if path.exists() else []
    return next((line.partition(":")[2].strip() for line in lines if line.startswith(key)), None)


def _commit() -> str | None:
    asked = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)
    return asked.stdout.strip() or None

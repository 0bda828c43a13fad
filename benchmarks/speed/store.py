"""The file of what was measured: each table with the machine and commit that it was measured on."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.speed.tables import Results

__all__ = ["Store"]


@dataclass
class Store:
    """Tables as they are measured, written after each, so that a stopped run keeps what it has."""

    path: Path | None
    plan: str
    tables: dict[str, dict[str, Any]] = field(default_factory=dict)

    @staticmethod
    def opened(path: Path | None, plan: str | None) -> Store:
        """With what the file has; a file of another plan is refused, unless None takes any."""
        if plan is not None and (path is None or not path.exists()):
            return Store(path, plan)
        assert path is not None
        values = json.loads(path.read_text())
        plan = plan or values["plan"]
        if values["plan"] != plan:
            raise SystemExit(f"{path} is of the plan {values['plan']}; name another file")
        return Store(path, plan, values["tables"])

    @property
    def results(self) -> Results:
        """Table -> contestant -> turns."""
        return {name: table["turns"] for name, table in self.tables.items()}

    def add(self, name: str, turns: Mapping[str, Any], machine: Mapping[str, Any]) -> None:
        """One more table, at once in the file."""
        self.tables[name] = {"machine": dict(machine), "turns": json.loads(json.dumps(turns))}
        if self.path is not None:
            beside = self.path.with_suffix(".part")
            beside.write_text(json.dumps({"plan": self.plan, "tables": self.tables}, indent=1) + "\n")
            beside.replace(self.path)

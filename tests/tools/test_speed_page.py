"""The tables of docs/speed.md from the file of a benchmark, and the file itself."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.speed.page import between, figure_lines, table_lines
from benchmarks.speed.plan import FULL, QUICK
from benchmarks.speed.store import Store
from benchmarks.speed.tables import GOALS, figures

MACHINE = {"commit": "abc1234", "date": "2026-11-24"}
TURNS = {
    "on_policy": [{"cpu": 1.0, "tokens": 100, "alpha": None, "peak_mb": 9.0, "rise_mb": 5.0}],
    "gkd": [{"cpu": cost, "tokens": 100, "peak_mb": 9.0, "rise_mb": 7.0} for cost in (1.0, 2.0, 4.0)],
}


def test_a_stopped_run_keeps_its_tables_and_their_commits(tmp_path: Path) -> None:
    path = tmp_path / "bench.json"
    Store.opened(path, "full").add("step_b8", TURNS, MACHINE)
    Store.opened(path, "full").add("step_b1", TURNS, {**MACHINE, "commit": "def5678"})
    store = Store.opened(path, None)
    assert store.plan == "full"
    assert {name: table["machine"]["commit"] for name, table in store.tables.items()} == {
        "step_b8": "abc1234",
        "step_b1": "def5678",
    }
    with pytest.raises(SystemExit, match="is of the plan full"):
        Store.opened(path, "quick")


def test_a_table_has_medians_range_and_commit_and_a_figure_its_goal() -> None:
    store = Store(None, "full")
    store.add("step_b8", TURNS, MACHINE)
    text = "\n".join(table_lines(store))
    assert "`step_b8`, commit abc1234, 2026-11-24:" in text
    assert "| gkd | 20.00 | 10.00 to 40.00 |  | 7 | 3 |" in text
    assert "| `on_policy_time_vs_trl_gkd_b8` | 0.50 | 0.8 or less | met |" in list(figure_lines(store))
    assert set(figures({})) == set(GOALS)


def test_only_what_stands_between_the_marks_is_replaced() -> None:
    page = "before\n<!-- quick -->\n\nold\n\n<!-- end of quick -->\nafter\n"
    new = between(page, "quick", "new")
    assert new == page.replace("old", "new")
    assert between(new, "quick", "new") == new
    with pytest.raises(SystemExit, match="no one place for full"):
        between(page, "full", "new")


def test_the_page_has_a_place_for_every_plan() -> None:
    page = Path("docs/speed.md").read_text(encoding="utf-8")
    for plan in ("quick", "full", "prediction"):
        between(page, plan, "new")


@pytest.mark.parametrize("plan", [QUICK, FULL], ids=lambda plan: plan.name)
def test_every_table_has_its_work_and_a_name_of_its_own(plan) -> None:
    names = [row.name for row in plan.rows]
    assert len(set(names)) == len(names)
    assert {row.work for row in plan.rows} == set(plan.works)

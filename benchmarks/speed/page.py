"""The tables and plots of docs/speed.md, written from what was measured.

    python -m benchmarks.speed.page bench.json quick.json prediction.json

Between ``<!-- PLAN -->`` and ``<!-- end of PLAN -->`` of docs/speed.md everything is replaced, where PLAN is the plan
of a file: full, quick or prediction. Each table names the commit and date of its own measurement. Plots go to
docs/results.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from benchmarks import plan_prediction
from benchmarks.speed.store import Store
from benchmarks.speed.tables import GOALS, acceptance, cost, figures, light

__all__ = ["between", "figure_lines", "table_lines"]

_DOCS = Path("docs")
_LENGTHS, _MEMORY = "length_", "memory_"


def main() -> None:
    page = _DOCS / "speed.md"
    for path in map(Path, sys.argv[1:]):
        store = Store.opened(path, None)
        lines = _prediction(store) if store.plan == "prediction" else [*table_lines(store), *figure_lines(store)]
        page.write_text(between(page.read_text(), store.plan, "\n".join(lines)))
        for name, svg in _plots(store):
            (_DOCS / "results" / f"{name}.svg").write_text(svg)


def between(page: str, name: str, text: str) -> str:
    """The page with ``text`` between the marks of ``name``; SystemExit where it has none."""
    begin, end = f"<!-- {name} -->\n", f"<!-- end of {name} -->"
    if page.count(begin) != 1 or page.count(end) != 1:
        raise SystemExit(f"docs/speed.md has no one place for {name}: {begin.strip()} ... {end}")
    before, rest = page.split(begin)
    return before + begin + "\n" + text.strip() + "\n\n" + end + rest.split(end)[1]


def table_lines(store: Store) -> Iterator[str]:
    """Every table as Markdown."""
    for name, table in store.tables.items():
        yield f"\n`{name}`, commit {table['machine']['commit']}, {table['machine']['date']}:\n"
        if "light" in table["turns"]:
            pieces = table["turns"]["light"][-1]
            found = ((alpha, *light(pieces, alpha)) for alpha in (0.5, 0.9))
            yield "; ".join(f"{ms:.2f} ms per token at alpha {alpha} (block {block})" for alpha, ms, block in found)
            continue
        yield "| | CPU ms per token | lowest to highest | alpha | memory rises by, MB | turns |"
        yield "|---|---|---|---|---|---|"
        for who, turns in table["turns"].items():
            costs = [1e3 * turn["cpu"] / turn["tokens"] for turn in turns]
            alpha, rise = acceptance(turns), max(turn["rise_mb"] for turn in turns)
            kept = "" if alpha is None else f"{alpha:.2f}"
            spread = f"{min(costs):.2f} to {max(costs):.2f}"
            yield f"| {who} | {cost(turns):.2f} | {spread} | {kept} | {rise:,.0f} | {len(turns)} |"


def figure_lines(store: Store) -> Iterator[str]:
    """The figures that could be taken, with their goals."""
    yield "\n| figure | measured | goal | |\n|---|---|---|---|"
    for name, value in figures(store.results).items():
        if value is not None:
            least, goal = GOALS[name]
            met = value >= goal if least else value <= goal
            border = f"{goal:g} or {'more' if least else 'less'}"
            yield f"| `{name}` | {value:.2f} | {border} | {'met' if met else 'missed'} |"


def _prediction(store: Store) -> Iterator[str]:
    where = {f"commit {table['machine']['commit']}, {table['machine']['date']}" for table in store.tables.values()}
    yield f"`python -m benchmarks.plan_prediction`, {'; '.join(sorted(where))}:\n"
    yield plan_prediction.table(store.results)


def _plots(store: Store) -> Iterator[tuple[str, str]]:
    """(name, SVG) of the cost by length and the memory by tokens, where there are two points."""

    def milliseconds(turns: Any) -> float:
        return cost(turns)

    def rise(turns: Any) -> float:
        return float(max(turn["rise_mb"] for turn in turns))

    wanted = (
        (_LENGTHS, "speed-length", milliseconds, "mean response tokens", "CPU milliseconds per response token"),
        (_MEMORY, "speed-memory", rise, "response tokens", "MB by which a training step raises the memory"),
    )
    for prefix, name, value, x_label, alt in wanted:
        tables = {
            int(table.removeprefix(prefix)): turns for table, turns in store.results.items() if table.startswith(prefix)
        }
        if len(tables) > 1:
            yield name, _plot(tables, value, name, x_label, alt)


def _plot(tables: Mapping[int, Mapping[str, Any]], value: Any, name: str, x_label: str, alt: str) -> str:
    from skd.report.plots import line_plot, standalone

    who = list(next(iter(tables.values())))
    series = {one: [(float(x), value(tables[x][one])) for x in sorted(tables)] for one in who}
    styles = {one: number for number, one in enumerate(who)}
    plot = line_plot(series, styles=styles, name=name, alt=alt, x_label=x_label)
    return standalone(plot, [(None, f"{alt}, by {x_label}"), *((styles[one], one) for one in who)])


if __name__ == "__main__":
    main()

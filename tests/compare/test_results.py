"""Tables from scores on disk: who wins, who ties, and how it is written."""

from __future__ import annotations

import json

import numpy as np
import pytest

from skd.compare.cells import Cell, cell_job, model_job
from skd.compare.page import page_of, write_plots
from skd.compare.plan import load_plan
from skd.compare.results import Contrast, tables
from skd.compare.run import Comparison, Finished
from skd.compare.wording import cells, grid, markdown, title
from tests.compare.plans import write_plan

METHODS = {
    name: {"method": "sft", "train.lr": lr} for name, lr in (("ref", 0.1), ("twin", 0.2), ("win", 0.3), ("bad", 0.4))
}
SHARES = {"ref": 0.5, "twin": 0.505, "win": 0.8, "bad": 0.1}
ITEMS = 400


def answers(share, seed):
    """Items have a difficulty of their own; students of different seeds differ in few of them."""
    ease = np.random.default_rng(0).random(ITEMS)
    return [float(one) for one in ease + 0.05 * np.random.default_rng(seed + 1).random(ITEMS) < share + 0.025]


def write_scores(job, scores):
    (job.directory / "items").mkdir(parents=True)
    (job.directory / "items" / "0.jsonl").write_text("".join(json.dumps({"score": one}) + "\n" for one in scores))


@pytest.fixture
def comparison(tmp_path):
    plan = load_plan(write_plan(tmp_path, methods=METHODS, reference="ref", seeds=[0, 1, 2]))
    found = Comparison(plan, tmp_path / "out")
    for method, share in SHARES.items():
        for seed in (0, 1, 2):
            job = cell_job(plan, found.stages, Cell("steps", "default", method, seed), plan.items("default"))
            write_scores(job, answers(share, seed))
            point = {"step": 2, "tokens": 100, "seconds": 2.0, "cpu_seconds": 1.0, "score": share}
            record = {"steps": 2, "tokens": 100, "seconds": 2.0, "cpu_seconds": 1.0, "teacher_flops": None}
            record |= {"curve": [point], "versions": {"skd": "1"}, "commit": "abc", "date": "2026-01-01"}
            found.cells.setdefault("steps", {}).setdefault(("default", method), []).append(Finished(job, record))
    job = model_job(found.stages, "default", "start", plan.cell("default", "ref").student, plan.items("default"))
    write_scores(job, [1.0, 0.0] * (ITEMS // 2))
    found.models["default", "start"] = Finished(job, {})
    return found


def test_wins_losses_and_ties(comparison):
    (table,) = tables(comparison)
    assert table.rows[0].method == "win"
    verdicts = {row.method: row.against_reference.verdict for row in table.rows if row.against_reference}
    assert verdicts == {"win": "a", "twin": "tie", "bad": "b"}
    assert {row.method: row.rank for row in table.rows} == {
        "win": "best",
        "twin": "behind",
        "ref": "behind",
        "bad": "behind",
    }
    assert len(table.pairs) == 6
    assert table.models == {"start": 0.5}


def test_all_pairs_pay_for_more_tests_than_those_with_the_reference(comparison):
    (table,) = tables(comparison)
    for row in table.rows:
        if row.against_reference is not None:
            pair = next(pair for pair in table.pairs if {pair.a, pair.b} == {row.method, "ref"})
            assert pair.p == pytest.approx(row.against_reference.p)
            assert pair.p_holm >= row.against_reference.p_holm


def test_a_method_without_all_its_seeds_is_left_out(comparison):
    comparison.cells["steps"]["default", "twin"].pop()
    (table,) = tables(comparison)
    assert [row.method for row in table.rows] == ["win", "ref", "bad"]


@pytest.mark.parametrize(
    ("p_holm", "over_seeds", "verdict"),
    [
        (0.01, (0.01, 0.2), "a"),
        (0.06, (0.01, 0.2), "tie"),
        (0.01, (-0.01, 0.2), "tie"),
        (0.01, None, "a"),
    ],
)
def test_a_win_needs_both_questions_answered(p_holm, over_seeds, verdict):
    one = Contrast("a", "b", 0.1, (0.05, 0.15), over_seeds, (0.1,), p_holm / 3, p_holm)
    assert one.verdict == verdict


def test_tables_as_text(comparison):
    (table,) = tables(comparison)
    assert title(table) == "default, equal steps: number_words, 400 items, 3 seeds, start 50.0 %"
    text = markdown(table)
    assert "| **win** |" in text
    assert "| ref | " in text
    assert "| wins | best |" in text
    assert len({line.count("|") for line in text.splitlines()[2:] if line}) == 1
    assert len(cells(table.rows[0])) == text.splitlines()[2].count("|") - 1
    assert grid(table).row_count == 4


def test_the_page_and_its_plots_come_from_the_cells(comparison, tmp_path):
    page = page_of(comparison, tables(comparison), "skd compare x")
    assert page.facts == {"commit": "abc", "date": "2026-01-01", "skd": "1"}
    assert (
        page.tables[0].lead
        == "win has the best mean, ahead of all others. Reference: ref. Dotted: start (50.0\u00a0%)."
    )
    assert [len(one.series) for one in page.curves] == [4, 4, 4]
    names = [path.name for path in write_plots(comparison, tmp_path / "plots")]
    assert names == [
        "default-score-by-response-tokens.svg",
        "default-score-by-seconds.svg",
        "default-score-by-CPU-seconds.svg",
    ]

"""The figures of ``make bench`` from what was measured."""

import pytest

from benchmarks.speed.tables import figures, light, printed

PIECES = {
    "batch": 2,
    "length": 10,
    "prefill": 1.0,
    "draft": 0.1,
    "judge": {"1": 0.5, "2": 0.6},
    "train": 3.0,
    "optimiser": 1.0,
}


def _turns(*costs: float, alpha: float | None = None) -> list[dict]:
    return [{"cpu": cost, "tokens": 10, "alpha": alpha, "peak_mb": 200.0, "rise_mb": 50.0} for cost in costs]


RESULTS = {
    "step_b8": {"skd_alpha5": _turns(1.0, 9.0, 2.0, alpha=0.5), "on_policy": _turns(1.0), "gkd": _turns(4.0, 4.0)},
    "light_b8": {"light": [PIECES]},
    "memory_512": {"supervised": _turns(1.0), "gkd_supervised": [{"rise_mb": 500.0}]},
}


def test_light_takes_the_cheapest_block_and_everything_that_is_done_once():
    """At half acceptance: 0.6 s for 1 token, or 0.8 s for 1.5; and 5 s for the 10 tokens of each of two rows."""
    cost, block = light(PIECES, 0.5)
    assert block == 2
    assert cost == pytest.approx(1000 * (0.8 / 1.5 + 0.5) / 2)
    assert light(PIECES, 0.0)[1] == 1


def test_figures_are_ratios_of_medians_and_none_where_nothing_was_measured():
    found = figures(RESULTS)
    assert found["skd_time_vs_trl_gkd_alpha5"] == 0.5
    assert found["on_policy_time_vs_trl_gkd_b8"] == 0.25
    assert found["skd_time_vs_light_alpha5"] == pytest.approx(200.0 / light(PIECES, 0.5)[0], abs=1e-3)
    assert found["memory_vs_trl_gkd_262k"] == 0.1
    assert found["skd_time_vs_trl_gkd_alpha9"] is None
    assert found["generate_speedup_vs_hf"] is None


def test_a_table_names_each_contestant_with_its_cost_and_acceptance():
    lines = printed("step_b8", RESULTS["step_b8"]).splitlines()
    assert lines[2].split()[:5] == ["skd_alpha5", "200.00", "100.00", "900.00", "0.50"]
    assert "at alpha 0.5 (block 2)" in printed("light_b8", RESULTS["light_b8"])

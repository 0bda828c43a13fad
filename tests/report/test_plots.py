"""Curves: gaps, lone points, huge and hostile series."""

import math
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from skd.report.figures import figure
from skd.report.plots import downsample, line_plot


def plot(points, **options):
    return line_plot({"a": points}, styles={"a": 0}, name="p", alt="a", **options)


def curves(svg):
    """Segments of each drawn curve: the number of separate pieces of its path."""
    paths = re.findall(r'<path d="([^"]*)"[^>]*stroke: var\(--s0\); stroke-width: 1.8', svg)
    return [path.count("M") for path in paths]


@pytest.mark.parametrize("points", [[], [(0, math.nan)], [(0, None), (1, math.inf)], [(math.nan, 1.0)]])
def test_nothing_finite_is_no_plot(points):
    assert plot(points) == ""
    assert figure("f", "Loss", {"a": points}, {"a": 0}) is None


def test_one_point_is_drawn_as_a_marker():
    assert plot([(5, 1.0)]).count("<use") >= plot([(5, 1.0), (6, 1.0)]).count("<use") - 10
    assert re.search(r"<use [^>]*fill: var\(--s0\)", plot([(5, 1.0)]))


@pytest.mark.parametrize("gap", [None, math.nan, math.inf, -math.inf, 1e300])
def test_a_gap_parts_the_line(gap):
    points = [(i, float(i % 7)) for i in range(20)]
    assert curves(plot(points)) == [1]
    assert curves(plot([*points[:9], (9, gap), *points[10:]])) == [2]


def test_a_lone_point_in_a_long_series_keeps_a_marker():
    points = [(i, 1.0 if i < 100 or i == 150 else math.nan) for i in range(200)]
    assert len(re.findall(r"<use [^>]*fill: var\(--s0\)", plot(points))) == 1


def test_downsampling_keeps_ends_order_and_extremes():
    points = [(i, math.sin(i / 5000)) for i in range(200_000)]
    points[123_456] = (123_456, 50.0)
    points[150_000] = (150_000, -50.0)
    x, y = downsample(points, 600)
    assert len(x) <= 600
    assert (np.diff(x) > 0).all()
    assert (y.max(), y.min()) == (50.0, -50.0)
    assert len(plot(points)) < 60_000


@settings(max_examples=50)
@given(st.lists(st.floats(allow_nan=True, allow_infinity=True) | st.none(), max_size=200), st.integers(2, 50))
def test_downsampling_never_invents(values, limit):
    x, y = downsample(list(enumerate(values)), limit)
    assert len(x) <= max(limit, 2)
    for step, value in zip(x, y, strict=True):
        assert math.isnan(value) or value == values[int(step)]


@settings(max_examples=8, deadline=None)
@given(st.lists(st.tuples(st.floats(), st.floats() | st.none()), max_size=5))
def test_any_numbers_can_be_plotted(points):
    svg = plot(points, percent=True)
    assert "nan" not in svg
    assert "inf" not in svg


def test_a_plot_holds_no_address_no_colour_of_its_own_and_says_what_it_is():
    svg = plot([(0, 0.1), (10, 0.9)], percent=True, references=[0.5])
    assert "http" not in svg
    assert not re.search("#[0-9a-f]{6}", svg)
    assert 'role="img" aria-label="a"' in svg
    assert "var(--s0)" in svg
    assert "%" in svg


def test_legend_says_what_is_not_drawn():
    series = {f"m{i}": [(0, float(i)), (1, 2.0)] for i in range(20)} | {"none": [(0, None)]}
    drawn = figure("f", "Loss", series, {label: i for i, label in enumerate(series)})
    assert (len(drawn.keys), drawn.left_out) == (14, 6)
    last = figure("f", "Loss", {"a": [(0, 1.0), (1, math.nan)]}, {"a": 0})
    assert last.keys[0].value == "not finite"


def test_a_users_matplotlib_settings_change_nothing():
    import matplotlib

    before = plot([(0, 1.0), (1, 2.0)])
    with matplotlib.rc_context({"lines.linewidth": 9, "font.size": 30, "text.usetex": True}):
        assert plot([(0, 1.0), (1, 2.0)]) == before
        assert matplotlib.rcParams["font.size"] == 30

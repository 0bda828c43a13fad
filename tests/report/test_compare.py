"""The page of a comparison shows who wins and who ties, whatever it is told, and draws its plots."""

import pytest

from skd.report.compare import drawn, render_comparison, write_comparison
from skd.report.plots import standalone
from tests.report.pages import PAYLOADS, Parsed, comparison_page
from tests.report.test_hostile import assert_safe

NBSP = "\u00a0"


def test_the_best_its_ties_and_the_reference_are_told_apart():
    text = Parsed(render_comparison(comparison_page("x"))).text
    for said in (
        "best",
        "tie with the best",
        "+10.0 wins",
        "+8.0 tie",
        "−2.0 to +18.0",
        "reference",
        f"70.0{NBSP}%",
        "p < 0.0001",
        "p = 0.2000",
    ):
        assert said in text
    assert "Not on this page" not in text


def test_seeds_and_the_models_at_the_start_are_marked():
    html = render_comparison(comparison_page("x"))
    assert html.count('class="seed" x1=') == 4
    assert html.count('class="mark" x1="99.00%"') == html.count('class="mark" x1="40.00%"') == 3


def test_a_page_without_curves_says_so():
    assert "score against cost: no measurement" in Parsed(render_comparison(comparison_page("x", curves=[]))).text


@pytest.mark.parametrize("payload", PAYLOADS)
def test_hostile_names_stay_text(payload):
    html = render_comparison(comparison_page(payload))
    parsed = Parsed(html)
    assert parsed.structure == Parsed(render_comparison(comparison_page("x"))).structure
    assert_safe(parsed, html)


def test_the_page_is_written(tmp_path):
    assert write_comparison(comparison_page("x"), tmp_path / "page.html").read_text().startswith("<!doctype html>")


def test_a_plot_stands_alone_with_its_legend_and_both_themes():
    (figure,) = drawn(comparison_page("<b>").curves)
    svg = standalone(figure.plot, [(key.style, key.label) for key in figure.keys])
    assert svg.startswith("<svg ")
    assert 'xmlns="http://www.w3.org/2000/svg"' in svg
    assert "prefers-color-scheme: dark" in svg
    assert "a &lt;b&gt;" in svg
    assert "--s0:" in svg
    assert "<b>" not in svg

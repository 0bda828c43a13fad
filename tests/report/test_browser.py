"""The pages in a real browser: no complaint, no request, hover and slider work, nothing overflows on a phone."""

import pytest

from skd.report import write, write_quickstart
from tests.report.browser import CHROMIUM, Browser
from tests.report.pages import quickstart_page, run_directory, token_data, write_tokens

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium, chromium-browser or google-chrome on the path")

LONG = "averyveryverylongwordwithoutanyspaceinit" * 4


@pytest.fixture(scope="module")
def browser():
    with Browser() as running:
        yield running


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    """Paths by name; all with long words in every field."""
    directory = tmp_path_factory.mktemp("pages")
    runs = [run_directory(directory / f"run-{number}", LONG) for number in range(3)]
    for run in runs:
        for step in (4, 6, 9):
            write_tokens(run, token_data(f"{LONG} {step}" if step == 9 else LONG, step))
    return {
        "one": write(runs[0]),
        "several": write(runs, directory / "several.html"),
        "quickstart": write_quickstart(quickstart_page(LONG), directory / "quickstart.html"),
    }


VISIBLE = "Array.from(document.querySelectorAll('.stack .frame.on .tally'), e => e.firstChild.textContent)"


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1200])
@pytest.mark.parametrize("name", ["one", "several", "quickstart"])
def test_no_complaint_no_request_and_nothing_overflows(browser, pages, name, width, scheme):
    browser.messages.clear()
    browser.requests.clear()
    browser.open(pages[name], width, scheme=scheme, touch=width == 390)
    browser.value("document.querySelectorAll('details').forEach(e => { e.open = true; })")
    assert browser.value("[document.documentElement.scrollWidth, document.body.scrollWidth]") == [width, width]
    outside = (
        "Array.from(document.querySelectorAll('main *')).filter(e => e.checkVisibility() && !e.closest('thead, pre')"
        " && e.getBoundingClientRect().right > document.documentElement.clientWidth + 1).map(e => e.outerHTML)"
    )
    assert browser.value(outside) == []
    assert browser.messages == []
    assert browser.requests == [f"file://{pages[name]}"]


def test_light_and_dark_differ_and_text_stands_out(browser, pages):
    colours = []
    for scheme in ("light", "dark"):
        browser.open(pages["one"], 1200, scheme=scheme)
        style = "getComputedStyle(document.body)"
        colours.append(
            browser.value(f"[{style}.backgroundColor, {style}.color].map(c => c.match(/\\d+/g).map(Number))")
        )
    (light, light_ink), (dark, dark_ink) = colours
    assert min(light) - max(light_ink) > 150
    assert min(dark_ink) - max(dark) > 150


@pytest.mark.parametrize("name", ["one", "several", "quickstart"])
def test_pointing_at_a_token_shows_both_models(browser, pages, name):
    browser.open(pages[name], 1200)
    card = "document.getElementById('card')"
    assert browser.value(f"{card}.hidden")
    browser.mouse(".frame.on .tokens > .t:nth-of-type(2)")
    text = browser.value(f"{card}.innerText")
    for part in ("written by the teacher", "divergence 1.500 nats", "Teacher's top 5", "Student's top 5", "75.0 %"):
        assert part in text
    inside = f"(r => [r.left >= 0, r.right <= innerWidth, r.bottom <= innerHeight])({card}.getBoundingClientRect())"
    assert browser.value(inside) == [True, True, True]
    browser.key("Escape")
    assert browser.value(f"{card}.hidden")


def test_tokens_can_be_walked_with_the_keyboard(browser, pages):
    browser.open(pages["one"], 1200)
    browser.value("document.querySelector('.frame.on .tokens > .t').focus()")
    browser.key("ArrowRight")
    assert browser.value("document.activeElement.textContent") == "b"
    assert "divergence 1.500" in browser.value("document.getElementById('card').innerText")


@pytest.mark.parametrize("name", ["one", "several"])
def test_the_slider_goes_through_training(browser, pages, name):
    browser.open(pages[name], 1200)
    assert set(browser.value(VISIBLE)) == {"step 0"}
    height = browser.value("document.querySelector('.responses').offsetHeight")
    browser.value("document.querySelector('.when').focus()")
    for expected in ("step 2", "step 4", "step 6"):
        browser.key("ArrowRight")
        assert set(browser.value(VISIBLE)) == {expected}
        assert browser.value("document.querySelector('.when').getAttribute('aria-valuetext')").startswith(expected)
    assert browser.value("document.querySelector('.responses').offsetHeight") == height
    browser.mouse(".moment[data-at='1']", "click")
    assert set(browser.value(VISIBLE)) == {"step 2"}
    # The details belong to the response that is seen, not to the first one.
    browser.mouse(".frame.on .tokens > .t")
    assert "written by the student" in browser.value("document.getElementById('card').innerText")


def test_play_runs_to_the_end_and_stops(browser, pages):
    browser.open(pages["one"], 1200)
    browser.mouse(".play", "click")
    ended = (
        "new Promise(done => { const timer = setInterval(() => {"
        " if (document.querySelector('.play.playing')) return;"
        " clearInterval(timer); done(document.querySelector('.when').value); }, 50); })"
    )
    assert browser.value("document.querySelector('.play').classList.contains('playing')")
    assert browser.value(ended) == "4"


def test_shading_by_divergence(browser, pages):
    browser.open(pages["one"], 1200)
    colour = "getComputedStyle(document.querySelector('.frame.on .t.d4')).backgroundColor"
    before = browser.value(colour)
    browser.mouse(".by-divergence", "click")
    assert browser.value(colour) != before


def test_without_script_the_first_step_is_there(browser, pages):
    browser.call("Emulation.setScriptExecutionDisabled", value=True)
    try:
        browser.open(pages["one"], 1200, script=False)
        assert set(browser.value(VISIBLE)) == {"step 0"}
    finally:
        browser.call("Emulation.setScriptExecutionDisabled", value=False)


def test_a_complaint_would_be_heard(browser, tmp_path):
    page = tmp_path / "bad.html"
    policy = "default-src 'none'"
    page.write_text(
        f'<meta charset="utf-8"><meta http-equiv="Content-Security-Policy" content="{policy}">'
        '<img src="x.png"><script>1</script><pre>' + "x" * 500
    )
    browser.messages.clear()
    browser.open(page, 390)
    assert len(browser.messages) >= 2
    assert browser.value("document.documentElement.scrollWidth") > 390

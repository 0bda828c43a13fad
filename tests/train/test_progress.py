import contextlib
import io
import os
import subprocess
import sys

import pytest
from rich.console import Console

from skd.train.progress import Display

METRICS = {"loss": 0.12345, "acceptance_rate": 0.5, "tokens_per_second": 1234.5}


def shown(show, *, terminal=False, enabled=True):
    file = io.StringIO()
    console = Console(
        file=file, force_terminal=terminal, width=100 if terminal else 20, color_system="standard" if terminal else None
    )
    display = Display(enabled=enabled, console=console)
    with display.running(10, 4):
        show(display)
    return file.getvalue()


def test_without_a_terminal_there_is_one_plain_line_per_step():
    assert shown(lambda display: display.step(5, METRICS)) == (
        "step 5/10  loss 0.1235  acceptance 50.0%  1,234 tokens/s  left 0:00:00\n"
    )


def test_acceptance_is_left_out_where_nothing_was_judged():
    text = shown(lambda display: display.step(5, {**METRICS, "acceptance_rate": None}))
    assert "acceptance" not in text


def test_a_terminal_shows_a_bar_with_the_same_numbers():
    text = shown(lambda display: display.step(5, METRICS), terminal=True)
    assert "step" in text
    assert "5/10" in text


def test_mark_up_in_text_means_nothing():
    assert shown(lambda display: display.say("[red]x[/red]")) == "[red]x[/red]\n"


def test_disabled_shows_nothing():
    def everything(display):
        display.step(5, METRICS)
        display.say("x")
        display.response("title", ["a"], [1])

    assert shown(everything, enabled=False) == ""


def test_responses_are_coloured_by_author():
    text = shown(lambda display: display.response("row 1:", ["ein", " und"], [1, 2]), terminal=True)
    assert "ein" in text
    assert "\x1b[" in text
    student, teacher = (shown(lambda d, a=a: d.response("", ["x"], [a]), terminal=True) for a in (1, 2))
    assert student != teacher


def test_a_reader_who_leaves_stops_no_run(tmp_path):
    script = (
        "from skd.train.progress import Display\n"
        "display = Display(enabled=True)\n"
        "display.say('one')\n"
        "display.say('two')\n"
        f"open({str(tmp_path / 'reached')!r}, 'w').close()\n"
    )
    read, write = os.pipe()
    os.close(read)
    result = subprocess.run([sys.executable, "-c", script], stderr=write, timeout=120, check=False)
    os.close(write)
    assert result.returncode == 0
    assert (tmp_path / "reached").exists()


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="there is no device that is always full")
def test_standard_error_on_a_full_disk_stops_no_run():
    with open("/dev/full", "w", buffering=1) as full:
        display = Display(enabled=True, console=Console(file=full))
        display.say("one")
        with display.running(10, 4):
            display.step(5, METRICS)
        with contextlib.suppress(OSError):
            full.close()

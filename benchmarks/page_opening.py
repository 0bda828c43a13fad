"""Seconds until a page has loaded, run its script and drawn a frame, in a headless Chromium that is already open.

    python -m benchmarks.page_opening runs/compare/number_words/index.html

The goal: a report of a whole comparison opens in under 2 seconds.
"""

from __future__ import annotations

import statistics
import sys
from pathlib import Path

from tests.report.browser import CHROMIUM, Browser

TIMES = 7


def main(pages: list[str]) -> int:
    """Open each page several times and print what it took."""
    if CHROMIUM is None:
        print("there is no Chromium on this machine", file=sys.stderr)
        return 1
    for page in map(Path, pages):
        with Browser() as browser:
            seconds = [browser.open(page.resolve(), 1280) for _ in range(TIMES)]
        size, median = page.stat().st_size / 1e6, statistics.median(seconds)
        print(f"{page}: {size:.2f} MB, first {seconds[0]:.2f} s, median of {TIMES} {median:.2f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

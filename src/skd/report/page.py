"""One self-contained HTML page: the place where all text is made visible and escaped, and what the page may load."""

from __future__ import annotations

import base64
import hashlib
import json
import math
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from skd.text import visible

__all__ = ["json_block", "points", "render_page", "signed_points"]

_FILES = Path(__file__).parent / "templates"
_JSON_ESCAPES = {ord(c): f"\\u{ord(c):04x}" for c in "<>&'\u2028\u2029"}


def render_page(template: str, **context: Any) -> str:
    """The HTML of a page. Everything in ``context`` is data: escaped, hidden characters shown, never markup.

    The page loads nothing, runs the one script whose hash its policy names, and has no links and no forms.
    """
    script = (_FILES / "page.js").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = (
        f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{digest}'; "
        "base-uri 'none'; form-action 'none'"
    )
    style = (_FILES / "page.css").read_text(encoding="utf-8")
    return (
        _environment()
        .get_template(template)
        .render(policy=policy, style=Markup(style), script=Markup(script), **context)
    )


def json_block(value: Any) -> Markup:
    """``value`` as the content of a ``<script type="application/json">``, which nothing in it can end.

    Raises ValueError on NaN and infinity, which JSON does not have.
    """
    text = json.dumps(_visible_deep(value), separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return Markup(text.translate(_JSON_ESCAPES))


def points(fraction: float | None) -> str:
    """A fraction as percent with one decimal; a dash when there is none."""
    return "–" if fraction is None or not math.isfinite(fraction) else f"{100 * fraction:.1f}\u00a0%"


def signed_points(fraction: float | None) -> str:
    """A difference of fractions in percentage points, with its sign; a dash when there is none."""
    if fraction is None or not math.isfinite(fraction):
        return "–"
    return f"{100 * fraction:+.1f}".replace("-", "−")


def _number(value: float | None, digits: int = 4) -> str:
    return "–" if value is None or not math.isfinite(value) else f"{value:,.{digits}g}"


def _chance(p: float) -> str:
    """A probability as it follows the letter p."""
    return "< 0.0001" if p < 1e-4 else f"= {p:.4f}"


def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_FILES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        finalize=_shown,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"points": points, "signed": signed_points, "number": _number, "json_block": json_block}
    environment.filters["chance"] = _chance
    return environment


def _shown(value: Any) -> Any:
    """What jinja is about to escape: hidden characters made visible, None empty, numbers never in a surprising form."""
    if isinstance(value, Markup) or not isinstance(value, str):
        return "" if value is None else value
    return visible(value)


def _visible_deep(value: Any) -> Any:
    if isinstance(value, str):
        return visible(value)
    if isinstance(value, list | tuple):
        return [_visible_deep(item) for item in value]
    return value

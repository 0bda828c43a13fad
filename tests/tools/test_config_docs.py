"""docs/config.md is what the schema says, and names every key of it."""

from __future__ import annotations

from scripts.config_docs import PAGE, page
from skd.config import RunConfig, SamplingConfig, TrainConfig


def test_the_page_is_current() -> None:
    assert PAGE.read_text(encoding="utf-8") == page(), "run: python -m scripts.config_docs"


def test_every_key_has_a_row_with_values_default_and_meaning() -> None:
    rows = [line for line in page().splitlines() if line.startswith("| `")]
    for section in (RunConfig, SamplingConfig, TrainConfig):
        for name, field in section.model_fields.items():
            assert field.description, f"{section.__name__}.{name} has no line under it"
            assert any(row.startswith(f"| `{name}` |") and field.description.split("\n")[0] in row for row in rows)
    assert not [row for row in rows if "|  |" in row]


def test_ranges_and_defaults_are_written_out() -> None:
    assert "| `lr` | number above 0 and at most 1 | `1e-05` |" in page()
    assert "| `max_steps` | whole number of at least 1 or `null` | `null` |" in page()

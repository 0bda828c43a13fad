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


def test_every_kind_is_listed_with_what_it_is() -> None:
    text = page()
    assert "| [`top_k`](#topkgate) | A drafted token is kept when it is among the teacher's k most probable" in text
    assert "| [`jsd`](#jsdloss) | Generalised Jensen-Shannon divergence;" in text
    assert "| [`mixture`](#mixturepolicy) | Each response is written by one of several policies" in text
    assert text.count("| kind of `loss` |") == 1
    assert "| kind of `student` |" not in text


def test_schedules_and_lists_of_sections_are_written_out() -> None:
    assert "| `k` | whole number of at least 1 or [ScheduleConfig](#scheduleconfig) | `25` |" in page()
    assert "| `parts` | list of [PartConfig](#partconfig) | **required** |" in page()
    assert "| `{start: 1.0, end: 0.0}` | Power of the student; 0 is the teacher alone. |" in page()


def test_ranges_and_defaults_are_written_out() -> None:
    assert "| `lr` | number above 0 and at most 1 | `1e-05` |" in page()
    assert "| `max_steps` | whole number of at least 1 or `null` | `null` |" in page()

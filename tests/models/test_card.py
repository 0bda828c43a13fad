"""The card carries what it was given, and nothing in a value acts as YAML, Markdown or HTML."""

import re

import pytest
import yaml

from skd.models.card import model_card

PROVENANCE = {
    "method": "skd",
    "teacher": {"path": "/home/me/models/teacher", "class": "GemmaForCausalLM", "digest": "00ff"},
    "student": {"path": "google/gemma-2b-it", "class": "GemmaForCausalLM", "revision": "abc123"},
    "seed": 0,
    "versions": {"torch": "2.13.0", "transformers": "5.23.0"},
    "nothing": None,
}


def front_matter(card):
    _, front, body = re.split(r"^---$", card, maxsplit=2, flags=re.MULTILINE)
    return yaml.safe_load(front), body


def test_card_of_a_hub_student():
    front, body = front_matter(model_card(PROVENANCE, {"validation": {"loss": 0.123456789}}))
    assert front["base_model"] == "google/gemma-2b-it"
    assert front["library_name"] == "transformers"
    assert front["tags"] == ["skd", "knowledge-distillation"]
    assert "| ` versions.torch ` | ` 2.13.0 ` |" in body
    assert "| ` validation.loss ` | ` 0.123457 ` |" in body
    assert "| ` student.path ` | ` google/gemma-2b-it ` |" in body
    assert "| ` teacher.path ` | ` teacher ` |" in body
    assert "nothing" not in body


@pytest.mark.parametrize("path", ["/home/me/model", "./model", "../m", "C:\\m", "a/b/c", "x\n---"])
def test_a_local_path_is_no_base_model(path):
    front, _ = front_matter(model_card({"student": {"path": path, "revision": "abc123"}}, {}))
    assert "base_model" not in front


@pytest.mark.parametrize("student", [{"path": "google/gemma-2b-it", "revision": None}, {}, "google/gemma-2b-it", None])
def test_an_unpinned_student_is_no_base_model(student):
    front, _ = front_matter(model_card({"student": student}, {}))
    assert "base_model" not in front


def test_empty_card_says_so():
    card = model_card({}, {})
    assert "Nothing was recorded." in card
    assert "Nothing was measured." in card


@pytest.mark.parametrize(
    "hostile",
    [
        "x\n---\nlicense: evil\n---\n# Owned",
        "a | b",
        "<script>alert(1)</script>",
        "[l](javascript:x)",
        "``` `",
        "\x1b[2J\u202e",
    ],
)
def test_hostile_values_stay_in_their_cell(hostile):
    benign = model_card({**PROVENANCE, "method": "x", "teacher": "x"}, {"x": "x"})
    card = model_card({**PROVENANCE, "method": hostile, "teacher": hostile}, {hostile: hostile})
    front, body = front_matter(card)
    assert set(front) == {"base_model", "library_name", "pipeline_tag", "tags"}
    assert body.count("\n") == front_matter(benign)[1].count("\n")
    assert "\x1b" not in card
    assert "\u202e" not in card
    for row in (line for line in body.splitlines() if line.startswith("| `")):
        cells = re.split(r"(?<!\\)\|", row)[1:-1]
        assert len(cells) == 2
        for cell in map(str.strip, cells):
            fence = re.match("`+", cell).group()
            assert cell.endswith(fence)
            assert fence not in cell[len(fence) : -len(fence)]

"""docs/data.md: every example is read as it stands there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from skd.config import RunConfig, config_of, load_config
from skd.data.chat import encode_prompts
from skd.data.number_words import rows as number_rows
from skd.data.rows import Row, Turn
from skd.data.sources import load_rows
from tests.data.families import FAMILIES

PAGE = Path(__file__).parents[2] / "docs" / "data.md"
SECTIONS = {text.partition("\n")[0]: text for text in PAGE.read_text(encoding="utf-8").split("\n## ")[1:]}

SUMS = [Row("2 + 3 =", "5"), Row("4 + 4 =", "8")]
ROWS = {
    "Prompt and response": SUMS,
    "Other fields, no responses": [Row("Where is Assam?", None), Row("Who wrote Faust?", None)],
    "A JSON file": SUMS[:1],
    "The paper's files": [
        Row("Q: 2 + 3? \n\nA:", "2 + 3 = 5\n#### 5"),
        Row("Ann: Lunch at noon?\nBen: Yes.", "Ann and Ben meet for lunch at noon."),
    ],
    "Tasks": [
        Row("Q: 2 + 3? \n\nA:", "2 + 3 = 5\n#### 5"),
        Row("Write one SQL query for: How many users are there?", "SELECT count(*) FROM users"),
        Row("How many users are there?!", "SELECT count(*) FROM users"),
    ],
    "Tables": [Row("2 + 3 =", "5"), Row("Sodium, in short?", "NA")],
    "Conversations": [
        Row("2 + 3?", "5", (Turn("system", "Be brief."),)),
        Row("4 + 4?", "8", (Turn("user", "Hi!"), Turn("assistant", "Hello."))),
    ],
    "Several sources": [Row("a1", "1"), Row("a2", "2"), Row("b1", "1")],
    "Built-in tasks": number_rows("train", 3, 0),
    "Rows that cannot be read": SUMS[:1],
}
WITHOUT_ROWS = {"The Hub", "Chat templates"}


def blocks(heading: str) -> list[tuple[str, str, str]]:
    """(language, file name or nothing, content) of the code blocks of a section."""
    return re.findall(r"^```(\w+) ?(\S*)\n(.*?)^```$", SECTIONS[heading], re.MULTILINE | re.DOTALL)


def config_in(heading: str, directory: Path, monkeypatch: pytest.MonkeyPatch) -> RunConfig:
    """The config of a section, its files written beside it."""
    monkeypatch.chdir(directory)
    for _, name, content in blocks(heading):
        path = Path(name or "train.yaml")
        path.parent.mkdir(exist_ok=True)
        path.write_text(content if name else f"teacher: t\nstudent: s\n{content}", encoding="utf-8")
    return load_config("train.yaml")


def test_every_section_is_known() -> None:
    assert SECTIONS.keys() == {*ROWS, *WITHOUT_ROWS}
    assert all(len(blocks(heading)) >= 1 for heading in ROWS)


@pytest.mark.parametrize("heading", ROWS)
def test_an_example_gives_its_rows(heading: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = config_in(heading, tmp_path, monkeypatch).data
    assert load_rows(data.train, on_bad_row=data.on_bad_row) == ROWS[heading]


def test_the_example_of_the_hub_is_a_valid_config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (source,) = config_in("The Hub", tmp_path, monkeypatch).data.train
    assert source.kind == "hub"


def test_conversations_are_masked_as_the_page_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = config_in("Conversations", tmp_path, monkeypatch).data
    tokenizer = FAMILIES["llama3"].tokenizer()
    prompts = encode_prompts(load_rows(data.train), tokenizer, train_on=data.train_on, stop_id=132)
    assert prompts.references is not None
    assert prompts.reference_masks is not None
    pairs = zip(prompts.references[1], prompts.reference_masks[1], strict=True)
    assert tokenizer.decode([i for i, counts in pairs if counts]) == "Hello.<|eot_id|>8<|eot_id|>"


def test_the_first_source_is_changed_on_the_command_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = config_in("Several sources", tmp_path, monkeypatch)
    assert "`data.train.0.share=1`" in SECTIONS["Several sources"]
    assert len(load_rows(config_of(config, ["data.train.0.share=1"]).data.train)) == 4

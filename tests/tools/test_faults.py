"""docs/faults.md has a line for every fault of the catalogue, and each names a test that is there."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LAST = {"C": 16, "D": 17, "M": 23, "G": 16, "T": 16, "K": 21, "P": 12, "E": 18, "H": 9, "L": 10, "R": 18, "V": 6}
LINE = re.compile(r"\| ([A-Z]\d\d) \| .+ \| .+ \| (\S+\.py)::(.+) \|")


def lines():
    text = (ROOT / "docs" / "faults.md").read_text(encoding="utf-8")
    return [LINE.fullmatch(line) or line for line in text.splitlines() if re.match(r"\| [A-Z]\d\d ", line)]


def test_every_fault_has_its_line():
    expected = [f"{group}{number:02}" for group, last in LAST.items() for number in range(1, last + 1)]
    assert [match[1] for match in lines()] == expected


@pytest.mark.parametrize("match", lines(), ids=lambda match: match[1])
def test_the_test_that_a_line_names_is_there(match):
    file, name = ROOT / "tests" / match[2], match[3]
    # A function, or the name of one of its cases.
    wanted = f"def {name}(" if name.startswith("test_") else f'"{name}"'
    assert wanted in file.read_text(encoding="utf-8")


def test_the_codes_of_the_source_are_known():
    source = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "src").rglob("*.py"))
    unknown = set(re.findall(r"SKD-([CDMGTKPEHLRV]\d\d)", source)) - {match[1] for match in lines()}
    assert unknown == {"C17", "E19"}  # a key that is missing; an option of skd evaluate


def test_nothing_is_exported_as_csv():
    assert not [
        path for path in (ROOT / "src").rglob("*.py") if re.search(r"csv\.writer|to_csv|DictWriter", path.read_text())
    ]


def test_no_process_loads_data():
    assert not [path for path in (ROOT / "src").rglob("*.py") if re.search(r"\bDataLoader\b", path.read_text())]

"""From items to splits."""

import pytest

from skd.data.make.items import Item, Sizes, Source, shuffled, splits_of
from skd.data.rows import split_of
from skd.errors import DataError

SOURCE = Source("a book", "CC0-1.0", "https://example.org")
GROUP = next(name for name in map(str, range(99)) if split_of(name) == "train")


def items(count: int, per_group: int = 1) -> list[Item]:
    return [Item({"question": f"q{i}", "answer": "a"}, f"group {i // per_group}", SOURCE) for i in range(count)]


def test_a_group_stands_in_one_split_only() -> None:
    splits = splits_of(items(400, per_group=4), Sizes(200, 20, 20))
    groups = [{item.group for item in splits[split]} for split in splits]
    assert [len(splits[split]) for split in splits] == [200, 20, 20]
    assert not groups[0] & groups[1]
    assert not groups[0] & groups[2]
    assert not groups[1] & groups[2]


def test_no_two_rows_share_their_text_whatever_its_case_and_spaces() -> None:
    twins = [Item({"question": text, "answer": "a"}, GROUP, SOURCE) for text in ("Two  words", "two words", "other")]
    assert [item.fields["question"] for item in splits_of(twins, Sizes(9, 0, 0))["train"]] == ["Two  words", "other"]


def test_a_split_that_gets_nothing_is_an_error() -> None:
    with pytest.raises(DataError, match=r"error\[SKD-D12\].*no row for validation, test; install more") as caught:
        splits_of([Item({"question": "q"}, GROUP, SOURCE)], Sizes(1, 1, 1))
    assert caught.value.exit_code == 3


def test_the_order_depends_on_the_seed_and_not_on_the_order_found() -> None:
    found = items(50)
    assert shuffled(found, 1) == shuffled(reversed(found), 1)
    assert shuffled(found, 1) != shuffled(found, 2)


def test_a_row_names_its_origin_and_licence() -> None:
    item = Item({"question": "q", "answer": "a"}, "g", SOURCE, "page 3")
    assert item.row == {"question": "q", "answer": "a", "origin": "a book, page 3", "licence": "CC0-1.0"}

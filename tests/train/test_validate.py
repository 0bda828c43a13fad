from types import SimpleNamespace

from skd.train.validate import pieces_of


def bytes_tokenizer(text):
    """One token per byte of ``text``."""
    raw = text.encode()
    return SimpleNamespace(decode=lambda ids: raw[: len(ids)].decode("utf-8", "replace")), list(range(len(raw)))


def test_pieces_join_to_the_text_and_a_split_character_stands_at_its_last_token():
    tokenizer, ids = bytes_tokenizer("aéz")
    assert pieces_of(tokenizer, ids) == ["a", "", "é", "z"]


def test_a_response_that_ends_inside_a_character_shows_it():
    tokenizer, ids = bytes_tokenizer("aé")
    assert pieces_of(tokenizer, ids[:2]) == ["a", "\ufffd"]
    assert pieces_of(tokenizer, []) == []

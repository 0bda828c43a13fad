from types import SimpleNamespace

import pytest
import torch

from skd.display import terminal
from skd.live import GenerateOptions, Stream, generate, summary


class Bytes:
    """A tokenizer whose ids are bytes of UTF-8, so that one character takes several tokens."""

    def decode(self, ids: list[int], skip_special_tokens: bool) -> str:
        return bytes(ids).decode(errors="replace")


def test_characters_are_printed_when_they_are_whole(capsys: pytest.CaptureFixture[str]) -> None:
    stream = Stream(Bytes(), terminal())  # type: ignore[arg-type]
    printed = []
    for byte in "aß€z".encode():
        stream(0, [byte], [1])
        printed.append(capsys.readouterr().out)
    assert printed == ["a", "", "ß", "", "", "€", "z"]


def test_several_tokens_of_a_round_and_control_characters(capsys: pytest.CaptureFixture[str]) -> None:
    stream = Stream(Bytes(), terminal())  # type: ignore[arg-type]
    stream(0, [65, 27, 66], [1, 1, 2])
    assert capsys.readouterr().out == "A\\x1bB"


def rollout(**values: object) -> SimpleNamespace:
    defaults = {"num_tokens": 8, "acceptance_rate": 0.75, "replaced_share": 0.25, "truncated": torch.tensor([False])}
    return SimpleNamespace(**{**defaults, **values})


def test_the_summary_says_who_wrote_how_much() -> None:
    assert summary(rollout(), GenerateOptions(k=3)) == (
        "8 tokens, 75.0% of the student's tokens kept (top 3), 25.0% written by the teacher"
    )
    assert summary(rollout(truncated=torch.tensor([True])), GenerateOptions()).endswith(", cut at 128 tokens")
    assert summary(rollout(num_tokens=0), GenerateOptions()) == "the response is empty"


def test_generate_writes_a_response_of_the_built_in_pair(capsys: pytest.CaptureFixture[str]) -> None:
    options = GenerateOptions(k=1, max_new_tokens=24, student_temperature=0.0, teacher_temperature=0.0)
    generate("builtin:number_words/teacher", "builtin:number_words/student", "six hundred twenty five =", options)
    shown, response, numbers = capsys.readouterr().out.splitlines()
    assert shown == "data  student  teacher (replacement)"
    assert response == "sechs hundert fünf und zwanzig"
    assert "of the student's tokens kept (top 1)" in numbers

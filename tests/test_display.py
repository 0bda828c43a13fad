import io

import pytest
from rich.console import Console

from skd.display import coloured_response, legend, terminal, visible
from skd.types import DATA, STUDENT, TEACHER


def rendered(width: int = 80, **options: object) -> tuple[Console, io.StringIO]:
    file = io.StringIO()
    return Console(file=file, width=width, **options), file  # type: ignore[arg-type]


def test_tokens_have_the_style_of_their_author() -> None:
    text = coloured_response(["a", "b", "c"], [DATA, STUDENT, TEACHER])
    assert text.plain == "abc"
    assert [(span.start, span.end, str(span.style)) for span in text.spans] == [
        (1, 2, "green"),
        (2, 3, "magenta underline"),
    ]


def test_hidden_characters_are_shown_and_markup_is_text() -> None:
    text = coloured_response(["\x1b[31m", "[red]x[/red]", "\u202e"], [1, 1, 2])
    assert text.plain == "\\x1b[31m[red]x[/red]\\u202e"
    console, file = rendered(force_terminal=False)
    console.print(text)
    assert "\x1b" not in file.getvalue()


def test_lengths_must_agree() -> None:
    with pytest.raises(ValueError, match="zip"):
        coloured_response(["a"], [1, 2])


def test_the_teacher_is_underlined_where_colours_are_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    console, file = rendered(force_terminal=True)
    console.print(coloured_response(["a", "b"], [STUDENT, TEACHER]), end="")
    assert file.getvalue() == "a\x1b[4mb\x1b[0m"


def test_the_legend_names_all_authors() -> None:
    assert legend().plain == "data  student  teacher (replacement)"


def test_the_terminal_is_plain_when_it_is_none(capsys: pytest.CaptureFixture[str]) -> None:
    terminal().print(coloured_response(["a", "b"], [STUDENT, TEACHER]))
    assert capsys.readouterr().out == "ab\n"


def test_visible_is_the_one_of_text() -> None:
    assert visible("\x1b\a\r") == "\\x1b\\x07\\x0d"

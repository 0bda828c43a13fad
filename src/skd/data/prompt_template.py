"""Prompt templates: named fields in braces, filled by plain substitution. No template engine ever sees data."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

__all__ = ["Template"]

_PARTS = re.compile(r"\{\{([A-Za-z_]\w*)\}\}|\{([A-Za-z_]\w*)\}", re.ASCII)


@dataclass(frozen=True)
class Template:
    r"""``Q: {question} \n\nA:``: a field is a name in braces; ``{{name}}`` stands for ``{name}`` itself.

    Every other brace is text, so ``\boxed{Your Answer}`` needs no escape. A text that is filled in is not looked at
    again: braces in it stay as they are.
    """

    text: str

    @cached_property
    def fields(self) -> tuple[str, ...]:
        """Names of the fields, each once, in order of appearance."""
        return tuple(dict.fromkeys(match[2] for match in _PARTS.finditer(self.text) if match[2]))

    def fill(self, values: Mapping[str, str]) -> str:
        """The text with every field replaced by its value. Raises KeyError for a field without one."""
        return _PARTS.sub(lambda match: values[match[2]] if match[2] else f"{{{match[1]}}}", self.text)

    def read(self, filled: str) -> dict[str, str] | None:
        """The values that ``fill`` was given, as far as ``filled`` tells them; None when it does not fit.

        Each field may stand in the template once.
        """
        match = self._pattern.fullmatch(filled)
        return match.groupdict() if match else None

    @cached_property
    def _pattern(self) -> re.Pattern[str]:
        pattern, end = "", 0
        for match in _PARTS.finditer(self.text):
            pattern += re.escape(self.text[end : match.start()])
            pattern += f"(?P<{match[2]}>.*)" if match[2] else re.escape(f"{{{match[1]}}}")
            end = match.end()
        return re.compile(pattern + re.escape(self.text[end:]), re.DOTALL)

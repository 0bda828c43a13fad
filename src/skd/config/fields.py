"""Types of single config values: what text, numbers and counts may be, and the base class of every section."""

from __future__ import annotations

import math
import os.path
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, StrictBool, StrictStr
from pydantic_core import PydanticCustomError

__all__ = [
    "KIND_ALIASES",
    "Count",
    "Flag",
    "HubId",
    "ImportPath",
    "InRange",
    "PathText",
    "Real",
    "Seconds",
    "Section",
    "Seed",
    "ServerUrl",
    "Share",
    "Text",
    "kind_from_text",
    "not_empty",
    "path_from_text",
    "refused",
]

MAX_INT32 = 2**31 - 1
_NUMBER = re.compile(
    r"[-+]?(\d[\d_]*(\.[\d_]*)?|\.\d[\d_]*)([eE][-+]?\d+)?|[-+]?\.?(inf|nan)", re.ASCII | re.IGNORECASE
)


class Section(BaseModel):
    """Base of all config sections: frozen, unknown keys refused, each field documented by the line under it."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, hide_input_in_errors=True)


@dataclass(frozen=True)
class InRange:
    """Refuses a number outside ``low .. high``; ``open_low`` and ``open_high`` leave the border itself out."""

    low: float
    high: float = math.inf
    open_low: bool = False
    open_high: bool = False

    def __call__(self, value: Any) -> Any:
        if not self.holds(value):
            raise PydanticCustomError("out_of_range", "{expected}", {"expected": str(self)})
        return value

    def holds(self, value: float) -> bool:
        """Whether a number is inside."""
        above = value > self.low if self.open_low else value >= self.low
        below = value < self.high if self.open_high else value <= self.high
        return above and below

    def __str__(self) -> str:
        low = f"above {self.low:g}" if self.open_low else f"of at least {_plain(self.low)}"
        if self.high == math.inf:
            return f"a number {low}"
        return f"a number {low} and {'below' if self.open_high else 'at most'} {_plain(self.high)}"


def _plain(number: float) -> str:
    return str(number) if isinstance(number, int) else f"{number:g}"


def _number_from_text(value: Any) -> Any:
    # YAML 1.1 reads 1e-5 as text, since it has no dot; everyone who writes it means the number.
    if isinstance(value, str) and _NUMBER.fullmatch(value.strip()):
        return float(value.strip().lower().replace(".inf", "inf").replace(".nan", "nan").replace("_", ""))
    return value


def _finite(value: float) -> float:
    if not math.isfinite(value):
        raise PydanticCustomError("out_of_range", "{expected}", {"expected": "a finite number"})
    return value


def not_empty(value: Any) -> Any:
    """Refuses an empty list. Unlike ``min_length``, it is silent when items were refused."""
    if not value:
        raise PydanticCustomError("empty_list", "{expected}", {"expected": "a list that is not empty"})
    return value


def _printable(value: str) -> str:
    if not value or any(ord(character) < 32 or ord(character) == 127 for character in value):
        raise PydanticCustomError("bad_path", "a path without control characters")
    return os.path.expanduser(value)


def _import_path(value: str) -> str:
    module, colon, name = value.partition(":")
    if not (colon and name.isidentifier() and all(part.isidentifier() for part in module.split("."))):
        raise PydanticCustomError("bad_value", "{expected}", {"expected": "an import path, package.module:Name"})
    return value


def _owner_and_name(value: str) -> str:
    # Without an owner the client for data sets would take json or csv for one of its own readers.
    if not re.fullmatch(r"[A-Za-z0-9._-]+/[A-Za-z0-9._-]+", value):
        raise PydanticCustomError("bad_id", "{expected}", {"expected": "an id of the form OWNER/NAME"})
    return value


def _server_url(value: str) -> str:
    expected = "an address http://HOST:PORT or https://HOST:PORT, without user, key or query"
    try:
        parts = urlsplit(value)
        plain = parts.port != 0 and "@" not in parts.netloc and not parts.query and not parts.fragment
    except ValueError:
        plain = False
    if not plain or parts.scheme not in ("http", "https") or not parts.hostname or not value.isprintable():
        raise PydanticCustomError("bad_value", "{expected}", {"expected": expected})
    return value


Real = Annotated[float, BeforeValidator(_number_from_text), Field(strict=True), AfterValidator(_finite)]
"""A finite number; numeric text is read as the number it spells."""
Share = Annotated[Real, AfterValidator(InRange(0, 1))]
Integer = Annotated[int, Field(strict=True)]
Count = Annotated[Integer, AfterValidator(InRange(1, MAX_INT32))]
Seed = Annotated[Integer, AfterValidator(InRange(0, 2**32 - 1))]
Flag = StrictBool
Text = StrictStr
HubId = Annotated[StrictStr, AfterValidator(_owner_and_name)]
"""``owner/name`` of a repository on the Hub."""
ImportPath = Annotated[StrictStr, AfterValidator(_import_path)]
"""``package.module:Name``."""
ServerUrl = Annotated[StrictStr, AfterValidator(_server_url)]
"""Address of a server, where its key has no place."""
Seconds = Annotated[Real, AfterValidator(InRange(0, 86400, open_low=True))]
PathText = Annotated[StrictStr, AfterValidator(_printable)]
"""A path or a Hub id; a leading ``~`` becomes the home directory."""


KIND_ALIASES = {"kl": "forward_kl", "tv": "total_variation"}
"""Other spellings of a kind."""


def kind_from_text(value: Any) -> Any:
    """``forward_kl`` for ``{kind: forward_kl}``: a plain name is a section of that kind with its defaults."""
    if isinstance(value, str):
        value = {"kind": value}
    if isinstance(value, Mapping) and isinstance(kind := value.get("kind"), str):
        return {**value, "kind": KIND_ALIASES.get(kind, kind)}
    return value


def refused(key: str, found: str, remedy: str) -> PydanticCustomError:
    """The error of a section whose ``key`` does not go with its other keys; ``found`` reads on from the key."""
    context = {"key": key, "found": found, "remedy": remedy}
    return PydanticCustomError("refused", "{key} {found}; {remedy}", context)


def path_from_text(value: Any, *, kind: str | None = None) -> Any:
    """The short form of a model or a data file: a plain string is its path; ``kind`` is put in where none is said."""
    value = {"path": value} if isinstance(value, str) else value
    if kind is not None and isinstance(value, Mapping) and "kind" not in value:
        return {"kind": kind, **value}
    return value

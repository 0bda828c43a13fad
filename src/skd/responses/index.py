"""The index of a directory of responses: what its shards hold, and how that came to be."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from skd.errors import DataError, Problem
from skd.files import canonical

__all__ = ["INDEX_FILE", "UNFINISHED_FILE", "Index", "ShardRecord", "read_index"]

KIND = "skd-responses"
FORMAT = 1
INDEX_FILE = "index.json"
UNFINISHED_FILE = "unfinished.json"
_SHARD_NAME = re.compile(r"shard-\d{5,}\.safetensors")


@dataclass(frozen=True)
class ShardRecord:
    """What the index knows of a shard."""

    name: str
    responses: int
    tokens: int
    """Response tokens of all its responses."""
    bytes: int
    sha256: str

    def __post_init__(self) -> None:
        """Raises ValueError for a name that ``of`` does not give, which might lead out of the directory."""
        if not _SHARD_NAME.fullmatch(self.name):
            raise ValueError(f"names a shard {self.name!r}")

    @staticmethod
    def name_of(number: int) -> str:
        """The file name of shard ``number``, counted from 0."""
        return f"shard-{number:05d}.safetensors"


@dataclass(frozen=True)
class Index:
    """What a directory of responses holds."""

    vocab_size: int
    """V: ids are below it."""
    vocabulary: str
    """SHA-256 of the tokenizer's map from tokens to ids."""
    top_k: int | None
    """K, the ids of the teacher that are stored at each token; None when no evidence is."""
    origin: Mapping[str, Any]
    """How the responses were made: settings and their digest, digest of the prompts, models, versions."""
    shards: tuple[ShardRecord, ...] = ()

    @property
    def num_responses(self) -> int:
        """Responses of all shards."""
        return sum(shard.responses for shard in self.shards)

    @property
    def num_tokens(self) -> int:
        """Response tokens of all shards."""
        return sum(shard.tokens for shard in self.shards)

    @property
    def num_bytes(self) -> int:
        """Size of all shards."""
        return sum(shard.bytes for shard in self.shards)

    def text(self) -> str:
        """The JSON of the index, with the SHA-256 of its own content."""
        body = self._body()
        return json.dumps({**body, "sha256": _digest(body)}, indent=1, sort_keys=True) + "\n"

    def _body(self) -> dict[str, Any]:
        return {
            "kind": KIND,
            "format": FORMAT,
            "responses": self.num_responses,
            "tokens": self.num_tokens,
            "vocabulary": {"size": self.vocab_size, "sha256": self.vocabulary},
            "evidence": None if self.top_k is None else {"top_k": self.top_k, "temperature": 1.0},
            "origin": dict(self.origin),
            "shards": [asdict(shard) for shard in self.shards],
        }

    @staticmethod
    def of(text: str) -> Index:
        """The index that ``text()`` wrote. Raises ValueError, with what is wrong, for any other text."""
        try:
            body = json.loads(text)
        except (ValueError, RecursionError):
            raise ValueError("is not JSON") from None
        if not isinstance(body, dict) or body.get("kind") != KIND:
            raise ValueError("is not the index of stored responses")
        if body.get("format") != FORMAT:
            raise ValueError(f"has format {body.get('format')!r}; this version reads {FORMAT}")
        if body.pop("sha256", None) != _digest(body):
            raise ValueError("does not have the SHA-256 it records")
        try:
            evidence = body["evidence"]
            return Index(
                vocab_size=int(body["vocabulary"]["size"]),
                vocabulary=str(body["vocabulary"]["sha256"]),
                top_k=None if evidence is None else int(evidence["top_k"]),
                origin=dict(body["origin"]),
                shards=tuple(ShardRecord(**shard) for shard in body["shards"]),
            )
        except (KeyError, TypeError):
            raise ValueError("lacks a part of what an index holds") from None


def read_index(directory: Path, name: str = INDEX_FILE) -> Index:
    """The index of a directory of responses; by default that of a whole one.

    Raises DataError: SKD-D01 when there is none, or when the responses are not all written; SKD-D02 for a broken one.
    """
    path = directory / name
    try:
        return Index.of(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        if (directory / UNFINISHED_FILE).is_file():
            found, remedy = "the responses are not all written yet", "run the same skd generate again, it goes on"
        else:
            found, remedy = f"there is no {INDEX_FILE}", "give a directory that skd generate --to wrote"
        raise DataError(Problem("SKD-D01", str(directory), found, remedy)) from None
    except OSError as error:
        raise DataError(Problem("SKD-D01", str(path), f"cannot be read ({error.strerror})", "check the path")) from None
    except ValueError as error:
        raise DataError(
            Problem("SKD-D02", str(path), str(error), "restore it from a copy, or generate again")
        ) from None


def _digest(body: Mapping[str, Any]) -> str:
    return hashlib.sha256(canonical(body)).hexdigest()

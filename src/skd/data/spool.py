"""Sequences of rows and of token ids whose memory does not grow with the data.

Small ones stay in memory. Beyond ``IN_MEMORY_BYTES`` the content goes to a temporary file without a name, which is gone
with the process however that ends; in memory stay eight bytes for each item.
"""

from __future__ import annotations

import json
import os
import tempfile
import weakref
from abc import abstractmethod
from array import array
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import astuple
from typing import Any, Generic, TypeVar, overload

from skd.data.rows import Row, Turn
from skd.errors import Problem, ResourceError

__all__ = ["IN_MEMORY_BYTES", "Flags", "Numbers", "Rows", "Spool", "TokenLists"]

IN_MEMORY_BYTES = 64 << 20
"""Of one sequence."""

Item = TypeVar("Item")


class Spool(Sequence[Item], Generic[Item]):
    """Items that are appended once and read as often as wanted; equal to any sequence of equal items.

    Reading does not move a position of the file, so that forked processes can share it.
    """

    def __init__(self, items: Iterable[Item] = ()) -> None:
        self._ends = array("q", [0])
        self._start, self._recent = 0, bytearray()
        self._file: int | None = None
        self.extend(items)

    @abstractmethod
    def _packed(self, item: Item) -> bytes: ...

    @abstractmethod
    def _unpacked(self, data: bytes) -> Item: ...

    def append(self, item: Item) -> None:
        """Add an item. Raises ResourceError (SKD-K03) when the temporary file cannot be written."""
        self._recent += self._packed(item)
        self._ends.append(self._start + len(self._recent))
        if len(self._recent) > IN_MEMORY_BYTES:
            self._spill()

    def extend(self, items: Iterable[Item]) -> None:
        """Add items, one after the other."""
        for item in items:
            self.append(item)

    def cut(self, length: int) -> None:
        """Leave out all items behind the first ``length``."""
        del self._ends[length + 1 :]
        end = self._ends[-1]
        if end >= self._start:
            del self._recent[end - self._start :]
        else:
            assert self._file is not None
            self._start, self._recent = end, bytearray()

    def _spill(self) -> None:
        try:
            if self._file is None:
                self._file = self._opened()
            left, at = memoryview(bytes(self._recent)), self._start
            while left:
                written = os.pwrite(self._file, left, at)
                left, at = left[written:], at + written
        except OSError as error:
            found = f"the data do not fit into the directory of temporary files ({error.strerror})"
            remedy = "free space there, or set TMPDIR to a directory with room"
            raise ResourceError(Problem("SKD-K03", tempfile.gettempdir(), found, remedy)) from error
        self._start, self._recent = self._start + len(self._recent), bytearray()

    def _opened(self) -> int:
        """A temporary file that is closed with this sequence."""
        with tempfile.TemporaryFile(prefix="skd-", buffering=0) as file:
            descriptor = os.dup(file.fileno())
        weakref.finalize(self, os.close, descriptor)
        return descriptor

    def __len__(self) -> int:
        return len(self._ends) - 1

    @overload
    def __getitem__(self, number: int) -> Item: ...
    @overload
    def __getitem__(self, number: slice) -> list[Item]: ...
    def __getitem__(self, number: int | slice) -> Item | list[Item]:
        if isinstance(number, slice):
            return [self[i] for i in range(*number.indices(len(self)))]
        number = range(len(self))[number]
        start, end = self._ends[number], self._ends[number + 1]
        if start >= self._start:
            return self._unpacked(bytes(self._recent[start - self._start : end - self._start]))
        assert self._file is not None
        return self._unpacked(os.pread(self._file, end - start, start))

    def __iter__(self) -> Iterator[Item]:
        return (self[number] for number in range(len(self)))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Sequence) or isinstance(other, str):
            return NotImplemented
        return len(self) == len(other) and all(mine == its for mine, its in zip(self, other, strict=True))

    __hash__ = None  # type: ignore[assignment]  # as that of a list


class Rows(Spool[Row]):
    """Rows of a data set."""

    def _packed(self, item: Row) -> bytes:
        return json.dumps(astuple(item), ensure_ascii=False).encode()

    def _unpacked(self, data: bytes) -> Row:
        prompt, response, context, route = json.loads(data)
        return Row(prompt, response, tuple(Turn(*turn) for turn in context), route)


class TokenLists(Spool[list[int]]):
    """Lists of token ids, or of other whole numbers below 2**31; four bytes each."""

    def _packed(self, item: Sequence[int]) -> bytes:
        return array("i", item).tobytes()

    def _unpacked(self, data: bytes) -> list[int]:
        numbers: Any = array("i")
        numbers.frombytes(data)
        return list(numbers)


class Flags(Spool[list[bool]]):
    """Lists of true and false; a byte each."""

    def _packed(self, item: Sequence[bool]) -> bytes:
        return bytes(item)

    def _unpacked(self, data: bytes) -> list[bool]:
        return [bool(flag) for flag in data]


class Numbers(Spool[int]):
    """Whole numbers below 2**63."""

    def _packed(self, item: int) -> bytes:
        return item.to_bytes(8, "little")

    def _unpacked(self, data: bytes) -> int:
        return int.from_bytes(data, "little")

"""One shard: responses one after the other, token ids end to end, and what is kept of the teacher at each token.

R responses with N tokens and prompts of M tokens in all; the evidence is there only where it was asked for:

    sample_ids, response_index, truncated       int64 [R], int32 [R], uint8 [R]
    prompt_lengths, response_lengths            int32 [R]
    prompt_ids, response_ids                    int32 [M], int32 [N]
    authors, masks                              uint8 [N]; masks only where the data has some
    top_ids, top_logp, written_logp             int32 [N, K], float32 [N, K + 1], float32 [N]
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor

from skd.errors import DataError, Problem
from skd.responses.index import ShardRecord
from skd.types import Rollout, TopEvidence

__all__ = ["Shard", "StoredEvidence", "read_shard", "shard_tensors", "stamp_of"]


def shard_tensors(rollout: Rollout, evidence: Sequence[TopEvidence] | None) -> dict[str, Tensor]:
    """The tensors of a shard, by name. ``evidence`` has an entry for each response."""
    tensors = {
        "sample_ids": torch.tensor(rollout.sample_ids, dtype=torch.int64),
        "response_index": torch.tensor(rollout.response_index, dtype=torch.int32),
        "truncated": rollout.truncated.to(torch.uint8),
        "prompt_lengths": _lengths(rollout.prompt_ids),
        "response_lengths": _lengths(rollout.response_ids),
        "prompt_ids": torch.cat(rollout.prompt_ids).to(torch.int32),
        "response_ids": torch.cat(rollout.response_ids).to(torch.int32),
        "authors": torch.cat(rollout.authors),
    }
    if rollout.masks is not None:
        tensors["masks"] = torch.cat(rollout.masks).to(torch.uint8)
    if evidence is not None:
        tensors["top_ids"] = torch.cat([part.ids_LK for part in evidence]).to(torch.int32)
        tensors["top_logp"] = torch.cat([part.logp_LB for part in evidence])
        tensors["written_logp"] = torch.cat([part.written_L for part in evidence])
    return tensors


def _lengths(rows: Sequence[Tensor]) -> Tensor:
    return torch.tensor([len(row) for row in rows], dtype=torch.int32)


@dataclass(frozen=True)
class Shard:
    """What is read of a shard when it is opened: all but the evidence, one sequence for each response."""

    prompts: list[array[int]]
    responses: list[array[int]]
    authors: list[array[int]]
    masks: list[list[bool]] | None


def read_shard(path: Path, record: ShardRecord, top_k: int | None) -> Shard:
    """A shard that has the hash of its record. Raises ValueError unless it has the layout that the record promises."""
    with safe_open(path, framework="pt") as file:
        _require_layout(file, record, top_k)
        prompt_lengths, lengths = (file.get_tensor(f"{part}_lengths").tolist() for part in ("prompt", "response"))
        masks = file.get_tensor("masks").bool() if "masks" in file.keys() else None  # noqa: SIM118 - no mapping
        return Shard(
            prompts=_rows(file.get_tensor("prompt_ids"), prompt_lengths, "i"),
            responses=_rows(file.get_tensor("response_ids"), lengths, "i"),
            authors=_rows(file.get_tensor("authors"), lengths, "B"),
            masks=None if masks is None else [mask.tolist() for mask in masks.split(lengths)],
        )


def _rows(flat: Tensor, lengths: list[int], kind: str) -> list[array[int]]:
    """Compact sequences: a Python list of the same ids takes ten times the memory."""
    return [array(kind, part.numpy().tobytes()) for part in flat.split(lengths)]


def _require_layout(file: Any, record: ShardRecord, top_k: int | None) -> None:
    responses, tokens = [record.responses], [record.tokens]
    layout = {"sample_ids": ("I64", responses), "response_index": ("I32", responses), "truncated": ("U8", responses)}
    layout |= {"prompt_lengths": ("I32", responses), "response_lengths": ("I32", responses)}
    layout |= {"response_ids": ("I32", tokens), "authors": ("U8", tokens)}
    if top_k is not None:
        layout |= {"top_ids": ("I32", [*tokens, top_k]), "top_logp": ("F32", [*tokens, top_k + 1])}
        layout |= {"written_logp": ("F32", tokens)}
    for name, (dtype, shape) in layout.items():
        found = file.get_slice(name)
        if found.get_dtype() != dtype or found.get_shape() != shape:
            raise ValueError(f"{name} is not of type {dtype} and shape {shape}")


def stamp_of(path: Path) -> tuple[int, int]:
    """Size and time of change of a file. Raises OSError."""
    status = path.stat()
    return status.st_size, status.st_mtime_ns


@dataclass(frozen=True)
class StoredEvidence(Sequence[TopEvidence]):
    """What files hold of the teacher, a response at a time: read when it is looked at, and then not kept.

    Looking raises DataError (SKD-D14) when a file is not the one that was checked.
    """

    files: Sequence[Path]
    stamps: Sequence[tuple[int, int]]
    """Size and time of change of each file when its bytes were checked."""
    file_of: Sequence[int]
    """The file that each response is in."""
    start: Sequence[int]
    """The place of its first token there."""
    length: Sequence[int]
    """Its tokens."""

    def __len__(self) -> int:
        return len(self.start)

    def __getitem__(self, row: Any) -> Any:
        path, start = self.files[self.file_of[row]], self.start[row]
        tokens = slice(start, start + self.length[row])
        try:
            unchanged = stamp_of(path) == self.stamps[self.file_of[row]]
        except OSError:
            unchanged = False
        if not unchanged:
            found = "was changed or removed while the run reads it"
            raise DataError(Problem("SKD-D14", str(path), found, "put it back and resume from the last checkpoint"))
        with safe_open(path, framework="pt") as file:
            # Copies: a slice is a view of the whole file, mapped into memory.
            parts = [file.get_slice(name)[tokens].clone() for name in ("top_ids", "top_logp", "written_logp")]
        return TopEvidence(*parts)

"""A directory of responses as a data set: prompts with references, authors and evidence."""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError

from skd.errors import DataError, ModelError, Problem
from skd.files import hash_file
from skd.responses.index import Index, ShardRecord, read_index
from skd.responses.shards import Shard, StoredEvidence, read_shard, stamp_of
from skd.types import Prompts

__all__ = ["StoredResponses", "defect", "open_responses"]


@dataclass(frozen=True)
class StoredResponses:
    """Responses of an earlier run. Every byte is the one written; of the evidence, none is in memory."""

    path: Path
    index: Index
    prompts: Prompts
    """One for each response, which is its reference; numbered in the order of the files."""

    @property
    def provenance(self) -> dict[str, object]:
        """What identifies the responses, and the models that wrote them."""
        digest = hashlib.sha256(self.index.text().encode()).hexdigest()
        return {"path": str(self.path), "digest": digest, "models": self.index.origin.get("models")}

    def require_vocabulary(self, digest: str) -> None:
        """Raises ModelError (SKD-M02) unless the ids are those of a tokenizer whose vocabulary has this digest."""
        if self.index.vocabulary != digest:
            found = "its token ids are of another vocabulary than the student's"
            remedy = "generate the responses with a pair of this vocabulary"
            raise ModelError(Problem("SKD-M02", str(self.path), found, remedy))


def open_responses(path: str | Path) -> StoredResponses:
    """Check a directory that ``skd generate --to`` wrote, byte for byte, and read all of it but the evidence.

    Raises DataError, naming the files: SKD-D01 for what is missing, SKD-D02 for what is not as it was written.
    """
    directory = Path(path)
    index = read_index(directory)
    broken = [(shard, reason) for shard in index.shards if (reason := defect(directory, shard))]
    if broken:
        remedy = "restore it from a copy, or generate the responses again"
        raise DataError([Problem("SKD-D02", str(directory / shard.name), text, remedy) for shard, text in broken])
    return StoredResponses(directory, index, _prompts(directory, index))


def defect(directory: Path, shard: ShardRecord) -> str | None:
    """Why a shard does not count; None when every byte is as it was written."""
    try:
        found = hash_file(directory / shard.name)
    except FileNotFoundError:
        return "it is missing"
    except OSError as error:
        return f"it cannot be read ({error.strerror})"
    if found.bytes != shard.bytes:
        return f"it has {found.bytes} bytes, {shard.bytes} were written"
    return None if found.sha256 == shard.sha256 else "its SHA-256 is not that of the index"


def _prompts(directory: Path, index: Index) -> Prompts:
    shards = [_read(directory / record.name, record, index.top_k) for record in index.shards]
    responses = [ids for shard in shards for ids in shard.responses]
    return Prompts(
        ids=[ids for shard in shards for ids in shard.prompts],
        sample_ids=range(len(responses)),
        references=responses,
        reference_masks=_masks(shards),
        reference_authors=[authors for shard in shards for authors in shard.authors],
        reference_evidence=None if index.top_k is None else _evidence(directory, index, shards),
    )


def _read(path: Path, record: ShardRecord, top_k: int | None) -> Shard:
    try:
        return read_shard(path, record, top_k)
    except (ValueError, RuntimeError, SafetensorError) as error:
        remedy = "generate the responses again"
        raise DataError(Problem("SKD-D02", str(path), f"does not hold what its index says: {error}", remedy)) from None


def _masks(shards: Sequence[Shard]) -> list[list[bool]] | None:
    """Shards without masks among shards with some leave nothing out."""
    if all(shard.masks is None for shard in shards):
        return None
    return [mask for shard in shards for mask in shard.masks or [[True] * len(ids) for ids in shard.responses]]


def _evidence(directory: Path, index: Index, shards: Sequence[Shard]) -> StoredEvidence:
    file_of, start, length = array("i"), array("q"), array("i")
    for number, shard in enumerate(shards):
        place = 0
        for ids in shard.responses:
            file_of.append(number)
            start.append(place)
            length.append(len(ids))
            place += len(ids)
    files = [directory / record.name for record in index.shards]
    return StoredEvidence(files, [stamp_of(path) for path in files], file_of, start, length)

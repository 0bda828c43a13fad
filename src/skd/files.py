"""Writing files that are whole or absent, and known by their hash.

``write_safetensors`` streams the safetensors layout (https://github.com/huggingface/safetensors#format: 8 bytes of
header length, a JSON header, the raw tensors) instead of calling the library, which offers either a second copy of all
weights in memory or a file that would have to be read again to be hashed.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

__all__ = [
    "FileRecord",
    "canonical",
    "directory_digest",
    "fsync_directory",
    "hash_file",
    "write_atomic",
    "write_hashed",
    "write_safetensors",
]

_DTYPE_NAMES = {
    "torch.float32": "F32",
    "torch.bfloat16": "BF16",
    "torch.float16": "F16",
    "torch.float64": "F64",
    "torch.int64": "I64",
    "torch.int32": "I32",
    "torch.uint8": "U8",
}
"""By name, so that a manifest can be read without torch."""
_SMALL = 1 << 20
_SAMPLES, _SAMPLE_BYTES = 4096, 256


@dataclass(frozen=True)
class FileRecord:
    """What a manifest knows of a file."""

    bytes: int
    sha256: str


def canonical(value: object) -> bytes:
    """The one JSON text of a value: sorted keys, no spaces, no NaN. Raises ValueError on NaN or infinity."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()


def write_hashed(path: Path, chunks: Iterable[bytes | memoryview]) -> FileRecord:
    """Write a new file of mode 0600, hashed on the way and on disk when this returns. Raises OSError."""
    digest, size = hashlib.sha256(), 0
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    with os.fdopen(fd, "wb") as file:
        for chunk in chunks:
            file.write(chunk)
            digest.update(chunk)
            size += len(chunk)
        file.flush()
        os.fsync(file.fileno())
    return FileRecord(size, digest.hexdigest())


def write_safetensors(path: Path, tensors: Mapping[str, Tensor]) -> FileRecord:
    """Write tensors by name as a safetensors file; see ``write_hashed``."""
    return write_hashed(path, _safetensors_chunks(tensors))


def _safetensors_chunks(tensors: Mapping[str, Tensor]) -> Iterator[bytes | memoryview]:
    import torch

    header: dict[str, object] = {}
    # Wide numbers first: each then starts at a multiple of its size, without which readers cannot map it.
    ordered = sorted(tensors.items(), key=lambda item: (-item[1].element_size(), item[0]))
    end = 0
    for name, tensor in ordered:
        start, end = end, end + tensor.numel() * tensor.element_size()
        header[name] = {
            "dtype": _DTYPE_NAMES[str(tensor.dtype)],
            "shape": list(tensor.shape),
            "data_offsets": [start, end],
        }
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    yield len(text).to_bytes(8, "little")
    yield text
    for _, tensor in ordered:
        if tensor.numel():
            flat = tensor.detach().cpu().contiguous().reshape(-1)
            yield flat.view(torch.uint8).numpy().data


def hash_file(path: Path) -> FileRecord:
    """Size and SHA-256 of a regular file. Raises OSError, also when ``path`` is a symbolic link."""
    digest, size = hashlib.sha256(), 0
    with os.fdopen(os.open(path, os.O_RDONLY | os.O_NOFOLLOW), "rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
            size += len(chunk)
    return FileRecord(size, digest.hexdigest())


def directory_digest(directory: Path) -> str:
    """SHA-256 that tells whether the model in a directory is still the same, at a cost that its size does not change.

    It covers names and sizes of all files, the whole of those up to 1 MiB, and of a larger one the first 64 KiB and
    4,096 blocks of 256 bytes, evenly spread: training moves every weight of a tensor, so that only a few values changed
    in a large file may go unseen. Nothing is loaded.
    """
    digest = hashlib.sha256()
    for file in sorted(path for path in directory.iterdir() if path.is_file()):
        size = file.stat().st_size
        digest.update(f"{file.name}:{size};".encode())
        if size <= _SMALL:
            digest.update(file.read_bytes())
        else:
            _sample(digest, file, size)
    return digest.hexdigest()


def _sample(digest: hashlib._Hash, file: Path, size: int) -> None:
    with file.open("rb", buffering=0) as opened:
        digest.update(opened.read(1 << 16))
        for number in range(_SAMPLES):
            opened.seek(number * (size - _SAMPLE_BYTES) // (_SAMPLES - 1))
            digest.update(opened.read(_SAMPLE_BYTES))


def fsync_directory(path: Path) -> None:
    """Make the names in a directory durable."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def write_atomic(path: Path, text: str) -> None:
    """Replace a small text file: readers see the old one or the new one."""
    beside = path.with_name(f".tmp-{path.name}-{os.getpid()}")
    beside.unlink(missing_ok=True)
    try:
        write_hashed(beside, [text.encode()])
        os.replace(beside, path)
    except OSError:
        beside.unlink(missing_ok=True)
        raise
    fsync_directory(path.parent)

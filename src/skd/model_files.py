"""A model's files before any weight is read: where they lie, what its config asks for, and which tensors it has.

Needs no torch. Of a safetensors file only the header is read (8 bytes of length and the JSON that they announce,
https://github.com/huggingface/safetensors#format); that the payload is all there follows from the size of the file.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from skd.config.paths import resolve_model_path
from skd.errors import ModelError, Problem, RemoteError, SkdError

__all__ = [
    "ModelFiles",
    "StoredTensor",
    "explain",
    "model_files",
    "reason",
    "refuse_denied_keys",
    "require_directory",
    "require_tensors",
    "stored_tensors",
]

_DENIED_KEYS = frozenset({"auto_map", "trust_remote_code", "_attn_implementation_internal", "quantization_config"})
_IMPLEMENTATIONS = frozenset(
    {"_attn_implementation", "attn_implementation", "_experts_implementation", "experts_implementation"}
)
"""Keys whose value may name a kernel of the Hub, ``owner/name``, that transformers would fetch and run."""

_WEIGHTS, _INDEX = "model.safetensors", "model.safetensors.index.json"
_SMALL_FILES = ("*.json", "*.txt", "*.model", "*.jinja")
_LONGEST_HEADER = 100_000_000
_BYTES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U8": 1, "BOOL": 1}
_FLOATS = frozenset({"F64", "F32", "F16", "BF16"})


@dataclass(frozen=True)
class StoredTensor:
    """One tensor as the header of its file has it."""

    file: str
    dtype: str
    """Name of safetensors, such as ``BF16``."""
    shape: tuple[int, ...]


@dataclass(frozen=True)
class ModelFiles:
    """The small files of a model."""

    directory: Path
    config: Mapping[str, Any]
    """config.json as it is."""
    tensors: Mapping[str, StoredTensor] | None
    """By name; None when the weights of a Hub model are not on this machine yet."""


def model_files(name: str, path: str, revision: str | None) -> tuple[ModelFiles | None, list[SkdError]]:
    """The files of the model ``name`` ("teacher" or "student"), and everything that is wrong with them.

    Of a Hub model the small files are fetched where they are not cached; weights never are. No files when there is a
    problem, so that nothing builds on them.
    """
    problems: list[SkdError] = []
    try:
        directory = _directory(name, path, revision)
    except SkdError as error:
        return None, [error]
    config: dict[str, Any] = {}
    tensors = None
    try:
        config = _config(name, path, directory)
        refuse_denied_keys(name, path, config)
    except ModelError as error:
        problems.append(error)
    try:
        if Path(resolve_model_path(path)).is_dir() or _has_weights(directory):
            tensors = stored_tensors(name, path, directory)
    except ModelError as error:
        problems.append(error)
    return None if problems else ModelFiles(directory, config, tensors), problems


def _has_weights(snapshot: Path) -> bool:
    """Whether the snapshot of a Hub model has all its weights: a download may have been interrupted."""
    if (snapshot / _WEIGHTS).is_file():
        return True
    return (snapshot / _INDEX).is_file() and all(
        (snapshot / file).is_file() for file in (_index(str(snapshot), snapshot) or {}).values()
    )


def _directory(name: str, path: str, revision: str | None) -> Path:
    """The model's directory on this machine; a Hub model's snapshot, without its weights unless they are cached."""
    found = resolve_model_path(path)
    require_directory(name, found)
    if Path(found).is_dir():
        return Path(found)
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(found, revision=revision, allow_patterns=list(_SMALL_FILES)))
    except Exception as error:  # the client and the network below it raise many kinds
        raise explain(name, found, error) from error


def _config(name: str, path: str, directory: Path) -> dict[str, Any]:
    place = f"{name} {path!r}"
    if not (directory / "config.json").is_file():
        found, remedy = _defect(directory, FileNotFoundError())
        raise ModelError(Problem("SKD-M14", place, f"cannot be loaded: {found}", remedy))
    config = _json(place, directory / "config.json")
    if not isinstance(config, dict):
        raise _broken(place, "config.json holds no JSON object", "fetch or export the model again")
    return config


def _json(place: str, path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError, OSError) as error:
        found = f"{path.name} is no JSON file that can be read ({reason(error)})"
        raise _broken(place, found, "fetch or export the model again") from error


def _broken(place: str, found: str, remedy: str) -> ModelError:
    return ModelError(Problem("SKD-M14", place, found, remedy))


def require_directory(name: str, path: str | Path) -> None:
    """Refuse what can be no model, neither here nor on the Hub, before the Hub complains of it in its own terms."""
    place, text = f"{name} {str(path)!r}", str(path)
    if not text.strip():
        raise _broken(place, "is empty", "give a directory, a Hub id or builtin:TASK/ROLE")
    if Path(path).is_dir():
        return
    if Path(path).exists():
        raise _broken(place, "is a file, not a model directory", "give its directory")
    if text[0] in "./~" or text.count("/") > 1:
        remedy = "correct the path (it starts where skd is started; ~ is not expanded), or give a Hub id: owner/name"
        raise _broken(place, "there is no such directory", remedy)


def explain(name: str, path: str | Path, error: Exception) -> ModelError | RemoteError:
    """In plain words, the error that transformers or the Hub's client raised on a model."""
    place = f"{name} {str(path)!r}"
    if Path(path).is_dir():
        found, remedy = _defect(Path(path), error)
        code = "SKD-M11" if "custom code" in found else "SKD-M14"
        return ModelError(Problem(code, place, f"cannot be loaded: {found}", remedy))
    return RemoteError(
        Problem(
            "SKD-M23",
            place,
            f"is no local directory and could not be read from the Hub: {reason(error)}",
            "check the name, the network, and HF_TOKEN for gated models",
        )
    )


def _defect(directory: Path, error: Exception) -> tuple[str, str]:
    """What is wrong with a model directory, and the way out."""
    if not (directory / "config.json").is_file():
        return "it holds no config.json", "give the directory that a model was saved to, by save_pretrained for example"
    return reason(error), "check the directory's config, tokenizer and safetensors"


def reason(error: Exception) -> str:
    """The first line of an error's text, with the next where it ends in a colon; its class where it says nothing."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if not lines:
        return type(error).__name__
    text = " ".join(lines[:2]) if lines[0].endswith(":") else lines[0]
    return (f"{type(error).__name__}: {text}" if isinstance(error, LookupError | AttributeError) else text).rstrip(".")


def refuse_denied_keys(name: str, path: str | Path, config: Mapping[str, Any]) -> None:
    """Refuse a config.json with keys, at any depth, that lead to code or weights this loader does not run.

    Raises ModelError (SKD-M11 for code of the repository, else SKD-M12). Source: CVE-2026-4372, CVE-2026-5241.
    """
    denied = sorted(set(_denied(config)))
    if denied:
        raise ModelError(
            Problem(
                "SKD-M12" if denied != ["auto_map"] else "SKD-M11",
                f"{name} {str(path)!r}, config.json",
                f"holds {', '.join(denied)}, which can lead to code or weights this loader does not run",
                "use a model of a family that transformers ships, with plain safetensors weights",
            )
        )


def _denied(value: Any) -> Iterator[str]:
    if isinstance(value, Mapping):
        for key, inner in value.items():
            if key in _DENIED_KEYS or (key in _IMPLEMENTATIONS and "/" in str(inner)):
                yield str(key)
            yield from _denied(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _denied(inner)


def stored_tensors(name: str, path: str | Path, directory: Path) -> dict[str, StoredTensor]:
    """Every tensor of a model directory by name, from the headers alone.

    Raises ModelError with everything that is wrong: pickled weights only (SKD-M13); missing, cut or broken files and
    an index that does not fit them (SKD-M14); a type that is no plain float (SKD-M20).
    """
    place = f"{name} {str(path)!r}"
    index = _index(place, directory)
    files = sorted(set(index.values())) if index is not None else [_WEIGHTS]
    tensors: dict[str, StoredTensor] = {}
    problems: list[Problem] = []
    for file in files:
        try:
            tensors |= _header(place, directory, file)
        except ModelError as error:
            problems += error.problems
    if problems:
        raise ModelError([*problems, *_quantised(place, tensors)])
    require_tensors(place, index, tensors)
    return tensors


def require_tensors(place: str, index: Mapping[str, str] | None, tensors: Mapping[str, StoredTensor]) -> None:
    """Raises ModelError for an index that names other files (SKD-M14), and for types that are no floats (SKD-M20)."""
    problems = [*_index_problems(place, index or {}, tensors), *_quantised(place, tensors)]
    if problems:
        raise ModelError(problems)


def _index(place: str, directory: Path) -> dict[str, str] | None:
    """Tensor name -> file name; None when all tensors are in one file, as transformers would take them."""
    if (directory / _WEIGHTS).is_file() or not (directory / _INDEX).is_file():
        _require_weights(place, directory)
        return None
    index = _json(place, directory / _INDEX)
    files = index.get("weight_map") if isinstance(index, dict) else None
    if not isinstance(files, dict) or not files or not all(isinstance(file, str) for file in files.values()):
        raise _broken(place, f"{_INDEX} has no weight_map of tensors to files", "fetch or export the model again")
    outside = [file for file in files.values() if os.path.basename(file) != file]
    if outside:
        found = f"{_INDEX} names a file outside the directory, {outside[0]!r}"
        raise _broken(place, found, "do not use this model")
    return files


def _require_weights(place: str, directory: Path) -> None:
    if (directory / _WEIGHTS).is_file():
        return
    pickled = sorted(file.name for pattern in ("*.bin", "*.pt", "*.pth") for file in directory.glob(pattern))
    if pickled:
        found = f"its weights are pickled ({pickled[0]}), and unpickling runs whatever code the file holds"
        remedy = "convert them to safetensors where you trust them, and give that directory"
        raise ModelError(Problem("SKD-M13", place, found, remedy))
    found = f"no weights: neither {_WEIGHTS} nor {_INDEX}"
    raise _broken(place, found, "give the directory that a model was saved to, by save_pretrained for example")


def _header(place: str, directory: Path, file: str) -> dict[str, StoredTensor]:
    """The tensors of one file. Raises ModelError (SKD-M14) when header and size of the file do not fit each other."""
    again = "fetch or export the model again"
    if not (directory / file).is_file():
        raise _broken(place, f"the shard {file} is missing, and {_INDEX} names it", again)
    size = (directory / file).stat().st_size
    with (directory / file).open("rb", buffering=0) as opened:
        length = int.from_bytes(opened.read(8), "little")
        if size < 8 or length > min(size - 8, _LONGEST_HEADER):
            raise _broken(place, f"{file} is cut or no safetensors file: its {size} bytes end before its header", again)
        text = opened.read(length)
    try:
        return _tensors(file, json.loads(text), size - 8 - length)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        cause = str(error) if type(error) is ValueError else "it is not the header of a safetensors file"
        raise _broken(place, f"{file} has a broken header: {cause}", again) from None


def _tensors(file: str, header: dict[str, Any], payload: int) -> dict[str, StoredTensor]:
    """Raises ValueError unless the tensors fill the payload without gap or overlap."""
    entries = {name: entry for name, entry in header.items() if name != "__metadata__"}
    end = 0
    for name, entry in sorted(entries.items(), key=lambda item: item[1]["data_offsets"]):
        start, stop = entry["data_offsets"]
        count = _BYTES.get(entry["dtype"])
        for length in entry["shape"]:
            if not isinstance(length, int) or length < 0:
                raise ValueError(f"tensor {name[:80]!r} has an impossible shape")
            count = None if count is None else count * length
        if start != end or stop < start or count not in (None, stop - start):
            raise ValueError(f"tensor {name[:80]!r} does not have the bytes of its shape")
        end = stop
    if end != payload:
        raise ValueError(f"its tensors take {end} bytes and {payload} bytes follow it, so the file is cut or too long")
    return {name: StoredTensor(file, entry["dtype"], tuple(entry["shape"])) for name, entry in entries.items()}


def _index_problems(place: str, index: Mapping[str, str], tensors: Mapping[str, StoredTensor]) -> Iterator[Problem]:
    wrong = [name for name, file in index.items() if name not in tensors or tensors[name].file != file]
    if wrong:
        found = f"{_INDEX} is wrong: {index[wrong[0]]} does not hold {wrong[0]!r} ({len(wrong)} such tensors)"
        yield Problem("SKD-M14", place, found, "fetch or export the model again")


def _quantised(place: str, tensors: Mapping[str, StoredTensor]) -> Iterator[Problem]:
    odd = {tensor.dtype: name for name, tensor in tensors.items() if tensor.dtype not in _FLOATS}
    for dtype, name in sorted(odd.items()):
        found = f"tensor {name[:80]!r} is stored as {dtype}, which is no plain floating-point type"
        yield Problem("SKD-M20", place, found, "use the model's float32, bfloat16 or float16 weights")

"""The records of a data set on the Hugging Face Hub, by the ``datasets`` library: data files only, never a script."""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from skd.data.records import Record
from skd.errors import DataError, Problem, RemoteError, SkdError

if TYPE_CHECKING:
    from skd.config import HubSource

__all__ = ["hub_records", "name_of"]

logger = logging.getLogger(__name__)

RETRY_SECONDS = (1.0, 3.0)
"""Waits before the second and the third attempt."""
_COMMIT = re.compile(r"[0-9a-f]{40}")


def name_of(source: HubSource) -> str:
    """``owner/name[config/split]``, for messages."""
    parts = [source.split] if source.config is None else [source.config, source.split]
    return f"{source.id}[{'/'.join(parts)}]"


def hub_records(source: HubSource) -> Iterator[Record]:
    """The rows of a split; downloaded once, then read from the cache of ``datasets``, also offline.

    Raises RemoteError (SKD-D16) when the Hub cannot be reached or has no such data set, revision or split, or when
    offline the cache holds another revision; DataError for a data set with a script (SKD-D15) or with broken files
    (SKD-D02).
    """
    for number, row in enumerate(_rows(source)):
        yield f"{name_of(source)} row {number}", row


def _rows(source: HubSource) -> Any:
    import datasets  # type: ignore[import-untyped]  # heavy, and needed here only

    for seconds in (*RETRY_SECONDS, None):
        try:
            rows = _loaded(source)
            break
        except Exception as error:  # whatever the client, its transport and the file systems under it raise
            refusal = _refusal(source, error)
            if seconds is None or datasets.config.HF_HUB_OFFLINE or not _passing(refusal):
                raise refusal from error
            time.sleep(seconds)
    _require_revision(source, rows)
    return rows


def _passing(refusal: SkdError) -> bool:
    """Whether it may be different a little later: a network or a Hub that did not answer."""
    return any("the Hub was not reached" in problem.found for problem in refusal.problems)


def _loaded(source: HubSource) -> Any:
    import datasets

    # The prefix keeps a directory of the same name on this machine from being taken for the data set.
    return datasets.load_dataset(
        f"hf://datasets/{source.id}",
        source.config,
        split=source.split,
        revision=source.revision,
        keep_in_memory=False,
        trust_remote_code=False,
    )


def _require_revision(source: HubSource, rows: Any) -> None:
    # Without the Hub, the library takes whatever revision its cache holds; the commit is the folder in that cache.
    commit = next((Path(file["filename"]).parent.name for file in rows.cache_files), None)
    if source.revision is not None and _COMMIT.fullmatch(source.revision) and commit != source.revision:
        found = f"the Hub was not reached, and the cache holds commit {commit}, not {source.revision}"
        raise RemoteError(Problem("SKD-D16", name_of(source), found, "go online once, or correct revision"))
    logger.info("%s: commit %s; write it as revision to pin these rows", name_of(source), commit)


def _refusal(source: HubSource, error: Exception) -> SkdError:
    """The error to raise for one of the library's."""
    import datasets

    place, text = name_of(source), _first_line(error)
    if "scripts are no longer supported" in text:
        remedy = "choose a revision with data files, such as refs/convert/parquet"
        return DataError(Problem("SKD-D15", place, "the data set is a script, and no script of it is run", remedy))
    if isinstance(error, datasets.exceptions.DatasetGenerationError):
        found = f"its files cannot be read: {_first_line(error.__cause__ or error)}"
        return DataError(Problem("SKD-D02", place, found, "choose another revision"))
    if isinstance(error, (ValueError, datasets.exceptions.DatasetNotFoundError)):
        remedy = "correct id, config, split or revision; a gated data set needs the environment variable HF_TOKEN"
        return RemoteError(Problem("SKD-D16", place, text, remedy))
    remedy = "check the network and HF_HUB_OFFLINE, or read a copy of its files with kind: file"
    return RemoteError(Problem("SKD-D16", place, f"the Hub was not reached: {text}", remedy))


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__

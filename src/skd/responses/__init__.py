"""Responses on disk: a directory of safetensors shards and an index, written once and trained from many times.

    DIR/
        shard-00000.safetensors   the responses to some prompts; skd.responses.shards has the layout
        ...
        index.json                what is in them, how they were made, SHA-256 of each shard; written last of all
        unfinished.json           the same while not all shards are there

docs/offline.md shows the format to people.
"""

from skd.responses.index import INDEX_FILE, UNFINISHED_FILE, Index, ShardRecord, read_index
from skd.responses.shards import StoredEvidence, shard_tensors
from skd.responses.stored import StoredResponses, defect, open_responses

__all__ = [
    "INDEX_FILE",
    "UNFINISHED_FILE",
    "Index",
    "ShardRecord",
    "StoredEvidence",
    "StoredResponses",
    "defect",
    "open_responses",
    "read_index",
    "shard_tensors",
]

"""Writing the student as a plain transformers directory that any tool loads."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from skd.models.load import without_progress_bars
from skd.models.pair import Pair

__all__ = ["export_student"]


def export_student(pair: Pair, directory: str | Path, card: str) -> Path:
    """Write the student's weights, configs and tokenizer with a model card, replacing ``directory`` as a whole.

    The generation config holds every stop id, so that other tools stop where training stopped.
    """
    target = Path(directory)
    target.parent.mkdir(parents=True, exist_ok=True)
    beside = target.with_name(f".{target.name}-{os.getpid()}")
    pair.student.generation_config.eos_token_id = sorted(pair.stop_ids)
    with without_progress_bars():
        pair.student.save_pretrained(beside)
    pair.tokenizer.save_pretrained(beside)
    (beside / "README.md").write_text(card, encoding="utf-8")
    if target.exists():
        shutil.rmtree(target)
    beside.rename(target)
    return target

"""Writing the student as a plain transformers directory that any tool loads."""

from __future__ import annotations

import tempfile
from pathlib import Path

from transformers import GenerationConfig, PreTrainedConfig, PreTrainedTokenizerBase

from skd.errors import ModelError, Problem
from skd.model_files import reason
from skd.models.adapters import merged
from skd.models.directory import write_model
from skd.models.pair import Pair

__all__ = ["export_student", "rehearse_export"]


def export_student(pair: Pair, directory: str | Path, card: str) -> Path:
    """Write the student's weights, configs and tokenizer with a model card, replacing ``directory`` as a whole.

    Adapters are merged into the weights. The generation config holds every stop id, so that other tools stop where
    training stopped.
    """
    pair.student.generation_config = _savable(pair.student.generation_config, sorted(pair.stop_ids))
    return write_model(Path(directory), merged(pair.student), pair.tokenizer, card)


def rehearse_export(config: PreTrainedConfig, generation: GenerationConfig, tokenizer: PreTrainedTokenizerBase) -> None:
    """Save everything but the weights to a directory that goes at once, as the end of a run will.

    Raises ModelError (SKD-M17) when transformers refuses to save one of them.
    """
    with tempfile.TemporaryDirectory(prefix="skd-export-") as directory:
        parts = {
            "config": config,
            "generation config": _savable(generation, [0]),
            "tokenizer": tokenizer,
        }
        for name, part in parts.items():
            try:
                part.save_pretrained(directory)
            except Exception as error:  # whatever transformers raises would end the run at its last moment
                found = f"the student's {name} cannot be saved, so the export would fail: {reason(error)}"
                remedy = f"correct the {name} in the student's directory"
                raise ModelError(Problem("SKD-M17", "student", found, remedy)) from error


def _savable(source: GenerationConfig, stop_ids: list[int]) -> GenerationConfig:
    """The model's own generation config with all stop ids.

    Some published ones set a temperature beside do_sample=False: they load, the setting has no effect, and
    transformers refuses to save them. Of such a one only the ids stay, or the export would fail at the end of a run.
    """
    source.eos_token_id = stop_ids
    try:
        source.validate(strict=True)
    except ValueError:
        ids = {"bos_token_id": source.bos_token_id, "pad_token_id": source.pad_token_id}
        return GenerationConfig(eos_token_id=stop_ids, **ids)
    return source

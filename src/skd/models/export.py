"""Writing the student as a plain transformers directory that any tool loads."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

from torch import Tensor
from transformers import GenerationConfig, PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

from skd.errors import ModelError, Problem
from skd.files import write_atomic
from skd.model_files import reason
from skd.models.adapters import merged
from skd.models.directory import replacing, without_progress_bars, write_model
from skd.models.pair import Pair

__all__ = ["export_for_engine", "export_student", "rehearse_export"]


def export_student(pair: Pair, directory: str | Path, card: str) -> Path:
    """Write the student's weights, configs and tokenizer with a model card, replacing ``directory`` as a whole.

    Adapters are merged into the weights. The generation config holds every stop id, so that other tools stop where
    training stopped.
    """
    pair.student.generation_config = _savable(pair.student.generation_config, sorted(pair.stop_ids))
    return write_model(Path(directory), merged(pair.student), pair.tokenizer, card)


def export_for_engine(pair: Pair, model: PreTrainedModel, directory: Path, *, with_tokenizer: bool = False) -> None:
    """Write one model of a pair for an engine that samples from it, replacing ``directory`` as a whole.

    Adapters are merged into the weights; embeddings and head are cut to the ids that both models share, since an engine
    draws from all that it is given. Not synced to the disk: a machine that fails takes the engine with it.
    """
    plain, size = merged(model), pair.vocab_size
    plain.generation_config = _savable(plain.generation_config, sorted(pair.stop_ids))
    with replacing(directory) as beside:
        with without_progress_bars():
            plain.save_pretrained(beside, state_dict=_cut(plain, size))
        _cut_config(beside / "config.json", size)
        if with_tokenizer:
            pair.tokenizer.save_pretrained(beside)


def weights_for_engine(pair: Pair, model: PreTrainedModel) -> dict[str, Tensor]:
    """What ``export_for_engine`` would write, by the model's own names and where it is; tied weights twice."""
    return _cut(merged(model), pair.vocab_size)


def _cut(model: PreTrainedModel, vocab_size: int) -> dict[str, Tensor]:
    """The weights by name, those with a row for each id cut to ``vocab_size`` rows."""
    ends = (model.get_input_embeddings(), model.get_output_embeddings())
    rows = {id(weight) for module in ends if module is not None for weight in module.parameters()}
    state: dict[str, Tensor] = model.state_dict(keep_vars=True)
    return {name: (t[:vocab_size] if id(t) in rows else t).detach() for name, t in state.items()}


def _cut_config(path: Path, vocab_size: int) -> None:
    config = json.loads(path.read_text(encoding="utf-8"))
    for section in (config, config.get("text_config")):
        if isinstance(section, dict) and "vocab_size" in section:
            section["vocab_size"] = vocab_size
    write_atomic(path, json.dumps(config, indent=2))


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

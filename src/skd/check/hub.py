"""The headers of a Hub model's weights, read over the network: a few kilobytes of each file, never a weight."""

from __future__ import annotations

from dataclasses import replace

from skd.check.report import Part
from skd.config import ModelConfig, resolve_model_path
from skd.errors import ModelError, Problem
from skd.model_files import ModelFiles, StoredTensor, reason, require_tensors

__all__ = ["with_headers"]


def with_headers(part: Part, name: str, model: ModelConfig, files: ModelFiles) -> ModelFiles:
    """The files with their tensors, at the commit whose small files they hold.

    Weights that cannot be used are errors as for a local directory (SKD-M13, M14, M20). Where the Hub is not reached,
    the files come back as they are, with a warning (SKD-M23).
    """
    from huggingface_hub import get_safetensors_metadata
    from huggingface_hub.errors import NotASafetensorsRepoError, SafetensorsParsingError

    place = f"{name} {model.path!r}"
    with part.noting():
        try:
            found = get_safetensors_metadata(resolve_model_path(model.path), revision=files.directory.name)
        except NotASafetensorsRepoError as error:
            text = "has no safetensors weights, and unpickling others runs whatever code they hold"
            remedy = "choose a revision that has them, or convert them where you trust them"
            raise ModelError(Problem("SKD-M13", place, text, remedy)) from error
        except SafetensorsParsingError as error:
            text = f"has weights with a broken header: {reason(error)}"
            raise ModelError(Problem("SKD-M14", place, text, "choose another revision")) from error
        except Exception as error:  # the client and the network below it raise many kinds
            text = f"its weights are not on this machine, and the Hub was not reached to look at them ({reason(error)})"
            remedy = "go online before the run starts"
            part.warnings.append(Problem("SKD-M23", place, text, remedy))
            return files
        tensors = {
            key: StoredTensor(file, info.dtype, tuple(info.shape))
            for file, header in found.files_metadata.items()
            for key, info in header.tensors.items()
        }
        require_tensors(place, found.weight_map, tensors)
        part.facts.append("weights not fetched yet")
        return replace(files, tensors=tensors)
    return files

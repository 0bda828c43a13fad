"""Hostile models, templates, configs, data and checkpoints: each is refused or harmless, and no code of theirs runs."""

from __future__ import annotations

import json
import os
import pickle
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from skd.cli import main
from skd.errors import ModelError
from skd.models import load_pair
from tests.check.bench import GOOD_ROWS, Bench

EVIL = "open({canary!r}, 'w').write('ran')\n"


class Bomb:
    """Makes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[..., object], tuple[str, ...]]:
        return os.system, (f"touch {self.path}",)


def code_beside(directory: Path, canary: Path) -> None:
    for name in ("modeling_evil", "configuration_evil", "tokenization_evil"):
        (directory / f"{name}.py").write_text(EVIL.format(canary=str(canary)))


def auto_map(bench: Bench, canary: Path) -> None:
    code_beside(bench.student, canary)
    classes = {"AutoConfig": "configuration_evil.C", "AutoModelForCausalLM": "modeling_evil.M"}
    bench.json("student/config.json", auto_map=classes, model_type="evil")


def remote_code_by_config(bench: Bench, canary: Path) -> None:
    auto_map(bench, canary)
    bench.json("student/config.json", trust_remote_code=True)


def tokenizer_code(bench: Bench, canary: Path) -> None:
    code_beside(bench.student, canary)
    classes = {"AutoTokenizer": ["tokenization_evil.T", None]}
    bench.json("student/tokenizer_config.json", auto_map=classes, tokenizer_class="T", trust_remote_code=True)


def attention_kernel(bench: Bench, canary: Path) -> None:
    code_beside(bench.student, canary)
    bench.json("student/config.json", _attn_implementation_internal=str(bench.student))


def pickled_weights(bench: Bench, canary: Path) -> None:
    (bench.student / "model.safetensors").unlink()
    (bench.student / "pytorch_model.bin").write_bytes(pickle.dumps(Bomb(canary)))


def pickle_named_safetensors(bench: Bench, canary: Path) -> None:
    (bench.student / "model.safetensors").write_bytes(pickle.dumps(Bomb(canary)))


def pickle_beside(bench: Bench, canary: Path) -> None:
    """Files that other loaders read: refused is the model for another reason, so that its directory is looked at."""
    for name in ("training_args.bin", "optimizer.pt", "rng_state.pth", "scheduler.pt"):
        (bench.student / name).write_bytes(pickle.dumps(Bomb(canary)))
    bench.json("student/config.json", quantization_config={})


MODELS = [
    (auto_map, "SKD-M11"),
    (remote_code_by_config, "SKD-M12"),
    (tokenizer_code, "SKD-M11"),
    (attention_kernel, "SKD-M12"),
    (pickled_weights, "SKD-M13"),
    (pickle_named_safetensors, "SKD-M14"),
    (pickle_beside, "SKD-M12"),
]


@pytest.mark.parametrize(("plant", "code"), MODELS, ids=[plant.__name__ for plant, _ in MODELS])
def test_a_hostile_model_is_refused_by_every_way_in(
    plant: Callable[[Bench, Path], None], code: str, bench: Bench, canary: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plant(bench, canary)
    assert main(["check", "run.yaml"]) == 4
    assert f"error[{code}]" in capsys.readouterr().out
    assert main(["train", "run.yaml"]) == 4
    assert main(["generate", "--teacher", "teacher", "--student", "student", "t2"]) == 4
    assert main(["evaluate", "student", "--size", "1"]) == 4
    with pytest.raises(ModelError):
        load_pair("student", "teacher")
    assert not canary.exists()


TEMPLATES = [
    "{{{{ cycler.__init__.__globals__.os.popen('touch {canary}').read() }}}}",
    "{{{{ self.__init__.__globals__.__builtins__.open('{canary}', 'w') }}}}",
    "{{{{ ''.__class__.__mro__[1].__subclasses__() }}}}",
    "{{{{ raise_exception.__globals__['__builtins__']['open']('{canary}', 'w') }}}}",
    "{{% set x = namespace.__init__ %}}{{{{ x.__globals__ }}}}",
    "{{{{ ('%s' | attr('format')).__globals__ }}}}",
    "{{% for c in ().__class__.__base__.__subclasses__() %}}{{{{ c }}}}{{% endfor %}}",
    "{{{{ messages.__class__.__init__.__globals__ }}}}",
    "{{% include '/etc/passwd' %}}",
    "{{% import '{canary}' as x %}}",
    "{{{{ strftime_now.__closure__ }}}}{{{{ strftime_now.__globals__ }}}}",
]


@pytest.mark.parametrize("template", TEMPLATES)
def test_a_template_reaches_nothing(
    template: str, bench: Bench, canary: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bench.template(template.format(canary=canary))
    assert main(["check", "run.yaml"]) in (3, 4)
    # Refused, or what it reached for was not there and its text is empty.
    assert re.search(r"error\[SKD-(M08|D05)\] data", capsys.readouterr().out)
    assert not canary.exists()


CONFIGS = [
    "output: !!python/object/apply:os.system ['touch {canary}']\n",
    "output: !!python/object/new:os.system ['touch {canary}']\n",
    "output: !!python/name:os.system\n",
    "output: !!python/module:antigravity\n",
    "!!python/object/apply:os.system ['touch {canary}']\n",
    "x: &a [!!python/object/apply:os.system ['touch {canary}']]\ny: *a\n",
]


@pytest.mark.parametrize("text", CONFIGS)
def test_a_config_builds_no_objects(text: str, bench: Bench, canary: Path) -> None:
    (bench.root / "run.yaml").write_text(text.format(canary=canary) + (bench.root / "run.yaml").read_text())
    for command in ("check", "train"):
        assert main([command, "run.yaml"]) == 2
    assert main(["check", "run.yaml", text.strip().replace(": ", "=", 1).format(canary=canary)]) == 2
    assert not canary.exists()


def test_a_dataset_script_is_not_run(bench: Bench, canary: Path) -> None:
    (bench.root / "rows.py").write_text(EVIL.format(canary=str(canary)))
    (bench.root / "rows").mkdir()
    (bench.root / "rows/rows.py").write_text(EVIL.format(canary=str(canary)))
    for source in ("rows.py", "rows"):
        assert main(["check", "run.yaml", f"data.train={source}"]) == 3
    assert not canary.exists()


def test_a_file_name_is_no_command(bench: Bench, canary: Path) -> None:
    name = f"$(touch {canary.name}); touch {canary.name}.jsonl"
    bench.rows(*GOOD_ROWS, name=name)
    assert main(["check", "run.yaml", f"data.train={json.dumps(name)}"]) == 0
    assert not canary.exists()
    assert not (bench.root / canary.name).exists()


def test_a_hostile_checkpoint_is_refused(bench: Bench, canary: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Every file of a checkpoint in turn replaced by a pickle: exit 5 each time, and nothing is unpickled."""
    assert main(["train", "run.yaml", "train.trackers=[]", "train.max_steps=1"]) == 0
    whole = bench.root / "whole"
    (bench.root / "runs/x/checkpoints").rename(whole)
    names = sorted(path.name for path in next(whole.iterdir()).iterdir())
    assert len(names) == 5
    for name in names:
        shutil.copytree(whole, bench.root / "runs/x/checkpoints")
        (bench.root / "runs/x/checkpoints/step-1" / name).write_bytes(pickle.dumps(Bomb(canary)))
        assert main(["train", "run.yaml", "train.trackers=[]", "train.max_steps=2"]) == 5, name
        assert "error[SKD-K06]" in capsys.readouterr().err
        shutil.rmtree(bench.root / "runs/x/checkpoints")
    assert not canary.exists()

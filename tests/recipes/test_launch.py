"""The launch files are read by what they are for; what needs no GPU is run."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from accelerate.commands.config.config_args import load_config_from_file
from accelerate.commands.launch import _validate_launch_command, launch_command_parser
from accelerate.utils.launch import prepare_deepspeed_cmd_env, prepare_multi_gpu_env

from skd.config import RunConfig
from skd.train.launched import _asked_by_launcher, as_launched
from tests.tiny import save_tiny

LAUNCH = Path(__file__).parents[2] / "recipes" / "accelerate"
SIZES = {
    "one_gpu": (1, 1, "NO"),
    "eight_gpus": (8, 1, "MULTI_GPU"),
    "fsdp2": (8, 1, "FSDP"),
    "zero3": (8, 1, "DEEPSPEED"),
    "two_nodes": (16, 2, "MULTI_GPU"),
}
SHARDINGS = {"one_gpu": ("none", False), "fsdp2": ("fsdp2", False), "zero3": ("zero3", True)}


def test_every_launch_file_is_known_here():
    assert {path.stem for path in LAUNCH.glob("*.yaml")} == set(SIZES)


@pytest.mark.parametrize("name", SIZES)
def test_accelerate_reads_the_launch_file(name):
    config = load_config_from_file(str(LAUNCH / f"{name}.yaml"))
    processes, machines, kind = SIZES[name]
    assert (config.num_processes, config.num_machines) == (processes, machines)
    assert config.distributed_type == kind
    assert not config.use_cpu


@pytest.mark.parametrize("name", SHARDINGS)
def test_what_the_launch_file_asks_for_is_the_sharding(name, monkeypatch):
    """By the variables that accelerate itself makes of the file."""
    _asked_by_launcher.cache_clear()
    for variable, value in environment_of(LAUNCH / f"{name}.yaml").items():
        monkeypatch.setenv(variable, value)
    config = RunConfig(student="s", method="sft", data={"train": "x"})
    launched = as_launched(config)
    assert (launched.train.sharding, launched.train.offload) == SHARDINGS[name]
    assert as_launched(config) == launched  # also where a script trains twice
    assert not {"ACCELERATE_USE_FSDP", "ACCELERATE_USE_DEEPSPEED"} & set(os.environ)
    _asked_by_launcher.cache_clear()


def environment_of(file):
    args = launch_command_parser().parse_args(["--config_file", str(file), "-m", "skd", "train"])
    args, defaults, _ = _validate_launch_command(args)
    if args.use_deepspeed:
        args.deepspeed_fields_from_accelerate_config = ",".join(defaults.deepspeed_config)
        environment = prepare_deepspeed_cmd_env(args)[1]
    else:
        environment = prepare_multi_gpu_env(args)
    return {name: value for name, value in environment.items() if name.startswith(("ACCELERATE_", "FSDP_"))}


def test_the_slurm_script_starts_torchrun_once_per_machine_with_all_that_it_was_given(tmp_path):
    """With stand-ins for SLURM's programs, which print what they are called with."""
    for name, body in {"srun": 'printf "%s\\n" "$@"', "scontrol": "echo node7; echo node8"}.items():
        program = tmp_path / name
        program.write_text(f"#!/bin/bash\n{body}\n")
        program.chmod(0o755)
    job = {"SLURM_JOB_NODELIST": "node[7-8]", "SLURM_NNODES": "2", "SLURM_GPUS_ON_NODE": "4", "SLURM_JOB_ID": "31"}
    environment = {**os.environ, **job, "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    command = ["bash", str(LAUNCH / "slurm.sh"), "run.yaml", "train.lr=1e-5"]
    asked = subprocess.run(command, env=environment, capture_output=True, text=True, check=True, timeout=30).stdout
    words = asked.split("\n")
    assert words[:2] == ["--kill-on-bad-exit=1", "torchrun"]
    for option, value in {"--nnodes": "2", "--nproc-per-node": "4", "--rdzv-endpoint": "node7:29500"}.items():
        assert words[words.index(option) + 1] == value
    assert words[-6:-1] == ["-m", "skd", "train", "run.yaml", "train.lr=1e-5"]


def test_torchrun_starts_two_processes_with_shards(tmp_path):
    """The command of docs/scale.md, on CPUs."""
    save_tiny(tmp_path / "teacher", "llama", seed=1)
    save_tiny(tmp_path / "student", "llama", seed=2, hidden=16)
    rows = [{"prompt": f"t{2 + i} t{3 + i}", "response": f"t{5 + i}"} for i in range(8)]
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    config = {
        "teacher": str(tmp_path / "teacher"),
        "student": str(tmp_path / "student"),
        "data": {
            "train": {"path": str(tmp_path / "rows.jsonl"), "prompt_field": "prompt", "response_field": "response"}
        },
        "sampling": {"max_new_tokens": 4},
        "train": {"max_steps": 2, "batch_size": 4, "trackers": []},
        "output": str(tmp_path / "run"),
    }
    (tmp_path / "run.yaml").write_text(json.dumps(config))
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"}
    command = [*torchrun, "-m", "skd", "train", str(tmp_path / "run.yaml"), "train.sharding=fsdp2"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr[-3000:]
    assert (tmp_path / "run" / "student" / "model.safetensors").is_file()
    assert len((tmp_path / "run" / "trained.jsonl").read_text().splitlines()) == 2

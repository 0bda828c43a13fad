"""What a user gets for a mistake: the whole message, so that place, found, expected and way out are all claims."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from skd.config import load_config
from skd.errors import ConfigError
from tests.config.conftest import BASE

Problems = Callable[..., list[str]]

ONE_PROBLEM = [
    # Text where a number is expected (C03)
    (
        "train: {lr: fast}",
        'C03] train.yaml:1: train.lr is the text "fast", expected a number; write for example train.lr: 1e-05',
    ),
    (
        "train: {max_steps: '1e3'}",
        'C03] train.yaml:1: train.max_steps is the text "1e3", expected a whole number; '
        "write train.max_steps: 1000, without quotes, dot or exponent",
    ),
    (
        "sampling: {slots: '8'}",
        'C03] train.yaml:1: sampling.slots is the text "8", expected a whole number; '
        "write sampling.slots: 8, without quotes, dot or exponent",
    ),
    (
        "train: {batch_size: 08}",
        'C03] train.yaml:1: train.batch_size is the text "08", expected a whole number; '
        "write train.batch_size: 8, without quotes, dot or exponent",
    ),
    # Duplicate keys (C04)
    (
        "train:\n  lr: 0.1\n  lr: 0.2",
        'C04] train.yaml:3: the key "lr" stands twice, at line 2 and at line 3; keep one of them',
    ),
    ("output: a\noutput: b", 'C04] train.yaml:2: the key "output" stands twice, at line 1 and at line 2; keep one'),
    # Unknown keys and names (C05)
    ("learning_rte: 3", "C05] train.yaml:1: learning_rte is an unknown key; did you mean train.lr?"),
    ("lr: 3", "C05] train.yaml:1: lr is an unknown key; did you mean train.lr?"),
    ("train:\n  bach_size: 3", "C05] train.yaml:2: train.bach_size is an unknown key; did you mean train.batch_size?"),
    ("outptu: x", "C05] train.yaml:1: outptu is an unknown key; did you mean output?"),
    (
        "sampling: {student: {temprature: 1}}",
        "C05] train.yaml:1: sampling.student.temprature is an unknown key; did you mean sampling.student.temperature?",
    ),
    (
        "policy: {kind: interleaved, gamma: 5}",
        "C05] train.yaml:1: policy.gamma is an unknown key; did you mean policy.block?",
    ),
    (
        "policy: {kind: student, block: 5}",
        "C05] train.yaml:1: policy.block is an unknown key of kind student; "
        "remove it, or write policy.kind: interleaved",
    ),
    (
        "policy: {kind: interleaved, gate: {kind: top_p, p: 0.9, qqq: 1}}",
        "C05] train.yaml:1: policy.gate.qqq is an unknown key; the keys under policy.gate are kind, p",
    ),
    ("train: {qqqq: 1}", "C05] train.yaml:1: train.qqqq is an unknown key; the keys under train are batch_size, betas"),
    ("on: 1", "C05] train.yaml:1: on is an unknown key; the keys at the top are data, format, hub, method"),
    (
        "method: sdk",
        'C05] train.yaml:1: method is the text "sdk", expected one of sft, seq_kd, supervised_kd, on_policy, imitkd, '
        "two_stage, skd, skd_adaptive_k, mixed_skd, ipd, ca_opd, adaswitch, selectkd, veto, taid, distillm, opd; "
        "did you mean skd?",
    ),
    (
        "train: {schedule: cosin}",
        'C05] train.yaml:1: train.schedule is the text "cosin", expected one of constant, linear, cosine; '
        "did you mean cosine?",
    ),
    (
        "policy: {kind: interleaved, gate: {kind: topk}}",
        'C05] train.yaml:1: policy.gate.kind is the text "topk", expected one of top_k, top_p, min_prob, '
        "interpolated, switch_once, accept_all, accept_none, custom; did you mean top_k?",
    ),
    (
        "train: {precision: 16}",
        "C05] train.yaml:1: train.precision is 16, expected one of fp32, bf16, fp16; write fp32",
    ),
    # What YAML reads as something else, and wrong kinds of value (C06)
    (
        "output: no",
        'C06] train.yaml:1: output is the boolean no, expected text; write output: "no" in quotes',
    ),
    ("output: 7", 'C06] train.yaml:1: output is 7, expected text; write output: "7" in quotes'),
    (
        "output: 2024-01-01",
        "C06] train.yaml:1: output is 2024-01-01, which YAML reads as a date; "
        'write output: "2024-01-01" in quotes if text is meant, or a plain decimal number',
    ),
    (
        "train: {batch_size: 012}",
        "C06] train.yaml:1: train.batch_size is 012, which YAML reads as a base-8 number; write train.batch_size",
    ),
    (
        "train: {max_steps: 12:30:45}",
        "C06] train.yaml:1: train.max_steps is 12:30:45, which YAML reads as a base-60 number; write train.max_steps",
    ),
    (
        "train: {batch_size: 8.0}",
        "C06] train.yaml:1: train.batch_size is 8.0, expected a whole number; write for example train.batch_size: 8",
    ),
    ("train: {batch_size: yes}", "C06] train.yaml:1: train.batch_size is the boolean yes, expected a whole number"),
    ("train: {lr: true}", "C06] train.yaml:1: train.lr is the boolean true, expected a number; write for example"),
    (
        "train: {gradient_checkpointing: 1}",
        "C06] train.yaml:1: train.gradient_checkpointing is 1, expected true or false; write for example",
    ),
    ("train: 5", "C06] train.yaml:1: train is 5, expected a mapping of keys to values; write the keys of train on"),
    ("output:", "C06] train.yaml:1: output is empty (null), expected text; write for example output: runs/skd"),
    ("output: ''", 'C06] train.yaml:1: output is the text "", expected a path without control characters, not empty'),
    ('output: "a\\0b"', 'C06] train.yaml:1: output is the text "a\\x00b", expected a path without control characters'),
    (
        "policy: 5",
        "C06] train.yaml:1: policy is 5, expected one of data_set, teacher, student, interleaved, mixture, staged, or "
        "a mapping with a kind; write for example policy: interleaved",
    ),
    (
        "train: {betas: [0.9]}",
        "C06] train.yaml:1: train.betas is a list, expected a list of more values; "
        "write for example train.betas: [0.9, 0.999]",
    ),
    ("train: {betas: [0.9, 0.9, 0.9]}", "C06] train.yaml:1: train.betas is a list, expected a list of 2 values"),
    ("sampling: {stop_strings: x}", 'C06] train.yaml:1: sampling.stop_strings is the text "x", expected a list'),
    ("sampling: {stop_strings: ['']}", 'train.yaml:1: sampling.stop_strings.0 is the text "", expected text that is'),
    # Numbers out of range (C07, C13)
    (
        "train: {lr: 0}",
        "C07] train.yaml:1: train.lr is 0, expected a number above 0 and at most 1; write for example train.lr: 1e-05",
    ),
    ("train: {lr: -1e-5}", 'C07] train.yaml:1: train.lr is the text "-1e-5", expected a number above 0'),
    ("train: {warmup: .nan}", "C07] train.yaml:1: train.warmup is .nan, expected a finite number; write for example"),
    ("train: {clip_norm: .inf}", "C07] train.yaml:1: train.clip_norm is .inf, expected a finite number"),
    ("train: {eps: 1e999}", 'C07] train.yaml:1: train.eps is the text "1e999", expected a finite number'),
    ("train: {betas: [0.9, 1]}", "C07] train.yaml:1: train.betas.1 is 1, expected a number of at least 0 and below 1"),
    ("train: {max_steps: 0}", "C07] train.yaml:1: train.max_steps is 0, expected a number of at least 1"),
    ("train: {epochs: 0}", "C07] train.yaml:1: train.epochs is 0, expected a number above 0; write for example"),
    ("sampling: {student: {top_p: 1.2}}", "sampling.student.top_p is 1.2, expected a number of at least 0 and at most"),
    ("sampling: {teacher: {temperature: -1}}", "sampling.teacher.temperature is -1, expected a number of at least 0;"),
    ("sampling: {responses_per_prompt: 16777216}", "expected a number of at least 1 and at most 16777215"),
    ("policy: {kind: interleaved, gate: {kind: top_k, k: 0}}", "policy.gate.k is 0, expected a number of at least 1"),
    (
        "objective: {loss: {kind: jsd, beta: 1}}",
        "C07] train.yaml:1: objective.loss.beta is 1, expected a number above 0 and below 1; "
        "write for example objective.loss.beta: 0.5",
    ),
    (
        "train: {seed: -1}",
        "C13] train.yaml:1: train.seed is -1, expected a number of at least 0 and at most 4294967295",
    ),
    ("train: {seed: 4294967296}", "C13] train.yaml:1: train.seed is 4294967296, expected a number of at least 0"),
    # Tags, anchors, size (C08, C09)
    (
        "output: !!python/object/apply:os.system [ls]",
        "C08] train.yaml:1: a YAML tag (!) is used; remove the tag and write a plain value",
    ),
    ("output: &a x", "C09] train.yaml:1: a YAML anchor or alias (& or *) is used; write the value out"),
    ("output: " + "[" * 21 + "]" * 21, "C09] train.yaml:1: more than 20 levels of nesting; remove levels"),
    ("output: [" + "1, " * 10_001 + "]", "C09] train.yaml:1: more than 10,000 values; keep data out of the config"),
    # Secrets (C11)
    (
        "wandb_key: 1234",
        "C11] train.yaml:1: wandb_key is a secret, and a config file is saved and shared with the run; "
        "remove it and set the environment variable WANDB_API_KEY",
    ),
    (
        "hf_token: 1234",
        "hf_token is a secret, and a config file is saved and shared with the run; remove it and set the",
    ),
    ("output: sk-abc123", "the value of output looks like a secret, and a config file is saved and shared with the"),
    # Others
    ("format: 2", "C16] train.yaml:1: format is 2, and this release reads format 1; install a newer skd, or write"),
    (
        "objective: {target: {}}",
        "C17] train.yaml:1: objective.target.kind is missing; add kind, one of plain, veto, ta",
    ),
    ("policy: {kind: interleaved, gate: {kind: top_p}}", "C17] train.yaml:1: policy.gate.p is missing; add policy."),
    ("? [a, b]\n: 1", "C02] train.yaml:1: a key is a list or a mapping; write a name before the colon"),
]


@pytest.mark.parametrize(("lines", "message"), ONE_PROBLEM, ids=[lines[:40] for lines, _ in ONE_PROBLEM])
def test_one_mistake_gives_one_message(lines: str, message: str, problems: Problems) -> None:
    found = problems(f"{lines}\n{BASE}")
    assert len(found) == 1, found
    assert message in found[0]


WITHOUT_BASE = [
    ("", "C01] train.yaml: is empty; start from a file in recipes/"),
    ("# only a comment\n", "C01] train.yaml: is empty; start from a file in recipes/"),
    ("- a\n- b\n", "C02] train.yaml: holds no mapping of keys to values; write lines such as method: skd"),
    ("train: [1\n", "C02] train.yaml:2:1: is not valid YAML: expected ',' or ']', but got '<stream end>'; correct the"),
    (
        "train: b: c\n",
        "C02] train.yaml:1:9: is not valid YAML: mapping values are not allowed here; correct the YAML at",
    ),
    ("hub:\n---\nformat: 1\n", "C02] train.yaml:2:1: is not valid YAML: but found another document"),
    ("train: \x07\n", "C02] train.yaml: holds a character that YAML does not allow; remove control characters"),
    (b"a: \xff\n", "C01] train.yaml: is not UTF-8 (byte 3); save the file as UTF-8"),
    (b"#" * (1 << 20) + b"\n", "C01] train.yaml: is larger than 1 MiB; name a config file; data belongs into a file"),
    (
        "data: {train: x}\nteacher: t\n",
        "C17] train.yaml: student is missing; add student (The model that is trained)",
    ),
    (
        "student: s\ndata: {train: x}\n",
        "C10] train.yaml: method skd needs a teacher, and teacher is missing; add teacher: PATH, or write method: sft",
    ),
    (
        "method: seq_kd\nstudent: s\ndata: {train: x}\n",
        "C10] train.yaml:1: method seq_kd (policy teacher) needs a teacher, and teacher is missing",
    ),
    (
        "method: sft\npolicy: {kind: student}\nstudent: s\ndata: {train: x}\n",
        "C10] train.yaml:2: policy.kind student needs a teacher, and teacher is missing; "
        "add teacher: PATH, or write policy.kind: data_set",
    ),
    (
        "method: sft\nobjective: {loss: {kind: jsd}}\nstudent: s\ndata: {train: x}\n",
        "C10] train.yaml:2: objective.loss.kind jsd needs a teacher, and teacher is missing; "
        "add teacher: PATH, or write objective.loss.kind: nll",
    ),
    (
        "method: sft\nstudent: s\ndata:\n  train: {path: x, response_field: null}\n",
        "C10] train.yaml:4: method sft (policy data_set) trains on the responses of the data, and "
        "data.train.response_field is null; name the field in data.train.response_field, or choose another method",
    ),
    (
        "method: sft\nstudent: {path: s, attention: flash_attention_2}\ndata: {train: x}\n",
        "C10] train.yaml:2: student.attention is flash_attention_2, which has no float32, and train.precision is fp32; "
        "write train.precision: bf16, or student.attention: sdpa",
    ),
    (
        "method: sft\nstudent: s\ndata: {train: x}\ntrain: {precision: fp16, sharding: zero3}\n",
        "C10] train.yaml:4: train.precision is fp16, whose loss scale sees whole gradients, and train.sharding "
        "zero3 cuts them; write train.precision: bf16, or train.sharding: none",
    ),
    (
        "method: sft\nstudent: s\ndata: {train: x}\ntrain: {sharding: fsdp2, offload: true}\n",
        "C10] train.yaml:4: train.offload is true, and train.sharding is fsdp2, whose shards stay on the device; write "
        "train.sharding: zero3 or zero2, or leave offload out",
    ),
    (
        "method: skd\nstudent: s\nteacher: t\ndata: {train: x}\ntrain: {gather: layer}\n",
        "C10] train.yaml:5: train.gather is layer, and train.sharding is none, under which every process has whole "
        "models; write train.sharding: fsdp2, or leave gather out",
    ),
    (
        "student: s\nteacher: {kind: average, decay: 0.9}\ndata: {train: x}\ntrain: {sharding: fsdp2, gather: layer}\n",
        "C10] train.yaml:4: train.gather is layer, and teacher.kind is average, which stays whole; write train.gather: "
        "step, or leave it out",
    ),
    (
        "student: s\nteacher: {path: t, quantization: int8}\ndata: {train: x}\n"
        "train: {sharding: fsdp2, gather: layer}\n",
        "C10] train.yaml:4: train.gather is layer, and teacher.quantization is given, whose weights stay whole; "
        "write train.gather: step, or leave it out",
    ),
    (
        "method: on_policy\nstudent: s\nteacher: t\ndata: {train: x}\nsampling: {rollouts: {engine: vllm, python: p}}\n"
        "train: {sharding: fsdp2, gather: layer}\n",
        "C10] train.yaml:6: train.gather is layer, and sampling.rollouts is given, for which each process writes "
        "a whole model; write train.gather: step, or leave it out",
    ),
    (
        "student: s\nteacher: t\ndata: {train: x}\nsampling: {costs: measured}\n"
        "train: {sharding: fsdp2, gather: layer}\n",
        "C10] train.yaml:4: sampling.costs is measured, and train.gather is layer, under which a forward waits for "
        "other processes; write sampling.costs: sizes, or train.gather: step",
    ),
    (
        "student: s\nteacher: t\ndata: {train: x}\n"
        "sampling: {costs: {kind: measured, microseconds: {student: [1, 2]}}}\n",
        "C10] train.yaml:4: sampling.costs.microseconds is of student, and the models are student, teacher; give the "
        "student and each teacher here two numbers, or leave microseconds out and they are measured",
    ),
    (
        "student: s\nteacher: t\ndata: {train: x}\nsampling: {costs: clock}\n",
        'C05] train.yaml:4: sampling.costs is the text "clock", expected one of sizes, measured',
    ),
    (
        "student: s\nteacher: t\ndata: {train: x}\n"
        "sampling: {costs: {kind: measured, microseconds: {student: [1, -2], teacher: [1, 2]}}}\n",
        "C07] train.yaml:4: sampling.costs.microseconds.student.1 is -2, expected a number of at least 0",
    ),
    (
        "method: skd\nstudent: s\nteacher: t\ndata: {train: x}\nsampling: {compile: true}\ntrain: {sharding: fsdp2}\n",
        "C10] train.yaml:5: sampling.compile is true, whose graphs remember where the weights lie, and train.sharding "
        "fsdp2 gathers them to another place at each step; leave sampling.compile out, or write train.sharding: none",
    ),
    (
        "method: sft\nstudent: s\ndata:\n  train: x\n  teacher_prompt: '{prompt}'\n",
        "C10] train.yaml:5: data.teacher_prompt is given and teacher is missing; add teacher, or remove it",
    ),
    (
        "student: s\nteacher: t\ndata:\n  train: x\n  train_on: all\n",
        "C10] train.yaml:5: data.train_on is all, and method skd (policy interleaved) writes a response of its own to "
        "the first prompt of a conversation; write data.train_on: last, or policy: data_set",
    ),
    (
        "method: supervised_kd\nstudent: s\nteacher: t\ndata:\n  train: x\n  train_on: all\n  teacher_prompt: x\n",
        "C10] train.yaml:7: data.teacher_prompt stands in place of one prompt, and data.train_on: all trains on "
        "several; write data.train_on: last, or remove it",
    ),
    (
        "method: supervised_kd\nstudent: s\nteacher: t\n"
        "data:\n  train: {kind: responses, path: x}\n  teacher_prompt: x\n",
        "C10] train.yaml:6: data.teacher_prompt is given, and stored responses have token ids in place of the texts it "
        "is made of; remove it; skd generate stores what the teacher thought under its own prompt",
    ),
    (
        "student: s\nteacher: {kind: averaged}\ndata: {train: x}\n",
        'C05] train.yaml:2: teacher.kind is the text "averaged", expected one of model, student, average, '
        "adapter_off, server, routed; did you mean average?",
    ),
    (
        "student: s\nteacher: {kind: average, decay: 1}\ndata: {train: x}\n",
        "C07] train.yaml:2: teacher.decay is 1, expected a number of at least 0 and below 1; write for example "
        "teacher.decay: 0.999",
    ),
    (
        "student: s\nteacher: {kind: adapter_off}\ndata: {train: x}\n",
        "C10] train.yaml:2: teacher.kind is adapter_off, and student.lora is missing: the student has no adapters; "
        "write student.lora: {r: 16}, or teacher.kind: student",
    ),
    (
        "student: s\nteacher: {kind: average}\ndata: {train: x}\nsampling: {prompt_cache_mb: 9}\n",
        "C10] train.yaml:4: sampling.prompt_cache_mb is 9, and teacher.kind is average, whose weights change at every "
        "step; write 0, or name a teacher model",
    ),
    (
        "student: s\nteacher: {engine: vllm, url: http://x}\ndata: {train: x}\nsampling: {prompt_cache_mb: 9}\n",
        "C10] train.yaml:4: sampling.prompt_cache_mb is 9, and a server keeps its prompts itself; write 0, or name a "
        "teacher model",
    ),
    (
        "student: s\nteacher: {kind: student, path: t}\ndata: {train: x}\n",
        "C05] train.yaml:2: teacher.path is an unknown key of kind student; remove it, or write teacher.kind: model",
    ),
    (
        "teacher: no\nstudent: s\ndata: {train: x}\n",
        "C06] train.yaml:1: teacher is the boolean no, expected text, or a mapping of keys to values; "
        'write teacher: "no" in quotes',
    ),
    (
        "teacher: t\nstudent: s\ndata: {train: {kind: task, name: numbers, split: train, size: 1}}\n",
        'data.train.name is the text "numbers", expected one of number_words, dialogue, toy_translation, sums; '
        "did you mean number_words?",
    ),
    (
        "teacher: t\nstudent: s\ndata: {train: {path: x, promt_field: q}}\n",
        "data.train.promt_field is an unknown key; did you mean data.train.prompt_field?",
    ),
]


@pytest.mark.parametrize(("text", "message"), WITHOUT_BASE, ids=range(len(WITHOUT_BASE)))
def test_whole_files(text: str | bytes, message: str, problems: Problems) -> None:
    found = problems(text)
    assert len(found) == 1, found
    assert message in found[0]


def test_all_problems_come_at_once_in_the_order_of_the_file(problems: Problems) -> None:
    found = problems(
        "wandb_key: x\nmethod: sdk\ntrain:\n  lr: fast\n  lr: 1\n  seed: -1\n  bach_size: 2\noutput: 2024-01-01\n"
        "objective: {target: veto, loss: nll}\nstudent: s\ndata: {train: x}\n"
    )
    assert [message[10:20] for message in found] == [
        "C11] train",
        "C05] train",
        "C03] train",
        "C04] train",
        "C13] train",
        "C05] train",
        "C06] train",
        "C10] train",
    ]


@pytest.mark.parametrize(
    "text",
    [
        "wandb_key: CANARY\n",
        "hf_token: hf_CANARY\n",
        "hf_CANARY: 1\n",
        "output: hf_CANARY\n",
        "train: {lr: sk-CANARY}\n",
        "student: https://user:hf_CANARYCANARYCANARYCANARY@host/x\n",
        "sampling: {stop_strings: [sk-CANARY]}\n",
        "api_key: [CANARY]\n",
        "api_key: {CANARY: CANARY}\n",
        "train: {password: CANARY}\n",
    ],
)
def test_a_secret_is_never_shown(text: str, problems: Problems) -> None:
    found = "\n".join(problems(text))
    assert "CANARY" not in found


def test_a_path_that_begins_like_a_key_is_a_path(load: Callable[..., object]) -> None:
    load(f"output: hf_models/run\n{BASE}")


def test_a_missing_file_and_a_directory_are_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nope\.yaml: does not exist; check the path"):
        load_config(tmp_path / "nope.yaml")
    with pytest.raises(ConfigError, match=r"is a directory; name a YAML file in it"):
        load_config(tmp_path)
    with pytest.raises(ConfigError, match=r"a\\x00b: cannot be read: is no valid path|a\\x00b: does not exist"):
        load_config("a\0b")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes on this system")
def test_a_pipe_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ConfigError, match="is not a regular file"):
        load_config(tmp_path / "pipe")

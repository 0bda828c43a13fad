"""Every fault of models and tokenizers, group M of the catalogue, is found before a weight is read."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from tests.check.bench import Bench, Fault
from tests.check.conftest import Outcome
from tests.tiny import save_tiny

WEIGHTS = "student/model.safetensors"
LOOPS = "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}"
CHATML = "{% for m in messages %}[{{ m['role'] }}] {{ m['content'] }} {% endfor %}"


def rename(source: str, target: str) -> Callable[[Bench], object]:
    return lambda bench: (bench.student / source).rename(bench.student / target)


def write(path: str, content: bytes) -> Callable[[Bench], object]:
    return lambda bench: (bench.root / path).write_bytes(content)


def cut(bench: Bench) -> None:
    path = bench.root / WEIGHTS
    path.write_bytes(path.read_bytes()[:-100])


def lengthen(bench: Bench) -> None:
    path = bench.root / WEIGHTS
    path.write_bytes(path.read_bytes() + b"0" * 100)


def entry(header: dict[str, Any], number: int = 0) -> dict[str, Any]:
    """One tensor of a header, in order of its place."""
    tensors = [value for key, value in header.items() if key != "__metadata__"]
    found: dict[str, Any] = sorted(tensors, key=lambda value: value["data_offsets"])[number]
    return found


def without_shard(bench: Bench) -> None:
    bench.shards()
    (bench.student / "model-00002-of-00002.safetensors").unlink()


def wrong_index(bench: Bench) -> None:
    bench.shards()
    path = "student/model.safetensors.index.json"
    bench.json(
        path, lambda index: index["weight_map"].update({"model.norm.weight": "model-00001-of-00002.safetensors"})
    )


def outside_index(bench: Bench) -> None:
    bench.shards()
    path = "student/model.safetensors.index.json"
    bench.json(path, lambda index: index["weight_map"].update({"model.norm.weight": "../teacher/model.safetensors"}))


def empty_index(bench: Bench) -> None:
    bench.shards()
    bench.json("student/model.safetensors.index.json", weight_map={})


def broken_index(bench: Bench) -> None:
    bench.shards()
    (bench.student / "model.safetensors.index.json").write_text("{")


def swap_tokens(bench: Bench) -> None:
    def change(content: dict[str, Any]) -> None:
        vocab = content["model"]["vocab"]
        vocab["t7"], vocab["t8"] = vocab["t8"], vocab["t7"]

    bench.json("teacher/tokenizer.json", change)


def foreign_tokens(bench: Bench) -> None:
    def change(content: dict[str, Any]) -> None:
        vocab = content["model"]["vocab"]
        content["model"]["vocab"] = {k if i < 2 else f"w{i}": i for k, i in vocab.items()}

    bench.json("teacher/tokenizer.json", change)


def add_token(bench: Bench, roles: tuple[str, ...]) -> None:
    token = {"id": 64, "content": "<new>", "single_word": False, "lstrip": False, "rstrip": False}
    for role in roles:
        bench.json(
            f"{role}/tokenizer.json",
            lambda c: c["added_tokens"].append({**token, "normalized": False, "special": True}),
        )


def no_end(bench: Bench) -> None:
    for role in ("student", "teacher"):
        bench.json(f"{role}/tokenizer_config.json", eos_token=None)
        bench.json(f"{role}/config.json", eos_token_id=None)
        bench.json(f"{role}/generation_config.json", eos_token_id=None)


def family(name: str) -> Callable[[Bench], object]:
    return lambda bench: save_tiny(bench.student, name, seed=3)


def huge(bench: Bench) -> None:
    """400 GB of weights that take no room on the disk: nothing that reads them would come back."""
    rows, width = 10_000_000, 10_000
    bench.json("student/config.json", vocab_size=rows, hidden_size=width, tie_word_embeddings=True)
    bench.json("student/config.json", num_hidden_layers=0, layer_types=[])
    sizes = {"model.embed_tokens.weight": [rows, width], "model.norm.weight": [width]}
    header, end = {}, 0
    for name, shape in sizes.items():
        start, end = end, end + 4 * shape[0] * (shape[1] if len(shape) > 1 else 1)
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    with (bench.root / WEIGHTS).open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        file.truncate(8 + len(text) + end)


def config(**values: Any) -> Callable[[Bench], object]:
    return lambda bench: bench.json("student/config.json", **values)


def template(text: str) -> Callable[[Bench], object]:
    return lambda bench: bench.template(text)


def header(change: Callable[[dict[str, Any]], object]) -> Callable[[Bench], object]:
    return lambda bench: bench.header(change)


STUDENT = "student 'student'"
DENIED = "which can lead to code or weights this loader does not run"
NATIVE = "use a model of a family that transformers ships"
AGAIN = "fetch or export the model again"
HOSTILE = "set data.chat to never"

FAULTS = {
    # M02 to M04: vocabularies
    "two tokens swapped": Fault(
        swap_tokens,
        4,
        "M02",
        "student / teacher",
        "differ at 2 ids, first 7: 't7' / 't8', 8: 't8' / 't7'",
        "one vocabulary",
    ),
    "other tokenizer": Fault(
        foreign_tokens, 4, "M02", "student / teacher", "differ at 62 ids, first 2: 't2' / 'w2'", "GOLD"
    ),
    "token added to one": Fault(
        lambda b: add_token(b, ("teacher",)),
        4,
        "M02",
        "student / teacher",
        "at 1 ids, first 64: None / '<new>'",
        "one vocab",
    ),
    "head too small": Fault(
        lambda b: add_token(b, ("student", "teacher")),
        4,
        "M04",
        "student",
        "head has 64 rows but the tokenizer has ids up to 64",
        "resize",
    ),
    # M07: nothing ends a response
    "no end token": Fault(no_end, 4, "M07", "tokenizer, config", "no end token is defined", "set eos_token"),
    # M08 to M10: chat templates
    "no template": Fault(
        lambda b: None, 4, "M08", "data.chat", "no chat template", "auto or never", ["data.chat=always"]
    ),
    "system text without template": Fault(
        lambda b: None,
        2,
        "C10",
        "data.system",
        "no chat template is used",
        "leave data.system out",
        ["data.system=be kind"],
    ),
    "no system role": Fault(
        template("{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system') }}{% endif %}" + CHATML),
        4,
        "M08",
        "data.chat",
        "8 of 8 rows do not fit, first row 0: the chat template refuses the roles system, user: no system",
        "leave data.system out",
        ["data.system=be kind"],
        1,
    ),
    "broken template": Fault(
        template("{% for"), 4, "M08", "data.chat", "unexpected 'end of template'", "whose template"
    ),
    "template reaches for classes": Fault(
        template("{{ ''.__class__.__mro__ }}"),
        4,
        "M08",
        "data.chat",
        "'__class__' of 'str' object is unsafe",
        "whose template",
    ),
    "template without end": Fault(template(LOOPS), 4, "M10", "data.chat", "did not end within 5 seconds", HOSTILE),
    "template that fills memory": Fault(
        template("{{ 'a' * 10**12 }}"), 4, "M10", "data.chat", "more than 1024 MiB of memory", HOSTILE
    ),
    "template that writes without end": Fault(
        template("{{ 'a' * messages|length * 10**8 }}"), 4, "M10", "data.chat", "wrote 100,000,000 characters", HOSTILE
    ),
    # M11, M12: code of the repository
    "auto_map": Fault(
        config(auto_map={"AutoModel": "evil.M"}),
        4,
        "M11",
        f"{STUDENT}, config.json",
        f"holds auto_map, {DENIED}",
        NATIVE,
    ),
    "auto_map of the teacher": Fault(
        lambda b: b.json("teacher/config.json", auto_map={}),
        4,
        "M11",
        "teacher 'teacher', config.json",
        "holds auto_map",
        NATIVE,
    ),
    "remote code switched on": Fault(
        config(trust_remote_code=True), 4, "M12", f"{STUDENT}, config.json", "trust_remote_code", NATIVE
    ),
    "internal attention": Fault(
        config(_attn_implementation_internal="evil/kernel"),
        4,
        "M12",
        "config.json",
        "_attn_implementation_internal",
        NATIVE,
    ),
    "nested internal attention": Fault(
        config(text_config={"x": [{"_attn_implementation_internal": 1}]}),
        4,
        "M12",
        "config.json",
        "_attn_implementation_internal",
        NATIVE,
    ),
    "attention from the Hub": Fault(
        config(_attn_implementation="evil/kernel"), 4, "M12", "config.json", "_attn_implementation", NATIVE
    ),
    "experts from the Hub": Fault(
        config(experts_implementation="evil/kernel"), 4, "M12", "config.json", "experts_implementation", NATIVE
    ),
    "quantised": Fault(config(quantization_config={"bits": 4}), 4, "M12", "config.json", "quantization_config", NATIVE),
    "code of the tokenizer": Fault(
        lambda b: b.json(
            "student/tokenizer_config.json", auto_map={"AutoTokenizer": ["e.T", None]}, tokenizer_class="Evil"
        ),
        4,
        "M11",
        "student '",
        "custom code",
        "check the directory",
    ),
    # M13: pickled weights
    "pytorch_model.bin": Fault(
        rename("model.safetensors", "pytorch_model.bin"),
        4,
        "M13",
        STUDENT,
        "pickled (pytorch_model.bin)",
        "convert them to safetensors",
    ),
    "model.pt": Fault(rename("model.safetensors", "model.pt"), 4, "M13", STUDENT, "pickled (model.pt)", "convert them"),
    "model.pth": Fault(
        rename("model.safetensors", "model.pth"), 4, "M13", STUDENT, "pickled (model.pth)", "convert them"
    ),
    # M14: files that are missing or broken
    "no directory": Fault(
        lambda b: None, 4, "M14", "student './x'", "no such directory", "correct the path", ["student=./x"]
    ),
    "a file": Fault(
        lambda b: None, 4, "M14", "student 'run.yaml'", "is a file", "give its directory", ["student=run.yaml"]
    ),
    "no config": Fault(
        lambda b: (b.student / "config.json").unlink(), 4, "M14", STUDENT, "no config.json", "save_pretrained"
    ),
    "config no JSON": Fault(
        write("student/config.json", b"{"), 4, "M14", STUDENT, "config.json is no JSON file", AGAIN
    ),
    "config a list": Fault(write("student/config.json", b"[]"), 4, "M14", STUDENT, "holds no JSON object", AGAIN),
    "config not UTF-8": Fault(write("student/config.json", b"{\xff}"), 4, "M14", STUDENT, "byte 0xff", AGAIN),
    "config too deep": Fault(write("student/config.json", b"[" * 100_000), 4, "M14", STUDENT, "recursion", AGAIN),
    "no weights": Fault(lambda b: (b.root / WEIGHTS).unlink(), 4, "M14", STUDENT, "no weights", "save_pretrained"),
    "empty weights": Fault(write(WEIGHTS, b""), 4, "M14", STUDENT, "its 0 bytes end before its header", AGAIN),
    "a few bytes": Fault(write(WEIGHTS, b"\1\0\0"), 4, "M14", STUDENT, "its 3 bytes end before its header", AGAIN),
    "endless header": Fault(write(WEIGHTS, b"\xff" * 64), 4, "M14", STUDENT, "its 64 bytes end before", AGAIN),
    "header no JSON": Fault(write(WEIGHTS, b"\4\0\0\0\0\0\0\0oops"), 4, "M14", STUDENT, "has a broken header", AGAIN),
    "header a list": Fault(
        header(lambda h: [1]), 4, "M14", STUDENT, "it is not the header of a safetensors file", AGAIN
    ),
    "header without offsets": Fault(
        header(lambda h: entry(h).pop("data_offsets")), 4, "M14", STUDENT, "not the header", AGAIN
    ),
    "cut weights": Fault(cut, 4, "M14", STUDENT, "so the file is cut or too long", AGAIN),
    "bytes too many": Fault(lengthen, 4, "M14", STUDENT, "so the file is cut or too long", AGAIN),
    "shape and bytes": Fault(
        header(lambda h: entry(h)["shape"].append(2)), 4, "M14", STUDENT, "bytes of its shape", AGAIN
    ),
    "negative shape": Fault(
        header(lambda h: entry(h).update(shape=[-1])), 4, "M14", STUDENT, "an impossible shape", AGAIN
    ),
    "overlap": Fault(
        header(lambda h: entry(h, 1).update(data_offsets=entry(h)["data_offsets"])),
        4,
        "M14",
        STUDENT,
        "bytes of its shape",
        AGAIN,
    ),
    "missing shard": Fault(
        without_shard, 4, "M14", STUDENT, "the shard model-00002-of-00002.safetensors is missing", AGAIN
    ),
    "wrong index": Fault(
        wrong_index,
        4,
        "M14",
        STUDENT,
        "model-00001-of-00002.safetensors does not hold 'model.norm.weight' (1 such",
        AGAIN,
    ),
    "index leads outside": Fault(outside_index, 4, "M14", STUDENT, "outside the directory, '../teacher", "do not use"),
    "empty index": Fault(empty_index, 4, "M14", STUDENT, "has no weight_map", AGAIN),
    "broken index": Fault(broken_index, 4, "M14", STUDENT, "index.json is no JSON file", AGAIN),
    "unknown architecture": Fault(config(model_type="unheard_of"), 4, "M14", "student '", "`unheard_of`", "check the"),
    "impossible size": Fault(config(hidden_size="many"), 4, "M14", "student '", "'hidden_size'", "check the directory"),
    "tokenizer no JSON": Fault(write("student/tokenizer.json", b"{}"), 4, "M14", "student '", "KeyError", "check the"),
    "tokenizer not UTF-8": Fault(write("student/tokenizer.json", b"\xff"), 4, "M14", "student '", "0xff", "check the"),
    "generation config no JSON": Fault(
        write("student/generation_config.json", b"{"), 4, "M14", "student '", "Expecting", "check"
    ),
    # M15: weights and architecture
    "missing tensor": Fault(
        config(num_hidden_layers=3, layer_types=None),
        4,
        "M15",
        "student '",
        "(missing: model.layers.2",
        "fetch or export",
    ),
    "unexpected tensor": Fault(
        config(num_hidden_layers=1, layer_types=None), 4, "M15", "student '", "unexpected: model.layers.1", "fetch or"
    ),
    "mismatched tensor": Fault(config(hidden_size=32), 4, "M15", "student '", "mismatched: ", "fetch or export"),
    # M20: what cannot be trained here
    "no causal model": Fault(config(model_type="vit"), 4, "M20", STUDENT, "no causal language model", "decoder-only"),
    "recurrent state": Fault(family("mamba"), 4, "M20", "student Mamba", "cannot be rewound", "full or sliding-window"),
    "integer weights": Fault(
        header(lambda h: entry(h).update(dtype="I32")), 4, "M20", STUDENT, "stored as I32", "float32"
    ),
    "eight-bit floats": Fault(
        header(lambda h: entry(h).update(dtype="F8_E4M3")), 4, "M20", STUDENT, "F8_E4M3", "bfloat16"
    ),
    "no flash attention": Fault(
        lambda b: None,
        4,
        "M20",
        "student.attention",
        "flash_attn is not installed",
        "install flash-attn",
        ["student.attention=flash_attention_2", "train.precision=bf16"],
    ),
    # G06: a gate that looks at more tokens than there are
    "more than all tokens": Fault(
        lambda b: None, 2, "G06", "policy.gate.k", "and the models share 64 tokens", "at most 64", ["policy.gate.k=65"]
    ),
    "more than all tokens in a mixture": Fault(
        lambda b: None,
        2,
        "G06",
        "policy.gate.k",
        "is 99, and",
        "accept_all",
        [
            "policy={kind: mixture, parts: [{policy: student, weight: 1}, {policy: interleaved, weight: 1}]}",
            "policy.parts.1.policy={kind: interleaved, gate: {kind: top_k, k: 99}}",
        ],
    ),
    # M22: memory
    "too large": Fault(
        huge,
        8,
        "M22",
        "memory",
        "weights and optimiser alone take",
        "take a smaller model",
        ["teacher=null", "method=sft"],
        1,
    ),
    # M23: the Hub
    "no such Hub model": Fault(
        lambda b: None, 6, "M23", "student 'no/such'", "could not be read from the Hub", "HF_TOKEN", ["student=no/such"]
    ),
}


@pytest.mark.parametrize("name", FAULTS)
def test_the_fault_is_found_and_told(name: str, bench: Bench, look: Callable[..., Outcome]) -> None:
    fault = FAULTS[name]
    fault.damage(bench)
    look("run.yaml", *fault.overrides).assert_told(fault)

"""Several teachers in a config file: what is found before a weight is read, and a run from end to end."""

import json

import pytest
import torch
import yaml

from skd.cli import main
from skd.config import config_of
from skd.errors import ConfigError
from skd.responses import open_responses
from tests.engines.stand_in import StandIn, serving
from tests.tiny import save_tiny, tiny_model, tiny_tokenizer

DOMAINS = ["math", "code", "math", "code", "math", "math", "code", "math"]


def rows_of(domains):
    return [
        {"prompt": f"t{2 + i} t{3 + i}", "response": f"t{5 + i}", **({} if domain is None else {"domain": domain})}
        for i, domain in enumerate(domains)
    ]


@pytest.fixture
def write(bench):
    """Two teachers of other sizes, and rows with their names; keywords go to the top of the config."""
    save_tiny(bench.root / "coder", "gpt2", seed=5, hidden=48, max_positions=64)

    def build(domains=DOMAINS, by=None, **keys):
        config = yaml.safe_load((bench.root / "run.yaml").read_text())
        config["teacher"] = {"route": "domain", "by": by or {"math": "teacher", "code": "coder"}}
        config["data"] = {"train": "train.jsonl", "validation": "held_out.jsonl", "max_prompt_tokens": 16}
        (bench.root / "run.yaml").write_text(yaml.safe_dump({**config, **keys}, sort_keys=False))
        (bench.root / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows_of(domains)))
        (bench.root / "held_out.jsonl").write_text('{"prompt": "t30 t31", "response": "t32", "domain": "code"}\n')

    return build


def test_every_teacher_is_checked_and_named(write, look):
    write()
    outcome = look("run.yaml")
    assert outcome.exit == 0, outcome.out
    assert not outcome.messages
    names = ["output", "data", "environment", "student", "teacher.by.math", "teacher.by.code", "tokenizer"]
    lines = outcome.out.splitlines()
    assert [line.split()[:2] for line in lines[:7]] == [[name, "ok"] for name in names]
    assert "rows by teacher: math 5, code 3" in outcome.out
    assert [line.split()[2] for line in lines[3:6]] == ["LlamaForCausalLM;", "LlamaForCausalLM;", "GPT2LMHeadModel;"]


def test_the_weights_of_all_teachers_are_in_the_estimate(write, look):
    def told(outcome):
        return next(line for line in outcome.out.splitlines() if line.startswith("resources"))

    write()
    both = told(look("run.yaml"))
    write(["math"] * 8, {"math": "teacher"})
    alone = told(look("run.yaml"))
    assert kib_of_teachers(both) > 2 * kib_of_teachers(alone)


def kib_of_teachers(line):
    return float(line.split("teacher weights ")[1].split()[0])


@pytest.mark.parametrize(
    ("domain", "found"),
    [
        ("maths", "field 'domain' is 'maths', expected one of teacher.by: 'math', 'code'; write one of these"),
        (None, "no field 'domain', which names the row's teacher; the row has 'prompt', 'response'; add it"),
        (3, "field 'domain' is '3', expected one of"),
        ([], "field 'domain' is a list, expected one of"),
    ],
)
def test_a_row_without_a_teacher_is_told_with_its_line(write, look, domain, found):
    write([*DOMAINS[:2], domain, *DOMAINS[3:]])
    outcome = look("run.yaml")
    assert outcome.exit == 3
    assert f"error[SKD-D04] train.jsonl:3: {found}" in outcome.out


def test_a_teacher_without_rows_is_a_warning(write, look):
    write(["math"] * 8)
    outcome = look("run.yaml")
    assert outcome.exit == 0
    (message,) = outcome.messages
    assert (message["code"], message["place"]) == ("SKD-C10", "teacher.by.code")
    assert "no training row has 'code' in its field 'domain'" in message["text"]


def test_each_teachers_context_is_held_against_its_own_rows(write, look, bench):
    save_tiny(bench.root / "short", "gpt2", seed=5, max_positions=16)
    write(by={"math": "teacher", "code": "short"}, sampling={"max_new_tokens": 15})
    outcome = look("run.yaml")
    assert [(message["code"], message["place"]) for message in outcome.messages] == [
        ("SKD-D09", "data.train, teacher.by.code, prompt 1"),
        ("SKD-D09", "data.validation, teacher.by.code, prompt 0"),
    ]


def test_another_vocabulary_and_missing_files_are_told_by_teacher(write, look, bench):
    save_tiny(bench.root / "wide", "llama", seed=1, vocab_size=80, max_positions=64)
    write(by={"math": "wide", "code": "nowhere"})
    places = [message["place"] for message in look("run.yaml").messages]
    assert any("teacher.by.code" in place for place in places)
    assert "student / teacher.by.math" in places


def test_a_server_among_the_teachers_is_probed(write, look):
    with serving(StandIn(tiny_model("gpt2", seed=5, hidden=48), tiny_tokenizer())) as served:
        write(by={"math": "teacher", "code": {"engine": "vllm", "url": served.url, "top_logprobs": 64}})
        outcome = look("run.yaml")
        assert outcome.exit == 0, outcome.out
        assert any(line.startswith("teacher.by.code ok") for line in outcome.out.splitlines())
        served.version = "0.9.0"
        assert look("run.yaml").exit == 6


def test_a_run_trains_is_resumed_and_names_the_key_that_changed(write, bench, capsys):
    write()
    assert main(["train", "run.yaml"]) == 0
    rows = [json.loads(line) for line in (bench.root / "runs/x/metrics.jsonl").read_text().splitlines()]
    trained = [row["by_teacher"] for row in rows if "lr" in row]
    assert [sum(told["responses"] for told in row.values()) for row in trained] == [4, 4]
    state = json.loads(next((bench.root / "runs/x/checkpoints").glob("step-2/state.json")).read_text())
    assert {key: model["class"] for key, model in state["provenance"].items()} == {
        "student": "LlamaForCausalLM",
        "teacher.by.math": "LlamaForCausalLM",
        "teacher.by.code": "GPT2LMHeadModel",
    }
    assert "teacher.by.code.digest" in (bench.root / "runs/x/student/README.md").read_text()
    capsys.readouterr()
    write(by={"math": "teacher", "code": {"path": "coder", "dtype": "bfloat16"}})
    assert main(["train", "run.yaml", "train.max_steps=3"]) == 5
    assert "teacher.by.code.dtype" in capsys.readouterr().err
    write(by={"math": "teacher", "code": "coder"})
    assert main(["train", "run.yaml", "train.max_steps=3"]) == 0


def test_stored_evidence_is_each_rows_own_teachers(write, bench):
    write()
    assert main(["generate", "--config", "run.yaml", "--to", "stored", "--evidence", "top_k=5"]) == 0
    stored = open_responses(bench.root / "stored").prompts
    for domain, path in (("math", "teacher"), ("code", "coder")):
        write(["math"] * 8, {"math": path})
        assert main(["generate", "--config", "run.yaml", "--to", domain, "--evidence", "top_k=5"]) == 0
        alone = open_responses(bench.root / domain).prompts
        for row in [i for i, name in enumerate(DOMAINS) if name == domain]:
            assert list(stored.references[row]) == list(alone.references[row])
            assert stored.reference_evidence[row].ids_LK.equal(alone.reference_evidence[row].ids_LK)
            # Not bit by bit: alone it had all rows in one batch.
            torch.testing.assert_close(stored.reference_evidence[row].logp_LB, alone.reference_evidence[row].logp_LB)
    source = "data.train={kind: responses, path: stored}"
    changes = ["teacher=null", "method=supervised_kd", source, "data.validation=null", "output=runs/y"]
    assert main(["train", "run.yaml", *changes]) == 0


@pytest.mark.parametrize(
    ("keys", "found"),
    [
        ({"teacher": {"by": {"a": "t"}}}, "teacher.route is missing; add teacher.route"),
        ({"teacher": {"route": "d", "by": {}}}, "teacher.by is a mapping, expected a mapping of values to teachers"),
        ({"teacher": {"route": "d", "by": {"a": {"pth": "t"}}}}, "did you mean teacher.by.a.path?"),
        ({"teacher": {"route": "d", "by": {"model": {"path": 3}}}}, "teacher.by.model.path is 3, expected text"),
        ({"teacher": {"route": "d", "by": {"a": {"kind": "student"}}}}, 'teacher.by.a.kind is the text "student"'),
        (
            {"teacher": {"route": "d", "by": {"a": {"engine": "vllm", "url": "http://h:1", "top_logprobs": 9}}}},
            "policy.gate.k is 25, and the server tells teacher.by.a.top_logprobs 9 ids",
        ),
        (
            {"data": {"train": {"kind": "task", "name": "sums", "split": "train", "size": 9}}},
            "data.train.kind is task, and generated rows have no field teacher.route 'd'",
        ),
        (
            {"data": {"train": {"kind": "responses", "path": "p"}}},
            "data.train.kind is responses, and stored responses have no field teacher.route 'd'",
        ),
    ],
)
def test_a_config_that_cannot_be_is_refused(keys, found):
    base = {"student": "s", "data": {"train": "rows.jsonl"}, "teacher": {"route": "d", "by": {"a": "t"}}}
    with pytest.raises(ConfigError) as caught:
        config_of({**base, **keys})
    assert found in str(caught.value)


def test_a_teacher_of_several_is_overridden_by_its_name():
    base = {"student": "s", "data": {"train": "rows.jsonl"}, "teacher": {"route": "d", "by": {"a": "t", "b": "u"}}}
    config = config_of(base, ["teacher.by.a.dtype=bfloat16", "teacher.by.c=v"])
    assert {name: (one.path, one.dtype) for name, one in config.teacher.by.items()} == {
        "a": ("t", "bfloat16"),
        "b": ("u", "float32"),
        "c": ("v", "float32"),
    }
    assert config_of(config.model_dump(mode="json")) == config

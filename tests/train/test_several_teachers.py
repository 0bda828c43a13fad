"""Several teachers, one of which each row has: what each of them alone would have written and taught."""

import json
import os
import signal
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st
from safetensors.torch import load_file

import skd
from skd.config import TeacherModel
from skd.engines import VllmServer
from skd.errors import CheckpointError, DataError, ModelError
from skd.policies import RolloutKey, rolled_out
from skd.train import train
from skd.train.nonfinite import write_dump
from skd.train.step import redo_step, roll_out_step
from tests.engines.conftest import PATIENT
from tests.engines.stand_in import StandIn, serving
from tests.tiny import save_tiny, tiny_model, tiny_tokenizer
from tests.train.conftest import ROWS, end_state, open_run
from tests.train.test_loop import at
from tests.train.test_methods import distance, reported_step
from tests.train.test_ranks import as_ranks
from tests.train.test_spread import ZERO

ROUTED = replace(ROWS, routes=["math", "code", "math", "chat", "code", "math", "chat", "code", "math", "chat"])
LOCAL = replace(ROWS, routes=["code" if route == "chat" else route for route in ROUTED.routes])
GATE = {"kind": "top_k", "k": 20}
POLICIES = {
    "skd": {"gate": GATE, "block": 3},
    "mixed_skd": {
        "parts": [
            {"weight": 1, "policy": {"kind": "interleaved", "gate": GATE}},
            {"weight": 1, "policy": "data_set"},
        ]
    },
}


@pytest.fixture(scope="session")
def teachers(models, tmp_path_factory):
    """Of three families and hidden sizes."""
    room = tmp_path_factory.mktemp("teachers")
    save_tiny(room / "code", "gpt2", seed=5, hidden=48)
    save_tiny(room / "chat", "qwen3", seed=6, hidden=24)
    return {"math": models / "teacher", "code": room / "code", "chat": room / "chat"}


@pytest.fixture
def configured(settings, teachers):
    """A config with two teachers in this process; keywords go to ``train``."""

    def build(method="skd", **train_keys):
        config = settings(method=method, student="steady", batch_size=6, micro_batch_tokens=40, **train_keys)
        config["sampling"] |= {"teacher": {"temperature": 1.0}}
        if method in POLICIES:
            config["policy"] = POLICIES[method]
        config["teacher"] = {"route": "domain", "by": {name: str(teachers[name]) for name in ("math", "code")}}
        return config

    return build


def pair_of(config, teachers=None):
    given = teachers or {name: TeacherModel(path=path) for name, path in config["teacher"]["by"].items()}
    return skd.load_pair(given, config["student"], device="cpu")


def run_of(config, prompts=LOCAL, teachers=None):
    return open_run(config, prompts, pair_of(config, teachers))


def run_whole(config, prompts=LOCAL):
    return train(config, pair=pair_of(config), prompts=prompts, validation=prompts, display=False)


def rows_of(config):
    lines = (Path(config["output"]) / "metrics.jsonl").read_text().splitlines()
    return [row for row in map(json.loads, lines) if "lr" in row]


def same(one, other):
    """Whether two columns of a rollout, or two pieces of evidence, are equal bit for bit."""
    if one is None or other is None:
        return one is other
    if isinstance(one, torch.Tensor):
        return torch.equal(one, other)
    if isinstance(one, list):
        return len(one) == len(other) and all(map(same, one, other))
    return all(torch.equal(getattr(one, name), getattr(other, name)) for name in vars(one))


def require_as_alone(run, prompts, rollout, key, alone):
    """Each response, its authors and its evidence are those of the policy with its teacher alone."""
    for route in set(prompts.routes):
        index = [i for i, other in enumerate(prompts.routes) if other == route]
        expected = run.policy.rollout(alone(route), replace(prompts.select(index), routes=None), key.select(index))
        found = rollout.select([row for row, other in enumerate(rollout.routes) if other == route])
        assert found.sample_ids == expected.sample_ids
        for column in ("response_ids", "authors", "evidence", "student_logp"):
            assert same(getattr(found, column), getattr(expected, column)), column
        assert rollout.stats.by_teacher[route] == (expected.stats.kept, expected.stats.replaced)


def defined_loss(student, models, rollout):
    """The forward KL of these responses to the teacher of each, softmax in float64."""
    losses = []
    for prompt, response, route in zip(rollout.prompt_ids, rollout.response_ids, rollout.routes, strict=True):
        ids_1T = torch.cat([prompt, response])[None]
        s = student(ids_1T).logits[0, len(prompt) - 1 : -1].double().log_softmax(-1)
        with torch.no_grad():
            t = models[route](ids_1T).logits[0, len(prompt) - 1 : -1].double().log_softmax(-1)
        losses.append((t.exp() * (t - s)).sum(-1))
    return torch.cat(losses).mean()


def require_defined_step(run, models):
    before = {name: tensor.clone() for name, tensor in run.pair.student.state_dict().items()}
    report, gradients = reported_step(run)
    run.pair.student.load_state_dict(before)
    run.pair.student.zero_grad()
    loss = defined_loss(run.pair.student, models, report.rollout)
    loss.backward()
    assert loss > 1e-3
    assert report.metrics["loss"] == pytest.approx(loss.item(), rel=1e-5)
    assert distance(gradients, {name: p.grad for name, p in run.pair.student.named_parameters()}) < 1e-5
    return report


@pytest.mark.parametrize("evidence", ["keep", "recompute"])
@pytest.mark.parametrize("method", ["skd", "mixed_skd", "adaswitch", "on_policy", "seq_kd", "supervised_kd"])
def test_each_response_and_its_loss_are_those_of_its_teacher_alone(configured, teachers, method, evidence):
    config = configured(method)
    config["objective"] = {"loss": "forward_kl", "teacher": "forward_kl"}
    config["sampling"] |= {"evidence": evidence, "responses_per_prompt": 1 if method == "supervised_kd" else 2}
    run = run_of(config)
    rollout, epochs, sample_ids = roll_out_step(run, 0)
    prompts = run.prompts.select(sample_ids)
    assert set(rollout.routes) == {"math", "code"}
    assert [LOCAL.routes[row] for row in rollout.sample_ids] == rollout.routes

    def alone(route):
        return skd.load_pair(teachers[route], config["student"], device="cpu")

    require_as_alone(run, prompts, rollout, RolloutKey(3, epochs), alone)
    report = require_defined_step(run, {name: run.pair.of(name).teacher for name in run.pair.routes})
    told = report.teachers
    assert sum(one["tokens"] for one in told.values()) == report.metrics["tokens"]
    assert sum(one["responses"] for one in told.values()) == report.metrics["responses"]


def test_the_tokens_that_count_are_those_that_the_rows_own_teacher_ranks_high(configured):
    config = configured("on_policy") | {"objective": {"weights": {"kind": "teacher_top_k", "k": 10}}}
    run = run_of(config)
    rollout, _, _ = roll_out_step(run, 0)
    weights, total = run.token_weights(rollout)
    for row, (prompt, ids) in enumerate(zip(rollout.prompt_ids, rollout.response_ids, strict=True)):
        teacher = run.pair.of(rollout.routes[row]).teacher
        logits_LV = teacher(torch.cat([prompt, ids])[None]).logits[0, len(prompt) - 1 : -1]
        best_LK = logits_LV.topk(10, dim=-1).indices
        assert weights[row].bool().tolist() == (best_LK == ids[:, None]).any(-1).tolist()
    assert 0 < total < rollout.num_tokens


@pytest.mark.parametrize("method", ["skd", "on_policy", "supervised_kd"])
def test_teachers_in_the_process_and_on_a_server_teach_together(configured, teachers, method):
    config, chat = configured(method), tiny_model("qwen3", seed=6, hidden=24)
    config["objective"] = {"loss": "forward_kl"}
    with serving(StandIn(chat, tiny_tokenizer())) as served:
        config["teacher"]["by"] |= {"chat": {"engine": "vllm", "url": served.url}}
        places = {**teachers, "chat": VllmServer(served.url, top=64, limits=PATIENT)}
        run = run_of(config, ROUTED, places)
        rollout, epochs, sample_ids = roll_out_step(run, 0)
        assert set(rollout.routes) == {"math", "code", "chat"}

        def alone(route):
            return skd.load_pair(places[route], config["student"], device="cpu")

        require_as_alone(run, run.prompts.select(sample_ids), rollout, RolloutKey(3, epochs), alone)
        report = require_defined_step(
            run, {name: run.pair.of(name).teacher if name != "chat" else chat for name in places}
        )
    assert report.metrics["teacher_requests"] > 0
    assert run.pair.provenance["teacher.by.chat"]["engine"] == "vllm"


def test_what_a_teacher_makes_of_a_prompt_is_kept_for_itself_alone(configured, tmp_path):
    """Rows 0 and 9 are one prompt for two teachers; from the third step on every prompt was read before."""
    keeping, reading = ({**configured(max_steps=4), "output": str(tmp_path / name)} for name in ("keeping", "reading"))
    for config in (keeping, reading):
        config["sampling"] = {**config["sampling"], "prompt_cache_mb": 1}
    runs = [run_of(config) for config in (keeping, reading)]
    runs[1].policy.sampling.kept_prompts._budget = 0
    assert LOCAL.ids[0] == LOCAL.ids[9]
    assert LOCAL.routes[0] != LOCAL.routes[9]
    for step in range(4):
        ours, theirs = (roll_out_step(run, step)[0] for run in runs)
        assert same(ours.response_ids, theirs.response_ids)
        assert same(ours.evidence, theirs.evidence)
    assert ours.stats.teacher_read == 0 < theirs.stats.teacher_read


@given(routes=st.lists(st.sampled_from(["math", "code"]), min_size=1, max_size=10), data=st.data())
@examples(max_examples=20, deadline=None)
def test_however_rows_are_routed_and_ordered_each_has_its_teachers_response(shared_run, routes, data):
    run, alone = shared_run
    rows = data.draw(st.permutations(range(10)))[: len(routes)]
    prompts = replace(ROWS.select(rows), routes=routes)
    key = RolloutKey(7, [data.draw(st.integers(0, 3)) for _ in rows])
    rollout = rolled_out(run.policy, run.pair, prompts, key)
    assert rollout.sample_ids == rows
    assert rollout.routes == routes
    require_as_alone(run, prompts, rollout, key, alone)


@pytest.fixture(scope="module")
def shared_run(models, teachers, tmp_path_factory):
    config = {
        "teacher": {"route": "domain", "by": {name: str(teachers[name]) for name in ("math", "code")}},
        "student": str(models / "steady"),
        "data": {"train": "rows.json"},
        "policy": POLICIES["skd"],
        "sampling": {"max_new_tokens": 5, "slots": 2, "teacher": {"temperature": 1.0}},
        "train": {"max_steps": 1, "batch_size": 4},
        "output": str(tmp_path_factory.mktemp("shared") / "run"),
    }
    pairs = {name: skd.load_pair(teachers[name], models / "steady", device="cpu") for name in ("math", "code")}
    return run_of(config), pairs.get


def test_a_run_that_is_killed_ends_with_the_bits_of_one_that_is_not(configured, tmp_path):
    through, killed = ({**configured(), "output": str(tmp_path / name)} for name in ("through", "killed"))
    run_whole(through)
    for name, count in (("rollout", 2), ("backward", 3), ("step", 3)):
        child = os.fork()
        if child == 0:
            with at(name, count, lambda: os.kill(os.getpid(), signal.SIGKILL)):
                run_whole(killed)
            os._exit(0)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    run_whole(killed)
    assert end_state(killed["output"], 6) == end_state(through["output"], 6)
    told = [row["by_teacher"] for row in rows_of(killed)]
    assert told == [row["by_teacher"] for row in rows_of(through)]
    assert all(0 <= one["acceptance_rate"] <= 1 for row in told for one in row.values() if one["responses"])


@pytest.mark.parametrize("sharding", ["none", "fsdp2", *ZERO])
@pytest.mark.parametrize("batch_size", [5, 1])
def test_two_ranks_train_what_one_does(configured, tmp_path, batch_size, sharding):
    # A large eps keeps the updates smooth in the gradients: Adam's own would turn rounding near 0 into whole steps.
    keys = {"max_steps": 2, "eps": 0.01, "warmup": 0.0}
    alone, together = ({**configured(**keys), "output": str(tmp_path / name)} for name in ("alone", "together"))
    for config in (alone, together):
        config["train"] |= {"batch_size": batch_size}
    together["train"] |= {"sharding": sharding}
    run_whole(alone)
    assert as_ranks(lambda rank: run_whole(together), 2) == [0, 0]
    weights, shared = (
        load_file(Path(config["output"]) / "checkpoints" / "step-2" / "student.safetensors")
        for config in (alone, together)
    )
    assert max((weights[name] - shared[name]).abs().max().item() for name in weights) <= 1e-5
    assert [row["by_teacher"] for row in rows_of(alone)] == [row["by_teacher"] for row in rows_of(together)]


def test_a_step_of_a_dump_is_taken_again_with_each_rows_teacher(configured):
    config = configured()
    config["sampling"]["evidence"] = "recompute"
    run = run_of(config)
    weights = {name: tensor.clone() for name, tensor in run.pair.student.state_dict().items()}
    report, _ = reported_step(run)
    run.pair.student.load_state_dict(weights)
    dump = run.run_dir / "nonfinite-step-0.json"
    write_dump(run, dump, 0, report.metrics["loss"], report.metrics["grad_norm"], report.rollout)
    assert redo_step(run, dump) == (report.metrics["loss"], report.metrics["grad_norm"])


def test_the_token_view_shows_each_rows_own_teacher(configured):
    config = configured(max_steps=1)
    run_whole(config)
    pair = pair_of(config)
    views = json.loads((Path(config["output"]) / "tokens" / "step-0.json").read_text())["responses"]
    assert {LOCAL.routes[view["sample_id"]] for view in views} == {"math", "code"}
    for view in views:
        row = view["sample_id"]
        ids = torch.tensor([[*ROWS.ids[row], *view["ids"]]])
        logits_LV = pair.of(LOCAL.routes[row]).teacher(ids).logits[0, len(ROWS.ids[row]) - 1 : -1]
        assert [ids[0] for ids in view["teacher_top_ids"]] == logits_LV.argmax(-1).tolist()


def test_a_run_does_not_go_on_with_another_teacher_among_several(configured, tmp_path):
    config = configured(max_steps=2)
    save_tiny(tmp_path / "changed", "gpt2", seed=5, hidden=48)
    config["teacher"]["by"]["code"] = str(tmp_path / "changed")
    run_whole(config)
    save_tiny(tmp_path / "changed", "gpt2", seed=5, hidden=24)
    config["train"]["max_steps"] = 4
    with pytest.raises(CheckpointError, match=r"SKD-M21.*: teacher\.by\.code\.digest was \w+ and is \w+;"):
        run_whole(config)


def test_a_run_does_not_go_on_with_rows_of_other_teachers(configured):
    config = configured(max_steps=2)
    run_whole(config)
    config["train"]["max_steps"] = 4
    with pytest.raises(CheckpointError, match="SKD-D13"):
        run_whole(config, replace(LOCAL, routes=["math", *LOCAL.routes[:-1]]))


@pytest.mark.parametrize(
    ("prompts", "found"),
    [
        (ROWS, "10 prompts name no teacher of the pair, first 0: '', expected one of 'math', 'code'"),
        (ROUTED, "3 prompts name no teacher of the pair, first 3: 'chat', expected one of 'math', 'code'"),
    ],
)
def test_prompts_without_a_teacher_are_refused_before_the_first_step(configured, prompts, found):
    with pytest.raises(DataError, match=found):
        run_of(configured(), prompts)


def test_a_pair_of_several_teachers_judges_nothing_by_itself(configured):
    with pytest.raises(ModelError, match=r"this needs a teacher and each prompt has another: see Pair\.of"):
        skd.interleave(pair_of(configured()), ROWS, max_new_tokens=4)


def test_every_teacher_must_have_the_students_vocabulary(configured, tmp_path):
    config = configured()
    save_tiny(tmp_path / "wide", "llama", seed=1, vocab_size=80)
    config["teacher"]["by"]["code"] = str(tmp_path / "wide")
    with pytest.raises(ModelError, match=r"SKD-M02\] student / teacher\.by\.code: the tokenizers differ at 16 ids"):
        pair_of(config)

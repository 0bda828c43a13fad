"""Responses written by an engine that holds a copy of the weights: the sampler's own, or an error that says why not."""

import json
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file

import skd
from skd.config import config_of
from skd.engines import Settings, VllmPolicy, Writers, rollouts
from skd.errors import CheckpointError, DataError, NumericsError, RemoteError
from skd.generate import generate_responses
from skd.models.export import export_for_engine
from skd.policies import RolloutKey, Sampling, Student, Teacher, rolled_out
from skd.responses import open_responses
from skd.sampling import Warp
from skd.types import STUDENT, TEACHER, Prompts
from tests.engines.written import Engines
from tests.tiny import save_tiny
from tests.train.conftest import ROWS, end_state

GREEDY = Sampling(
    Warp(temperature=0.0), Warp(temperature=0.0), max_new_tokens=12, slots=8, stop_strings=("t17",), student_logp=True
)
DRAWN = Sampling(Warp(), Warp(), max_new_tokens=12, slots=8, responses_per_prompt=2, evidence=False)
# The engine takes a forward of the model for each token of each response: no more of them than a test looks at.
PROMPTS = Prompts(ids=[[2 + i % 40, 3 + i % 7][: 1 + i % 2] for i in range(24)], sample_ids=list(range(24)))
FEW = PROMPTS.select(range(3))


@pytest.fixture(scope="module")
def room(tmp_path_factory):
    """A teacher, and a student whose head has more rows than there are ids."""
    directory = tmp_path_factory.mktemp("written")
    save_tiny(directory / "teacher", "llama", seed=1)
    save_tiny(directory / "student", "llama", seed=2, hidden=16, padded_vocab=80)
    return directory


@pytest.fixture(scope="module")
def pair(room):
    return skd.load_pair(room / "teacher", room / "student", device="cpu")


@pytest.fixture
def learning(room):
    """A pair whose weights a test may change."""
    return skd.load_pair(room / "teacher", room / "student", device="cpu")


@pytest.fixture
def engines():
    return Engines()


@pytest.fixture
def writers(engines):
    made = Writers.of(Settings("python", slots=8), engines)
    yield made
    made.close()


def key(prompts=PROMPTS, seed=5, epoch=0, updates=0):
    return RolloutKey(seed, [epoch] * len(prompts), updates=updates)


def lists(tensors):
    return [tensor.tolist() for tensor in tensors]


@pytest.mark.parametrize("who", ["student", "teacher"])
def test_greedy_responses_are_those_of_the_own_sampler(pair, writers, who):
    """Stop strings included, which this engine does not know: the cut is ours."""
    writer, policy = getattr(writers, who), {"student": Student, "teacher": Teacher}[who](GREEDY)
    ours = policy.rollout(pair, PROMPTS, key())
    theirs = writer.write(pair, PROMPTS, GREEDY, key())
    assert lists(theirs.response_ids) == lists(ours.response_ids)
    assert theirs.truncated.tolist() == ours.truncated.tolist()
    assert lists(theirs.authors) == lists(ours.authors)
    assert {int(a) for row in theirs.authors for a in row} == {STUDENT if who == "student" else TEACHER}
    assert theirs.sample_ids == ours.sample_ids
    for one, other in zip(theirs.evidence, ours.evidence, strict=True):
        assert (one - other).abs().max() < 1e-4
    if who == "student":
        for one, other in zip(theirs.student_logp, ours.student_logp, strict=True):
            assert (one - other).abs().max() < 1e-4
    ends = {(cut, ids[-1] == 1) for cut, ids in zip(ours.truncated.tolist(), lists(ours.response_ids), strict=True)}
    assert {True, False} == {cut for cut, _ in ends}


def test_draws_are_keyed_by_the_response_and_by_nothing_else(pair, writers):
    twelve, part = PROMPTS.select(range(12)), [7, 3, 11]
    whole = writers.student.write(pair, twelve, DRAWN, key(twelve))
    few = PROMPTS.select(part)
    again = writers.student.write(pair, few, DRAWN, key(few))
    rows = [2 * sample + index for sample in part for index in (0, 1)]
    assert lists(again.response_ids) == [whole.response_ids[row].tolist() for row in rows]
    assert again.response_index == [0, 1] * 3
    both = [(whole.response_ids[i].tolist(), whole.response_ids[i + 1].tolist()) for i in range(0, 24, 2)]
    assert sum(one != other for one, other in both) >= 10
    for other in (key(few, seed=6), key(few, epoch=1)):
        assert lists(writers.student.write(pair, few, DRAWN, other).response_ids) != lists(again.response_ids)


def test_each_of_several_teachers_writes_its_own_prompts(room, engines, writers, tmp_path):
    save_tiny(tmp_path / "other", "gpt2", seed=5, hidden=48)
    several = skd.load_pair({"a": room / "teacher", "b": tmp_path / "other"}, room / "student", device="cpu")
    few = replace(PROMPTS.select(range(8)), routes=["a", "b"] * 4)
    ours = rolled_out(Teacher(GREEDY), several, few, key(few))
    theirs = rolled_out(VllmPolicy(GREEDY, writers.teacher), several, few, key(few))
    assert lists(theirs.response_ids) == lists(ours.response_ids)
    for one, other in zip(theirs.evidence, ours.evidence, strict=True):
        assert (one - other).abs().max() < 1e-4
    rolled_out(VllmPolicy(GREEDY, writers.student), several, few, key(few))
    assert len(engines.started) == 3  # both teachers, and one for the student


def move(pair):
    with torch.no_grad():
        for parameter in pair.student.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)))


def test_weights_are_renewed_when_they_are_older_than_allowed(learning, engines):
    writers = Writers.of(Settings("python", max_staleness=1), engines)
    sampling = Sampling(Warp(temperature=0.0), max_new_tokens=8, evidence=False)
    versions, reloads = [], []
    for step in range(4):
        rollout = writers.student.write(learning, FEW, sampling, key(FEW, updates=step))
        versions.append(rollout.versions[0])
        reloads.append(engines.last.reloads)
        move(learning)
    assert versions == [0, 0, 2, 2]
    assert reloads == [0, 0, 1, 1]
    # A run that went back, to an earlier checkpoint, does not take newer weights for new enough.
    assert writers.student.write(learning, FEW, sampling, key(FEW, updates=1)).versions[0] == 1
    rollout = writers.student.write(learning, FEW, sampling, key(FEW, updates=3))
    assert lists(rollout.response_ids) == lists(Student(sampling).rollout(learning, FEW, key(FEW)).response_ids)
    assert rollout.stats.seconds_sync > 0.0
    assert rollout.stats.probe_gap < 1e-4
    writers.close()


def test_an_engine_that_keeps_its_old_weights_is_found_out(learning, engines):
    engines.deaf = True
    writers = Writers.of(Settings("python"), engines)
    writers.student.write(learning, FEW, DRAWN, key(FEW, updates=0))
    move(learning)
    with pytest.raises(
        RemoteError, match=r"SKD-V03\] vLLM for the rollouts at unix:.*does not hold the student's weights"
    ):
        writers.student.write(learning, FEW, DRAWN, key(FEW, updates=1))
    writers.close()


def test_a_longer_prompt_than_any_before_gets_an_engine_with_more_room(pair, writers, engines):
    sampling = Sampling(Warp(), max_new_tokens=4, evidence=False)
    short, long = (Prompts(ids=[[5] * length], sample_ids=[0]) for length in (2, 40))
    for prompts in (short, short, long, short):
        assert len(writers.student.write(pair, prompts, sampling, key(prompts))) == 1
    assert [engine.starting.context for engine in engines.started] == [12, 88]
    assert [path.exists() for path in engines.rooms] == [False, True]
    beyond = Prompts(ids=[[5] * 200], sample_ids=[0])
    with pytest.raises(DataError):
        writers.student.write(pair, beyond, sampling, key(beyond))


def test_its_directory_is_private_and_goes_with_it(pair, writers, engines):
    writers.student.write(pair, FEW, DRAWN, key(FEW))
    (room,) = engines.rooms
    assert room.stat().st_mode & 0o777 == 0o700
    assert {path.name for path in room.iterdir()} == {"model", "socket"}
    writers.close()
    assert not room.exists()


def test_no_key_goes_over_the_socket(pair, writers, engines, monkeypatch):
    monkeypatch.setenv("SKD_TEACHER_TOKEN", "a-key-of-another-server")
    writers.student.write(pair, FEW, DRAWN, key(FEW))
    assert engines.last.headers
    assert not any("Authorization" in headers for headers in engines.last.headers)


def choice(answer):
    return answer["choices"][0]


LIES = {
    "another model": ("SKD-R05", lambda a: a.update(model="other")),
    "another prompt": ("SKD-R05", lambda a: choice(a).update(prompt_token_ids=[1])),
    "no ids": ("SKD-R05", lambda a: choice(a).pop("token_ids")),
    "nothing written": ("SKD-R05", lambda a: choice(a).update(token_ids=[])),
    "longer than the cap": ("SKD-R05", lambda a: choice(a)["token_ids"].extend([5] * 12)),
    "an id of the padding": ("SKD-R05", lambda a: choice(a)["token_ids"].__setitem__(0, 64)),
    "true for an id": ("SKD-R05", lambda a: choice(a)["token_ids"].__setitem__(0, True)),
    "too few log-probs": ("SKD-R05", lambda a: choice(a)["logprobs"]["token_logprobs"].pop()),
    "no log-probs": ("SKD-R05", lambda a: choice(a).update(logprobs=None)),
    "given up": ("SKD-R05", lambda a: choice(a).update(finish_reason="abort")),
    "at its cap too early": ("SKD-R05", lambda a: cut_short(choice(a))),
    "NaN": ("SKD-R06", lambda a: choice(a)["logprobs"]["token_logprobs"].__setitem__(0, float("nan"))),
    "positive": ("SKD-R06", lambda a: choice(a)["logprobs"]["token_logprobs"].__setitem__(0, 0.7)),
}


def cut_short(told):
    told.update(token_ids=told["token_ids"][:1], finish_reason="length")
    told["logprobs"]["token_logprobs"] = told["logprobs"]["token_logprobs"][:1]


@pytest.mark.parametrize("lie", LIES)
def test_a_wrong_answer_is_refused_and_names_the_field(pair, writers, engines, lie):
    code, spoil = LIES[lie]

    def fault(body, answer):
        if "prompt_logprobs" not in body:
            spoil(answer)
        return answer

    engines.fault = fault
    with pytest.raises((RemoteError, NumericsError), match=rf"{code}\] server's answer, "):
        writers.student.write(pair, FEW, DRAWN, key(FEW))


def test_what_ends_the_sampling_ends_the_wait_for_the_engine(pair, writers):
    def check():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        writers.student.write(pair, FEW, DRAWN, RolloutKey(0, [0] * len(FEW), check=check))


def test_adapters_are_in_the_weights_that_the_engine_gets(room, tmp_path):
    adapters = skd.models.Adapters(r=2)
    pair = skd.load_pair(room / "teacher", room / "student", adapters=adapters, device="cpu")
    move(pair)
    export_for_engine(pair, pair.student, tmp_path / "model", with_tokenizer=True)
    alone = skd.load_pair(None, tmp_path / "model", device="cpu")
    ids = torch.tensor([[5, 6, 7, 8]])
    with torch.no_grad():
        ours, theirs = (one.student(input_ids=ids).logits for one in (pair, alone))
    assert theirs.shape[-1] == pair.vocab_size < ours.shape[-1]
    assert (ours[..., : pair.vocab_size] - theirs).abs().max() < 1e-5


def settings(room, output, **keys):
    return {
        "method": "on_policy",
        "teacher": str(room / "teacher"),
        "student": str(room / "student"),
        "data": {"train": "rows.json"},
        "sampling": {"max_new_tokens": 5, "slots": 4, "student": {"temperature": 0.0, "top_p": 1.0}, **keys},
        "train": {
            "max_steps": 4, "batch_size": 4, "lr": 0.01, "eps": 0.01, "warmup": 0.0, "trackers": [], "validate_every": 2
        },
        "output": str(output),
    }  # fmt: skip


def train(config):
    pair = skd.load_pair(config["teacher"], config["student"], device="cpu")
    return skd.train(config, pair=pair, prompts=ROWS, validation=ROWS, display=False)


@pytest.fixture
def with_engines(engines, monkeypatch):
    """Training starts these in place of vLLM."""
    monkeypatch.setattr(rollouts, "launch", engines)
    return engines


ENGINE = {"engine": "vllm", "python": "/no/such/python"}


def test_training_on_an_engine_s_responses_is_training_on_one_s_own(room, tmp_path, with_engines):
    train(settings(room, tmp_path / "own"))
    train(settings(room, tmp_path / "engine", rollouts=ENGINE))
    own, engine = (
        load_file(tmp_path / name / "checkpoints" / "step-4" / "student.safetensors") for name in ("own", "engine")
    )
    assert max(float((own[name] - engine[name]).abs().max()) for name in own) < 1e-4
    assert len(with_engines.started) == 1
    assert with_engines.last.reloads == 4  # before steps 2, 3 and 4, and for the validation at the end
    rows = [json.loads(line) for line in (tmp_path / "engine" / "metrics.jsonl").read_text().splitlines()]
    steps = [row for row in rows if "lr" in row]
    assert [row["staleness"] for row in steps] == [0] * 4
    assert all(row["probe_gap"] < 1e-4 for row in steps)
    assert not any(path.exists() for path in with_engines.rooms)


def test_an_engine_that_dies_costs_nothing(room, tmp_path, with_engines):
    """With draws: those after the loss are those of a run without one."""
    drawn = {"student": {"temperature": 1.0, "top_p": 1.0}, "rollouts": ENGINE}
    train(settings(room, tmp_path / "whole", **drawn))
    asked = len(with_engines.last.seen)

    def die(body, answer):
        engine = with_engines.last
        if len(engine.seen) > asked // 2:
            engine.die()
        return answer

    with_engines.fault = die
    with pytest.raises(RemoteError, match=r"SKD-V06\] vLLM for the rollouts: ended with status 137"):
        train(settings(room, tmp_path / "killed", **drawn))
    assert list((tmp_path / "killed" / "checkpoints").iterdir())
    with_engines.fault = None
    train(settings(room, tmp_path / "killed", **drawn))
    whole, killed = (end_state(tmp_path / name, 4) for name in ("whole", "killed"))
    assert whole == killed


def test_stored_responses_of_a_teacher(room, tmp_path, with_engines):
    (tmp_path / "rows.jsonl").write_text("\n".join(json.dumps({"prompt": f"t{2 + i} t{9 + i}"}) for i in range(6)))
    data = {"train": {"path": str(tmp_path / "rows.jsonl"), "prompt_field": "prompt", "response_field": None}}
    for name, keys in (("own", {}), ("engine", {"rollouts": ENGINE})):
        values = settings(room, tmp_path / name, teacher={"temperature": 0.0}, **keys)
        config = config_of({**values, "data": data, "policy": "teacher"})
        generate_responses(config, tmp_path / name, top_k=4, display=False)
    values = settings(room, tmp_path / "own", teacher={"temperature": 0.0})
    config = config_of({**values, "data": data, "policy": "teacher"})
    with pytest.raises(CheckpointError, match=r"SKD-K14.*settings.sampling.engine vllm"):
        generate_responses(config, tmp_path / "engine", top_k=4, display=False)
    own, engine = (open_responses(tmp_path / name).prompts for name in ("own", "engine"))
    assert engine.references == own.references
    assert engine.reference_authors == own.reference_authors
    assert len(with_engines.started) == 1

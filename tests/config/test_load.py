import logging
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from skd.config import (
    METHODS,
    AcceptNoneGate,
    DataConfig,
    FileSource,
    HubSource,
    InterleavedPolicy,
    ModelConfig,
    ObjectiveConfig,
    PolicyConfig,
    RunConfig,
    SamplingConfig,
    StudentPolicy,
    StudentWarpConfig,
    TaskSource,
    TeacherPolicy,
    TopKGate,
    TopPGate,
    TrainConfig,
    config_digest,
    config_of,
    dump_config,
    load_config,
)
from skd.errors import ConfigError
from tests.config.conftest import BASE

Load = Callable[..., RunConfig]


def test_defaults_are_the_papers(load: Load) -> None:
    config = load(BASE)
    assert config.method == "skd"
    assert config.resolved_policy == InterleavedPolicy(gate=TopKGate(k=25), block=5)
    assert config.resolved_objective == ObjectiveConfig(kind="forward_kl")
    assert (config.sampling.student.temperature, config.sampling.student.top_p) == (0.5, 0.5)
    assert (config.sampling.teacher.temperature, config.sampling.teacher.top_p) == (0.2, 1.0)
    assert (config.train.lr, config.train.batch_size, config.train.warmup, config.train.epochs) == (1e-5, 8, 0.1, 3.0)
    assert config.data.train == (FileSource(path="rows.json"),)
    assert config.student == ModelConfig(path="s")


@pytest.mark.parametrize(
    ("name", "policy", "objective"),
    [
        ("sft", "data_set", "nll"),
        ("seq_kd", "teacher", "nll"),
        ("supervised_kd", "data_set", "forward_kl"),
        ("on_policy", "student", "forward_kl"),
        ("on-policy", "student", "forward_kl"),
        ("skd", "interleaved", "forward_kl"),
    ],
)
def test_methods_are_bundles(name: str, policy: str, objective: str, load: Load) -> None:
    config = load(f"method: {name}\n{BASE}")
    assert config.method in METHODS
    assert (config.resolved_policy.kind, config.resolved_objective.kind) == (policy, objective)


def test_a_policy_or_an_objective_replaces_the_methods(load: Load) -> None:
    config = load("policy: {kind: student}\nobjective: {kind: jsd, beta: 0.1}\n" + BASE)
    assert config.resolved_policy == StudentPolicy()
    assert config.resolved_objective.beta == 0.1


def test_one_key_of_a_warp_keeps_the_default_of_the_other(load: Load) -> None:
    sampling = load(f"sampling: {{student: {{temperature: 0.7}}, teacher: {{top_p: 0.9}}}}\n{BASE}").sampling
    assert (sampling.student.temperature, sampling.student.top_p) == (0.7, 0.5)
    assert (sampling.teacher.temperature, sampling.teacher.top_p) == (0.2, 0.9)


def test_numeric_text_is_read_as_a_number_and_said(load: Load, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="skd.config.load"):
        config = load(f"train: {{lr: 1e-5, eps: '1_0.5e-3', clip_norm: 2}}\n{BASE}")
    assert (config.train.lr, config.train.eps, config.train.clip_norm) == (1e-5, 0.0105, 2.0)
    assert [record.getMessage() for record in caplog.records] == [
        'train.lr is the text "1e-5", read as the number 1e-05',
        'train.eps is the text "1_0.5e-3", read as the number 0.0105',
    ]


def test_seed_zero_is_a_seed(load: Load) -> None:
    assert load(f"train: {{seed: 0}}\n{BASE}").train.seed == 0
    assert load(f"train: {{seed: 4294967295}}\n{BASE}").train.seed == 4294967295


def test_a_byte_order_mark_is_accepted(load: Load) -> None:
    assert load(b"\xef\xbb\xbf" + BASE.encode()) == load(BASE)


def test_a_leading_tilde_is_the_home_directory(load: Load) -> None:
    assert load(f"output: ~/runs/x\n{BASE}").output == str(Path("~/runs/x").expanduser())


def test_overrides_apply_in_order_and_reach_into_short_forms(load: Load) -> None:
    config = load(
        BASE,
        "train.lr=2e-5",
        "train.max_steps=3",
        "train.max_steps=4",
        "teacher.dtype=bfloat16",
        "data.train.limit=7",
        "policy={kind: interleaved, gate: {kind: accept_none}}",
        "sampling.stop_strings=[\"\\n\", 'a=b']",
        "data.validation=other.json",
        "output=runs/a b",
    )
    assert (config.train.lr, config.train.max_steps) == (2e-5, 4)
    assert config.teacher == ModelConfig(path="t", dtype="bfloat16")
    assert config.data.train == (FileSource(path="rows.json", limit=7),)
    assert config.data.validation == (FileSource(path="other.json"),)
    assert config.policy == InterleavedPolicy(gate=AcceptNoneGate())
    assert config.sampling.stop_strings == ("\n", "a=b")
    assert config.output == "runs/a b"


@pytest.mark.parametrize(
    ("text", "overrides", "policy"),
    [
        ("", ["policy.gate.k=3"], InterleavedPolicy(gate=TopKGate(k=3))),
        ("", ["policy.block=9", "policy.gate.k=3"], InterleavedPolicy(gate=TopKGate(k=3), block=9)),
        ("", ["policy.gate.kind=accept_none"], InterleavedPolicy(gate=AcceptNoneGate())),
        ("", ["policy.kind=student"], StudentPolicy()),
        ("policy: {kind: interleaved, gate: {kind: top_k, k: 3}}\n", ["policy.kind=student"], StudentPolicy()),
        (
            "policy: {kind: interleaved, gate: {kind: top_k, k: 3}, block: 4}\n",
            ["policy.gate.kind=top_p", "policy.gate.p=0.9"],
            InterleavedPolicy(gate=TopPGate(p=0.9), block=4),
        ),
    ],
)
def test_a_change_inside_a_policy_starts_from_the_methods_and_a_new_kind_from_nothing(
    text: str, overrides: list[str], policy: PolicyConfig, load: Load
) -> None:
    assert load(text + BASE, *overrides).policy == policy


def test_a_change_of_the_objective_starts_from_the_methods(load: Load) -> None:
    assert load(BASE, "objective.temperature=2").objective == ObjectiveConfig(kind="forward_kl", temperature=2.0)
    jsd = load(BASE, "objective.kind=jsd", "objective.beta=0.1").objective
    assert jsd == ObjectiveConfig(kind="jsd", beta=0.1)


def test_plain_values_are_checked_as_a_file_is(tmp_path: Path) -> None:
    shared = {"temperature": 0.3}
    values = {
        "student": ModelConfig(path="s"),
        "teacher": tmp_path,
        "data": {"train": "x"},
        "sampling": {"student": shared, "teacher": shared},
        "train": {"betas": (0.8, 0.9)},
    }
    config = config_of(values, {"train.lr": 1e-3})
    assert config.teacher == ModelConfig(path=str(tmp_path))
    assert (config.sampling.teacher.temperature, config.train.betas, config.train.lr) == (0.3, (0.8, 0.9), 1e-3)
    assert config_of(config, ["train.lr=1e-5"]).train.lr == 1e-5
    with pytest.raises(ConfigError, match=r"error\[SKD-C06\] config: output is a object, expected text"):
        config_of({**values, "output": object()})
    with pytest.raises(ConfigError, match=r"the value of output looks like a secret"):
        config_of({**values, "output": "hf_abc"})


def test_overrides_from_python_are_values(load: Load, tmp_path: Path) -> None:
    load(BASE)
    config = load_config("train.yaml", {"train.max_steps": 100, "output": "no"})
    assert (config.train.max_steps, config.output) == (100, "no")
    with pytest.raises(ConfigError, match=r"--override train\.max_steps: train\.max_steps is 1\.5, expected a whole"):
        load_config("train.yaml", {"train.max_steps": 1.5})


def test_an_override_of_null_takes_the_teacher_away(load: Load) -> None:
    assert load(BASE, "method=sft", "teacher=null").teacher is None


def test_configs_are_frozen(load: Load) -> None:
    with pytest.raises(ValueError, match="frozen"):
        load(BASE).train.lr = 1.0


def test_contradictions_are_found_in_python_too() -> None:
    data = DataConfig(train=(FileSource(path="x"),))
    with pytest.raises(ValueError, match="method skd needs a teacher, and teacher is missing"):
        RunConfig(student=ModelConfig(path="s"), data=data)
    with pytest.raises(ValueError, match=r"objective\.beta is given and objective\.kind is nll"):
        ObjectiveConfig(kind="nll", beta=0.3)


reals = st.floats(min_value=1e-9, max_value=1.0, exclude_max=True)
counts = st.integers(min_value=1, max_value=2**31 - 1)
texts = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=12)
paths = st.from_regex(r"[a-zA-Z0-9_./ :#'\"{}\[\],&*!|>%@-]{1,20}", fullmatch=True).filter(
    lambda text: not text.startswith(("sk-", "hf_", "~"))
)
models = st.builds(ModelConfig, path=paths, revision=st.none() | paths, dtype=st.sampled_from(["float32", "bfloat16"]))
source = st.one_of(
    st.builds(FileSource, path=paths, prompt_field=texts, field=st.none() | texts, limit=st.none() | counts),
    st.builds(FileSource, path=paths, messages_field=texts, share=reals),
    st.builds(HubSource, kind=st.just("hub"), id=st.just("a/b-c"), config=st.none() | texts, split=texts),
    st.builds(TaskSource, kind=st.just("task"), name=st.just("dialogue"), split=st.just("train"), size=counts),
)
sources = st.lists(source, min_size=1, max_size=3).map(tuple)
gates = st.one_of(st.builds(TopKGate, k=counts), st.builds(TopPGate, p=reals), st.just(AcceptNoneGate()))
policies = st.one_of(st.none(), st.just(TeacherPolicy()), st.builds(InterleavedPolicy, gate=gates, block=counts))
objectives = st.one_of(
    st.none(),
    st.builds(ObjectiveConfig, kind=st.just("jsd"), beta=reals, temperature=reals),
    st.builds(ObjectiveConfig, kind=st.sampled_from(["nll", "forward_kl", "reverse_kl"]), temperature=reals),
)
configs = st.builds(
    RunConfig,
    method=st.sampled_from(sorted(METHODS)),
    teacher=models,
    student=models,
    data=st.builds(DataConfig, train=sources, validation=st.none() | sources, system=st.none() | texts),
    policy=policies,
    objective=objectives,
    sampling=st.builds(
        SamplingConfig,
        student=st.builds(StudentWarpConfig, temperature=reals, top_p=reals),
        stop_strings=st.lists(texts, max_size=3).map(tuple),
    ),
    train=st.builds(
        TrainConfig,
        seed=st.integers(0, 2**32 - 1),
        lr=reals,
        betas=st.tuples(reals, reals),
        clip_norm=st.none() | reals,
        max_steps=st.none() | counts,
    ),
    output=paths,
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(config=configs, docs=st.booleans())
def test_a_dumped_config_reads_back_equal(config: RunConfig, docs: bool, load: Load) -> None:
    text = dump_config(config, docs=docs)
    again = load(text)
    assert again == config
    assert dump_config(again, docs=docs) == text
    assert config_digest(again) == config_digest(config)


def test_the_digest_changes_with_any_value(load: Load) -> None:
    digests = {config_digest(load(BASE, *overrides)) for overrides in ([], ["train.seed=1"], ["output=x"])}
    assert len(digests) == 3
    assert all(len(digest) == 64 for digest in digests)


def test_the_digest_does_not_depend_on_how_the_file_says_it(load: Load) -> None:
    spelled = "student: {path: s}\nteacher: {path: t}\ntrain: {lr: 0.00001}\ndata: {train: {path: rows.json}}\n"
    assert config_digest(load(spelled)) == config_digest(load(BASE))


def test_printed_docs_say_what_each_key_means(load: Load) -> None:
    lines = dump_config(load(BASE), docs=True).splitlines()
    assert all("  # " in line for line in lines), [line for line in lines if "  # " not in line]

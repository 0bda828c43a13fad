import logging
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from skd.config import METHODS, RunConfig, config_digest, config_of, dump_config
from skd.config.models import AverageTeacher, LoraConfig, StudentModel, StudentTeacher, TeacherModel
from skd.config.numbers import ScheduleConfig
from skd.config.objective import (
    ByAuthorWeights,
    CustomLoss,
    ForwardKLLoss,
    JSDLoss,
    NLLLoss,
    ObjectiveConfig,
    PlainTarget,
    PolicyGradientLoss,
    ReverseKLLoss,
    SkewReverseKLLoss,
    TaidTarget,
    TeacherTopKWeights,
    VetoTarget,
)
from skd.config.policy import (
    AcceptNoneGate,
    CustomGate,
    DataSetPolicy,
    InterleavedPolicy,
    InterpolatedGate,
    MinProbGate,
    MixturePolicy,
    PartConfig,
    StageConfig,
    StagedPolicy,
    StudentPolicy,
    SwitchOnceGate,
    TeacherPolicy,
    TopKGate,
    TopPGate,
)
from skd.config.schema import SamplingConfig, StudentWarpConfig, TrainConfig
from skd.config.sources import DataConfig, FileSource, HubSource, TaskSource
from skd.errors import ConfigError
from tests.config.conftest import BASE

Load = Callable[..., RunConfig]


def test_defaults_are_the_papers(load: Load) -> None:
    config = load(BASE)
    assert config.method == "skd"
    assert config.policy == InterleavedPolicy(gate=TopKGate(k=25))
    assert config.objective == ObjectiveConfig(loss=ForwardKLLoss())
    assert (config.sampling.student.temperature, config.sampling.student.top_p) == (0.5, 0.5)
    assert (config.sampling.teacher.temperature, config.sampling.teacher.top_p) == (0.2, 1.0)
    assert (config.train.lr, config.train.batch_size, config.train.warmup, config.train.epochs) == (1e-5, 8, 0.1, 3.0)
    assert config.data.train == (FileSource(path="rows.json"),)
    assert config.student == StudentModel(path="s")


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


def test_plain_values_are_checked_as_a_file_is(tmp_path: Path) -> None:
    shared = {"temperature": 0.3}
    values = {
        "student": StudentModel(path="s"),
        "teacher": tmp_path,
        "data": {"train": "x"},
        "sampling": {"student": shared, "teacher": shared},
        "train": {"betas": (0.8, 0.9)},
    }
    config = config_of(values, {"train.lr": 1e-3})
    assert config.teacher == TeacherModel(path=str(tmp_path))
    assert (config.sampling.teacher.temperature, config.train.betas, config.train.lr) == (0.3, (0.8, 0.9), 1e-3)
    assert config_of(config, ["train.lr=1e-5"]).train.lr == 1e-5
    with pytest.raises(ConfigError, match=r"error\[SKD-C06\] config: output is a object, expected text"):
        config_of({**values, "output": object()})
    with pytest.raises(ConfigError, match=r"the value of output looks like a secret"):
        config_of({**values, "output": "hf_abc"})


def test_configs_are_frozen(load: Load) -> None:
    with pytest.raises(ValueError, match="frozen"):
        load(BASE).train.lr = 1.0


def test_contradictions_are_found_in_python_too() -> None:
    data = DataConfig(train=(FileSource(path="x"),))
    with pytest.raises(ValueError, match="method skd needs a teacher, and teacher is missing"):
        RunConfig(student=StudentModel(path="s"), data=data)
    RunConfig(
        student=StudentModel(path="s"), data=data, policy=DataSetPolicy(), objective=ObjectiveConfig(loss=NLLLoss())
    )
    with pytest.raises(ValueError, match=r"objective\.target\.kind veto changes nothing: objective\.loss nll looks"):
        RunConfig(
            student=StudentModel(path="s"),
            data=data,
            policy=DataSetPolicy(),
            objective=ObjectiveConfig(loss=NLLLoss(), target=VetoTarget()),
        )
    with pytest.raises(ValueError, match=r" policy\.kind student needs a teacher, and teacher is missing"):
        RunConfig(
            student=StudentModel(path="s"), data=data, policy=StudentPolicy(), objective=ObjectiveConfig(loss=NLLLoss())
        )
    with pytest.raises(ValueError, match=r"over is response, and tokens is missing; add tokens"):
        ScheduleConfig(start=1.0, end=0.5, over="response")
    with pytest.raises(ValueError, match=r"parts has the shares 0\.5, which add up to 0\.5; make them add up to 1"):
        StagedPolicy(parts=(StageConfig(share=0.5, policy=DataSetPolicy()),))


reals = st.floats(min_value=1e-9, max_value=1.0, exclude_max=True)
counts = st.integers(min_value=1, max_value=2**31 - 1)
texts = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=12)
paths = st.from_regex(r"[a-zA-Z0-9_./ :#'\"{}\[\],&*!|>%@-]{1,20}", fullmatch=True).filter(
    lambda text: not text.startswith(("sk-", "hf_", "~"))
)
model_keys = {"path": paths, "revision": st.none() | paths, "dtype": st.sampled_from(["float32", "bfloat16"])}
models = st.builds(StudentModel, lora=st.none() | st.builds(LoraConfig, r=counts, alpha=reals), **model_keys)
teachers = st.one_of(
    st.builds(TeacherModel, **model_keys),
    st.just(StudentTeacher(kind="student")),
    st.builds(AverageTeacher, kind=st.just("average"), decay=reals),
)
source = st.one_of(
    st.builds(FileSource, path=paths, prompt_field=texts, field=st.none() | texts, limit=st.none() | counts),
    st.builds(FileSource, path=paths, messages_field=texts, share=reals),
    st.builds(HubSource, kind=st.just("hub"), id=st.just("a/b-c"), config=st.none() | texts, split=texts),
    st.builds(TaskSource, kind=st.just("task"), name=st.just("dialogue"), split=st.just("train"), size=counts),
)
sources = st.lists(source, min_size=1, max_size=3).map(tuple)


def scheduled(ends: st.SearchStrategy[float]) -> st.SearchStrategy[ScheduleConfig]:
    """Schedules over training between two such ends."""
    shapes, scales = st.sampled_from(["linear", "cosine"]), st.sampled_from(["linear", "log"])
    return st.builds(ScheduleConfig, start=ends, end=ends, shape=shapes, scale=scales)


def along(ends: st.SearchStrategy[float]) -> st.SearchStrategy[ScheduleConfig]:
    """Schedules along the response."""
    return st.builds(ScheduleConfig, start=ends, end=ends, over=st.just("response"), tokens=counts)


ranks = st.integers(1, 2**31 - 1).map(float)
shares = reals | scheduled(reals) | along(reals)
names = st.sampled_from(["k", "name", "size", "a b", "1e-5", "no", "ß"])
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=3),
    max_leaves=4,
)
options = st.dictionaries(names, json_values, max_size=2)
gates = st.one_of(
    st.builds(TopKGate, k=counts | scheduled(ranks) | along(ranks)),
    st.builds(TopPGate, p=reals),
    st.builds(MinProbGate, floor=shares),
    st.builds(InterpolatedGate, g=shares),
    st.builds(SwitchOnceGate, factor=reals),
    st.builds(CustomGate, path=st.just("my.gates:Mine"), options=options),
    st.just(AcceptNoneGate()),
)
single = st.one_of(
    st.just(TeacherPolicy()), st.just(DataSetPolicy()), st.builds(InterleavedPolicy, gate=gates, block=counts)
)


def composed(inner: st.SearchStrategy[object]) -> st.SearchStrategy[object]:
    """Mixtures and two stages of such policies."""
    parts = st.builds(PartConfig, weight=reals | scheduled(reals), policy=inner)
    stages = st.tuples(*[st.builds(StageConfig, share=st.just(share), policy=inner) for share in (0.25, 0.75)])
    mixtures = st.builds(MixturePolicy, parts=st.lists(parts, min_size=1, max_size=3).map(tuple))
    return mixtures | st.builds(StagedPolicy, parts=stages)


policies = st.recursive(single, composed, max_leaves=4)
losses = st.one_of(
    st.builds(JSDLoss, beta=shares),
    st.builds(SkewReverseKLLoss, alpha=shares),
    st.builds(PolicyGradientLoss, clip=st.none() | reals),
    st.builds(CustomLoss, path=st.just("my.losses:Mine"), options=options),
    st.sampled_from([ForwardKLLoss(), ReverseKLLoss()]),
)
objectives = st.builds(
    ObjectiveConfig,
    loss=st.builds(JSDLoss, beta=shares) | st.just(ForwardKLLoss()),
    data=st.none() | losses,
    student=st.none() | losses,
    teacher=st.none() | losses,
    target=st.just(PlainTarget()) | st.builds(VetoTarget, beta=shares) | st.builds(TaidTarget, t=shares),
    weights=st.builds(ByAuthorWeights, data=reals) | st.builds(TeacherTopKWeights, k=counts, rejected=reals),
    temperature=reals,
)
configs = st.builds(
    RunConfig,
    method=st.sampled_from(sorted(METHODS)),
    teacher=teachers,
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

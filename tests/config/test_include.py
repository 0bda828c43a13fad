"""Config files made of parts: what goes over what, where problems are said to be, and what is refused."""

from pathlib import Path

import pytest

from skd.config import dump_config, load_config
from skd.errors import ConfigError

MODELS = "teacher: t\nstudent: {path: s, dtype: bfloat16}\n"
DATA = "data: {train: {kind: hub, id: a/b, limit: 5}}\ntrain:\n  lr: 1e-4\n  seed: 7\n"


@pytest.fixture
def write(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def write_files(**texts: str) -> None:
        for name, text in texts.items():
            path = Path(f"{name.replace('__', '/')}.yaml")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)

    return write_files


def messages(path="run.yaml", *overrides):
    with pytest.raises(ConfigError) as caught:
        load_config(path, overrides)
    return [str(problem).partition("] ")[2] for problem in caught.value.problems]


def test_the_file_goes_over_its_parts_and_a_later_part_over_an_earlier_one(write):
    write(models=MODELS, data=DATA, fast="train: {lr: 1e-3}\n")
    write(run="include: [models.yaml, data.yaml, fast.yaml]\nmethod: on_policy\ntrain: {batch_size: 2}\n")
    config = load_config("run.yaml", ["train.max_steps=3"])
    assert (config.method, config.teacher.path, config.student.dtype) == ("on_policy", "t", "bfloat16")
    assert (config.train.lr, config.train.seed, config.train.batch_size, config.train.max_steps) == (1e-3, 7, 2, 3)


def test_a_section_of_another_kind_a_list_and_null_take_nothing_of_the_one_below(write):
    write(
        models=MODELS, data=DATA, run="include: [models.yaml, data.yaml]\ndata: {train: {kind: file, path: x.json}}\n"
    )
    assert load_config("run.yaml").data.train[0].model_dump(exclude_unset=True) == {"kind": "file", "path": "x.json"}
    write(run="include: [models.yaml, data.yaml]\nteacher: null\nmethod: sft\ndata: {train: [x.json, y.json]}\n")
    config = load_config("run.yaml")
    assert config.teacher is None
    assert [source.path for source in config.data.train] == ["x.json", "y.json"]


def test_parts_are_found_from_the_file_that_names_them_and_may_have_parts(write):
    write(parts__models=MODELS, parts__both="include: [models.yaml, ../data.yaml]\n", data=DATA)
    write(runs__one="include: ../parts/both.yaml\ntrain: {seed: 1}\n")
    assert load_config("runs/one.yaml").train.seed == 1


def test_one_part_may_come_in_by_two_ways(write):
    write(models=MODELS, left="include: models.yaml\n", right="include: models.yaml\n", data=DATA)
    write(run="include: [left.yaml, right.yaml, data.yaml]\n")
    assert load_config("run.yaml").teacher.path == "t"


def test_the_printed_config_is_whole_and_reads_back_equal(write):
    write(models=MODELS, data=DATA, run="include: [models.yaml, data.yaml]\n")
    config = load_config("run.yaml")
    write(printed=dump_config(config, docs=True))
    assert "include" not in Path("printed.yaml").read_text()
    assert load_config("printed.yaml") == config


def test_problems_are_said_at_the_file_and_line_they_stand_in(write):
    write(models=MODELS, data=DATA.replace("seed: 7", "sead: 7"))
    write(run="include:\n- models.yaml\n- data.yaml\ntrain:\n  lr: fast\n")
    assert messages() == [
        "data.yaml:4: train.sead is an unknown key; did you mean train.seed?",
        'run.yaml:5: train.lr is the text "fast", expected a number; write for example train.lr: 1e-05',
    ]


def test_what_a_file_replaces_is_not_complained_about(write):
    write(models=MODELS, data=DATA.replace("lr: 1e-4", "lr: fast"), run="include: [models.yaml, data.yaml]\n")
    assert len(messages()) == 1
    assert load_config("run.yaml", ["train.lr=1e-4"]).train.lr == 1e-4


def test_a_file_that_includes_itself_is_refused(write):
    write(a="include: b.yaml\n", b="method: sft\ninclude: [sub/../a.yaml]\n", sub__x="")
    assert messages("a.yaml")[-1] == (
        "b.yaml:2: sub/../a.yaml includes itself, over this line; remove one of the two lines"
    )


def test_a_part_that_cannot_be_read_is_said_at_the_line_that_names_it(write):
    write(empty="", run="include: [gone.yaml, ., empty.yaml]\nstudent: s\ndata: {train: x.json}\nmethod: sft\n")
    assert messages() == [
        "empty.yaml: is empty; start from a file in recipes/",
        "run.yaml:1: gone.yaml does not exist; check the path",
        "run.yaml:1: . is a directory; name a YAML file in it",
    ]


@pytest.mark.parametrize("value", ["", "null", "3", "{a: b}", "[1]", "[[a.yaml]]", '""', '"a\\n"', "[true]"])
def test_what_names_no_file_is_refused(write, value):
    write(models=MODELS, run=f"include: {value}\n{MODELS}{DATA}")
    assert messages() == ["run.yaml:1: include names no file here; write include: [part.yaml]"]


def test_an_empty_list_includes_nothing(write):
    write(run=f"include: []\n{MODELS}{DATA}")
    assert load_config("run.yaml").train.seed == 7


def test_files_that_include_many_files_are_refused(write):
    write(**{f"f{n}": f"include: [f{n + 1}.yaml, f{n + 1}.yaml]\n" for n in range(12)}, f12=MODELS + DATA)
    assert any("more than 50 files are included" in line for line in messages("f0.yaml"))


def test_secrets_of_a_part_are_refused_and_not_shown(write):
    write(models=MODELS, data=DATA + "wandb_key: abcdef\n", run="include: [models.yaml, data.yaml]\n")
    (line,) = messages()
    assert line.startswith("data.yaml:5: wandb_key is a secret")
    assert "abcdef" not in line


def test_an_override_cannot_include(write):
    write(run=MODELS + DATA)
    assert messages("run.yaml", "include=x.yaml")[0].startswith("--override include: include is an unknown key")

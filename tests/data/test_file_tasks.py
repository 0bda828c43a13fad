"""Tasks over files: which rows become which prompts, and tasks of one's own."""

import json

import pytest

from skd.config import FileSource, load_config
from skd.data import FILE_TASKS, FileTask, Template, find_task, load_rows
from skd.errors import ConfigError, DataError


def rows_of(tmp_path, task, records, name="rows.json"):
    path = tmp_path / name
    path.write_text(json.dumps(records) if name.endswith(".json") else "\n".join(map(json.dumps, records)))
    return load_rows([FileSource(path=str(path), task=task)])


SHAPES = [
    ("gsm8k", {"question": "1 + 1?", "answer": "It is #### 2"}, "Q: 1 + 1? \n\nA:", "It is #### 2"),
    ("gsm8k", {"question": "q", "solution": "s", "answer": "27"}, "Q: q \n\nA:", "27"),
    ("gsm8k", {"Body": "Two.", "Question": "All?", "Answer": 145.0, "Type": "Sum"}, "Q: Two. All? \n\nA:", "145"),
    ("gsm8k", {"body": "b", "question": "q", "answer": "9 (apples)"}, "Q: b q \n\nA:", "9 (apples)"),
    ("gsm8k", {"instruction": "Q: x \n\nA:", "response": "#### 1"}, "Q: x \n\nA:", "#### 1"),
    ("dialogsum_bare", {"dialogue": "#A#: {hi}", "summary": "A says hi."}, "#A#: {hi}", "A says hi."),
    ("dialogsum", {"dialogue": "d", "summary": "s"}, "Summarize the following dialogue.\n\nd\n\nSummary:", "s"),
    (
        "translation",
        {"source": "s", "target": "t"},
        "Translate Assamese sentence into English. This is the Assamese sentence: s Here is the English translation:",
        "t",
    ),
    (
        "translation:German-English",
        {"src": "Hallo", "tgt": "Hello"},
        "Translate German sentence into English. This is the German sentence: Hallo Here is the English translation:",
        "Hello",
    ),
    (
        "math",
        {"problem": "p", "solution": "\\boxed{3}", "level": "Level 1"},
        "Solve the following math problem step-by-step.\nSimplify your answer as much as possible. "
        "Present your final answer as \\boxed{Your Answer}.\np",
        "\\boxed{3}",
    ),
]


@pytest.mark.parametrize(("task", "record", "prompt", "reference"), SHAPES)
def test_rows_of_known_shapes(tmp_path, task, record, prompt, reference):
    (row,) = rows_of(tmp_path, task, [record])
    assert (row.prompt, row.response) == (prompt, reference)


def test_the_released_form_is_read_as_it_is(tmp_path):
    (row,) = rows_of(tmp_path, "dialogsum_bare", {"instances": [{"dialogue": "d", "summary": "s"}]})
    assert (row.prompt, row.response) == ("d", "s")


def test_csv_keeps_text(tmp_path):
    path = tmp_path / "rows.csv"
    path.write_text("question,answer\nWhat?,007\n")
    (row,) = load_rows([FileSource(path=str(path), task="gsm8k")])
    assert row.response == "007"


def test_rows_of_no_known_shape_are_named_together(tmp_path):
    with pytest.raises(DataError) as caught:
        rows_of(tmp_path, "gsm8k", [{"q": "1"}, {"question": "1", "answer": None}], "rows.jsonl")
    first, second = map(str, caught.value.problems)
    assert "rows.jsonl:1: the row has 'q'; the task gsm8k reads instruction + response, or body + question" in first
    assert "rows.jsonl:2: field 'answer' is null, not text" in second


def test_the_papers_caps_and_stops():
    caps = {name: (task.max_prompt_tokens, task.max_new_tokens) for name, task in FILE_TASKS.items()}
    assert caps == {
        "gsm8k": (256, 512),
        "dialogsum": (1024, 128),
        "dialogsum_bare": (1024, 128),
        "translation": (256, 256),
        "math": (1024, 1024),
        **dict.fromkeys(("humaneval", "humaneval_bare", "mbpp", "mbpp_bare"), (2048, 768)),
    }
    assert FILE_TASKS["gsm8k"].stop_strings == ("\n\n",)
    assert FILE_TASKS["translation"].stop_strings == ("\n",)
    assert FILE_TASKS["dialogsum"].stop_strings == ("\nuser", "\n")


def test_source_of_a_finished_prompt():
    task = find_task("translation:German-English")
    prompt = task.shapes[1].prompt.fill({"source": "Wie geht's?\nGut."})
    assert task.source_of(prompt) == "Wie geht's?\nGut."
    assert task.source_of("something else") == "something else"


def test_templates_fill_once_and_leave_other_braces():
    template = Template("{a} \\boxed{Your Answer} {{a}} {b} {}")
    assert template.fields == ("a", "b")
    assert template.fill({"a": "{b}", "b": "{{a}}"}) == "{b} \\boxed{Your Answer} {a} {{a}} {}"
    with pytest.raises(KeyError):
        template.fill({"a": "1"})


OWN = """\
prompt: "SQL for: {question}"
reference: "{query}"
metric: exact
stop_strings: ["\\n"]
max_new_tokens: 64
"""


def test_own_task_in_yaml(tmp_path):
    path = tmp_path / "sql.yaml"
    path.write_text(OWN)
    task = find_task(str(path))
    assert (task.name, task.metric, task.stop_strings, task.max_new_tokens) == ("sql", "exact", ("\n",), 64)
    (row,) = rows_of(tmp_path, str(path), [{"question": "q", "query": "SELECT 1"}])
    assert (row.prompt, row.response) == ("SQL for: q", "SELECT 1")


def test_own_task_in_python(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(
        "from skd.data import FileTask, Shape, Template\n"
        "task = FileTask('mine', (Shape(Template('{x}?'), Template('{y}')),), lambda response, reference: 0.5)\n"
    )
    task = find_task(str(path))
    assert isinstance(task, FileTask)
    assert task.metric("a", "b") == 0.5


BAD = [
    ("prompt: x {a}\nreference: '{b}'\nmetric: bleu\n", "own.yaml:3: metric: input should be 'exact', 'number'"),
    (
        "prompt: '{a}'\nreference: x\nmetric: number\n",
        "own.yaml:2: the reference names no field, and the metric number",
    ),
    ("prompt: x\nreference: '{b}'\nmetric: exact\n", "own.yaml:1: the prompt names no field"),
    ("prompt: '{x}'\nreference: '{b}'\nmetric: exact\nstop: []\n", "own.yaml:4: stop: extra inputs are not permitted"),
    ("prompt: '{x}'\nmetric: exact\n", "reference: field required; a task file has the keys prompt, reference"),
    ("prompt: &a '{x}'\nreference: *a\nmetric: exact\n", "SKD-C09"),
]


@pytest.mark.parametrize(("text", "message"), BAD)
def test_own_task_mistakes_have_a_place(tmp_path, text, message):
    path = tmp_path / "own.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        find_task(str(path))
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("gsm", "error[SKD-E19] task: 'gsm' is none of gsm8k, dialogsum"),
        ("translation:German", "'German' names no two languages"),
        ("nowhere/t.py", "error[SKD-C01] nowhere/t.py: no such file"),
        ("nowhere/t.yaml", "error[SKD-C01]"),
    ],
)
def test_unknown_tasks(spec, message):
    with pytest.raises(ConfigError) as caught:
        find_task(spec)
    assert message in str(caught.value)


def test_python_task_that_raises(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text("1 / 0\n")
    with pytest.raises(ConfigError, match="raised ZeroDivisionError"):
        find_task(str(path))
    path.write_text("x = 1\n")
    with pytest.raises(ConfigError, match="defines no task"):  # of the same size, and written in the same second
        find_task(str(path))
    assert [each.name for each in tmp_path.iterdir()] == ["mine.py"]


def test_a_task_and_its_fields_are_not_both_given(tmp_path):
    path = tmp_path / "run.yaml"
    path.write_text("method: sft\nstudent: s\ndata:\n  train: {path: r.json, task: gsm8k, prompt_field: question}\n")
    with pytest.raises(ConfigError, match="prompt_field is given and task is too"):
        load_config(path)

"""Programs as answers: found in responses, written for EvalPlus, run by it alone and only when asked for."""

import json
import os
import shutil
import stat
import sys

import pytest

from skd.cli import main
from skd.errors import ConfigError, DataError, SkdError
from skd.evaluate.code import Code, EvalPlus, by_hand, write_samples
from skd.evaluate.grader import Grader
from skd.evaluate.run import evaluate_tasks
from skd.evaluate.workload import Choice, workload
from tests.tiny import save_tiny

REAL = os.environ.get("SKD_EVALPLUS") or shutil.which("evalplus.evaluate")


def problem(number, body):
    prompt = f"def f{number}(a, b):\n"
    tests = {"base_input": [[1, 2], [3, 4]], "plus_input": [[-1, 1]]}
    return {
        "task_id": f"HumanEval/{number}",
        "prompt": prompt,
        "canonical_solution": body,
        "entry_point": f"f{number}",
        "contract": "",
        "atol": 0,
        **tests,
    }


@pytest.fixture
def problems(tmp_path):
    """Three functions of two numbers, in EvalPlus's own form."""
    path = tmp_path / "problems.jsonl"
    bodies = ["    return a + b\n", "    return a * b\n", "    return abs(a) - b\n"]
    path.write_text("".join(json.dumps(problem(i, body)) + "\n" for i, body in enumerate(bodies)))
    return path


def work_of(problems, task="humaneval", size=None):
    return workload(Choice(task, str(problems), size=size), Grader())


RESPONSES = [
    "Sure:\n```python\ndef f0(a, b):\n    return a + b\n```\nIt adds.",
    "```\ndef f1(a, b):\n    return a * b if a > 0 else 0\n```",
    "```python\ndef f2(a, b):\n    import os\n    open('CANARY', 'w').write(str(os.environ))\n    return 0",
]


def test_the_program_in_a_response():
    row, code = work_row("def f(a):\n"), Code()
    assert code.solution(row, RESPONSES[0]) == "def f0(a, b):\n    return a + b\n"
    assert code.solution(row, "```\nx\n```\n```\ny\n```") == "x\n"
    assert code.judge(row, "I cannot") == {"has_code": False, "solution": "I cannot"}
    assert Code(completes=True).judge(row, "    return a\n")["solution"] == "def f(a):\n    return a\n"
    assert Code(completes=True).judge(row, " \n")["has_code"] is False


def work_row(prompt):
    from skd.data.rows import Row

    return Row(prompt=prompt, response=None)


def test_prompts_are_those_of_evalplus(problems):
    asked, bare = work_of(problems).rows[0].prompt, work_of(problems, "humaneval_bare").rows[0].prompt
    assert bare == "def f0(a, b):\n"
    assert asked.startswith("Please provide a self-contained Python script that solves the following problem")
    assert bare in asked
    assert "\ndef " in work_of(problems, "humaneval_bare").stop_strings
    assert '\n"""' in work_of(problems, "mbpp_bare").stop_strings


def test_samples_in_the_form_of_evalplus(problems, tmp_path):
    work = work_of(problems, size=2)
    write_samples(tmp_path / "s.jsonl", work, RESPONSES[:2])
    lines = [json.loads(line) for line in (tmp_path / "s.jsonl").read_text().splitlines()]
    assert [line["task_id"] for line in lines] == ["HumanEval/0", "HumanEval/1"]
    assert lines[0]["solution"] == "def f0(a, b):\n    return a + b\n"
    command = by_hand(work, tmp_path / "s.jsonl")
    assert command == (
        f"HUMANEVAL_OVERRIDE_PATH={problems} evalplus.evaluate --dataset humaneval --samples {tmp_path / 's.jsonl'}"
    )


def test_nothing_is_run_unless_asked_for(problems, tmp_path, caplog, monkeypatch):
    model = save_tiny(tmp_path / "model", "llama", seed=1)
    monkeypatch.setattr("subprocess.run", lambda *args, **options: pytest.fail("a program was started"))
    out = tmp_path / "o.jsonl"
    (result,) = evaluate_tasks(model, [Choice("humaneval_bare", str(problems), max_new_tokens=4)], [out])
    assert list(result.scores) == ["has_code"]
    samples = [json.loads(line) for line in (tmp_path / "o.evalplus.jsonl").read_text().splitlines()]
    assert [sample["solution"] for sample in samples] == [f"def f{i}(a, b):\n{result.responses[i]}" for i in range(3)]
    assert f"no program was run; --evalplus PROGRAM runs them, and so does: HUMANEVAL_OVERRIDE_PATH={problems}" in (
        caplog.text
    )


@pytest.fixture
def stand_in(tmp_path):
    """A program in EvalPlus's place: passes the first problem, the second on its base tests, and tells what it saw."""
    path = tmp_path / "evalplus.evaluate"
    path.write_text(
        f"#!{sys.executable}\n"
        "import json, os, sys\n"
        "samples = sys.argv[sys.argv.index('--samples') + 1]\n"
        "lines = [json.loads(line) for line in open(os.environ['HUMANEVAL_OVERRIDE_PATH'])]\n"
        "marks = [('pass', 'pass'), ('pass', 'fail'), ('timeout', None)]\n"
        "found = [[dict(zip(['base_status', 'plus_status'], mark))] for mark in marks]\n"
        "found = dict(zip([line['task_id'] for line in lines], found))\n"
        "text = json.dumps({'hash': ' '.join(sorted(os.environ)), 'eval': found})\n"
        "open(samples.replace('.jsonl', '_eval_results.json'), 'w').write(text)\n"
    )
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return EvalPlus(str(path))


def test_scores_and_the_environment_of_the_programs(problems, stand_in, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    scores = stand_in.scores(work_of(problems), RESPONSES)
    assert {name: score.value for name, score in scores.items()} == {"pass_at_1_plus": 1 / 3, "pass_at_1_base": 2 / 3}
    assert "HF_TOKEN" not in scores["pass_at_1_plus"].signature
    assert "XDG_CACHE_HOME" in scores["pass_at_1_plus"].signature


def test_the_program_may_be_named_from_here(problems, stand_in, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    near = EvalPlus(f".{os.sep}evalplus.evaluate")
    near.require([work_of(problems)])
    assert near.scores(work_of(problems), RESPONSES) == stand_in.scores(work_of(problems), RESPONSES)


def test_the_tests_are_the_main_score(problems, stand_in, tmp_path):
    model = save_tiny(tmp_path / "model", "llama", seed=1)
    choice = Choice("humaneval_bare", str(problems), max_new_tokens=4)
    (result,) = evaluate_tasks(model, [choice], [None], evalplus=stand_in)
    assert list(result.scores) == ["pass_at_1_plus", "pass_at_1_base", "has_code"]


def test_what_evalplus_could_not_use(problems, tmp_path, stand_in):
    with pytest.raises(ConfigError, match=r"SKD-E15.*no program that can be run; make an environment for it"):
        EvalPlus("no-such-program").require([work_of(problems)])
    with pytest.raises(ConfigError, match=r"SKD-C10.*no task asks for one"):
        stand_in.require([workload(Choice("number_words", size=2), Grader())])
    path = tmp_path / "short.jsonl"
    path.write_text(json.dumps({"prompt": "p", "canonical_solution": "c", "task_id": "x"}) + "\n")
    with pytest.raises(DataError, match=r"problem 0: has no entry_point") as caught:
        stand_in.require([work_of(path)])
    assert len(caught.value.problems) == 5
    broken = EvalPlus(shutil.which("false"))
    with pytest.raises(SkdError, match=r"SKD-E15.*exit code 1; run it by hand"):
        broken.scores(work_of(problems), RESPONSES)


def test_the_command_line_says_how(problems, capsys):
    arguments = ["evaluate", "no-such-model", "--task", "humaneval", "--data", str(problems), "--evalplus", "no-such"]
    assert main(arguments) == 2
    assert "error[SKD-E15] --evalplus: 'no-such' is no program that can be run" in capsys.readouterr().err


@pytest.mark.skipif(REAL is None, reason="SKD_EVALPLUS names no evalplus.evaluate, and none is installed")
def test_evalplus_itself(problems, monkeypatch, tmp_path):
    """Right; right on the base tests only; a program that writes and peeks: it fails, and its file is nowhere."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    scores = EvalPlus(REAL).scores(work_of(problems), RESPONSES)
    assert {name: score.value for name, score in scores.items()} == {"pass_at_1_plus": 1 / 3, "pass_at_1_base": 2 / 3}
    assert not list(tmp_path.glob("**/CANARY"))

"""Hostile answers and ordinary ones through the grader: is code run, how long does each take, does it survive?

    python -m benchmarks.grader [--hostile 1000] [--seed 0]

Hostile answers are built from families of attacks: Python that writes a canary file, towers of powers, huge factorials,
long digits, deep braces, look-alike characters. Code that ran in the worker would leave its canary; code that ran in
this process would show in the audit events, too.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from skd.evaluate.answers import stated_answer
from skd.evaluate.grader import Grader, Verdict
from skd.evaluate.worker import MathVerify

__all__ = ["hostile_answers", "main"]

PAIRS = Path(__file__).parent.parent / "tests" / "evaluate" / "labelled_pairs.jsonl"

_CODE = (
    "__import__('os').system('touch {canary}')",
    "eval(\"open('{canary}','w')\")",
    'exec(\'open("{canary}","w")\')',
    "open('{canary}','w').write('x')",
    "().__class__.__bases__[0].__subclasses__()[{n}]('touch {canary}')",
    "[c for c in ().__class__.__base__.__subclasses__()][{n}]",
    "(lambda: open('{canary}','w'))()",
    "(y:=open('{canary}','w'))",
    "f\"{{open('{canary}','w')}}\"",
    "\\pi+open('{canary}','w')",
    "2\\pi; import os; os.system('touch {canary}')",
    "[__import__('subprocess').run(['touch','{canary}'])]",
    "\\begin{{pmatrix}}__import__('os').system('touch {canary}')\\end{{pmatrix}}",
    "\\text{{__import__('os')}}.system('touch {canary}')",
    "\uff3f\uff3fimport\uff3f\uff3f('os').system('touch {canary}')",
    'S(\'__import__("os").system("touch {canary}")\')',
    "Symbol('x').__init__.__globals__['sys'].modules['os'].system('touch {canary}')",
    "\\input{{{canary}}}\\write18{{touch {canary}}}",
    "globals()['__builtins__']['open']('{canary}','w')",
    "sqrt(__import__('socket').create_connection(('127.0.0.1',{n})))",
)
_HEAVY = (
    "{n}**{n}**{n}",
    "{n}^{{{n}^{{{n}}}}}",
    "10^{{10^{{{n}}}}}",
    "(10^{n})!",
    "\\binom{{10^{n}}}{{10^5}}",
    "\\sum_{{k=1}}^{{10^{n}}} \\sin(k)",
    "(x+y+z+w)^{{{n}00}}",
    "\\int_0^{n} e^{{x^x}} dx",
    "\\prod_{{k=1}}^{{10^{n}}} k",
)
_LONG = (
    lambda n: "9" * (200 * n),
    lambda n: "{" * (100 * n),
    lambda n: "\\boxed{" * (500 * n),
    lambda n: "\\boxed{" * (50 * n) + "1" + "}" * (50 * n),
    lambda n: "(" * (10 * n) + "1" + ")" * (10 * n),
    lambda n: "1+" * (9 * n) + "1",
    lambda n: "\\frac{1}{" * (4 * n) + "2" + "}" * (4 * n),
    lambda n: "\\sqrt{" * (5 * n) + "2" + "}" * (5 * n),
    lambda n: "x^{" * (10 * n) + "2" + "}" * (10 * n),
    lambda n: "[" * (8 * n) + "1,2" + "]" * (8 * n),
    lambda n: "\u0660\u0661\u200b\u202e" * n,
    lambda n: "\x00\x1b]0;title\x07" * n,
)


def hostile_answers(count: int, canary: Path, seed: int = 0) -> list[str]:
    """``count`` answers that attack, two thirds of them with code. Code that ran would make ``canary``."""
    draws, answers = random.Random(seed), []
    for i in range(count):
        if i % 3:
            template = draws.choice(_CODE)
            answer = template.format(canary=canary, n=draws.randrange(1, 400))
        elif draws.random() < 0.5:
            answer = draws.choice(_HEAVY).format(n=draws.randrange(5, 10))
        else:
            answer = draws.choice(_LONG)(draws.randrange(1, 100))
        answers.append(draws.choice(("{}", "\\boxed{{{}}}", "#### {}", "${}$")).format(answer))
    return answers


def _timed(grade: Callable[[], Any]) -> tuple[float, Any]:
    started = time.perf_counter()
    result = grade()
    return time.perf_counter() - started, result


def _grade(grader: Grader, pair: dict[str, str]) -> Verdict:
    return grader.grade(stated_answer(pair["answer"]), stated_answer(pair["reference"]) or "")


def main() -> None:
    """Print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hostile", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    events: Counter[str] = Counter()
    watching = False

    def watch(event: str, arguments: tuple[Any, ...]) -> None:
        if watching and event in ("compile", "exec", "subprocess.Popen", "os.system", "socket.connect", "import"):
            events[event] += 1

    sys.addaudithook(watch)
    pairs = [json.loads(line) for line in PAIRS.read_text().splitlines()]
    with tempfile.TemporaryDirectory() as folder, MathVerify() as worker:
        canary = Path(folder) / "canary"
        grader = Grader(worker)
        for text in ("1", "\\frac{1}{2}"):
            grader.grade(text, text)
        watching = True
        hostile = [
            _timed(partial(_grade, grader, {"answer": answer, "reference": "7"}))
            for answer in hostile_answers(options.hostile, canary, options.seed)
        ]
        watching = False
        labelled = [(pair, *_timed(partial(_grade, grader, pair))) for pair in pairs]
        mine = {
            "hostile answers": len(hostile),
            "canary files": len(list(Path(folder).iterdir())),
            "audit events in this process": dict(events),
            "slowest seconds": round(max(seconds for seconds, _ in hostile), 3),
            "verdicts": dict(Counter(verdict.name for _, verdict in hostile)),
            "labelled pairs": len(labelled),
            "labelled pairs judged right": sum(verdict.name == pair["verdict"] for pair, _, verdict in labelled),
            "median ms per labelled answer": round(1000 * statistics.median(s for _, s, _ in labelled), 3),
            "mean ms per labelled answer": round(1000 * statistics.mean(s for _, s, _ in labelled), 3),
            "median ms where math-verify decided": round(
                1000 * statistics.median(s for _, s, v in labelled if v.tier == "math-verify"), 1
            ),
        }
    print(json.dumps(mine, indent=2))


if __name__ == "__main__":
    main()

"""What ``skd plan`` says of a step on this CPU beside the same step as it was measured, in six settings.

    OMP_NUM_THREADS=1 python -m benchmarks.plan_prediction --json plan.json

The rates come from ``skd.plan.calibrate`` in the same process. Acceptance rate and lengths of responses are those that
were measured: what the model has to tell is time and memory. Seconds are those of the processor, the median of the
steps after the first; memory is the rise of the highest resident memory over a process that has trained a tiny pair.
Each setting has a process of its own. Linux only, as benchmarks.memory_estimate.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

CASES: Mapping[str, dict[str, Any]] = {
    "quickstart pair, SKD, batch 64": {"shape": None, "method": "skd", "batch": 64},
    "15 and 5 layers, SKD, cold, batch 8": {"shape": "quick", "method": "skd", "batch": 8},
    "15 and 5 layers, on-policy, batch 8": {"shape": "quick", "method": "on_policy", "batch": 8},
    "15 and 5 layers, supervised, batch 8": {"shape": "quick", "method": "supervised_kd", "batch": 8},
    "30 and 10 layers, SKD, warm, batch 8": {"shape": "smol", "method": "skd", "batch": 8, "warm": True},
    "30 and 10 layers, SKD, cold, batch 16, bf16": {"shape": "smol", "method": "skd", "batch": 16, "dtype": "bfloat16"},
}
STEPS = 3
PARTS = ("prefill", "draft", "judge", "rest", "evidence", "forward", "backward", "optimiser")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="write each setting to this file; those that it has are left out")
    parser.add_argument("--case", help="measure one, in this process")
    options = parser.parse_args()
    if options.case is not None:
        print(json.dumps(measured(CASES[options.case])))
        return
    from benchmarks.speed.machine import described
    from benchmarks.speed.store import Store

    store = Store.opened(options.json, "prediction")
    for name in CASES:
        if name not in store.tables:
            store.add(name, _in_a_process(name), described())
    print(table(store.results))


def _in_a_process(name: str) -> dict[str, Any]:
    command = [sys.executable, "-m", "benchmarks.plan_prediction", "--case", name]
    output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    values: dict[str, Any] = json.loads(output.splitlines()[-1])
    return values


def table(cases: Mapping[str, Mapping[str, Any]]) -> str:
    """As Markdown."""
    lines = [
        "| setting | alpha | step, s: plan | measured | ratio | peak, MB: plan | measured | ratio |",
        "|---" * 8 + "|",
    ]
    for name, case in cases.items():
        planned, took = case["plan"]["seconds"], case["measured"]["seconds"]
        room, rose = case["plan"]["peak_mb"], case["measured"]["peak_mb"]
        alpha = "" if case["alpha"] is None else f"{case['alpha']:.2f}"
        lines.append(
            f"| {name} | {alpha} | {planned:.2f} | {took:.2f} | {planned / took:.2f} | {room:.0f} | {rose:.0f} | "
            f"{room / rose:.2f} |"
        )
    lines += ["", "| setting | " + " | ".join(PARTS) + " |", "|---" * (len(PARTS) + 1) + "|"]
    for name, case in cases.items():
        cells = [f"{case['plan']['parts'].get(p, 0):.2f} / {case['measured']['parts'].get(p, 0):.2f}" for p in PARTS]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def measured(case: Mapping[str, Any]) -> dict[str, Any]:
    """Plan and measurement of one setting."""
    import torch

    from benchmarks.memory_estimate import _kib, _warm_up

    torch.set_num_threads(1)
    # On a busy machine the split of a step means something in CPU seconds only.
    time.perf_counter = time.process_time
    with tempfile.TemporaryDirectory() as room:
        config = _config(case, Path(room))
        _warm_up(room)
        before = _kib("VmRSS")
        steps, prompts = _steps(config)
        rise = (_kib("VmHWM") - before) * 1024 / 1e6
        last = steps[1:]
        alpha = [step["acceptance_rate"] for step in last if step["acceptance_rate"] is not None]
        parts = {part: statistics.median(step[f"seconds_{part}"] for step in last) for part in PARTS}
        took = {"seconds": statistics.median(step["seconds_cpu"] for step in last), "peak_mb": rise, "parts": parts}
        tokens = statistics.mean(step["tokens"] / step["responses"] for step in last)
        known = statistics.mean(alpha) if alpha else None
        return {"alpha": known, "tokens": tokens, "measured": took, "plan": _planned(config, prompts, known, tokens)}


def _config(case: Mapping[str, Any], room: Path) -> Any:
    from skd.config import config_of

    plain = {"temperature": 1.0, "top_p": 1.0}
    dtype = case.get("dtype", "float32")
    common = {
        "method": case["method"],
        "train": {
            "batch_size": case["batch"],
            "max_steps": STEPS,
            "precision": "bf16" if dtype == "bfloat16" else "fp32",
            "trackers": [],
        },
        "output": str(room / "run"),
    }
    if case["shape"] is None:
        source = {"kind": "task", "name": "number_words", "split": "train", "size": 256}
        pair = {role: f"builtin:number_words/{role}" for role in ("teacher", "student")}
        return config_of({**common, **pair, "data": {"train": source}, "sampling": {"max_new_tokens": 48}})
    path = room / "work.json"
    wanted = {"shape": case["shape"], "batch": case["batch"], "length": 64, "dtype": dtype, "ragged": 0, "spread": 0.0}
    path.write_text(json.dumps(wanted))
    # Elsewhere, so that no memory of this process has held the models before.
    subprocess.run([sys.executable, "-m", "benchmarks.speed.pair", path, room], check=True, stderr=subprocess.DEVNULL)
    work = json.loads(path.read_text())
    rows = [
        {"prompt": " ".join(f"w{i}" for i in prompt), "response": " ".join(f"w{i}" for i in response)}
        for prompt, response in zip(work["prompts"], work["responses"], strict=True)
    ]
    (room / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return config_of(
        {
            **common,
            "teacher": {"path": work["warm_teacher" if case.get("warm") else "teacher"], "dtype": dtype},
            "student": {"path": work["student"], "dtype": dtype},
            "data": {"train": str(room / "rows.jsonl")},
            "sampling": {"max_new_tokens": 64, "student": plain, "teacher": plain},
        }
    )


def _steps(config: Any) -> tuple[list[dict[str, Any]], Any]:
    from accelerate import Accelerator

    from skd.train.setup import prepare
    from skd.train.step import train_step

    os.makedirs(config.output)
    run = prepare(config, Accelerator(cpu=True))
    return [train_step(run, step).metrics for step in range(STEPS)], run.prompts


def _planned(config: Any, prompts: Any, alpha: float | None, tokens: float) -> dict[str, Any]:
    from skd.check.memory import estimate
    from skd.check.models import roles
    from skd.check.pair import check_pair
    from skd.plan import Shape, Work, step_cost
    from skd.plan.calibrate import calibrated

    built = check_pair(roles(config.student, config.teacher), lambda part: None).built
    shapes = {role: Shape.of(model) for role, model in built.items()}
    work = Work.of(config, shapes, prompts, alpha or 1.0, "cpu", tokens)
    machine = calibrated()
    parts = step_cost(work, machine)
    peak = estimate(config, built["student"], built.get("teacher"), prompts).peak
    return {
        "seconds": sum(cost.total for cost in parts.values()),
        "peak_mb": peak / 1e6,
        "parts": {name: cost.total for name, cost in parts.items()},
        "machine": machine.model_dump(),
    }


if __name__ == "__main__":
    main()

"""This project's contestants, and the ones in plain transformers, in one process so that they share the models.

    python -m benchmarks.speed.ours WORK.json NAME ...

Names: skd_alpha5, skd_alpha9, on_policy, supervised (whole training steps), released (three steps of one response),
hf_generate, our_generate, hf_assisted (generation alone) and light (the pieces of the speed of light).
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator

import skd
from benchmarks.speed import protocol
from benchmarks.speed.light import measured_pieces
from benchmarks.speed.released import Released
from skd.config import config_of
from skd.models import Pair
from skd.train.run import Run
from skd.train.setup import prepare
from skd.train.step import train_step
from skd.types import Prompts

_RELEASED = 3
"""Responses to a turn of the released code's steps: one alone has the acceptance that its prompt happens to give."""
Turn = Callable[[], Mapping[str, Any]]
METHODS = {"skd_alpha5": "skd", "skd_alpha9": "skd", "on_policy": "on_policy", "supervised": "supervised_kd"}


def main() -> None:
    """Take turns until there is no more."""
    work, names = json.loads(Path(sys.argv[1]).read_text()), sys.argv[2:]
    torch.set_num_threads(1)
    # On a busy machine the split of a step means something in CPU seconds only.
    time.perf_counter = time.process_time
    with tempfile.TemporaryDirectory() as directory:
        contestants = Contestants(work, Path(directory))
        protocol.serve({name: contestants.turn(name) for name in names})


class Contestants:
    """The work, and the pairs that the contestants share."""

    def __init__(self, work: dict[str, Any], directory: Path) -> None:
        self.work, self.directory = work, directory
        self.prompts = Prompts(work["prompts"], list(range(len(work["prompts"]))), references=work["responses"])
        self._pairs: dict[str, Pair] = {}

    def turn(self, name: str) -> Turn:
        """What a contestant does at each of its turns."""
        if name in METHODS:
            run = self._run(name)
            return partial(_step, run, iter(range(run.total_steps)))
        if name == "released":
            return self._released()
        if name == "light":
            return self._light
        return {"our_generate": self._our_generate, "hf_generate": self._hf_generate, "hf_assisted": self._assisted}[
            name
        ]

    def pair(self, teacher: str) -> Pair:
        """The pair with the ``teacher`` or the ``warm_teacher`` of the work."""
        if teacher not in self._pairs:
            dtype = self.work["dtype"]
            paths = self.work[teacher], self.work["student"]
            pair = skd.load_pair(*paths, teacher_dtype=dtype, sample_dtype=dtype, device="cpu")
            self._pairs[teacher] = replace(pair, stop_ids=frozenset(self.work["step_stop_ids"]) or pair.stop_ids)
        return self._pairs[teacher]

    def _run(self, name: str) -> Run:
        work, teacher = self.work, "warm_teacher" if name == "skd_alpha9" else "teacher"
        method = METHODS[name]
        plain = {"temperature": 1.0, "top_p": 1.0}
        drafts = {**plain, "temperature": work.get("warm_temperature", 1.0)} if name == "skd_alpha9" else plain
        longest = work["length"] * (2 if work["spread"] else 1)
        config = {
            "method": method,
            "teacher": {"path": work[teacher], "dtype": work["dtype"]},
            "student": {"path": work["student"], "dtype": work["dtype"]},
            "data": {"train": "rows.json"},
            "sampling": {
                "max_new_tokens": longest,
                "student": drafts,
                "teacher": plain,
            },
            "train": {
                "batch_size": work["batch"],
                "max_steps": 1000,
                "lr": work["lr"],
                "warmup": 0.0,
                "schedule": "constant",
                "precision": "bf16" if work["dtype"] == "bfloat16" else "fp32",
                "trackers": [],
            },
            "output": str(self.directory / name),
        }
        if method == "skd" and work.get("block") is not None:
            config["policy"] = {"kind": "interleaved", "block": work["block"]}
        (self.directory / name).mkdir()
        return prepare(config_of(config), Accelerator(cpu=True), pair=self.pair(teacher), prompts=self.prompts)

    def _released(self) -> Turn:
        pair = self.pair("teacher")
        released = Released(pair.required_teacher, pair.student, self._optimizer(pair), self.work["length"])
        prompts = iter(self.work["prompts"] * 100)

        def turn() -> Mapping[str, Any]:
            watch, before = protocol.Stopwatch(), (released.kept, released.replaced)
            tokens = sum(released.step(next(prompts)) for _ in range(_RELEASED))
            kept, replaced = released.kept - before[0], released.replaced - before[1]
            return {**watch.read(), "tokens": tokens, "alpha": kept / (kept + replaced)}

        return turn

    def _optimizer(self, pair: Pair) -> torch.optim.Optimizer:
        return torch.optim.AdamW(pair.student.parameters(), lr=self.work["lr"])

    def _light(self) -> Mapping[str, Any]:
        work, pair = self.work, self.pair("teacher")
        longest = sum(map(len, work["prompts"])) // len(work["prompts"])
        pieces = measured_pieces(
            pair.required_teacher, pair.student, self._optimizer(pair), work["batch"], longest, work["length"], 2
        )
        return asdict(pieces)

    def _ragged(self) -> tuple[Pair, list[list[int]]]:
        pair = self.pair("teacher")
        return replace(pair, stop_ids=frozenset(self.work["stop_ids"])), self.work["ragged"]

    def _our_generate(self) -> Mapping[str, Any]:
        pair, prompts = self._ragged()
        watch = protocol.Stopwatch()
        rollout = skd.interleave(
            pair,
            Prompts(prompts, list(range(len(prompts)))),
            gate=skd.AcceptAll(),
            student_warp=skd.Warp(temperature=0.0),
            max_new_tokens=self.work["cap"],
            slots=self.work["slots"],
            evidence=False,
        )
        lengths = [len(ids) for ids in rollout.response_ids]
        return {**watch.read(), "tokens": sum(lengths), "longest": max(lengths)}

    def _hf_generate(self) -> Mapping[str, Any]:
        pair, prompts = self._ragged()
        slots, stops = self.work["slots"], torch.tensor(self.work["stop_ids"])
        watch, tokens = protocol.Stopwatch(), 0
        for start in range(0, len(prompts), slots):
            group = {"input_ids": prompts[start : start + slots]}
            batch = pair.tokenizer.pad(group, padding=True, padding_side="left", return_tensors="pt")
            output = pair.student.generate(  # type: ignore[operator]
                input_ids=batch["input_ids"],
                attention_mask=batch["attention_mask"],
                do_sample=False,
                max_new_tokens=self.work["cap"],
                eos_token_id=self.work["stop_ids"],
            )
            written = output[:, batch["input_ids"].shape[1] :]
            stop = torch.isin(written, stops)
            tokens += int(torch.where(stop.any(1), stop.int().argmax(1) + 1, written.shape[1]).sum())
        return {**watch.read(), "tokens": tokens}

    def _assisted(self) -> Mapping[str, Any]:
        pair = self.pair("teacher")
        ids = torch.tensor([self.work["prompts"][0]])
        watch = protocol.Stopwatch()
        output = pair.required_teacher.generate(  # type: ignore[operator]
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            assistant_model=pair.student,
            do_sample=True,
            top_k=0,
            max_new_tokens=self.work["length"],
        )
        return {**watch.read(), "tokens": output.shape[1] - ids.shape[1]}


def _step(run: Run, steps: Any) -> Mapping[str, Any]:
    watch = protocol.Stopwatch()
    report = train_step(run, next(steps))
    metrics = {name: value for name, value in report.metrics.items() if name.startswith(("seconds", "wasted"))}
    return {
        **watch.read(),
        "tokens": report.metrics["tokens"],
        "responses": report.metrics["responses"],
        "alpha": report.metrics["acceptance_rate"],
        **metrics,
    }


if __name__ == "__main__":
    main()

"""TRL's trainers on the benchmark's work. Runs in the rivals' environment, so it imports nothing of ``skd``.

python -m benchmarks.speed.rival WORK.json gkd|gkd_supervised|distillation
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset  # type: ignore[import-untyped]
from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback

from benchmarks.speed import protocol

TURNS = 1000


class Turns(TrainerCallback):
    """Waits for its turn before each optimiser step and tells the step's cost after it."""

    def __init__(self, tokens: int) -> None:
        self.tokens = tokens
        """Of a step; where responses end early, those of the last one."""

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> Any:
        if protocol.asked() is None:
            raise SystemExit
        self.watch = protocol.Stopwatch()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> Any:
        protocol.answer({**self.watch.read(), "tokens": self.tokens})


def main() -> None:
    work, name = json.loads(Path(sys.argv[1]).read_text()), sys.argv[2]
    torch.set_num_threads(1)
    tokenizer = AutoTokenizer.from_pretrained(work["student"], trust_remote_code=False)
    student, teacher = (
        AutoModelForCausalLM.from_pretrained(
            work[role], dtype=torch.float32, trust_remote_code=False, use_safetensors=True
        )
        for role in ("student", "teacher")
    )
    with tempfile.TemporaryDirectory() as directory:
        make = distillation if name == "distillation" else gkd
        trainer = make(work, directory, tokenizer, student, teacher, supervised=name == "gkd_supervised")
        protocol.answer({"ready": [name]})
        trainer.train()


def _common(work: dict[str, Any], directory: str) -> dict[str, Any]:
    return {
        "output_dir": directory,
        "per_device_train_batch_size": work["batch"],
        "max_steps": TURNS,
        "learning_rate": work["lr"],
        "lr_scheduler_type": "constant",
        "max_grad_norm": 1.0,
        "temperature": 1.0,
        "beta": 0.0,
        "bf16": work["dtype"] == "bfloat16",
        "gradient_checkpointing": False,
        "use_cpu": True,
        "report_to": "none",
        "save_strategy": "no",
        "logging_steps": TURNS,
        "disable_tqdm": True,
        "dataloader_num_workers": 0,
    }


def gkd(work: dict[str, Any], directory: str, tokenizer: Any, student: Any, teacher: Any, supervised: bool) -> Any:
    from trl.experimental.gkd import GKDConfig, GKDTrainer

    rows = [
        {"prompt": prompt, "response": response}
        for prompt, response in zip(work["prompts"], work["responses"], strict=True)
    ]
    turns = Turns(work["batch"] * work["length"])
    trainer = GKDTrainer(
        student,
        teacher,
        args=GKDConfig(lmbda=0.0 if supervised else 1.0, max_new_tokens=work["length"], **_common(work, directory)),
        data_collator=partial(_collate, tokenizer.pad_token_id),
        train_dataset=Dataset.from_list(rows),
        processing_class=tokenizer,
        callbacks=[turns],
    )
    generate = trainer.generate_on_policy_outputs

    def counted(*args: Any, **kwargs: Any) -> Any:
        ids, mask, labels = generate(*args, **kwargs)
        turns.tokens = int((labels != -100).sum())
        return ids, mask, labels

    trainer.generate_on_policy_outputs = counted
    return trainer


def distillation(
    work: dict[str, Any], directory: str, tokenizer: Any, student: Any, teacher: Any, supervised: bool
) -> Any:
    from trl import DistillationConfig, DistillationTrainer

    rows = [{"prompt": tokenizer.decode(prompt)} for prompt in work["prompts"]]
    return DistillationTrainer(
        student,
        teacher,
        args=DistillationConfig(max_completion_length=work["length"], **_common(work, directory)),
        train_dataset=Dataset.from_list(rows),
        processing_class=tokenizer,
        callbacks=[Turns(work["batch"] * work["length"])],
    )


def _collate(pad_id: int, rows: Sequence[dict[str, list[int]]]) -> dict[str, torch.Tensor]:
    """What TRL's own collator makes of chats, from ids: prompts padded on the left."""
    width = max(len(row["prompt"]) for row in rows)
    padding = [width - len(row["prompt"]) for row in rows]
    prompts = torch.tensor([[pad_id] * pad + row["prompt"] for pad, row in zip(padding, rows, strict=True)])
    prompt_mask = torch.tensor([[0] * pad + [1] * (width - pad) for pad in padding])
    longest = max(len(row["response"]) for row in rows)
    padded = [row["response"] + [pad_id] * (longest - len(row["response"])) for row in rows]
    mask = [[1] * len(row["response"]) + [0] * (longest - len(row["response"])) for row in rows]
    responses, response_mask = torch.tensor(padded), torch.tensor(mask)
    return {
        "prompts": prompts,
        "prompt_attention_mask": prompt_mask,
        "input_ids": torch.cat([prompts, responses], dim=1),
        "attention_mask": torch.cat([prompt_mask, response_mask], dim=1),
        "labels": torch.cat([torch.full_like(prompts, -100), responses.where(response_mask == 1, -100)], dim=1),
    }


if __name__ == "__main__":
    main()

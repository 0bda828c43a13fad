"""The sampler's two limits against code written for them alone: transformers' own ``generate``.

    python -m benchmarks.sampler_limits [--prompts 64] [--rounds 5]

Same models, prompts and cap, sampling at temperature 1, one thread, alternating A B A B. CPU seconds per response
token; the last line is ``FIGURES {json}`` with the median ratio ours / generate for each limit.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable

import torch
from transformers import PreTrainedModel

import skd
from skd.data.tasks import TASKS
from skd.models import Pair
from skd.sampling import Gate
from skd.types import Prompts

CAP = 40


def main() -> None:
    """Measure both limits and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prompts", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--teacher", default="builtin:number_words/teacher")
    parser.add_argument("--student", default="builtin:number_words/student")
    options = parser.parse_args()
    torch.set_num_threads(1)
    pair = skd.load_pair(options.teacher, options.student)
    prompts = pair.encode([row.prompt for row in TASKS["number_words"].rows("test", options.prompts, 0)])
    assert pair.teacher is not None
    figures = {}
    for name, gate, model in (
        ("accept_all", skd.AcceptAll(), pair.student),
        ("accept_none", skd.AcceptNone(), pair.teacher),
    ):
        ours, theirs = _paired(_ours(pair, prompts, gate), _generate(pair, model, prompts), options.rounds)
        ratio = statistics.median(a / b for a, b in zip(ours, theirs, strict=True))
        figures[name] = round(ratio, 3)
        print(
            f"{name:12}  ours {1e3 * statistics.median(ours):7.3f} ms/token   "
            f"generate {1e3 * statistics.median(theirs):7.3f} ms/token   ratio {ratio:.2f}"
        )
    print("FIGURES " + json.dumps(figures))


def _paired(a: Callable[[int], float], b: Callable[[int], float], rounds: int) -> tuple[list[float], list[float]]:
    a(0), b(0)
    pairs = [(a(number), b(number)) for number in range(1, rounds + 1)]
    return [one for one, _ in pairs], [other for _, other in pairs]


def _ours(pair: Pair, prompts: Prompts, gate: Gate) -> Callable[[int], float]:
    def run(seed: int) -> float:
        started = time.process_time()
        rollout = skd.interleave(
            pair,
            prompts,
            gate=gate,
            max_new_tokens=CAP,
            slots=len(prompts),
            seed=seed,
            evidence=False,
        )
        return (time.process_time() - started) / rollout.num_tokens

    return run


def _generate(pair: Pair, model: PreTrainedModel, prompts: Prompts) -> Callable[[int], float]:
    tokenizer = pair.tokenizer
    ids = [list(row) for row in prompts.ids]
    batch = tokenizer.pad({"input_ids": ids}, padding=True, padding_side="left", return_tensors="pt")

    def run(seed: int) -> float:
        torch.manual_seed(seed)
        started = time.process_time()
        output = model.generate(  # type: ignore[operator]
            **batch, do_sample=True, temperature=1.0, top_k=0, top_p=1.0, max_new_tokens=CAP, num_beams=1
        )
        seconds = time.process_time() - started
        written = output[:, batch["input_ids"].shape[1] :]
        stop = torch.isin(written, torch.tensor(sorted(pair.stop_ids)))
        lengths = torch.where(stop.any(1), stop.int().argmax(1) + 1, written.shape[1])
        return seconds / int(lengths.sum())

    return run


if __name__ == "__main__":
    main()

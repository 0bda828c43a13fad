"""The sampler's two limits against code written for them alone: transformers' own ``generate``.

    python -m benchmarks.sampler_limits [--pair quickstart|small] [--prompts 64] [--rounds 5]

``quickstart`` is the built-in pair, so small that every tensor operation shows; ``small`` is a random pair of 512 x 8
and 384 x 6 with 32,000 ids, where the models' own work is what counts. Same models, prompts and cap, sampling at
temperature 1, one thread, alternating A B A B. CPU seconds per response token; the last line is ``FIGURES {json}`` with
the median ratio ours / generate for each limit.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from transformers import PreTrainedModel

import skd
from benchmarks.pairs import save_random_llama
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
    parser.add_argument("--pair", choices=["quickstart", "small"], default="quickstart")
    options = parser.parse_args()
    torch.set_num_threads(1)
    pair, prompts = _pair(options.pair, options.prompts)
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


def _pair(name: str, num_prompts: int) -> tuple[Pair, Prompts]:
    if name == "quickstart":
        pair = skd.load_pair("builtin:number_words/teacher", "builtin:number_words/student")
        return pair, pair.encode([row.prompt for row in TASKS["number_words"].rows("test", num_prompts, 0)])
    with tempfile.TemporaryDirectory() as directory:
        teacher = save_random_llama(Path(directory) / "teacher", hidden=512, layers=8, vocab_size=32_000, seed=0)
        student = save_random_llama(Path(directory) / "student", hidden=384, layers=6, vocab_size=32_000, seed=1)
        pair = skd.load_pair(teacher, student)
    lengths = torch.randint(10, 40, (num_prompts,), generator=torch.Generator().manual_seed(0)).tolist()
    return pair, Prompts([list(range(3, 3 + length)) for length in lengths], list(range(num_prompts)))


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

"""Peak memory of one loss call, forward and backward, each size in a fresh process.

    python benchmarks/loss_memory.py --tokens 4096 8192 --vocab 262144 --hidden 64

The rise is the highest resident memory during the call minus the resident memory just before it, with inputs and heads
already there. The goal: at most 1.5 GB at 4,096 tokens x 262,144 ids, and under 5 % more at 8,192 tokens.
The parent does not import torch: on Linux a child's ru_maxrss starts at what its parent had.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from pathlib import Path

MB = 1e6
LOSSES = {
    "nll": "NLL",
    "forward_kl": "ForwardKL",
    "reverse_kl": "ReverseKL",
    "jsd": "JSD",
    "skew_kl": "SkewKL",
    "skew_reverse_kl": "SkewReverseKL",
    "total_variation": "TotalVariation",
    "policy_gradient": "PolicyGradient",
    "sampled_reverse_kl": "SampledReverseKL",
}
TARGETS = {"plain": "Plain", "veto": "Veto", "taid": "Taid"}


def main() -> None:
    args = _arguments()
    if args.child:
        print(json.dumps(measure(args.tokens[0], args.vocab, args.hidden, args.loss, args.target, args.budget_mib)))
        return
    print(f"{'tokens':>8} {'before MB':>10} {'peak MB':>10} {'rise MB':>10} {'seconds':>8}", flush=True)
    results = []
    for tokens in args.tokens:
        row = _in_fresh_process(tokens, args)
        megabytes = " ".join(f"{row[name]:10.0f}" for name in ("before_mb", "peak_mb", "rise_mb"))
        print(f"{tokens:8d} {megabytes} {row['seconds']:8.1f}", flush=True)
        results.append(row)
    case = {"vocab": args.vocab, "hidden": args.hidden, "loss": args.loss, "target": args.target}
    print(json.dumps({**case, "results": results}))


def measure(
    num_tokens: int, vocab: int, hidden: int, loss: str, target: str, budget_mib: int | None
) -> dict[str, float]:
    """One call in this process: resident memory before, at the peak, and their difference, in MB."""
    import torch

    from skd import objectives
    from skd.types import STUDENT, Head

    budget = objectives.DEFAULT_BUDGET_BYTES if budget_mib is None else budget_mib * 2**20
    torch.manual_seed(0)
    student_hidden = torch.randn(num_tokens, hidden, requires_grad=True)
    student_weight = torch.randn(vocab, hidden, requires_grad=True)
    teacher = objectives.HiddenStates(torch.randn(num_tokens, hidden), Head(torch.randn(vocab, hidden)))
    ids, authors = torch.randint(vocab, (num_tokens,)), torch.full((num_tokens,), STUDENT, dtype=torch.uint8)
    tokens = objectives.ResponseTokens(ids, authors, torch.arange(num_tokens))
    objective = objectives.Objective(getattr(objectives, LOSSES[loss])(), getattr(objectives, TARGETS[target])())

    before, start = _resident_bytes(), time.perf_counter()
    result = objectives.chunked_loss(
        student_hidden,
        Head(student_weight),
        tokens,
        torch.ones(num_tokens),
        objective,
        teacher=teacher,
        cut=objectives.Cut.of(vocab, "cpu", budget),
    )
    (result.loss / num_tokens).backward()
    seconds, peak = time.perf_counter() - start, _peak_bytes()
    return {
        "tokens": num_tokens,
        "before_mb": before / MB,
        "peak_mb": peak / MB,
        "rise_mb": (peak - before) / MB,
        "seconds": seconds,
        "loss": result.loss.item() / num_tokens,
    }


def _in_fresh_process(tokens: int, args: argparse.Namespace) -> dict[str, float]:
    options = ["--tokens", tokens, "--vocab", args.vocab, "--hidden", args.hidden, "--loss", args.loss]
    options += ["--target", args.target]
    options += [] if args.budget_mib is None else ["--budget-mib", args.budget_mib]
    command = [sys.executable, str(Path(__file__).resolve()), "--child", *map(str, options)]
    finished = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    row: dict[str, float] = json.loads(finished.stdout)
    return row


def _resident_bytes() -> int:
    """Resident memory now; where the system does not tell (not Linux), the highest so far."""
    statm = Path("/proc/self/statm")
    if not statm.exists():
        return _peak_bytes()
    return int(statm.read_text().split()[1]) * resource.getpagesize()


def _peak_bytes() -> int:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Peak memory of one loss call in fresh processes.")
    parser.add_argument("--tokens", type=int, nargs="+", default=[4096, 8192])
    parser.add_argument("--vocab", type=int, default=262_144)
    parser.add_argument("--hidden", type=int, default=64)
    parser.add_argument("--loss", choices=list(LOSSES), default="forward_kl")
    parser.add_argument("--target", choices=list(TARGETS), default="plain")
    parser.add_argument("--budget-mib", type=int, help="memory budget of the chunks; the library's default without")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == "__main__":
    main()

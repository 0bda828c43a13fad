"""From turns to medians, tables and figures."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

__all__ = ["GOALS", "Results", "acceptance", "cost", "figures", "light", "printed"]

Turns = Sequence[Mapping[str, Any]]
Results = dict[str, dict[str, list[dict[str, Any]]]]
"""Table -> contestant -> turns."""

# Name -> (table, contestant) above and below the line.
_RATIOS = {
    "skd_speedup_vs_released_fp32_b8": (("step_b8", "released"), ("step_b8", "skd_alpha5")),
    "skd_speedup_vs_released_bf16_b32": (("step_b8", "released"), ("step_b32_bf16", "skd_alpha5")),
    "on_policy_time_vs_trl_gkd_b8": (("step_b8", "on_policy"), ("step_b8", "gkd")),
    "skd_time_vs_trl_gkd_alpha5": (("step_b8", "skd_alpha5"), ("step_b8", "gkd")),
    "skd_time_vs_trl_gkd_alpha9": (("step_b8", "skd_alpha9"), ("step_b8", "gkd")),
    "generate_speedup_vs_hf": (("generate", "hf_generate"), ("generate", "our_generate")),
}
GOALS = {
    "skd_speedup_vs_released_fp32_b8": (True, 5.0),
    "skd_speedup_vs_released_bf16_b32": (True, 10.0),
    "on_policy_time_vs_trl_gkd_b8": (False, 0.8),
    "skd_time_vs_trl_gkd_alpha5": (False, 1.1),
    "skd_time_vs_trl_gkd_alpha9": (False, 0.9),
    "generate_speedup_vs_hf": (True, 1.5),
    "skd_time_vs_light_alpha5": (False, 1.4),
    "skd_time_vs_light_alpha9": (False, 1.15),
    "memory_vs_trl_gkd_262k": (False, 0.25),
    "time_growth_64_to_1024": (False, 1.5),
}
"""Figure -> (more is better, what it should reach)."""
_LIGHT = {"skd_time_vs_light_alpha5": "skd_alpha5", "skd_time_vs_light_alpha9": "skd_alpha9"}
_HEADER = f"{'ms/token':>9} {'lowest':>8} {'highest':>8} {'alpha':>6} {'peak MB':>8} {'rise MB':>8}  CPU seconds"


def figures(results: Results) -> dict[str, float | None]:
    """The figures by name; None where their tables were not measured."""
    ratios = {name: _ratio(results, *parts) for name, parts in _RATIOS.items()}
    lights = {name: _light_ratio(results, contestant) for name, contestant in _LIGHT.items()}
    growth = _ratio(results, ("length_1024", "skd_alpha9"), ("length_64", "skd_alpha9"))
    return {**ratios, **lights, "memory_vs_trl_gkd_262k": _memory_ratio(results), "time_growth_64_to_1024": growth}


def light(pieces: Mapping[str, Any], alpha: float) -> tuple[float, int]:
    """The speed of light: CPU milliseconds per response token of a whole step, and the block at which it is reached.

    A step cannot be faster than min over g of (g drafts + one judgement) / tokens gained, plus one prompt pass of each
    model, one forward and backward of the student, and the optimiser.
    """
    rounds = {
        int(g): (int(g) * pieces["draft"] + judging) / _expected_tokens(alpha, int(g))
        for g, judging in pieces["judge"].items()
    }
    best = min(rounds, key=lambda g: rounds[g])
    once = pieces["prefill"] + pieces["train"] + pieces["optimiser"]
    return float(1e3 * (rounds[best] + once / pieces["length"]) / pieces["batch"]), best


def printed(name: str, table: Mapping[str, Turns]) -> str:
    """A table as text."""
    return "\n".join([f"\n{name:24} {_HEADER}", *(f"  {who:22} {_row(turns)}" for who, turns in table.items())])


def _row(turns: Turns) -> str:
    last, alpha = turns[-1], acceptance(turns)
    if "judge" in last:
        return _pieces(last)
    costs = [1e3 * turn["cpu"] / turn["tokens"] for turn in turns]
    numbers = f"{cost(turns):9.2f} {min(costs):8.2f} {max(costs):8.2f} {'' if alpha is None else f'{alpha:.2f}':>6}"
    memory = " ".join(f"{max(turn[key] for turn in turns):8.0f}" for key in ("peak_mb", "rise_mb"))
    split = [f"{key[8:]} {value:.2f}" for key, value in last.items() if key.startswith("seconds_")]
    return f"{numbers} {memory}  {' '.join(split)}"


def _pieces(pieces: Mapping[str, Any]) -> str:
    parts = " ".join(f"{key} {1e3 * pieces[key]:.0f}" for key in ("prefill", "draft", "train", "optimiser"))
    judge = ", ".join(f"{g}: {1e3 * seconds:.0f}" for g, seconds in pieces["judge"].items())
    lights = [(alpha, *light(pieces, alpha)) for alpha in (0.5, 0.9)]
    shown = ", ".join(f"{cost:.2f} at alpha {alpha} (block {g})" for alpha, cost, g in lights)
    return f"ms: {parts} judge {{{judge}}}; ms/token {shown}"


def cost(turns: Turns) -> float:
    """CPU milliseconds per response token, median."""
    return float(statistics.median(1e3 * turn["cpu"] / turn["tokens"] for turn in turns))


def acceptance(turns: Turns) -> float | None:
    """Mean share of the drafts that were kept; None where nothing was judged."""
    alphas = [turn["alpha"] for turn in turns if turn.get("alpha") is not None]
    return statistics.mean(alphas) if alphas else None


def _ratio(results: Results, above: tuple[str, str], below: tuple[str, str]) -> float | None:
    one, other = (results.get(table, {}).get(contestant) for table, contestant in (above, below))
    return None if one is None or other is None else round(cost(one) / cost(other), 3)


def _light_ratio(results: Results, contestant: str) -> float | None:
    """Ours over the speed of light at the acceptance rate that was measured."""
    turns, pieces = results.get("step_b8", {}).get(contestant), results.get("light_b8", {}).get("light")
    alpha = acceptance(turns) if turns else None
    if turns is None or pieces is None or alpha is None:
        return None
    return round(cost(turns) / light(pieces[-1], alpha)[0], 3)


def _memory_ratio(results: Results) -> float | None:
    """The largest over the lengths: by how much one training step raises the resident memory, ours over GKD's."""
    tables = [table for name, table in results.items() if name.startswith("memory_")]
    ratios: list[float] = [t["supervised"][-1]["rise_mb"] / t["gkd_supervised"][-1]["rise_mb"] for t in tables]
    return round(max(ratios), 3) if ratios else None


def _expected_tokens(alpha: float, block: int) -> float:
    """Tokens committed by a block when each draft is kept with probability ``alpha``."""
    return float(block) if alpha == 1.0 else (1.0 - alpha**block) / (1.0 - alpha)

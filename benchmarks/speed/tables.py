"""From turns to medians, tables and figures."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

__all__ = ["Results", "figures", "printed"]

Turns = Sequence[Mapping[str, Any]]
Results = dict[str, dict[str, list[dict[str, Any]]]]
"""Table -> contestant -> turns."""


def _cost(turns: Turns) -> float:
    """CPU milliseconds per response token, median."""
    return statistics.median(1e3 * turn["cpu"] / turn["tokens"] for turn in turns)


def _alpha(turns: Turns) -> float | None:
    alphas = [turn["alpha"] for turn in turns if turn.get("alpha") is not None]
    return statistics.mean(alphas) if alphas else None


def printed(name: str, table: Mapping[str, Turns]) -> str:
    """A table as text."""
    lines = [
        f"\n{name:24} {'ms/token':>9} {'lowest':>8} {'highest':>8} {'alpha':>6} {'peak MB':>8}  split of the last turn"
    ]
    for contestant, turns in table.items():
        if "light" in turns[-1]:
            lines.append(f"  {contestant:22} " + _pieces(turns[-1]))
            continue
        costs = [1e3 * turn["cpu"] / turn["tokens"] for turn in turns]
        alpha, peak = _alpha(turns), max(turn.get("peak_mb", 0.0) for turn in turns)
        split = ", ".join(
            f"{key.removeprefix('seconds_')} {value:.2f}"
            for key, value in turns[-1].items()
            if key.startswith("seconds_")
        )
        shown = "" if alpha is None else f"{alpha:.2f}"
        lines.append(
            f"  {contestant:22} {_cost(turns):9.2f} {min(costs):8.2f} {max(costs):8.2f} {shown:>6} {peak or '':>8.5}  {split}"
        )
    return "\n".join(lines)


def _pieces(pieces: Mapping[str, Any]) -> str:
    judge = ", ".join(f"{g}: {1e3 * seconds:.0f}" for g, seconds in pieces["judge"].items())
    parts = " ".join(f"{key} {1e3 * pieces[key]:.0f}" for key in ("prefill", "draft", "train", "optimiser"))
    light = ", ".join(f"alpha {alpha}: {1e3 * cost:.2f} (block {g})" for alpha, (cost, g) in pieces["light"].items())
    return f"ms: {parts} judge {{{judge}}}; ms/token at {light}"


def figures(results: Results) -> dict[str, float | None]:
    """The figures by name; None where their tables were not measured."""
    ratios = {name: _figure(results, *parts) for name, parts in _RATIOS.items()}
    light = {name: _light_figure(results, contestant) for name, contestant in _LIGHT.items()}
    return {**ratios, **light, "memory_vs_trl_gkd_262k": _memory_figure(results)}


# Name -> (table, contestant, what), above and below the line.
_RATIOS = {
    "skd_speedup_vs_released_fp32_b8": (("step_b8", "released"), ("step_b8", "skd_alpha5")),
    "skd_speedup_vs_released_bf16_b32": (("step_b8", "released"), ("step_b32_bf16", "skd_alpha5")),
    "on_policy_time_vs_trl_gkd_b8": (("step_b8", "on_policy"), ("step_b8", "gkd")),
    "skd_time_vs_trl_gkd_alpha5": (("step_b8", "skd_alpha5"), ("step_b8", "gkd")),
    "skd_time_vs_trl_gkd_alpha9": (("step_b8", "skd_alpha9"), ("step_b8", "gkd")),
    "generate_speedup_vs_hf": (("generate", "hf_generate"), ("generate", "our_generate")),
}
_LIGHT = {"skd_time_vs_light_alpha5": "skd_alpha5", "skd_time_vs_light_alpha9": "skd_alpha9"}


def _figure(results: Results, above: tuple[str, str], below: tuple[str, str]) -> float | None:
    turns = [results.get(table, {}).get(contestant) for table, contestant in (above, below)]
    if turns[0] is None or turns[1] is None:
        return None
    return round(_cost(turns[0]) / _cost(turns[1]), 3)


def _light_figure(results: Results, contestant: str) -> float | None:
    """Ours over the speed of light at the acceptance rate that was measured."""
    turns, pieces = results.get("step_b8", {}).get(contestant), results.get("light_b8", {}).get("light")
    alpha = _alpha(turns) if turns else None
    if turns is None or pieces is None or alpha is None:
        return None
    return round(_cost(turns) / (1e3 * light_of(pieces[-1], alpha)), 3)


def light_of(pieces: Mapping[str, Any], alpha: float) -> float:
    """Seconds per response token at this acceptance rate."""
    judge = {int(g): seconds for g, seconds in pieces["judge"].items()}
    return Pieces(**{**{key: pieces[key] for key in _PIECES}, "judge": judge}).light(alpha)[0]


def _memory_figure(results: Results) -> float | None:
    """The largest over the lengths: by how much one training step raises the resident memory, ours over GKD's."""
    ratios = []
    for table, contestants in results.items():
        rivals = results.get(f"{table}_gkd_supervised")
        if rivals is not None:
            ours, theirs = contestants["supervised"][-1], rivals["gkd_supervised"][-1]
            ratios.append(ours["rise_mb"] / theirs["rise_mb"])
    return round(max(ratios), 3) if ratios else None

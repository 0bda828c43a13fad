"""The same run again: the same bytes, whatever the directory, the hour, and the steps between saves."""

from __future__ import annotations

from trust.child import train
from trust.ends import differences, end_of
from trust.tally import Bench, Tally
from trust.toy import MODES

__all__ = ["repeats"]


def repeats(bench: Bench) -> Tally:
    """Every mode several times, and once with other saves."""
    tally = Tally()
    for mode in MODES:
        config, expected = bench.toy.config(mode), bench.wholes[mode].end
        for number in range(bench.size.repeats):
            directory = bench.room / f"{mode}-{number}"
            ended = train(directory, config).wait()
            complaints = [f"exit code {ended.code}"] if ended.code else []
            tally.note("equal runs", *complaints, *differences(directory / "run", expected))
            tally.counts["repeats"] += 1
        _other_saves(bench, tally, mode, expected)
    return tally


def _other_saves(bench: Bench, tally: Tally, mode: str, expected: dict[str, str]) -> None:
    directory = bench.room / f"{mode}-saves"
    train(directory, bench.toy.config(mode, save_every=7, keep=5)).wait()
    found = end_of(directory / "run")
    # The config is part of a checkpoint and of the model card; everything else has to be the same.
    configured = ("config.yaml", "state.json", "manifest.json", "README.md")
    different = [name for name in expected if not name.endswith(configured) and found.get(name) != expected[name]]
    tally.note("other save intervals", *([f"{directory}: {', '.join(different)} differ"] if different else []))
    tally.counts["repeats"] += 1

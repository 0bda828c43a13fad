"""The same prompts through training, for one run or several side by side: what the slider of the token view moves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from skd.report.tokens import ORDER, Budget, ResponseView, Snapshot

__all__ = ["Amounts", "Timeline", "Track", "amounts", "stops", "timeline"]

MAX_TRACKS = 6
MAX_STOPS = 12
MAX_PROMPTS = 16


@dataclass(frozen=True)
class Track:
    """One run's responses, by step."""

    name: str
    style: int
    """Number of the run's colour."""
    snapshots: Sequence[Snapshot]


@dataclass(frozen=True)
class Amounts:
    """How much a page shows of each run."""

    stops: int
    prompts: int


@dataclass(frozen=True)
class Frame:
    """One response, and the slider's positions at which it is seen."""

    at: str
    first: bool
    step: int
    response: ResponseView


@dataclass(frozen=True)
class Bar:
    """A step of a run at a glance."""

    at: int
    shares: list[tuple[str, float]]
    """(author, percent of the tokens) from the bottom up."""
    text: str


@dataclass(frozen=True)
class Strip:
    """A run at a glance: one bar for each position of the slider."""

    name: str
    style: int
    bars: list[Bar]


@dataclass(frozen=True)
class Exchange:
    """A prompt with the responses of each run: (name, style, frames)."""

    prompt: str
    answers: list[tuple[str, int, list[Frame]]]


@dataclass(frozen=True)
class Timeline:
    """What the template renders."""

    stops: int
    exchanges: list[Exchange]
    strips: list[Strip]
    authors: list[str]
    left_out: int
    """Responses that count in the strips only."""
    block: dict[str, Any] = field(default_factory=dict)
    """For the page's script: ``pieces``, and ``tokens``, the details of each response in the order of the page."""


def amounts(num_tracks: int, most_stops: int, responses: int = 200) -> Amounts:
    """How many steps and prompts of each run fit into so many responses: steps first, up to 12, then prompts."""
    stops = min(MAX_STOPS, most_stops, max(2, responses // (4 * num_tracks)))
    return Amounts(stops, max(1, min(MAX_PROMPTS, responses // (num_tracks * max(stops, 1)))))


def stops(count: int, wanted: int) -> list[int]:
    """Indices of at most ``wanted`` of ``count`` items, evenly spread from the first to the last."""
    if count <= wanted or wanted < 2:
        return list(range(count))[-max(wanted, 1) :] if count > wanted else list(range(count))
    return [round(i * (count - 1) / (wanted - 1)) for i in range(wanted)]


def timeline(tracks: Sequence[Track], budget: Budget) -> Timeline | None:
    """The view of runs that have snapshots; None when none has. Runs are aligned by their share of the training."""
    tracks = [track for track in tracks if track.snapshots]
    if not tracks:
        return None
    count = max(len(track.snapshots) for track in tracks)
    exchanges = [
        Exchange(prompt, [(track.name, track.style, _frames(track, count, key)) for track in tracks])
        for key, prompt in _prompts(tracks[0].snapshots[0])
    ]
    shown = [frame.response for one in exchanges for _, _, frames in one.answers for frame in frames]
    block = {"pieces": list(budget.pieces), "tokens": [response.details for response in shown]}
    strips = [Strip(track.name, track.style, [_bar(track, i, count) for i in range(count)]) for track in tracks]
    everything = [one for track in tracks for one in track.snapshots]
    present = {author for one in everything for author, number in one.counts.items() if number}
    left_out = sum(one.num_responses for one in everything) - len(shown)
    return Timeline(count, exchanges, strips, [author for author in ORDER if author in present], left_out, block)


Key = tuple[str, int]
"""A prompt, and which of several equal ones."""


def _prompts(one: Snapshot) -> list[tuple[Key, str]]:
    return [(key, key[0]) for key in _by_prompt(one)]


def _by_prompt(one: Snapshot) -> dict[Key, ResponseView]:
    found: dict[Key, ResponseView] = {}
    for response in one.responses:
        number = sum(prompt == response.prompt for prompt, _ in found)
        found[response.prompt, number] = response
    return found


def _frames(track: Track, count: int, key: Key) -> list[Frame]:
    frames = []
    for index, one in enumerate(track.snapshots):
        at = [i for i in range(count) if _index(track, i, count) == index]
        response = _by_prompt(one).get(key)
        if response is not None and at:
            frames.append(Frame(" ".join(map(str, at)), 0 in at, one.step, response))
    return frames


def _index(track: Track, position: int, count: int) -> int:
    """The snapshot that is seen at a position of the slider."""
    return round(position * (len(track.snapshots) - 1) / max(count - 1, 1))


def _bar(track: Track, position: int, count: int) -> Bar:
    one = track.snapshots[_index(track, position, count)]
    total = sum(one.counts.values()) or 1
    shares = [(author, 100 * one.counts[author] / total) for author in ORDER if one.counts.get(author)]
    words = {"student": "kept from the student", "teacher": "written by the teacher", "data": "from the data"}
    said = [f"{share:.1f}\u00a0% {words[author]}" for author, share in shares]
    said += [] if one.divergence is None else [f"mean divergence {one.divergence:.3f} nats"]
    return Bar(position, shares, " · ".join([f"step {one.step:,}", *said]))

"""Inverse CDF, one id after the other."""

from tests.oracles.warp import Floats


def draw(probs_V: Floats, u: float) -> int:
    """The smallest id whose cumulative probability exceeds u (in 0..1); never an id of probability 0."""
    target, cumulative, last = u * float(sum(probs_V)), 0.0, -1
    for token, probability in enumerate(probs_V):
        if probability > 0.0:
            last = token
            cumulative += float(probability)
            if cumulative > target:
                break
    return last


def draw_margin(probs_V: Floats, u: float) -> float:
    """Distance of u to the nearest border between two ids that can be drawn; infinite where only one can."""
    possible = probs_V[probs_V > 0.0]
    borders = possible.cumsum() / possible.sum()
    return float(min(abs(borders[:-1] - u), default=float("inf")))

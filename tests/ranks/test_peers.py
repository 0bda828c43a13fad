"""When another process counts as lost."""

from types import SimpleNamespace

import pytest

from skd.ranks import peers
from skd.ranks.beats import Beat
from skd.ranks.peers import PATIENCE_SECONDS, Limit, Peers


def beat(state):
    return Beat("elsewhere", 1, 0, 5, 3, "somewhere", state)


@pytest.fixture
def watching(monkeypatch, tmp_path):
    """watching(broken, ...): rank 1 of those whose last beats are given, and whether the store is gone."""

    def build(broken, *states):
        exchange = SimpleNamespace(heard=dict(enumerate(map(beat, states))), broken=broken, exchanges=1)
        monkeypatch.setattr(peers, "Exchange", lambda rank, size, mine: exchange)
        made = Peers(1, len(states), tmp_path / "cause", Limit(15.0, "train.rank_timeout_seconds"))
        made._clock = SimpleNamespace(now=0.0)
        return made

    return build


@pytest.mark.parametrize(
    ("broken", "states", "lost"),
    [
        (False, ("working", "working"), False),
        (False, ("left", "working"), False),
        (False, ("failed", "working"), True),
        (True, ("working", "working"), True),
        # It had the store, is done, and took it along; this process has some more to do.
        (True, ("left", "working"), False),
        (True, ("left", "working", "failed"), True),
    ],
)
def test_a_process_is_lost_that_failed_or_went_without_a_word(watching, broken, states, lost):
    made = watching(broken, *states)
    assert not made._lost_for_certain()
    made._clock.now += PATIENCE_SECONDS
    assert made._lost_for_certain() == lost


def test_who_is_gone_may_be_asked_while_others_are_found(watching, monkeypatch):
    """The main thread asks, and the watching one has just learned of another process."""
    made = watching(False, "working", "working", "working")
    made._processes = {0: 10}

    def ended(descriptor):
        made._processes[2] = 12
        return descriptor == 10

    monkeypatch.setattr(peers, "_has_ended", ended)
    assert list(made.gone()) == [0]
    made._processes.clear()

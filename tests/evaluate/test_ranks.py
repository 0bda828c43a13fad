"""Several processes score each item once, and what they write is what one process writes."""

import json
import os
import socket

import pytest
from accelerate.state import AcceleratorState

from skd.errors import SkdError
from skd.evaluate.ranks import Ranks
from skd.evaluate.run import Decoding, evaluate_tasks
from skd.evaluate.workload import Choice

MODEL = "builtin:number_words/student"
SIZE = 23


def measure(out, slots=2, ranks=None):
    choice = Choice("number_words", size=SIZE)
    ranks = ranks or Ranks()
    (result,) = evaluate_tasks(MODEL, [choice], [out], Decoding(slots=slots, temperature=0.7), ranks=ranks)
    return result


def measure_as_ranks(out, size):
    """The same in forked processes that find each other over gloo; each says what it scored."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    children = []
    for rank in range(size):
        child = os.fork()
        if child == 0:
            code = 1
            try:
                os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(size)}
                os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
                AcceleratorState._reset_state(reset_partial_state=True)
                result = measure(out, ranks=Ranks.of_launcher())
                out.with_suffix(f".rank{rank}").write_text(json.dumps([result.score, list(result.responses)]))
                code = 0
            except SkdError as error:
                code = error.exit_code
            finally:
                os._exit(code)
        children.append(child)
    return [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]


def test_three_ranks_write_what_one_process_writes(tmp_path):
    alone = measure(tmp_path / "alone.jsonl")
    assert measure_as_ranks(tmp_path / "together.jsonl", 3) == [0, 0, 0]
    assert (tmp_path / "together.jsonl").read_text() == (tmp_path / "alone.jsonl").read_text()
    first, second = (json.loads((tmp_path / f"{name}.summary.json").read_text()) for name in ("alone", "together"))
    assert {**first, "seconds": 0} == {**second, "seconds": 0}
    for rank in range(3):
        score, responses = json.loads((tmp_path / f"together.rank{rank}").read_text())
        assert (score, responses) == (alone.score, list(alone.responses))


def test_ranks_go_on_where_one_process_was_killed(tmp_path, monkeypatch):
    from skd.evaluate.samples import Samples

    whole = measure(tmp_path / "whole.jsonl")
    append, calls = Samples.append, []

    def killed(self, samples):
        append(self, samples)
        calls.append(len(samples))
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Samples, "append", killed)
        with pytest.raises(KeyboardInterrupt):
            measure(tmp_path / "x.jsonl")
    assert calls == [8]
    assert measure_as_ranks(tmp_path / "x.jsonl", 2) == [0, 0]
    assert (tmp_path / "x.jsonl").read_text() == (tmp_path / "whole.jsonl").read_text()
    assert whole.n == SIZE


def test_a_rank_that_ends_with_an_error_ends_the_others_with_one(tmp_path):
    (tmp_path / "x.jsonl.partial").write_text("of another evaluation\n")
    config_error, remote_error = 2, 6
    assert measure_as_ranks(tmp_path / "x.jsonl", 2) == [config_error, remote_error]


def test_a_share_is_every_nth_item():
    items = range(10, 17)
    shares = [Ranks(rank, 3).share(items) for rank in range(3)]
    assert shares == [[10, 13, 16], [11, 14], [12, 15]]

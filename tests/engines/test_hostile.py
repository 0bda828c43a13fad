"""Servers that lie, stall and die: nothing they say wrongly is learned from, and every call ends."""

import json
import socket
import time
from dataclasses import replace

import pytest

import skd
from skd.engines.transport import TOKEN_VARIABLE, Call, Limits, Transport
from skd.errors import ConfigError, ModelError, NumericsError, RemoteError
from skd.types import Prompts
from tests.engines.conftest import PATIENT
from tests.engines.stand_in import StandIn, serving, stall
from tests.tiny import tiny_model, tiny_tokenizer

PROMPTS = Prompts(ids=[[2, 3, 4], [5, 6], [7]], sample_ids=[0, 1, 2])


def write(pair):
    return skd.interleave(pair, PROMPTS, gate=skd.TopK(8), max_new_tokens=8, seed=1)


def choice(answer):
    return answer["choices"][0]


def position(answer):
    """The last position's entries."""
    return choice(answer)["prompt_logprobs"][-1]


def first_of(entries):
    return entries[next(iter(entries))]


def without_the_token(answer):
    token = str(choice(answer)["prompt_token_ids"][-1])
    position(answer).pop(token)


LIES = {
    "too few positions": ("SKD-R05", lambda a: choice(a)["prompt_logprobs"].pop()),
    "shifted by one": ("SKD-R05", lambda a: choice(a)["prompt_logprobs"].insert(0, None)),
    "first not null": ("SKD-R05", lambda a: choice(a)["prompt_logprobs"].__setitem__(0, position(a))),
    "another prompt": ("SKD-R05", lambda a: choice(a)["prompt_token_ids"].reverse()),
    "no echo": ("SKD-R05", lambda a: choice(a).pop("prompt_token_ids")),
    "no log-probs": ("SKD-R05", lambda a: choice(a).pop("prompt_logprobs")),
    "no choices": ("SKD-R05", lambda a: a.pop("choices")),
    "empty choices": ("SKD-R05", lambda a: a["choices"].clear()),
    "position is a list": ("SKD-R05", lambda a: choice(a)["prompt_logprobs"].__setitem__(-1, [1, 2])),
    "the token itself is missing": ("SKD-R05", without_the_token),
    "fewer than asked for": ("SKD-R05", lambda a: [position(a).popitem() for _ in range(4)]),
    "more than asked for": ("SKD-R05", lambda a: position(a).update({str(i): {"logprob": -40.0} for i in range(64)})),
    "an id that is none": ("SKD-R05", lambda a: position(a).update({"-3": {"logprob": -9.0}})),
    "one id twice": ("SKD-R05", lambda a: position(a).update({f"0{k}": v for k, v in [*position(a).items()][:1]})),
    "text for a number": ("SKD-R05", lambda a: first_of(position(a)).update(logprob="-1.0")),
    "true for a number": ("SKD-R05", lambda a: first_of(position(a)).update(logprob=True)),
    "NaN": ("SKD-R06", lambda a: first_of(position(a)).update(logprob=float("nan"))),
    "infinity": ("SKD-R06", lambda a: first_of(position(a)).update(logprob=float("inf"))),
    "positive": ("SKD-R06", lambda a: first_of(position(a)).update(logprob=0.5)),
    "more mass than 1": ("SKD-R06", lambda a: [entry.update(logprob=-0.5) for entry in position(a).values()]),
    "another model": ("SKD-R08", lambda a: a.update(model="teacher-2")),
    "a list": ("SKD-R08", lambda a: a.clear()),
}


@pytest.mark.parametrize("lie", LIES)
def test_a_wrong_answer_ends_the_sampling_and_names_the_field(served_pair, server, lie):
    code, spoil = LIES[lie]

    def fault(handler, number, answer):
        if number > 4:  # the probes and the first block are right
            spoil(answer)
        return answer

    server.fault = fault
    with pytest.raises((RemoteError, NumericsError)) as caught:
        write(served_pair)
    (problem,) = caught.value.problems
    assert problem.code == code
    assert problem.place.startswith(("server's answer, ", "teacher at "))
    assert isinstance(caught.value, NumericsError) == (code == "SKD-R06")


def status(number, **headers):
    return lambda handler, count, answer: handler.send(number, b'{"error": "busy"}', **headers)


def half(handler, count, answer):
    handler.send(200, json.dumps(answer).encode()[:100], length="100000")
    handler.close_connection = True


def hang_up(handler, count, answer):
    handler.connection.shutdown(socket.SHUT_RDWR)


def page(handler, count, answer):
    handler.send(200, b"<html>gateway</html>", kind="text/html")


def zipped(handler, count, answer):
    handler.send(200, b"\x1f\x8b", Content_Encoding="gzip")


PASSING = {
    "500": status(500),
    "503 with a pause": status(503, Retry_After="0"),
    "429": status(429),
    "truncated": half,
    "not JSON": lambda handler, count, answer: b'{"choices": [',
    "too deep": lambda handler, count, answer: b"[" * 100_000,
    "hangs up": hang_up,
    "a page": page,
    "compressed": zipped,
    "stalls": stall,
}


@pytest.mark.parametrize("kind", PASSING)
def test_a_fault_that_passes_changes_no_response(served_pair, server, kind):
    whole = write(served_pair)
    if kind == "stalls":
        served_pair.engine.transport.limits = Limits(silence=1.0, total=60.0, tries=5)
    start = server.completions
    server.fault = lambda handler, number, answer: (
        PASSING[kind](handler, number, answer) if number - start in (2, 5) else answer
    )
    again = write(served_pair)
    assert [ids.tolist() for ids in again.response_ids] == [ids.tolist() for ids in whole.response_ids]
    assert served_pair.engine.usage["teacher_retries"] >= 2


@pytest.mark.parametrize("kind", ["500", "not JSON", "hangs up", "stalls"])
def test_a_fault_that_stays_ends_within_the_deadline(served_pair, server, kind):
    served_pair.engine.transport.limits = Limits(connect=1.0, silence=0.2, total=1.5, tries=4)
    server.fault = PASSING[kind]
    started = time.monotonic()
    with pytest.raises(RemoteError, match=r"SKD-R0[23]"):
        write(served_pair)
    # Not how fast, but that it ends: a stand-in that stalls does so for 3 seconds a try.
    assert time.monotonic() - started < 30


def test_drops_of_an_answer_do_not_outlast_the_total(server):
    def drip(handler, number, answer):
        handler.send_response(200)
        handler.send_header("Content-Length", "1000")
        handler.end_headers()
        for _ in range(100):
            handler.wfile.write(b" ")
            time.sleep(0.05)

    server.fault = drip
    transport = Transport(server.url, Limits(silence=1.0, total=0.6, tries=9))
    body = {"model": "teacher", "prompt": [2, 3], "max_tokens": 1, "prompt_logprobs": 2}
    with pytest.raises(RemoteError, match=r"SKD-R0[23]"):
        transport.one(Call("/v1/completions", body))


def test_an_answer_beyond_its_size_is_not_read(server):
    server.fault = lambda handler, number, answer: b" " * 100_000
    body = {"model": "teacher", "prompt": [2, 3], "max_tokens": 1, "prompt_logprobs": 2}
    with pytest.raises(RemoteError, match="SKD-R13"):
        Transport(server.url, PATIENT).one(Call("/v1/completions", body, max_bytes=10_000))


def test_connections_that_ended_while_idle_cost_no_try(server):
    def close(handler, number, answer):
        handler.close_connection = True
        return answer

    server.fault = close
    body = {"model": "teacher", "prompt": [2, 3], "max_tokens": 1, "prompt_logprobs": 2}
    call = Call("/v1/completions", body)
    transport = Transport(server.url, replace(PATIENT, tries=1))
    transport.all([call] * 8)
    for connection in transport._idle:
        assert connection.sock.recv(1, socket.MSG_PEEK) == b""  # waits for the server's end of it
    assert transport._idle
    transport.one(call)
    assert transport.retries == 0


def connect(url, directory, **keys):
    server = skd.VllmServer(url, **{"top": 20, "limits": PATIENT, **keys})
    return skd.load_pair(server, directory / "student", device="cpu")


def test_what_is_no_server_for_this_run_is_said_at_once(server, directory):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        nobody = f"http://127.0.0.1:{probe.getsockname()[1]}"
    cases = [
        (nobody, {}, "SKD-R03"),
        (server.url, {"model": "other"}, "SKD-R05"),
        (server.url, {"top": 65}, "SKD-R04.*--max-logprobs 65"),
        (server.url + "/nowhere", {}, "SKD-R04"),
    ]
    for url, keys, code in cases:
        with pytest.raises(RemoteError, match=code):
            connect(url, directory, **keys)


def test_an_old_server_and_another_vocabulary_are_refused(server, directory):
    server.version = "0.17.1"
    with pytest.raises(RemoteError, match="SKD-V01"):
        connect(server.url, directory)
    server.version, server.tokenizer = "0.18.0", tiny_tokenizer(40)
    with pytest.raises(ModelError, match="SKD-M02"):
        connect(server.url, directory)


def test_the_key_comes_from_the_environment_and_is_shown_nowhere(server, directory, monkeypatch):
    server.token = "canary-6512-canary-6512-canary-6512"
    with pytest.raises(RemoteError, match="SKD-R04") as caught:
        connect(server.url, directory)
    assert TOKEN_VARIABLE in str(caught.value)
    monkeypatch.setenv(TOKEN_VARIABLE, server.token)
    pair = connect(server.url, directory)
    assert "canary" not in repr(pair.engine) + str(pair.provenance)


def test_a_redirect_is_not_followed(server, directory):
    with serving(StandIn(tiny_model("llama", seed=1), tiny_tokenizer())) as target:
        server.answer = lambda path, body: (307, {"see": target.url})
        with pytest.raises(RemoteError, match="SKD-R16"):
            connect(server.url, directory)
        assert target.completions == 0


def test_another_model_under_the_same_name_is_noticed(served_pair, server):
    write(served_pair)
    server.model = tiny_model("llama", seed=9)
    with pytest.raises(RemoteError, match="SKD-R08"):
        write(served_pair)


def test_ids_of_a_padded_head_are_left_out(directory):
    """The teacher has 8 more rows than its tokenizer has ids, as Qwen's: the others are normalised without them."""
    padded = tiny_model("llama", seed=1, padded_vocab=72)
    with serving(StandIn(padded, tiny_tokenizer(), max_logprobs=72)) as stand_in:
        pair = connect(stand_in.url, directory)
        rollout = write(pair)
    assert pair.engine.vocab_size == 64
    for evidence in rollout.evidence:
        assert evidence.ids_LK.max() < 64
        assert (evidence.logp_LB.exp().sum(-1) - 1).abs().max() < 1e-4
        assert all(len(set(row)) == len(row) for row in evidence.ids_LK.tolist())


def test_a_prompt_that_fills_the_servers_context_is_refused_before_it_is_sent(directory):
    with serving(StandIn(tiny_model("llama", seed=1), tiny_tokenizer(), context=32)) as stand_in:
        pair = connect(stand_in.url, directory)
        assert pair.context == 31
        longest = Prompts(ids=[[2] * 23], sample_ids=[0])
        assert len(skd.interleave(pair, longest, gate=skd.TopK(20), max_new_tokens=8).response_ids[0]) <= 8
        with pytest.raises(skd.DataError, match="SKD-D09"):
            skd.interleave(pair, longest, gate=skd.TopK(20), max_new_tokens=9)


@pytest.mark.parametrize(
    ("teacher", "keys"),
    [
        ({"url": "ftp://127.0.0.1/"}, ["teacher.url"]),
        ({"url": "http://user:pass@127.0.0.1:8000"}, ["teacher.url"]),
        ({"url": "http://127.0.0.1:8000/?key=abc"}, ["teacher.url"]),
        ({"top_logprobs": 10}, ["policy.gate"]),
        ({"engine": "sglang"}, ["teacher.engine"]),
    ],
)
def test_a_config_that_cannot_work_is_refused(teacher, keys):
    config = {
        "teacher": {"engine": "vllm", "url": "http://127.0.0.1:8000", **teacher},
        "student": "builtin:number_words/student",
        "data": {"train": "rows.json"},
    }
    with pytest.raises(ConfigError) as caught:
        skd.config.config_of(config)
    for key in keys:
        assert key in str(caught.value)


def test_a_temperature_that_a_server_does_not_tell_is_refused():
    config = {
        "teacher": {"engine": "vllm", "url": "http://127.0.0.1:8000"},
        "student": "builtin:number_words/student",
        "data": {"train": "rows.json"},
        "objective": {"temperature": 2.0},
    }
    with pytest.raises(ConfigError, match=r"objective.temperature is 2.0, and a server's log-probs"):
        skd.config.config_of(config)


@pytest.mark.parametrize("gate", [skd.TopK(21), skd.TopK(skd.Schedule(20, 25)), skd.SwitchOnce()])
def test_a_gate_that_must_know_more_than_the_server_tells_is_refused(served_pair, gate):
    with pytest.raises(ConfigError, match="the server tells 20 ids"):
        skd.interleave(served_pair, PROMPTS, gate=gate, max_new_tokens=8)

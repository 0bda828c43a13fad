"""An engine that writes as vLLM does, in a thread and on a socket; its weights are those of its directory."""

import json
import socketserver
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM

from skd.engines.child import Starting
from tests.engines.stand_in import Handler, Quiet


@dataclass
class Engine:
    """One process of the engine. ``fault`` is called with the body and the answer, which it may change or replace."""

    starting: Starting
    fault: Callable[[dict[str, Any], dict[str, Any]], Any] | None = None
    deaf: bool = False
    """It answers that it has read new weights, and has not."""
    reloads: int = 0
    status: int | None = None
    dying: list[None] = field(default_factory=list)
    """As often is it still seen to run, once it has died."""
    seen: list[dict[str, Any]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    lock: Any = field(default_factory=threading.Lock)
    token: str | None = None

    def __post_init__(self) -> None:
        self.load(str(self.starting.room / "model"))
        self.server = _Server(str(self.starting.socket), type("Bound", (_Handler,), {"stand_in": self}))
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        self.thread.start()

    def load(self, path: str) -> None:
        self.model = AutoModelForCausalLM.from_pretrained(path, trust_remote_code=False).eval()

    def poll(self) -> int | None:
        return self.status if not (self.status and self.dying) else self.dying.pop()

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()

    def die(self) -> None:
        """As a killed process: connections end, and nobody answers."""
        self.status = 137
        self.server.socket.close()

    def answer(self, path: str, body: dict[str, Any] | None) -> tuple[int, Any]:
        if path == "/version":
            return 200, {"version": "0.32.0"}
        if path == "/collective_rpc":
            assert body is not None
            assert body["method"] == "reload_weights"
            with self.lock:
                self.reloads += 1
                if not self.deaf:
                    self.load(body["kwargs"]["weights_path"])
            return 200, {"results": [None]}
        if path == "/v1/completions":
            assert body is not None
            with self.lock:
                answer = self.completion(body)
                self.seen.append(body)
            if self.fault is not None:
                answer = self.fault(body, answer)
            return (200, answer) if answer is not None else (500, {"error": "the engine is dead"})
        return 404, {"detail": "Not Found"}

    @torch.no_grad()
    def completion(self, body: dict[str, Any]) -> dict[str, Any]:
        """By our own argmax or inverse, not vLLM's; it knows no stop strings and goes on after them."""
        ids, written, logps = list(body["prompt"]), [], []
        prompt_logprobs = self.scored(ids) if "prompt_logprobs" in body else None
        draws = torch.Generator().manual_seed(body.get("seed") or 0)
        while len(written) < body["max_tokens"]:
            logp_V = self.model(input_ids=torch.tensor([ids + written])).logits[0, -1].float().log_softmax(-1)
            warm = body.get("temperature", 1.0)
            token = int(logp_V.argmax())
            if warm:
                token = int(torch.multinomial((logp_V / warm).softmax(-1), 1, generator=draws))
            written.append(token)
            logps.append(float(logp_V[token]))
            if token in body.get("stop_token_ids", ()):
                break
        reason = "stop" if written[-1] in body.get("stop_token_ids", ()) else "length"
        choice = {"index": 0, "text": "?", "prompt_token_ids": ids, "token_ids": written, "finish_reason": reason}
        choice |= {"logprobs": {"token_logprobs": logps}, "prompt_logprobs": prompt_logprobs}
        return {"id": "cmpl-1", "object": "text_completion", "model": body["model"], "choices": [choice]}

    def scored(self, ids: list[int]) -> list[Any]:
        logp_TV = self.model(input_ids=torch.tensor([ids])).logits[0].float().log_softmax(-1)
        positions: list[Any] = [None]
        for token, logp_V in zip(ids[1:], logp_TV, strict=False):
            best = int(logp_V.argmax())
            positions.append({str(i): {"logprob": logp_V[i].item()} for i in {best, token}})
        return positions


@dataclass
class Engines:
    """Starts engines and remembers them. ``fault`` and ``deaf`` go to those that are started from then on."""

    fault: Any = None
    deaf: bool = False
    started: list[Engine] = field(default_factory=list)

    def __call__(self, starting: Starting) -> Engine:
        self.started.append(Engine(starting, self.fault, self.deaf))
        return self.started[-1]

    @property
    def last(self) -> Engine:
        return self.started[-1]

    @property
    def rooms(self) -> list[Path]:
        return [engine.starting.room for engine in self.started]


class _Handler(Handler):
    disable_nagle_algorithm = False

    def respond(self, body: dict[str, Any] | None) -> None:
        engine: Any = self.stand_in
        engine.headers.append(dict(self.headers))
        if engine.status is not None:
            self.close_connection = True
            return None
        status, answer = engine.answer(self.path, body)
        if engine.status is not None:  # it died meanwhile
            self.close_connection = True
            return None
        return self.send(status, answer if isinstance(answer, bytes) else json.dumps(answer).encode())


class _Server(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    daemon_threads = True
    request_queue_size = 128
    handle_error = Quiet.handle_error

"""A small HTTP server that answers as vLLM does, with the real log-probs of a tiny model; and faults on demand."""

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import torch

NAME = "teacher"


@dataclass
class StandIn:
    """``fault`` is called with the handler, the number of the completion (from 1) and its answer; it returns what is
    sent in its place: a mapping, raw bytes, or None when it has answered by itself."""

    model: Any
    tokenizer: Any
    context: int = 128
    token: str | None = None
    version: str = "0.32.0"
    max_logprobs: int = 64
    fault: Callable[[Any, int, dict[str, Any]], Any] | None = None
    completions: int = 0
    url: str = ""
    seen: list[dict[str, Any]] = field(default_factory=list)
    lock: Any = field(default_factory=threading.Lock)

    @torch.no_grad()
    def completion(self, body: dict[str, Any]) -> dict[str, Any]:
        ids, top = body["prompt"], body["prompt_logprobs"]
        assert body["max_tokens"] == 1
        assert len(ids) + 1 <= self.context
        logp_TV = self.model(input_ids=torch.tensor([ids])).logits[0].float().log_softmax(-1)
        positions: list[Any] = [None]
        for token, logp_V in zip(ids[1:], logp_TV, strict=False):
            best = logp_V.topk(min(top, len(logp_V)))
            shown = dict(zip(best.indices.tolist(), best.values.tolist(), strict=True)) | {token: logp_V[token].item()}
            positions.append({str(i): {"logprob": v, "rank": 1, "decoded_token": "?"} for i, v in shown.items()})
        choice = {"index": 0, "text": "?", "prompt_token_ids": ids, "token_ids": [1], "prompt_logprobs": positions}
        return {"id": "cmpl-1", "object": "text_completion", "model": body["model"], "choices": [choice]}

    def answer(self, path: str, body: dict[str, Any] | None) -> tuple[int, Any]:
        if path == "/version":
            return 200, {"version": self.version}
        if path == "/v1/models":
            return 200, {"object": "list", "data": [{"id": NAME, "max_model_len": self.context}]}
        if path == "/tokenize":
            return 200, {"tokens": self.tokenizer(body["prompt"], add_special_tokens=False)["input_ids"]}
        if path == "/v1/completions":
            if body["prompt_logprobs"] > self.max_logprobs:
                return 400, {"error": {"message": f"Requested prompt logprobs of {body['prompt_logprobs']}, too many"}}
            return 200, self.completion(body)
        return 404, {"detail": "Not Found"}


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    stand_in: StandIn

    def do_GET(self) -> None:
        self.respond(None)

    def do_POST(self) -> None:
        self.respond(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))

    def respond(self, body: dict[str, Any] | None) -> None:
        stand_in = self.stand_in
        if stand_in.token is not None and self.headers.get("Authorization") != f"Bearer {stand_in.token}":
            return self.send(401, b'{"error": "Unauthorized"}')
        status, answer = stand_in.answer(self.path, body)
        if self.path == "/v1/completions" and status == 200:
            with stand_in.lock:
                stand_in.completions += 1
                number = stand_in.completions
                stand_in.seen.append(body)
            if stand_in.fault is not None:
                answer = stand_in.fault(self, number, answer)
                if answer is None:
                    return None
        return self.send(status, answer if isinstance(answer, bytes) else json.dumps(answer).encode())

    def send(self, status: int, data: bytes, kind: str = "application/json", **headers: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", headers.pop("length", str(len(data))))
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *args: Any) -> None:
        pass


class Quiet(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def handle_error(self, request: Any, client_address: Any) -> None:
        pass


@contextmanager
def serving(stand_in: StandIn, port: int = 0) -> Iterator[StandIn]:
    server = Quiet(("127.0.0.1", port), type("Bound", (Handler,), {"stand_in": stand_in}))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    stand_in.url = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        yield stand_in
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def stall(handler: Any, number: int, answer: Any) -> None:
    """Accept, and never answer."""
    time.sleep(3.0)

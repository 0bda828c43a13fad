"""Responses of a model in this process, written by vLLM in another one that holds a copy of its weights.

The copy is renewed after optimiser steps (``skd.engines.transfer``). Whether both then hold the same model is measured
by the log-probs of a fixed probe.
"""

from __future__ import annotations

import hashlib
import shutil
import time
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import torch

from skd.engines.answers import Written, scored, written
from skd.engines.child import NAME, Child, Launch, Starting, ended, launch, new_room, remove, wait_for
from skd.engines.transfer import Files, Renew, Transfer
from skd.engines.transport import Call, Limits, Transport
from skd.engines.vllm import require_version
from skd.errors import Problem, RemoteError
from skd.models.export import export_for_engine
from skd.recorded import PROBE_TOLERANCE
from skd.sampling import Warp
from skd.sampling.checks import require_prompts
from skd.sampling.finish import Response, gather_rollout, gather_stats
from skd.sampling.interleave import requests_of, with_evidence
from skd.sampling.slots import Request
from skd.sampling.stops import StopStrings
from skd.types import STUDENT, TEACHER, Prompts, Rollout

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from skd.models.pair import Pair
    from skd.policies import RolloutKey, Sampling

__all__ = ["Settings", "VllmPolicy", "VllmWriter", "Writers"]

_PROBE_TOKENS = 24
_EXACT_TOLERANCE = 0.01
"""Like PROBE_TOLERANCE, where both hold float32: rounding moves the probe by some 1e-5, an update by more than that."""
_MAX_BYTES = 2**20
_BYTES_PER_TOKEN = 512


@dataclass(frozen=True)
class Settings:
    """How the engine is started and asked."""

    python: str
    """Of the environment that vLLM is in."""
    slots: int = 64
    max_staleness: int = 0
    """Optimiser steps that the engine's weights may be behind the student's."""
    start_seconds: float = 600.0
    total_seconds: float = 1800.0
    """For all responses of a step, and for a renewal of the weights."""
    gpu_memory: float = 0.3
    transfer: Transfer = field(default_factory=Files)


@dataclass(frozen=True)
class Author:
    """One of the two models of a pair, as one that writes alone."""

    number: int
    model: Callable[[Pair], PreTrainedModel]
    warp: Callable[[Sampling], Warp]


STUDENT_ALONE = Author(STUDENT, lambda pair: pair.sampling_student, lambda sampling: sampling.student_warp)
TEACHER_ALONE = Author(TEACHER, lambda pair: pair.required_teacher, lambda sampling: sampling.teacher_warp)


@dataclass
class VllmWriter:
    """The engine. It is started at the first rollout, with the weights that the model then has."""

    settings: Settings
    author: Author
    start: Launch = launch
    held: int = -1
    """Optimiser steps behind the weights that the engine holds."""
    gap: float = 0.0
    """Mean difference in nats of the last probe."""
    _running: _Running | None = None
    _model: PreTrainedModel | None = None
    """Whose weights the engine has."""

    def write(self, pair: Pair, prompts: Prompts, sampling: Sampling, key: RolloutKey) -> Rollout:
        """Responses to all prompts, one request each, by weights at most ``max_staleness`` steps old.

        Raises DataError for a prompt that does not fit; RemoteError when the engine does not start (SKD-V06), ends,
        holds other weights than it was given (SKD-V03), or answers what was not asked (SKD-R05).
        """
        cap = sampling.max_new_tokens
        require_prompts(prompts, [cap] * len(prompts), pair.context, pair.vocab_size)
        requests = requests_of(prompts, sampling.responses_per_prompt, key.epochs)
        started = time.perf_counter()
        running = self._fresh(pair, max(map(len, prompts.ids), default=1) + cap, key)
        synced = time.perf_counter()
        asking = _Asking(pair, sampling, self.author.warp(sampling), key.seed)
        answers = running.asked([asking.call(request) for request in requests], key.check)
        responses = [
            asking.response(request, answer, self.author.number)
            for request, answer in zip(requests, answers, strict=True)
        ]
        seconds = {"prefill": 0.0, "draft": time.perf_counter() - synced, "judge": 0.0, "rest": 0.0}
        stats = gather_stats(responses, sum(len(response.ids) for response in responses), 1, seconds)
        rollout = gather_rollout(requests, responses, stats, pair.tokenizer, sampling.student_logp)
        stats = replace(rollout.stats, seconds_sync=synced - started, probe_gap=self.gap)
        rollout = replace(rollout, stats=stats, versions=[self.held] * len(rollout))
        if not sampling.evidence or pair.engine is None:
            return rollout
        return with_evidence(pair.engine, rollout)

    def close(self) -> None:
        """End the engine; the next rollout starts one."""
        if self._running is not None:
            self._running.close()
        self._running = None

    def _fresh(self, pair: Pair, longest: int, key: RolloutKey) -> _Running:
        """The engine with the model's weights, new enough, and room for ``longest`` tokens."""
        model = self.author.model(pair)
        # Another model is another one of several teachers, perhaps of another architecture.
        if self._running is not None and (self._model is not model or longest > self._running.starting.context):
            self.close()
        if self._running is None:
            self._running, self._model = self._started(pair, longest), model
        elif 0 <= key.updates - self.held <= self.settings.max_staleness:
            return self._running
        else:
            self._running.renew(pair, model)
        self.held = key.updates
        self.gap = self._running.gap(pair, model)
        return self._running

    def _started(self, pair: Pair, longest: int) -> _Running:
        model, transfer = self.author.model(pair), self.settings.transfer
        device, room = transfer.place(pair.device), new_room()
        starting = Starting(
            python=self.settings.python,
            room=room,
            dtype=str(model.dtype).removeprefix("torch."),
            # Longer than this step needs, so that a longer prompt of another one seldom starts a new engine.
            context=min(pair.context, 2 * longest),
            slots=self.settings.slots,
            device=device,
            gpu_memory=self.settings.gpu_memory,
            options=transfer.options,
        )
        try:
            export_for_engine(pair, model, room / "model", with_tokenizer=True)
            child = self.start(starting)
        except BaseException:
            shutil.rmtree(room, ignore_errors=True)
            raise
        running = _Running(starting, child, self.settings)
        try:
            wait_for(running.child, starting, self.settings.start_seconds)
            require_version(running.transport)
            seconds = self.settings.total_seconds
            running.renew = transfer.opened(room / "model", pair.device, running.ask, seconds)
        except BaseException:
            running.close()
            raise
        return running


class _Running:
    """An engine that was started."""

    renew: Renew

    def __init__(self, starting: Starting, child: Child, settings: Settings) -> None:
        self.starting, self.child = starting, child
        self._limits = Limits(silence=settings.total_seconds, total=settings.total_seconds)
        self.transport = self._transport(settings.slots, self._limits)
        self.close = weakref.finalize(self, remove, child, starting.room)

    def _transport(self, workers: int, limits: Limits) -> Transport:
        return Transport(f"unix:{self.starting.socket}", limits, workers, whose="vLLM for the rollouts")

    def asked(self, calls: Sequence[Call], check: Callable[[], None] | None = None) -> list[Any]:
        """The answers. Raises RemoteError (SKD-V06) with the child's last words where it has ended."""
        with self._last_words():
            return self.transport.all(calls, check)

    def ask(self, call: Call) -> Any:
        """The answer of a single try, over a connection of its own."""
        with self._last_words():
            return self._transport(1, replace(self._limits, tries=1)).one(call)

    @contextmanager
    def _last_words(self) -> Iterator[None]:
        try:
            yield
        except RemoteError as error:
            if (status := self.child.poll()) is not None:
                raise ended(status, self.starting) from error
            raise

    @torch.no_grad()
    def gap(self, pair: Pair, model: PreTrainedModel) -> float:
        """Mean difference in nats between its log-probs of fixed ids and the model's own.

        Raises RemoteError (SKD-V03) where that is more than rounding.
        """
        count = min(_PROBE_TOKENS, self.starting.context - 1)
        ids = [(13 + 7919 * number) % pair.vocab_size for number in range(count)]
        body = {"model": NAME, "prompt": ids, "max_tokens": 1, "prompt_logprobs": 1, "return_token_ids": True}
        (answer,) = self.asked([Call("/v1/completions", body, _MAX_BYTES)])
        theirs_L = scored(answer, ids, len(ids) - 1, 1, pair.vocab_size).written_L
        ids_1L = torch.tensor([ids], device=pair.device)
        logits_LV = model(input_ids=ids_1L, use_cache=False).logits[0, :-1, : pair.vocab_size].float()
        ours_L1 = logits_LV.log_softmax(-1).gather(-1, ids_1L[0, 1:].unsqueeze(-1))
        gap = float((ours_L1.squeeze(-1).cpu() - theirs_L).abs().mean())
        allowed = _EXACT_TOLERANCE if model.dtype == torch.float32 else PROBE_TOLERANCE
        if not gap <= allowed:
            found = f"a fixed probe is off by {gap:.3g} nats per token: the engine does not hold the student's weights"
            remedy = "leave sampling.rollouts out for this model, or try another version of vLLM"
            raise RemoteError(Problem("SKD-V03", self.transport.place, found, remedy))
        return gap


@dataclass(frozen=True)
class _Asking:
    """What one rollout asks for each response, and how the answers are read."""

    pair: Pair
    sampling: Sampling
    warp: Warp
    seed: int

    def call(self, request: Request) -> Call:
        """A completion of token ids, with an end id or stop string as the only ends before the cap."""
        cap, greedy = self.sampling.max_new_tokens, self.warp.temperature == 0.0
        body = {
            "model": NAME,
            "prompt": request.prompt.tolist(),
            "max_tokens": cap,
            "temperature": self.warp.temperature,
            "top_p": self.warp.top_p,
            "top_k": -1,
            "min_p": 0.0,
            "repetition_penalty": 1.0,
            "seed": None if greedy else _seed(self.seed, request),
            # Every end id is named here; vLLM's own idea of them is left out.
            "ignore_eos": True,
            "stop_token_ids": sorted(self.pair.stop_ids),
            "stop": list(self.sampling.stop_strings),
            "skip_special_tokens": False,
            "logprobs": 0,
            "return_token_ids": True,
        }
        return Call("/v1/completions", body, _MAX_BYTES + (cap + len(request.prompt)) * _BYTES_PER_TOKEN)

    def response(self, request: Request, answer: Any, author: int) -> Response:
        """The tokens up to the first end by our own rule; what vLLM wrote beyond is left out."""
        cap = self.sampling.max_new_tokens
        told = written(answer, NAME, request.prompt.tolist(), cap, self.pair.vocab_size)
        length, ended_there = self._end(told)
        return Response(
            ids=torch.tensor(told.ids[:length], dtype=torch.int64),
            authors=torch.full((length,), author, dtype=torch.uint8),
            evidence=None,
            student_logp=torch.tensor(told.logps[:length]) if self.sampling.student_logp else None,
            truncated=not ended_there,
        )

    def _end(self, told: Written) -> tuple[int, bool]:
        stops = StopStrings(self.pair.tokenizer, self.sampling.stop_strings)
        at = [number for number, token in enumerate(told.ids, 1) if token in self.pair.stop_ids][:1]
        at += [found for found in [stops.end(told.ids)] if found is not None]
        return (min(at), True) if at else (len(told.ids), False)


def _seed(seed: int, request: Request) -> int:
    """63 bits that are those of one response alone."""
    text = f"rollout {seed} {request.epoch} {request.sample_id} {request.response_index}".encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "big") >> 1


@dataclass(frozen=True)
class Writers:
    """The engines of a run, each started when it is first needed."""

    student: VllmWriter
    teacher: VllmWriter

    @classmethod
    def of(cls, settings: Settings, start: Launch | None = None) -> Writers:
        """With the same settings for both."""
        start = start or launch
        return cls(VllmWriter(settings, STUDENT_ALONE, start), VllmWriter(settings, TEACHER_ALONE, start))

    def close(self) -> None:
        """End those that run."""
        self.student.close()
        self.teacher.close()


@dataclass(frozen=True)
class VllmPolicy:
    """A policy: one model writes alone, by vLLM. See ``skd.policies.Student`` and ``skd.policies.Teacher``."""

    sampling: Sampling
    writer: VllmWriter = field(compare=False)

    def rollout(self, pair: Pair, prompts: Prompts, key: RolloutKey) -> Rollout:
        """See ``VllmWriter.write``."""
        return self.writer.write(pair, prompts, self.sampling, key)

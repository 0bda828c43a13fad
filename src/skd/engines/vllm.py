"""A stock vLLM server as teacher: it scores token ids, and tells the most probable ones at each.

Asked for ``prompt_logprobs``, vLLM reads the whole prompt again, cached prefix or not; ``usage`` tells how much.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from skd.engines.answers import dense_logits, packed, scored, unpacked
from skd.engines.transport import Call, Limits, Transport
from skd.errors import ConfigError, ModelError, Problem, RemoteError
from skd.files import canonical
from skd.recorded import PROBE_TOLERANCE, close_probes
from skd.sampling.gate import Gate
from skd.sampling.gates import SwitchOnce, TopK
from skd.sampling.judge import Opening
from skd.sampling.prompts import PromptTokens
from skd.sampling.slots import Places, Slots
from skd.sampling.warp import CutWarp, draw
from skd.sampling.writer import Judged, Written
from skd.schedule import ends
from skd.text import visible
from skd.types import TopEvidence

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

__all__ = ["ServerJudge", "ServerTeacher", "VllmServer", "require_version"]

MINIMUM = (0, 18, 0)
"""Older versions run code of a model's repository although they are told not to; SECURITY.md, rule 5."""
_PROBE_TOKENS = 24
_BYTES_PER_ENTRY = 512
_MAX_BYTES = 2**20


@dataclass(frozen=True)
class VllmServer:
    """Where a vLLM server is and how it is asked. Start it with ``--max-logprobs`` of at least ``top``."""

    url: str
    model: str | None = None
    """Name that it serves the teacher under; None for the only one."""
    top: int = 64
    """Most probable ids that are asked for at each token."""
    block: int = 16
    """Drafted tokens between two looks: larger than for a model in this process, since each look reads the prefix."""
    concurrency: int = 32
    limits: Limits = field(default_factory=Limits)

    def connect(self, tokenizer: PreTrainedTokenizerBase, vocab_size: int) -> ServerTeacher:
        """See ``skd.sampling.judge.Connectable``.

        Raises RemoteError when the server cannot be reached, is too old, or gives fewer log-probs than asked for;
        ModelError (SKD-M02) when it reads text into other ids than ``tokenizer``.
        """
        transport = Transport(self.url.rstrip("/"), self.limits, self.concurrency)
        require_version(transport)
        name, context = _served(transport, self.model)
        digest = _tokenizer_digest(transport, name, tokenizer)
        teacher = ServerTeacher(self, transport, name, context, vocab_size, digest)
        teacher.probe_anew()
        return teacher


@dataclass
class ServerTeacher:
    """See ``skd.sampling.judge.TeacherEngine``."""

    server: VllmServer
    transport: Transport
    name: str
    context: int
    """One less than the server's, since it must write a token that nobody reads."""
    vocab_size: int
    tokenizer_digest: str
    probe: list[float] = field(default_factory=list)
    """Log-probs of fixed ids, by which another model is told from this one."""
    num_parameters: int = 0
    _counts: dict[str, int] = field(
        default_factory=lambda: dict.fromkeys(("teacher_requests", "teacher_tokens", "teacher_rescored"), 0)
    )

    @property
    def block(self) -> int:
        """See ``VllmServer.block``."""
        return self.server.block

    @property
    def provenance(self) -> Mapping[str, Any]:
        """The served name, the digest of the tokenizer's answers and the probe; not the address, which may change."""
        return {"engine": "vllm", "model": self.name, "tokenizer": self.tokenizer_digest, "probe": self.probe}

    @property
    def usage(self) -> Mapping[str, int]:
        """Requests, tokens sent, those of them sent before, and tries after the first."""
        return {**self._counts, "teacher_retries": self.transport.retries}

    def open(self, opening: Opening) -> ServerJudge:
        """Raises RemoteError (SKD-R08) when the server now holds another model, ConfigError for a gate that must know
        more than it tells."""
        _require_known(opening.gate, self.server.top)
        self.require_same()
        warp = CutWarp(opening.warp.temperature, opening.warp.top_p, self.server.top)
        return ServerJudge(self, warp)

    def score(
        self, prompt_ids: Sequence[Tensor], response_ids: Sequence[Tensor], token_budget: int = 16384
    ) -> list[TopEvidence]:
        """One request per response that has tokens. Raises as ``open`` does."""
        self.require_same()
        prompts = [prompt.tolist() for prompt in prompt_ids]
        responses = [response.tolist() for response in response_ids]
        return self.judged(prompts, responses, [0] * len(prompts))

    def judged(
        self, prefixes: Sequence[list[int]], blocks: Sequence[list[int]], seen: Iterable[int]
    ) -> list[TopEvidence]:
        """The evidence at the tokens of each block after its prefix; ``seen`` tokens of each were sent before."""
        asked = [number for number, block in enumerate(blocks) if block]
        sent = {number: prefixes[number] + blocks[number] for number in asked}
        calls = [self._call(ids) for ids in sent.values()]
        answers = dict(zip(asked, self.transport.all(calls), strict=True))
        self._counts["teacher_requests"] += len(calls)
        self._counts["teacher_tokens"] += sum(map(len, sent.values()))
        self._counts["teacher_rescored"] += sum(count for number, count in enumerate(seen) if number in sent)
        top = min(self.server.top, self.vocab_size)
        nothing = TopEvidence(torch.zeros(0, top, dtype=torch.int64), torch.zeros(0, top + 1), torch.zeros(0))
        return [
            self._read(answers[number], sent[number], len(block)) if block else nothing
            for number, block in enumerate(blocks)
        ]

    def probe_anew(self) -> None:
        """Ask for the probe and remember it. Raises RemoteError where fewer log-probs are told than asked for."""
        try:
            self.probe = self._probed()
        except RemoteError as error:
            (problem,) = error.problems
            if "logprobs" not in problem.found:
                raise
            remedy = f"start the server with --max-logprobs {self.server.top}, or lower teacher.top_logprobs"
            raise RemoteError(replace(problem, remedy=remedy)) from error

    def require_same(self) -> None:
        """Raises RemoteError (SKD-R08) when the fixed ids have other log-probs than at first."""
        if not close_probes(self.probe, self._probed()):
            found = f"a fixed probe is off by more than {PROBE_TOLERANCE} nats per token: another model is served"
            remedy = "serve the model that the run began with, or choose another output for a new run"
            raise RemoteError(Problem("SKD-R08", self._place, found, remedy))

    @property
    def _place(self) -> str:
        return f"teacher at {self.server.url}"

    def _probed(self) -> list[float]:
        ids = [(13 + 7919 * number) % self.vocab_size for number in range(min(_PROBE_TOKENS, self.context))]
        evidence = self._read(self.transport.one(self._call(ids)), ids, len(ids) - 1)
        return [round(float(logp), 6) for logp in evidence.written_L]

    def _call(self, ids: list[int]) -> Call:
        body = {
            "model": self.name,
            "prompt": ids,
            "max_tokens": 1,
            "prompt_logprobs": self.server.top,
            "return_token_ids": True,
            # All said, because a server may take other defaults from the model's generation config.
            "temperature": 1.0,
            "top_p": 1.0,
            "top_k": -1,
            "repetition_penalty": 1.0,
        }
        return Call("/v1/completions", body, _MAX_BYTES + len(ids) * (self.server.top + 1) * _BYTES_PER_ENTRY)

    def _read(self, answer: Any, ids: list[int], num_last: int) -> TopEvidence:
        named = answer.get("model") if isinstance(answer, Mapping) else None
        if named != self.name:
            found = f"an answer is of the model {visible(str(named))[:60]!r} and not of {self.name!r}"
            raise RemoteError(Problem("SKD-R08", self._place, found, "serve one model under one name"))
        return scored(answer, ids, num_last, self.server.top, self.vocab_size)


@dataclass
class ServerJudge:
    """See ``skd.sampling.judge.Judge``. It holds no rows: each request has all that stands before a block."""

    teacher: ServerTeacher
    warp: CutWarp

    def prefill(self, rows: Sequence[int], prompts: Sequence[Tensor]) -> PromptTokens:
        """Nothing is kept on the server."""
        return PromptTokens()

    def keep_rows(self, rows_b: Tensor) -> None:
        """Nothing is kept on the server."""

    def read(self, slots: Slots, ids_BG: Tensor, places: Places) -> Judged:
        """One request for each row that holds a response, all at once. Idle rows get even distributions."""
        prefixes, blocks, seen = self._asked(slots, ids_BG.tolist())
        told = self.teacher.judged(prefixes, blocks, seen)
        vocab_size, top = self.teacher.vocab_size, min(self.warp.k, self.teacher.vocab_size)
        logits_BGV = torch.zeros(*ids_BG.shape, vocab_size)
        kept_BGE = torch.zeros(*ids_BG.shape, 2 * top + 2)
        for row, (evidence, block) in enumerate(zip(told, blocks, strict=True)):
            logits_BGV[row, : len(block)] = dense_logits(evidence, torch.tensor(block, dtype=torch.int64), vocab_size)
            kept_BGE[row, : len(block)] = packed(evidence)
        finite_B = torch.ones(len(blocks), dtype=torch.bool, device=ids_BG.device)
        return Judged(logits_BGV.to(ids_BG.device), kept_BGE.to(ids_BG.device), finite_B)

    def write(self, slots: Slots, noise_BG: Tensor, places: Places) -> Written:
        """One request per token and row: the distribution at a token that stands in for the one to be drawn."""
        ids_BG = torch.zeros(len(slots.held), 0, dtype=torch.int64, device=noise_BG.device)
        kept = []
        for noise_B1 in noise_BG.split(1, dim=1):
            judged = self.read(slots, torch.nn.functional.pad(ids_BG, (0, 1)), places)
            drawn_B1 = draw(self.warp.log_probs(judged.logits_BGV[:, -1:]), noise_B1)
            ids_BG = torch.cat([ids_BG, drawn_B1], dim=1)
            kept.append(judged.kept_BGE[:, -1:])
        return Written(ids_BG, torch.cat(kept, dim=1), [])

    def evidence(self, kept: Sequence[Tensor], ids: Sequence[Tensor]) -> list[TopEvidence]:
        """The top log-probs at each token."""
        return [unpacked(kept_LE, ids_L) for kept_LE, ids_L in zip(kept, ids, strict=True)]

    def _asked(self, slots: Slots, drafts: list[list[int]]) -> tuple[list[list[int]], list[list[int]], list[int]]:
        """Of each row: what stands before the block, the block as far as it fits, and how much was sent before."""
        written = slots.ids_BW.tolist()
        prefixes, blocks, seen = [], [], []
        for row, (request, length) in enumerate(zip(slots.held, slots.lengths, strict=True)):
            prefix = [] if request is None else [*request.teacher_prompt.tolist(), *written[row][:length]]
            room = 0 if request is None else self.teacher.context - len(prefix)
            prefixes.append(prefix)
            blocks.append(drafts[row][: max(room, 0)])
            seen.append(len(prefix) if length else 0)
        return prefixes, blocks, seen


def _require_known(gate: Gate, top: int) -> None:
    found = ""
    if isinstance(gate, TopK) and max(ends(gate.k)) > top:
        found = f"has k {max(ends(gate.k))}, and the server tells {top} ids"
    if isinstance(gate, SwitchOnce):
        found = f"needs the whole distribution, and the server tells {top} ids"
    if found:
        remedy = "take a smaller k, raise teacher.top_logprobs, or name a teacher model"
        raise ConfigError(Problem("SKD-R05", type(gate).__name__, found, remedy))


def require_version(transport: Transport) -> None:
    """Raises RemoteError (SKD-V01) for a vLLM that is too old."""
    answer = transport.one(Call("/version"))
    text = str(answer.get("version")) if isinstance(answer, Mapping) else ""
    numbers = tuple(map(int, re.findall(r"\d+", text)[:3]))
    # Builds from source call themselves 0.1.dev or dev.
    if numbers and numbers < MINIMUM and "dev" not in text:
        found = f"is vLLM {visible(text)[:40]}; {'.'.join(map(str, MINIMUM))} or newer is needed"
        raise RemoteError(Problem("SKD-V01", transport.place, found, "update the server's vLLM"))


def _served(transport: Transport, wanted: str | None) -> tuple[str, int]:
    """Name of the model and the longest prompt that it scores."""
    answer = transport.one(Call("/v1/models"))
    listed = answer.get("data") if isinstance(answer, Mapping) else None
    cards = {str(card.get("id")): card for card in listed or () if isinstance(card, Mapping)}
    names = ", ".join(visible(name)[:60] for name in cards) or "none"
    if wanted is None and len(cards) != 1:
        found = f"serves {len(cards)} models ({names})"
        raise RemoteError(Problem("SKD-R05", f"teacher at {transport.url}", found, "name one in teacher.model"))
    name = wanted or next(iter(cards))
    length = cards[name].get("max_model_len") if name in cards else None
    if not isinstance(length, int) or length < 2:
        found = f"serves {names}, and {name!r} with its max_model_len was looked for"
        raise RemoteError(Problem("SKD-R05", f"teacher at {transport.url}", found, "correct teacher.model"))
    return name, length - 1


def _tokenizer_digest(transport: Transport, name: str, tokenizer: PreTrainedTokenizerBase) -> str:
    """SHA-256 of the ids that the server makes of texts from all over the vocabulary, which must be our own ids."""
    size = max(tokenizer.get_vocab().values()) + 1
    text = tokenizer.decode(list(range(0, size, math.ceil(size / 256))), skip_special_tokens=True)
    call = Call("/tokenize", {"model": name, "prompt": text, "add_special_tokens": False})
    answer = transport.one(call)
    theirs = answer.get("tokens") if isinstance(answer, Mapping) else None
    ours = tokenizer(text, add_special_tokens=False)["input_ids"]
    if theirs != list(ours):
        found = "its tokenizer makes other ids of a text than the student's"
        remedy = "serve a teacher with the student's vocabulary; for others see methods such as GOLD in TRL"
        raise ModelError(Problem("SKD-M02", f"teacher at {transport.url}", found, remedy))
    return hashlib.sha256(canonical(theirs)).hexdigest()

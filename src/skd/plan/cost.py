"""Seconds of each part of a step: weights read, arithmetic, numbers moved between products, operations started.

A forward of n tokens over W weights reads W and does 2 W n operations. Where the machine does these at once the
slowest counts (the roofline of Williams et al., 2009, https://doi.org/10.1145/1498765.1498785), otherwise their sum:
on a CPU one thread does one thing at a time, and the sum fits measured products of 1 to 2,048 rows within 10 %.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import astuple, dataclass
from itertools import starmap

from skd.data.batching import micro_batches
from skd.plan.machine import MachineConfig
from skd.plan.shape import BYTES, Shape
from skd.plan.work import Work, played

__all__ = ["LAUNCHES_OF_A_LAYER", "NOTHING", "Cost", "Part", "Prices", "step_cost"]

Part = str
LAUNCHES_OF_A_LAYER = 40
"""Operations that one layer starts for a forward: products, attention, norms, rotation, sums, the cache's writes."""
_FORWARD = 40
"""Those around the layers: embedding, positions, mask, last norm, head."""
_DRAW = 40
"""Those of one drawn token: warp, draw, bookkeeping."""
_ROUND = 120
"""Those of a round: noise, gate, commit, cursors."""
_TRAINED_FORWARD, _BACKWARD = 1.5, 3.0
"""What a started operation costs with a gradient, and in the backward pass, against one without."""
_UPDATE = 10
"""Float32 numbers read or written for a trained weight: AdamW has 7, clipping 3."""


@dataclass(frozen=True)
class Cost:
    """Seconds. ``total`` is the sum or the slowest of the others, as the machine has it."""

    total: float = 0.0
    weights: float = 0.0
    """Reading weights and caches."""
    arithmetic: float = 0.0
    passes: float = 0.0
    """Operations between products, softmax over the vocabulary."""
    launches: float = 0.0
    links: float = 0.0
    """What other processes send."""

    def __add__(self, other: Cost) -> Cost:
        return Cost(*(a + b for a, b in zip(astuple(self), astuple(other), strict=True)))

    def __mul__(self, times: float) -> Cost:
        return Cost(*(times * value for value in astuple(self)))

    @property
    def limit(self) -> str:
        """What takes most of it."""
        kinds = {"reading weights": self.weights, "arithmetic": self.arithmetic, "passes": self.passes}
        kinds |= {"starting operations": self.launches, "links": self.links}
        return max(kinds, key=lambda kind: kinds[kind])


NOTHING = Cost()


@dataclass(frozen=True)
class Prices:
    """What a machine takes for the pieces of a forward."""

    machine: MachineConfig

    @property
    def packed(self) -> Prices:
        """Where the weights are packed."""
        rates = self.machine.packed
        if rates is None:
            return self
        return Prices(self.machine.model_copy(update={"weights_gbs": rates.weights_gbs, "tflops": rates.tflops}))

    def packing(self, shape: Shape, dtype: str) -> Cost:
        """To pack a model's weights."""
        if self.machine.packed is None:
            return NOTHING
        seconds = shape.multiplied(dtype) / (1e9 * self.machine.packed.packing_gbs)
        return Cost(seconds, weights=seconds)

    def cost(
        self, dtype: str, *, read: float = 0.0, operations: float = 0.0, moved: float = 0.0, launches: float = 0.0
    ) -> Cost:
        """Of bytes read for products, multiplications and additions, bytes moved, operations started."""
        machine, reached = self.machine, self.machine.efficiency
        weights = read / (1e9 * getattr(machine.weights_gbs, dtype) * reached.bandwidth)
        arithmetic = operations / (1e12 * getattr(machine.tflops, dtype) * reached.products)
        passes = moved / (1e9 * machine.stream_gbs * reached.bandwidth)
        started = 1e-6 * machine.launch_us * launches
        total = (
            max(weights + passes, arithmetic, started) if machine.overlap else weights + arithmetic + passes + started
        )
        return Cost(total, weights, arithmetic, passes, started)

    def body(
        self,
        shape: Shape,
        dtype: str,
        rows: float,
        new: float,
        context: float,
        *,
        started: float = 1.0,
        cached: bool = False,
    ) -> Cost:
        """A forward of ``new`` tokens in each row, each looking at ``context`` positions on average."""
        tokens, size = rows * new, BYTES[dtype]
        keys = shape.layers * rows * context * shape.keys_per_token * size
        # Keys and values of grouped heads are written out for every head where a cache is read.
        spread = 1.5 * rows * context * 2 * shape.heads * shape.head_size if cached else 0.0
        looks = 4.0 * shape.layers * tokens * context * shape.heads * shape.head_size
        return self.cost(
            dtype,
            read=shape.body * size + keys,
            operations=2.0 * shape.body * tokens + looks,
            # A CPU does in float32 what stands between the products, in either type.
            moved=(size if self.machine.overlap else 4.0) * shape.layers * (tokens * shape.moved_per_token + spread),
            launches=started * (_FORWARD + LAUNCHES_OF_A_LAYER * shape.layers),
        )

    def head(self, shape: Shape, dtype: str, tokens: float, passes: float, launches: float) -> Cost:
        """Logits of so many tokens, with what is then done to them."""
        return self.cost(
            dtype,
            read=shape.head * BYTES[dtype],
            operations=2.0 * shape.head * tokens,
            moved=4.0 * passes * shape.vocab_size * tokens,
            launches=launches,
        )


def step_cost(work: Work, machine: MachineConfig) -> Mapping[Part, Cost]:
    """The parts of a step, in order; those that the method does not have are left out."""
    prices = Prices(machine)
    parts = {**_sampling(work, prices), "evidence": _evidence(work, prices)}
    parts |= {"forward": NOTHING, "backward": NOTHING}
    for forward, backward in _learning(work, prices):
        parts = {**parts, "forward": parts["forward"] + forward, "backward": parts["backward"] + backward}
    parts["optimiser"] = prices.cost("float32", moved=4.0 * _UPDATE * work.student.trained, launches=20.0)
    return {name: cost for name, cost in parts.items() if cost.total}


def _sampling(work: Work, prices: Prices) -> dict[Part, Cost]:
    if work.writer == "data_set":
        return {}
    rounds, fills = played(work)
    context = _mean(work.prompts) + _mean(work.responses) / 2
    drafts, judges = work.writer != "teacher", work.writer != "student"
    parts = {
        "prefill": _prefill(work, prices, fills, drafts, judges),
        "draft": NOTHING,
        "judge": NOTHING,
        "rest": NOTHING,
    }
    few = prices.packed if work.packs else prices
    if work.packs and drafts:
        parts["draft"] += prices.packing(work.student, work.student_dtype)
    if work.packs and judges and work.teacher is not None and not work.copies_kept:
        parts["judge"] += prices.packing(work.teacher, work.teacher_dtype)
    for (rows, block), times in rounds.items():
        if drafts:
            parts["draft"] += _drafting(work.student, work.student_dtype, few, rows, context) * (block * times)
        if judges and work.teacher is not None:
            parts["judge"] += _judging(work.teacher, work, few, rows, block, context) * times
        parts["rest"] += prices.cost("float32", launches=float(_ROUND)) * times
    return parts


def _drafting(shape: Shape, dtype: str, prices: Prices, rows: int, context: float) -> Cost:
    """One token for each row."""
    head = prices.head(shape, dtype, rows, prices.machine.draw_passes, _DRAW)
    return prices.body(shape, dtype, rows, 1, context, cached=True) + head


def _judging(shape: Shape, work: Work, prices: Prices, rows: int, block: int, context: float) -> Cost:
    """One look at a block of each row; a teacher alone writes its tokens one after the other."""
    dtype, machine = work.teacher_dtype, prices.machine
    if work.writer == "teacher":
        return _drafting(shape, dtype, prices, rows, context) * block
    # One replacement is drawn for each row.
    passes = machine.judge_passes + machine.draw_passes / block
    new = block + context if work.rescored else block
    body = prices.body(shape, dtype, rows, new, context, cached=True)
    return body + prices.head(shape, dtype, rows * block, passes, _DRAW)


def _prefill(work: Work, prices: Prices, fills: int, drafts: bool, judges: bool) -> Cost:
    models = [(work.student, work.student_dtype)] if drafts else []
    if judges and work.teacher is not None and not work.prompts_kept:
        models.append((work.teacher, work.teacher_dtype))
    rows, prompt = len(work.prompts) / max(fills, 1), _mean(work.prompts)
    each = starmap(lambda shape, dtype: prices.body(shape, dtype, rows, prompt, prompt / 2), models)
    return sum(each, NOTHING) * fills


def _evidence(work: Work, prices: Prices) -> Cost:
    """The teacher's reading of finished responses, where it did not judge them or its evidence was not kept."""
    judged = work.writer in ("interleaved", "teacher") and not work.recompute
    if work.teacher is None or judged:
        return NOTHING
    each = (
        prices.body(work.teacher, work.teacher_dtype, rows, longest, longest / 2)
        for rows, longest, _ in _micro_batches(work)
    )
    return sum(each, NOTHING)


def _learning(work: Work, prices: Prices) -> Iterator[tuple[Cost, Cost]]:
    """Forward with the loss, which takes the gradient for the head too, and backward of each micro-batch."""
    student, dtype = work.student, work.precision
    for rows, longest, tokens in _micro_batches(work):
        body = prices.body(student, dtype, rows, longest, longest / 2, started=_TRAINED_FORWARD)
        backward = prices.body(student, dtype, rows, longest, longest / 2, started=_BACKWARD) * 2
        # Logits, gradient for the hidden states, gradient for the head.
        head = prices.head(student, dtype, tokens, prices.machine.loss_passes / 3, _DRAW) * 3
        if work.teacher is not None:
            head += prices.head(work.teacher, dtype, tokens, 0.0, _DRAW)
        if dtype != "float32":
            body += prices.cost("float32", moved=6.0 * student.num_weights)
        yield body + head, backward + (body if work.checkpointing else NOTHING)


def _micro_batches(work: Work) -> Iterator[tuple[int, int, int]]:
    """Rows, longest row, and response tokens of each."""
    lengths = [p + r for p, r in zip(work.prompts, work.responses, strict=True)]
    for group in micro_batches(lengths, work.micro_batch_tokens, work.device):
        yield len(group), max(lengths[i] for i in group), sum(work.responses[i] for i in group)


def _mean(numbers: object) -> float:
    values = list(numbers)  # type: ignore[call-overload]
    return float(sum(values)) / len(values)

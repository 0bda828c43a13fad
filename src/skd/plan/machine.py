"""Machines by what limits them: peaks that were published, or rates that were measured here."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, ValidationError

from skd.config.document import Document, read_document, read_text
from skd.config.fields import Flag, InRange, Real, Section, Text
from skd.config.problems import describe, dotted
from skd.errors import ConfigError, Problem

__all__ = ["MACHINES", "EfficiencyConfig", "MachineConfig", "PackedConfig", "RatesConfig", "load_machine"]

_Positive = Annotated[Real, AfterValidator(InRange(0, open_low=True))]
_Part = Annotated[Real, AfterValidator(InRange(0, 1, open_low=True))]


class RatesConfig(Section):
    """A rate in each type of number."""

    float32: _Positive
    bfloat16: _Positive


class PackedConfig(Section):
    """Rates of products with few rows whose weights are packed (``skd.sampling.packed``)."""

    weights_gbs: RatesConfig
    """10^9 bytes a second at which weights are read."""
    tflops: RatesConfig
    """10^12 multiplications and additions a second."""
    packing_gbs: _Positive
    """10^9 bytes a second that are packed."""


class EfficiencyConfig(Section):
    """Share of a peak that is reached; 1 where the rates were measured."""

    bandwidth: _Part = 1.0
    """Of weights_gbs and stream_gbs."""
    products: _Part = 1.0
    """Of tflops."""
    links: _Part = 1.0
    """Of link_gbs and network_gbs."""


class MachineConfig(Section):
    """One processor, a GPU or the threads of a CPU that a process may use."""

    name: Text
    source: Text
    """Where the numbers are from."""
    memory_gib: _Positive
    weights_gbs: RatesConfig
    """10^9 bytes a second at which weights are read for a product."""
    stream_gbs: _Positive
    """10^9 bytes a second at which operations between products read and write."""
    tflops: RatesConfig
    """10^12 multiplications and additions a second in large products."""
    packed: PackedConfig | None = None
    """Of a CPU that packs; null otherwise."""
    launch_us: _Positive
    """Millionths of a second that starting one operation costs."""
    overlap: Flag = True
    """Reading, arithmetic and starting go on at once, so that the slowest counts; false: they add up."""
    loss_passes: _Positive = 16.0
    """Float32 numbers read or written for each logit of the loss with its gradient."""
    draw_passes: _Positive = 8.0
    """Likewise of a token that is drawn."""
    judge_passes: _Positive = 3.0
    """Likewise of a draft that is judged."""
    link_gbs: _Positive | None = None
    """10^9 bytes a second, each way, to the GPUs of the same machine; null: there are none."""
    network_gbs: _Positive | None = None
    """Likewise to other machines."""
    efficiency: EfficiencyConfig = EfficiencyConfig()
    """What is reached of these rates."""

    @property
    def measured(self) -> bool:
        """Whether the rates were measured on this machine."""
        return self.source.startswith("measured")


_GPU = EfficiencyConfig(bandwidth=0.75, products=0.5, links=0.7)
"""An assumption: large copies and products in PyTorch reach about this much. Nothing was measured on a GPU."""


def _gpu(
    name: str, page: str, memory: float, bandwidth: float, float32: float, bfloat16: float, link: float | None
) -> MachineConfig:
    both = RatesConfig(float32=bandwidth, bfloat16=bandwidth)
    return MachineConfig(
        name=name,
        source=f"published peaks without sparsity, {page}",
        memory_gib=memory / 1.073741824,
        weights_gbs=both,
        stream_gbs=bandwidth,
        tflops=RatesConfig(float32=float32, bfloat16=bfloat16),
        launch_us=6.0,
        link_gbs=link,
        network_gbs=50.0,
        efficiency=_GPU,
    )


MACHINES: Mapping[str, MachineConfig] = {
    machine.name: machine
    for machine in (
        _gpu("h100", "https://www.nvidia.com/en-us/data-center/h100/", 80, 3350, 67, 989, 450),
        _gpu("h200", "https://www.nvidia.com/en-us/data-center/h200/", 141, 4800, 67, 989, 450),
        _gpu("a100", "https://www.nvidia.com/en-us/data-center/a100/", 80, 2039, 19.5, 312, 300),
        _gpu("l4", "https://www.nvidia.com/en-us/data-center/l4/", 24, 300, 30.3, 121, None),
    )
}
"""GPUs by name: SXM boards, and the L4. A start of 6 microseconds and a network of 400 Gbit/s a GPU are assumed."""


def load_machine(name: str) -> MachineConfig:
    """A machine by its name or from a YAML file with the keys of ``MachineConfig``.

    Raises ConfigError for an unknown name and for a file that is wrong, with all of its problems.
    """
    if name in MACHINES:
        return MACHINES[name]
    if not name.endswith((".yaml", ".yml")):
        known = ", ".join(["cpu", *MACHINES])
        found = f"{name!r} is no known machine"
        raise ConfigError(Problem("SKD-L01", "--machine", found, f"write one of {known}, or the path of a .yaml file"))
    document = read_document(name, read_text(Path(name)))
    try:
        if not document.problems:
            return MachineConfig.model_validate(document.data)
    except ValidationError as error:
        document.problems.extend(_problem(detail, document) for detail in error.errors(include_url=False))
    raise ConfigError(document.problems)


def _problem(detail: Any, document: Document) -> Problem:
    path, expected = tuple(detail["loc"]), (detail.get("ctx") or {}).get("expected")
    place, name = document.place(path), dotted(path)
    if detail["type"] == "extra_forbidden":
        return Problem(
            "SKD-C05", place, f"{name} is an unknown key", f"write one of {', '.join(MachineConfig.model_fields)}"
        )
    if detail["type"] == "missing":
        return Problem("SKD-C17", place, f"{name} is missing", f"add {name}; docs/speed.md shows a machine")
    found = f"{name} is {describe(detail['input'], document.raw.get(path))}, expected {expected or detail['msg']}"
    return Problem("SKD-C06", place, found, f"correct {name}")

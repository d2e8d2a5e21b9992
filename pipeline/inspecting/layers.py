"""What is found out about each layer, whether of a network or of a model file, and how memory fills up on the way."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from pipeline.declare.words import Precision
from pipeline.estimating.work import Work


@dataclass(frozen=True, kw_only=True)
class Layer:
    """One layer; shapes without the batch, costs of one sample."""

    name: str
    op: str  # as ONNX calls it; in TFLite files as TFLite does
    output_shape: tuple[int, ...]
    parameters: int
    macs: int
    activation_bytes: int  # of its output
    peak_bytes: int  # of all values that are alive while it works
    integer: bool  # whether it runs, or would run, on 8-bit integers
    why_float: str  # "" where it does, or where the file is float all the way
    channels: int | None = None  # that a layer with weights makes
    squashes: bool = False  # sigmoid or tanh in the middle of the network, on the way of all values
    works: Mapping[Precision, tuple[Work, ...]] = field(
        default_factory=dict
    )  # what its kernels do; none: inside others


@dataclass(frozen=True, kw_only=True)
class Advice:
    """One thing in a design that deserves a look."""

    layer: str  # "" where it is about the network
    what: str
    remedy: str


@dataclass(frozen=True, kw_only=True)
class Inspected:
    """All that was found out about one network or file."""

    subject: str
    kind: str  # "network", "onnx" or "tflite"
    input_shapes: tuple[tuple[int, ...], ...]
    layers: tuple[Layer, ...]
    parameter_bytes: int  # of the file, or of the network's int8 file
    normalized: bool | None  # whether any layer normalizes; None: a file does not tell, its norms are folded
    advice: tuple[Advice, ...] = ()

    @property
    def parameters(self) -> int:
        """Return how many there are."""
        return sum(layer.parameters for layer in self.layers)

    @property
    def macs(self) -> int:
        """Return the multiply-accumulates of one sample."""
        return sum(layer.macs for layer in self.layers)

    @property
    def peak_bytes(self) -> int:
        """Return the most memory that activations take at a time."""
        return max((layer.peak_bytes for layer in self.layers), default=0)

    @property
    def integer_layers(self) -> int:
        """Return how many layers run on integers."""
        return sum(layer.integer for layer in self.layers)


# ── memory ──────────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, kw_only=True)
class Step:
    """What one layer reads and makes; ``in_place``: its output lies where its first input did."""

    reads: tuple[str, ...]
    makes: tuple[str, ...]
    size_bytes: int  # of what it makes
    in_place: bool = False


def peaks(inputs: Mapping[str, int], steps: Sequence[Step], outputs: Sequence[str]) -> tuple[int, ...]:
    """Return the bytes that are alive during each step: a value lives from its making to its last reader.

    ``inputs``: name → size of what comes from outside; ``outputs`` live until the end.  Constants are none of it.
    """
    places: dict[str, str] = {name: name for name in inputs}  # value → where it lies
    sizes = dict(inputs)
    last: dict[str, int] = dict.fromkeys(inputs, -1)
    for index, step in enumerate(steps):
        read = [places[name] for name in step.reads if name in places]
        if step.in_place and read:
            places.update(dict.fromkeys(step.makes, read[0]))
        else:
            first = step.makes[0]
            places.update(dict.fromkeys(step.makes, first))
            sizes[first] = step.size_bytes
        for place in (*read, *(places[name] for name in step.makes)):
            last[place] = index
    last.update({places[name]: len(steps) for name in outputs if name in places})
    made = dict.fromkeys(inputs, 0)
    for index, step in enumerate(steps):
        for name in step.makes:
            made.setdefault(places[name], index)
    change = [0] * (len(steps) + 2)
    for place, size in sizes.items():
        change[made[place]] += size
        change[max(last[place], made[place]) + 1] -= size
    alive, found = 0, []
    for index in range(len(steps)):
        alive += change[index]
        found.append(alive)
    return tuple(found)

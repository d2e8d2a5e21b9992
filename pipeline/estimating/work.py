"""What the kernel of one layer has to do, in numbers that do not depend on how a file lays its values out."""

from __future__ import annotations

import re
from dataclasses import dataclass, fields

_ABBREVIATED = {
    "reads": "r",
    "makes": "m",
    "rows": "x",
    "columns": "n",
    "depth": "k",
    "groups": "g",
    "window": "w",
    "lines": "l",
    "activated": "a",
}
_NAMES = {letter: name for name, letter in _ABBREVIATED.items()}


@dataclass(frozen=True, kw_only=True)
class Work:
    """One kernel; a product of matrices is ``groups`` times (rows, depth) x (depth, columns)."""

    # as ONNX calls its operation; "Depthwise", "Pointwise" and "Broadcast" are kernels of their own, and so are
    # "QuantizeEnd" and "DequantizeEnd", which LiteRT leaves to whoever runs it
    kernel: str
    integer: bool = False
    reads: int = 0  # elements that other layers made
    makes: int = 0  # elements
    rows: int = 1  # positions, tokens, steps
    columns: int = 1
    depth: int = 1
    groups: int = 1
    window: int = 1  # positions of a convolution's or pool's window
    lines: int = 1  # rows of pixels that it makes
    activated: bool = False  # whether it ends in a ReLU or a clip

    @property
    def macs(self) -> int:
        """Return its multiply-accumulates."""
        return self.groups * self.rows * self.columns * self.depth

    @property
    def weights(self) -> int:
        """Return how many weights it reads."""
        return self.groups * self.columns * self.depth if self.kernel in WEIGHTED else 0

    @property
    def text(self) -> str:
        """``Conv8 r3072 m8192 x1024 n8 k27 w9 l32``: what differs from 1 and 0."""
        kernel = f"{self.kernel}{8 if self.integer else ''}"
        numbers = (
            f"{letter}{int(getattr(self, name))}"
            for name, letter in _ABBREVIATED.items()
            if getattr(self, name) != _DEFAULTS[name]
        )
        return " ".join((kernel, *numbers))

    @classmethod
    def parse(cls, text: str) -> Work:
        """Read ``text`` again."""
        kernel, *words = text.split()
        found = {_NAMES[word[0]]: int(word[1:]) for word in words}
        activated = bool(found.pop("activated", 0))
        name = re.sub(r"8$", "", kernel)
        return cls(kernel=name, integer=name != kernel, activated=activated, **found)


_DEFAULTS = {each.name: each.default for each in fields(Work)}
PRODUCTS = frozenset({"Conv", "Pointwise", "Depthwise", "Gemm", "Projection", "ConvTranspose", "MatMul"})
RECURRENT = frozenset({"LSTM", "GRU", "RNN"})
WEIGHTED = (PRODUCTS - {"MatMul"}) | RECURRENT

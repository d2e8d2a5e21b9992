"""Small networks of one kind of layer each, and what their kernels have to do, counted by hand.

Letters are those of ``Work.text``: r values read, m made, x rows, n columns, k depth, g groups, w window, l lines,
a activated.  A picture is 3 x 8 x 8 = 192 values; where a pointwise convolution makes six channels of it first, 384.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

Shape = tuple[int, ...]
Form = tuple[str, str]  # of a file, and of its numbers
PICTURE, TOKENS = (3, 8, 8), (7, 16)
SIX = "Pointwise r192 m384 x64 n6 k3 l8"
SIX8 = "Pointwise8 r192 m384 x64 n6 k3 l8"
IN, OUT, OUT_PICTURE = "QuantizeEnd8 r192 m192", "DequantizeEnd8 r384 m384", "DequantizeEnd8 r192 m192"
IN_TOKENS, OUT_TOKENS = "QuantizeEnd8 r112 m112", "DequantizeEnd8 r35 m35"
LINEAR, LINEAR8 = "Projection r112 m35 x7 n5 k16", "Projection8 r112 m35 x7 n5 k16"


class Of(nn.Module):
    """A network of a function and the modules that it is given."""

    def __init__(self, function: Callable[..., Tensor], *modules: nn.Module) -> None:
        super().__init__()
        self.function = function
        self.parts = nn.ModuleList(modules)

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x, *self.parts)


@dataclass(frozen=True, kw_only=True)
class Case:
    """A network, its kernels in float and in int8, and where its own file needs others."""

    make: Callable[[], nn.Module]
    shape: Shape = PICTURE
    fp32: str
    int8: str
    differs: Mapping[Form, str] = field(default_factory=dict)


def conv(*args: int | Shape, **how: int | Shape) -> Callable[[], nn.Module]:
    return lambda: nn.Sequential(nn.Conv2d(*args, **how))  # type: ignore[arg-type]


def six(*modules: nn.Module) -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 6, 1), *modules)


def of(function: Callable[..., Tensor], *, twice: bool = False) -> Callable[[], nn.Module]:
    return lambda: Of(function, *(nn.Conv2d(3, 6, 1) for _ in range(1 + twice)))


def squared(x: Tensor, layer: nn.Module) -> Tensor:
    made: Tensor = layer(x)
    return made * made


def read_twice(x: Tensor, first: nn.Module, second: nn.Module) -> Tensor:
    made: Tensor = first(x)
    return torch.add(made.relu(), second(made))


def recurrent(kind: type[nn.LSTM | nn.GRU | nn.RNN], **how: bool) -> Callable[[], nn.Module]:
    return lambda: Of(lambda x, layer: layer(x)[0], kind(16, 5, batch_first=True, **how))


def after_six(fp32: str, int8: str, made: int = 384) -> tuple[str, str]:
    return f"{SIX} | {fp32}", f"{IN} | {SIX8} | {int8} | DequantizeEnd8 r{made} m{made}"


def simple(make: Callable[[], nn.Module], text: str, read: int, made: int, shape: Shape = PICTURE) -> Case:
    """Return a case of one layer, which is the same in int8 but for the ends."""
    kernel, _, numbers = text.partition(" ")
    int8 = f"QuantizeEnd8 r{read} m{read} | {kernel}8 {numbers} | DequantizeEnd8 r{made} m{made}"
    return Case(make=make, shape=shape, fp32=text, int8=int8)


def behind(make: Callable[[], nn.Module], fp32: str, int8: str, made: int = 384, **differs: str) -> Case:
    """Return a case of one layer behind a pointwise convolution; ``differs``: onnx_int8="…" and so on, of it alone."""
    own_fp32, own_int8 = after_six(fp32, int8, made)
    others = {}
    for form, text in differs.items():
        file_format, _, precision = form.partition("_")
        of_file = dict(zip(("fp32", "int8"), after_six(text, text, made), strict=True))
        others[file_format, precision] = of_file[precision]
    return Case(make=make, fp32=own_fp32, int8=own_int8, differs=others)

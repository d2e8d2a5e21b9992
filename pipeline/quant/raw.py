"""Raw bytes in the place of prepared numbers: files that take what a camera gives.

Preprocessing that multiplies and adds alone makes 256 numbers of a byte.  Where they are the same for all channels, the
input's grid is laid through them, so that a byte *is* its quantized value; else a depthwise convolution of one element
computes them, on integers.

Shapes: C channels of the input.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from torch import fx, nn

from pipeline.graph.params import UINT8, QuantParams
from pipeline.onboard.frontend import StepCall, run_steps
from pipeline.quant.fakequant import ActivationQuantizer, QConv2d
from pipeline.quant.grids import quantizer_of

_STRAIGHT = 1e-5  # of the range: how far float32 may bend the line through the values
_ROUNDS_SURELY = 0.49  # steps between a value and the grid point that it must become
Values = NDArray[np.float32]


def values_of_bytes(steps: Sequence[StepCall], channels: int, axes: int) -> Values | None:
    """Return what the steps make of every byte in every channel, (256, C); None where a byte's neighbours matter.

    ``axes``: of a sample behind that of the channels.
    """
    if any(call.step not in ("normalize", "clip") for call in steps):
        return None
    raw = np.broadcast_to(
        np.arange(256, dtype=np.uint8).reshape(256, *(1,) * (axes + 1)), (256, channels, *(1,) * axes)
    )
    return np.asarray(run_steps(raw, steps), np.float32).reshape(256, channels)


def line_of(values: Values) -> tuple[NDArray[np.float64], NDArray[np.float64]] | None:
    """Return factor and offset of each channel, (C,) each, so that values are factor * byte + offset; None else."""
    exact = values.astype(np.float64)
    factor, offset = (exact[-1] - exact[0]) / 255, exact[0]
    bent = np.abs(exact - (np.arange(256)[:, None] * factor + offset)).max(0)
    return (factor, offset) if bool((bent <= _STRAIGHT * np.abs(exact).max(0)).all() and (factor > 0).all()) else None


def grid_of_bytes(values: Values) -> QuantParams | None:
    """Return the grid on which each byte's value becomes that byte; None where there is none."""
    line = line_of(values)
    if line is None:
        return None
    factor, offset = line
    scale = float(np.float32(factor[0]))
    zero_point = int(np.rint(-offset[0] / factor[0]))
    if not UINT8.lowest <= zero_point <= UINT8.highest:
        return None
    grid = QuantParams.of(scale, zero_point)
    return grid if _gives_bytes(grid, values) else None


def _gives_bytes(grid: QuantParams, values: Values) -> bool:
    apart = values.astype(np.float64) / grid.scale + grid.zero_point - np.arange(256)[:, None]
    return bool((np.abs(apart) < _ROUNDS_SURELY).all())


def pin_input(prepared: fx.GraphModule, grid: QuantParams) -> None:
    """Lay the input's grid through the values of bytes, in place; training leaves it there."""
    quantizer = _input_quantizer(prepared)
    if quantizer is not None:
        quantizer.pin(grid)


def takes_bytes(prepared: fx.GraphModule, values: Values) -> fx.GraphModule | None:
    """Return the prepared graph whose input's integers are raw bytes; None where no integer operation reads it."""
    quantizer, line = _input_quantizer(prepared), line_of(values)
    if quantizer is None or line is None:
        return None
    return prepared if _gives_bytes(quantizer.params, values) else _with_front(prepared, *line)


def _with_front(
    prepared: fx.GraphModule, factor: NDArray[np.float64], offset: NDArray[np.float64]
) -> fx.GraphModule | None:
    graph = copy.deepcopy(prepared)
    source = _placeholder(graph)
    if len(source.meta["shape"]) != 4:
        return None
    bytes_grid, front = ActivationQuantizer(), nn.Conv2d(len(factor), len(factor), 1, groups=len(factor))
    bytes_grid.pin(QuantParams.of(1.0))
    with torch.no_grad():
        front.weight.copy_(torch.from_numpy(factor).view(-1, 1, 1, 1))
        front.bias.copy_(torch.from_numpy(offset))  # type: ignore[union-attr]
    front.__class__ = QConv2d
    front.quantize_to(8)  # type: ignore[operator]
    front.read_from(bytes_grid)  # type: ignore[operator]
    graph.add_submodule("quantizers.bytes", bytes_grid)
    graph.add_submodule("normalize", front)
    with graph.graph.inserting_after(source):
        quantized = graph.graph.call_module("quantizers.bytes", (source,))
    with graph.graph.inserting_after(quantized):
        prepared_input = graph.graph.call_module("normalize", (quantized,))
    quantized.meta.update(label="bytes:q", shape=source.meta["shape"])
    prepared_input.meta.update(label="normalize", shape=source.meta["shape"])
    source.replace_all_uses_with(prepared_input, delete_user_cb=lambda user: user is not quantized)
    graph.graph.lint()
    graph.recompile()
    return graph.eval()


def _placeholder(prepared: fx.GraphModule) -> fx.Node:
    node: fx.Node = next(node for node in prepared.graph.nodes if node.op == "placeholder")
    return node


def _input_quantizer(prepared: fx.GraphModule) -> ActivationQuantizer | None:
    """Return the quantizer of the input; None where something reads the input as it is."""
    users = list(_placeholder(prepared).users)
    if len(users) != 1 or users[0].op != "call_module":
        return None
    module = prepared.get_submodule(str(users[0].target))
    return quantizer_of(users[0]) if isinstance(module, ActivationQuantizer) else None


def with_bytes_in(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return an int8 model without its first QuantizeLinear: its uint8 input has the numbers that came out of it."""
    taking = onnx.ModelProto()
    taking.CopyFrom(model)
    graph = taking.graph
    (entry,) = graph.input
    first = next(node for node in graph.node if node.op_type == "QuantizeLinear" and node.input[0] == entry.name)
    for node in graph.node:
        for index, name in enumerate(node.input):
            if name == first.output[0]:
                node.input[index] = entry.name
    graph.node.remove(first)
    entry.type.tensor_type.elem_type = onnx.TensorProto.UINT8
    onnx.checker.check_model(taking, full_check=True)
    return taking

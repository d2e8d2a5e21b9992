"""Tell which layers of an int8 ONNX file could overflow on x86 without VNNI.

There ONNX Runtime multiplies with ``vpmaddubsw``: it adds two neighbouring uint8 x int8 products in 16 bits and clips
at 32767.  Two neighbouring weights of the same sign overflow, at full activations, when 255 * |w_a + w_b| is more.
7-bit weights (-63 … 63) never do: 255 * 126 = 32130.

Shapes: O outputs, I inputs of a layer, H and W of its kernel, K = I*H*W its reduction.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

from pipeline.artifacts.evidence import SaturationRow

LARGEST_INT16 = 32767
_LARGEST_ACTIVATION = 255


def saturation_rows(path: Path) -> tuple[SaturationRow, ...]:
    """Examine every layer with int8 weights in an ONNX file in QDQ form; empty for a float file.

    A layer that can saturate need not do so on real inputs; one that cannot is safe whatever comes in.
    """
    graph = onnx.load(path).graph
    tensors = {tensor.name: tensor for tensor in graph.initializer}
    integers = {
        node.output[0]: numpy_helper.to_array(tensors[node.input[0]])
        for node in graph.node
        if node.op_type == "DequantizeLinear" and node.input[0] in tensors
    }
    return tuple(
        _row(node.name or node.output[0], _reductions(node, integers[node.input[1]]))
        for node in graph.node
        if node.op_type in ("Conv", "Gemm", "MatMul") and node.input[1] in integers
    )


def _reductions(node: onnx.NodeProto, weight: NDArray[np.int8]) -> tuple[NDArray[np.int32], ...]:
    """Return the weights (O, K) in each order in which a kernel may walk the reduction."""
    wide = weight.astype(np.int32)
    if node.op_type == "Conv":  # (O, I, H, W): channels outermost, or innermost (NHWC)
        return wide.reshape(len(wide), -1), np.moveaxis(wide, 1, -1).reshape(len(wide), -1)
    transposed = any(each.name == "transB" and each.i for each in node.attribute)
    return (wide if transposed else np.swapaxes(wide, -1, -2).reshape(wide.shape[-1], -1),)


def _row(layer: str, orders: tuple[NDArray[np.int32], ...]) -> SaturationRow:
    largest = max(_largest_pair(order) for order in orders)
    return SaturationRow(layer=layer, largest_pair=largest, can_saturate=largest > LARGEST_INT16)


def _largest_pair(order: NDArray[np.int32]) -> int:
    """Largest 255 * |a + b| of neighbours with the same sign: every neighbour, as kernels pad and split differently."""
    first, second = order[:, :-1], order[:, 1:]
    sums = np.abs(first + second)[np.sign(first) == np.sign(second)]
    return int(_LARGEST_ACTIVATION * sums.max(initial=0))

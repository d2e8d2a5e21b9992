"""Layers with weights: convolutions and linear layers, float or int8, and batch norms that stand alone.

Weights are int8 with one scale per output channel, biases int32, both behind a DequantizeLinear.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor, fx, nn

from pipeline.errors import UnsupportedOpError
from pipeline.graph import ops
from pipeline.graph.params import QuantParams
from pipeline.quant.emitters.draft import Draft, Emitter, array_of, inputs_of
from pipeline.quant.grids import WEIGHTED

_Convolution = nn.Conv1d | nn.Conv2d | nn.Conv3d
_Transposed = nn.ConvTranspose1d | nn.ConvTranspose2d | nn.ConvTranspose3d
_Weighted = _Convolution | _Transposed | nn.Linear


def _conv(out: Draft, node: fx.Node, layer: nn.Module) -> str:
    assert isinstance(layer, _Convolution)  # noqa: S101
    if layer.padding_mode != "zeros" or isinstance(layer.padding, str):
        raise UnsupportedOpError(
            f"padding {layer.padding!r} with mode '{layer.padding_mode}'",
            where=f"layer '{node.meta['label']}'",
            remedy="give the padding as numbers, with zeros",
        )
    return out.op(
        "Conv",
        (*inputs_of(out, node), *_weights(out, node, layer)),
        node.meta["label"],
        kernel_shape=layer.kernel_size,
        strides=layer.stride,
        pads=(*layer.padding, *layer.padding),
        dilations=layer.dilation,
        group=layer.groups,
    )


def _conv_transpose(out: Draft, node: fx.Node, layer: nn.Module) -> str:
    assert isinstance(layer, _Transposed)  # noqa: S101
    padding = tuple(int(side) for side in layer.padding)
    return out.op(
        "ConvTranspose",
        (*inputs_of(out, node), *_weights(out, node, layer)),
        node.meta["label"],
        kernel_shape=layer.kernel_size,
        strides=layer.stride,
        pads=(*padding, *padding),
        dilations=layer.dilation,
        output_padding=layer.output_padding,
        group=layer.groups,
    )


def _gemm(out: Draft, node: fx.Node, layer: nn.Module) -> str:
    assert isinstance(layer, nn.Linear)  # noqa: S101
    return out.op("Gemm", (*inputs_of(out, node), *_weights(out, node, layer)), node.meta["label"], transB=1)


def _projection(out: Draft, node: fx.Node, layer: nn.Module) -> str:
    assert isinstance(layer, ops.Projection)  # noqa: S101
    label, inputs = node.meta["label"], inputs_of(out, node)
    if isinstance(layer, WEIGHTED):  # Gemm has an integer kernel with a bias, MatMul has none
        rows = out.constant(f"{label}.rows", np.array([-1, layer.in_features], np.int64))
        shape = out.constant(f"{label}.shape", np.array([-1, *node.meta["shape"][1:]], np.int64))
        flat = out.op("Reshape", (*inputs, rows), f"{label}:rows")
        product = out.op("Gemm", (flat, *_weights(out, node, layer)), label, transB=1)
        return out.op("Reshape", (product, shape), f"{label}:shaped")
    weight = out.constant(f"{label}.w", array_of(layer.weight).T)
    if layer.bias is None:
        return out.op("MatMul", (*inputs, weight), label)
    product = out.op("MatMul", (*inputs, weight), f"{label}:product")
    return out.op("Add", (product, out.constant(f"{label}.b", array_of(layer.bias))), label)


def _batch_norm(out: Draft, node: fx.Node, layer: nn.Module) -> str:
    assert isinstance(layer, nn.BatchNorm1d | nn.BatchNorm2d | nn.BatchNorm3d)  # noqa: S101
    label = node.meta["label"]
    mean, variance = layer.running_mean, layer.running_var
    assert mean is not None and variance is not None  # noqa: S101, PT018  (others are read as norms of each sample)
    weight = torch.ones_like(mean) if layer.weight is None else layer.weight
    bias = torch.zeros_like(mean) if layer.bias is None else layer.bias
    tensors = {"g": weight, "b": bias, "m": mean, "v": variance}
    constants = [out.constant(f"{label}.{key}", array_of(tensor)) for key, tensor in tensors.items()]
    return out.op("BatchNormalization", (*inputs_of(out, node), *constants), label, epsilon=layer.eps)


def _weights(out: Draft, node: fx.Node, layer: _Weighted) -> list[str]:
    """Constants of a weighted layer: float as they are, int8 and int32 through DequantizeLinear."""
    label = node.meta["label"]
    if not isinstance(layer, WEIGHTED):
        constants = [out.constant(f"{label}.w", array_of(layer.weight))]
        if layer.bias is not None:
            constants.append(out.constant(f"{label}.b", array_of(layer.bias)))
        return constants
    integers = layer.freeze()
    # ORT makes an integer kernel of Gemm only when the weights' zero points are spelled out
    zero_points = out.constant(f"{label}.w:z", np.zeros(integers.weight.shape[0], np.int8))
    names = [_dequantize(out, f"{label}.w", integers.weight, integers.weight_params, zero_points)]
    if integers.bias is not None and integers.bias_params is not None:
        names.append(_dequantize(out, f"{label}.b", integers.bias, integers.bias_params))
    return names


def _dequantize(out: Draft, name: str, value: Tensor, params: QuantParams, *zero_points: str) -> str:
    stored = out.constant(f"{name}:q", array_of(value))
    scales = out.constant(f"{name}:s", np.array(params.scales, np.float32))
    return out.op("DequantizeLinear", (stored, scales, *zero_points), name, axis=params.axis)


WEIGHTS: Mapping[str, Emitter] = {
    "Conv": _conv,
    "ConvTranspose": _conv_transpose,
    "Gemm": _gemm,
    "Projection": _projection,
    "BatchNormalization": _batch_norm,
}

"""A network small enough to follow by hand, written as all four files from the same numbers.

x (N, 2, 6, 6) → 3x3 convolution, ReLU (N, 8, 4, 4) → mean over H and W (N, 8) → linear (N, 3).
With ``maps``, the network ends after the ReLU: a map per channel, as segmentation has.
"""

from __future__ import annotations

from dataclasses import dataclass

import flatbuffers
import numpy as np
import onnx
from ai_edge_litert import schema_py_generated as schema
from numpy.typing import NDArray
from onnx import helper, numpy_helper

Floats = NDArray[np.float32]
SAMPLE_SHAPE = (2, 6, 6)
MAPS_SHAPE = (8, 4, 4)


@dataclass(frozen=True, kw_only=True)
class SmallNet:
    """Weights of the network and the (scale, uint8 zero point) of its four activations."""

    conv_weight: Floats  # (8, 2, 3, 3)
    conv_bias: Floats  # (8,)
    linear_weight: Floats  # (3, 8)
    linear_bias: Floats  # (3,)
    ranges: dict[str, tuple[float, int]]  # x, conv, mean, y

    def __call__(self, x: Floats) -> Floats:
        """Float outputs (N, 3) of inputs (N, 2, 6, 6), in float64 inside."""
        _, _, y = _forward(self, x.astype(np.float64))
        return y.astype(np.float32)

    def maps(self, x: Floats) -> Floats:
        """Give maps (N, 8, 4, 4) of inputs (N, 2, 6, 6)."""
        return _forward(self, x.astype(np.float64))[0].astype(np.float32)


def small_net(seed: int = 0) -> SmallNet:
    """Make a random network with ranges from random inputs."""
    rng = np.random.default_rng(seed)
    net = SmallNet(
        conv_weight=rng.normal(0, 0.3, (8, 2, 3, 3)).astype(np.float32),
        conv_bias=rng.normal(0, 0.3, 8).astype(np.float32),
        linear_weight=rng.normal(0, 1, (3, 8)).astype(np.float32),
        linear_bias=rng.normal(0, 0.3, 3).astype(np.float32),
        ranges={},
    )
    x = inputs(512, seed=seed + 1)
    conv, mean, y = _forward(net, x.astype(np.float64))
    activations: dict[str, NDArray[np.floating]] = {"x": x, "conv": conv, "mean": mean, "y": y}
    ranges = {name: _range(values) for name, values in activations.items()}
    return SmallNet(**{**vars(net), "ranges": ranges})


def inputs(count: int, *, seed: int = 7) -> Floats:
    """Random inputs (count, 2, 6, 6)."""
    return np.random.default_rng(seed).normal(0, 1, (count, *SAMPLE_SHAPE)).astype(np.float32)


def _forward(net: SmallNet, x: NDArray[np.float64]) -> tuple[NDArray[np.float64], ...]:
    shifted = {(i, j): x[:, :, i : i + 4, j : j + 4] for i in range(3) for j in range(3)}  # each (N, 2, 4, 4)
    products = [np.einsum("nchw,oc->nohw", part, net.conv_weight[:, :, i, j]) for (i, j), part in shifted.items()]
    conv = np.maximum(np.sum(products, axis=0) + net.conv_bias[:, None, None], 0)
    mean = conv.mean((2, 3))
    return conv, mean, mean @ net.linear_weight.T + net.linear_bias


def _range(values: NDArray[np.floating]) -> tuple[float, int]:
    low, high = min(0.0, float(values.min())), max(0.0, float(values.max()))
    scale = float(np.float32((high - low) / 255))
    return scale, round(-low / scale)


def quantize_weight(weight: Floats) -> tuple[NDArray[np.int8], Floats]:
    """Symmetric per output channel: the integers and the scales.

    Seven bits: two products with uint8 fit into 16 bits, where processors without VNNI add them up and saturate.
    """
    scale = (np.abs(weight).reshape(len(weight), -1).max(1) / 63).astype(np.float32)
    shaped = scale.reshape(-1, *[1] * (weight.ndim - 1))
    return np.round(weight / shaped).astype(np.int8), scale


def _bias(bias: Floats, scale: Floats) -> NDArray[np.int32]:
    return np.asarray(np.round(bias.astype(np.float64) / scale), np.int32)


# ── ONNX ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def onnx_bytes(net: SmallNet, *, int8: bool, float_mean: bool = False, maps: bool = False) -> bytes:
    """Write the ONNX file; ``float_mean`` leaves the mean without quantizers around it (a float island)."""
    nodes: list[onnx.NodeProto] = []
    tensors: list[onnx.TensorProto] = []

    def tensor(name: str, values: NDArray[np.generic] | np.generic) -> str:
        tensors.append(numpy_helper.from_array(np.asarray(values), name))
        return name

    def node(op: str, ins: list[str], out: str, **attributes: int | list[int]) -> str:
        made = helper.make_node(op, ins, [out], f"{out}_{op}")
        made.attribute.extend(helper.make_attribute(key, value) for key, value in attributes.items())
        nodes.append(made)
        return out

    def activation(name: str, value: str, out: str = "") -> str:
        if not int8:
            return value
        scale, zero = net.ranges[name]
        pair = [tensor(f"{name}_s{len(tensors)}", np.float32(scale)), tensor(f"{name}_z{len(tensors)}", np.uint8(zero))]
        q = node("QuantizeLinear", [value, *pair], f"{name}_q{len(nodes)}")
        return node("DequantizeLinear", [q, *pair], out or f"{name}_dq{len(nodes)}")

    def weights(name: str, weight: Floats, bias: Floats, x: str) -> list[str]:
        if not int8:
            return [tensor(f"{name}.weight", weight), tensor(f"{name}.bias", bias)]
        integers, scale = quantize_weight(weight)
        bias_scale = (scale * np.float32(net.ranges[x][0])).astype(np.float32)
        parts: dict[str, tuple[NDArray[np.signedinteger], Floats]] = {
            "weight": (integers, scale),
            "bias": (_bias(bias, bias_scale), bias_scale),
        }
        out = []
        for part, (values, scales) in parts.items():
            zero = np.zeros(len(scales), values.dtype)
            ins = [
                tensor(f"{name}.{part}_q", values),
                tensor(f"{name}.{part}_s", scales),
                tensor(f"{name}.{part}_z", zero),
            ]
            out.append(node("DequantizeLinear", ins, f"{name}.{part}_dq", axis=0))
        return out

    x = activation("x", "x")
    x = node("Conv", [x, *weights("conv", net.conv_weight, net.conv_bias, "x")], "conv", kernel_shape=[3, 3])
    x = activation("conv", node("Relu", [x], "relu"), "y" if maps else "")
    if not maps:
        x = node("GlobalAveragePool", [x], "pool")
        x = x if float_mean else activation("mean", x)
        x = activation("mean", node("Flatten", [x], "flat"))
        x = node("Gemm", [x, *weights("linear", net.linear_weight, net.linear_bias, "mean")], "gemm", transB=1)
        x = activation("y", x, "y")
    if not int8:
        node("Identity", [x], "y")
    shapes = (("x", SAMPLE_SHAPE), ("y", MAPS_SHAPE if maps else (3,)))
    ends = [helper.make_tensor_value_info(name, 1, ["batch", *shape]) for name, shape in shapes]
    graph = helper.make_graph(nodes, "small", ends[:1], ends[1:], tensors)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    onnx.checker.check_model(model, full_check=True)
    return bytes(model.SerializeToString())


# ── TFLite ──────────────────────────────────────────────────────────────────────────────────────────────────────────


class _Buffer(schema.BufferT):  # type: ignore[misc]  # untyped package
    """The generated Pack() drops the schema's 16-byte alignment, which XNNPACK needs."""

    def Pack(self, builder: flatbuffers.Builder) -> int:  # noqa: N802
        data = b"" if self.data is None else bytes(self.data)
        start = None
        if data:
            builder.StartVector(1, len(data), 16)
            builder.head -= len(data)
            builder.Bytes[builder.head : builder.head + len(data)] = data
            start = builder.EndVector()
        schema.BufferStart(builder)
        if start is not None:
            schema.BufferAddData(builder, start)
        return int(schema.BufferEnd(builder))


class Flat:
    """Collects tensors and operators of one subgraph."""

    def __init__(self) -> None:
        self.graph = schema.SubGraphT()
        self.graph.tensors, self.graph.operators, self.graph.name = [], [], "main"
        self.model = schema.ModelT()
        self.model.version, self.model.subgraphs = 3, [self.graph]
        self.model.buffers, self.model.operatorCodes = [_Buffer()], []

    def tensor(
        self,
        name: str,
        shape: tuple[int, ...],
        dtype: type[np.generic],
        *,
        quant: tuple[Floats | float, int] | None = None,
        data: NDArray[np.generic] | None = None,
    ) -> int:
        tensor = schema.TensorT()
        tensor.name, tensor.shape, tensor.hasRank, tensor.buffer = name, list(shape), True, 0
        tensor.type = getattr(schema.TensorType, np.dtype(dtype).name.upper())
        if data is not None:
            buffer = _Buffer()
            buffer.data = np.frombuffer(np.ascontiguousarray(data, dtype).tobytes(), np.uint8)
            tensor.buffer = len(self.model.buffers)
            self.model.buffers.append(buffer)
        if quant is not None:
            tensor.quantization = schema.QuantizationParametersT()
            scale = np.atleast_1d(np.asarray(quant[0], np.float32))
            tensor.quantization.scale = scale
            tensor.quantization.zeroPoint = np.full(len(scale), quant[1], np.int64)
            tensor.quantization.quantizedDimension = 0
        self.graph.tensors.append(tensor)
        return len(self.graph.tensors) - 1

    def op(self, name: str, version: int, ins: list[int], out: int, options: object = None) -> None:
        code = schema.OperatorCodeT()
        code.builtinCode = code.deprecatedBuiltinCode = getattr(schema.BuiltinOperator, name)
        code.version = version
        self.model.operatorCodes.append(code)
        op = schema.OperatorT()
        op.opcodeIndex, op.inputs, op.outputs = len(self.model.operatorCodes) - 1, ins, [out]
        if options is not None:
            op.builtinOptions = options
            op.builtinOptionsType = getattr(schema.BuiltinOptions, type(options).__name__.removesuffix("T"))
        self.graph.operators.append(op)

    def dump(self, inputs: list[int], outputs: list[int]) -> bytes:
        self.graph.inputs, self.graph.outputs = inputs, outputs
        builder = flatbuffers.Builder(1 << 16)
        builder.Finish(self.model.Pack(builder), b"TFL3")
        return bytes(builder.Output())


def tflite_bytes(net: SmallNet, *, int8: bool, maps: bool = False) -> bytes:
    """Write the TFLite file: inputs (1, 6, 6, 2); int8 in and out when quantized, zero points minus 128."""
    flat = Flat()
    dtype: type[np.generic] = np.int8 if int8 else np.float32

    def activation(name: str, shape: tuple[int, ...]) -> int:
        scale, zero = net.ranges[name]
        return flat.tensor(name, shape, dtype, quant=(scale, zero - 128) if int8 else None)

    def weights(name: str, weight: Floats, bias: Floats, x: str) -> list[int]:
        if not int8:
            pairs = ((".weight", weight), (".bias", bias))
            return [flat.tensor(name + part, values.shape, np.float32, data=values) for part, values in pairs]
        integers, scale = quantize_weight(weight)
        bias_scale = (scale * np.float32(net.ranges[x][0])).astype(np.float32)
        return [
            flat.tensor(f"{name}.weight", integers.shape, np.int8, quant=(scale, 0), data=integers),
            flat.tensor(f"{name}.bias", bias.shape, np.int32, quant=(bias_scale, 0), data=_bias(bias, bias_scale)),
        ]

    x, conv = activation("x", (1, 6, 6, 2)), activation("conv", (1, 4, 4, 8))
    conv_options = schema.Conv2DOptionsT()
    conv_options.padding, conv_options.strideH, conv_options.strideW = schema.Padding.VALID, 1, 1
    conv_options.fusedActivationFunction = schema.ActivationFunctionType.RELU
    weight = np.ascontiguousarray(net.conv_weight.transpose(0, 2, 3, 1))  # OHWI
    flat.op("CONV_2D", 3 if int8 else 1, [x, *weights("conv", weight, net.conv_bias, "x")], conv, conv_options)
    if maps:
        return flat.dump([x], [conv])
    mean, y = activation("mean", (1, 8)), activation("y", (1, 3))
    axes = flat.tensor("axes", (2,), np.int32, data=np.array([1, 2], np.int32))
    flat.op("MEAN", 2 if int8 else 1, [conv, axes], mean, schema.ReducerOptionsT())
    linear = weights("linear", net.linear_weight, net.linear_bias, "mean")
    flat.op("FULLY_CONNECTED", 4 if int8 else 1, [mean, *linear], y, schema.FullyConnectedOptionsT())
    return flat.dump([x], [y])

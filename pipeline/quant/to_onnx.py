"""Write a folded (float) or prepared (int8) graph as ONNX: short names, no traces, the same bytes every time.

Needs: a graph from ``graph.fold`` or ``quant.prepare`` (in evaluation mode).
Guarantees: opset 13 and IR 7 unless an operation needs more (so that old runtimes load the file); node names are the
layers' names in the user's network; dynamic batch ``N``; int8 graphs in QDQ form with uint8 activations, int8 weights
per output channel, int32 biases; every DequantizeLinear of weights has scale initializers of its own; every value
between two integer operations passes through one QuantizeLinear and one DequantizeLinear.

Shapes: N batch, C channels, H height, W width, O output channels.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import helper, numpy_helper
from torch import Tensor, fx, nn

from pipeline.errors import UnsupportedOpError
from pipeline.graph import ops
from pipeline.graph.kinds import kind_of, module_of, output_node
from pipeline.graph.params import QuantParams
from pipeline.quant.fakequant import ActivationQuantizer
from pipeline.quant.grids import QUANTIZERS, WEIGHTED, on_grid, quantizer_of
from pipeline.quant.scheme import RULES, Output

LOWEST_OPSET = 13  # the first with one scale per channel
_OPSET_OF = {"HardSwish": 14, "LayerNormalization": 17}
_Weighted = nn.Conv1d | nn.Conv2d | nn.ConvTranspose1d | nn.ConvTranspose2d | nn.Linear
_IR_OF_OPSET = {13: 7, 14: 7, 17: 8}
INPUT, OUTPUT, BATCH = "input", "output", "N"


class _Graph:
    """The ONNX graph under construction; ``values`` says under which name each traced value is found."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: list[onnx.TensorProto] = []
        self.values: dict[fx.Node, str] = {}
        self.opset = LOWEST_OPSET

    def constant(self, name: str, value: NDArray[np.generic]) -> str:
        self.initializers.append(numpy_helper.from_array(np.asarray(value, order="C"), name))
        return name

    def op(self, kind: str, inputs: Sequence[str], output: str, **attributes: Any) -> str:
        self.opset = max(self.opset, _OPSET_OF.get(kind, LOWEST_OPSET))
        name = "" if kind in ("QuantizeLinear", "DequantizeLinear") else output  # a layer's name, and bytes saved
        if output in (INPUT, OUTPUT):  # a layer may be called like one of the graph's ends
            output = f"{output}:layer"
        self.nodes.append(helper.make_node(kind, inputs, [output], name=name, **attributes))
        return output


@torch.no_grad()
def write_onnx(graph: fx.GraphModule, *, name: str) -> onnx.ModelProto:
    """Return the checked ONNX model of a folded or prepared graph.

    Raises UnsupportedOpError (operation, layer, what to do) for what ONNX opset 13/14 has no operation for.
    """
    out = _Graph()
    for node in graph.graph.nodes:
        if node.op == "placeholder":
            out.values[node] = INPUT
        elif node.op == "call_module":
            out.values[node] = _emit(out, node)
    _rename_output(out, out.values[output_node(graph)])
    model = helper.make_model(
        helper.make_graph(
            out.nodes,
            name,
            [_value_info(INPUT, _placeholder(graph))],
            [_value_info(OUTPUT, output_node(graph))],
            out.initializers,
        ),
        opset_imports=[helper.make_opsetid("", out.opset)],
        ir_version=_IR_OF_OPSET[out.opset],
        producer_name="karui",
    )
    onnx.checker.check_model(model, full_check=True)
    return model


def to_bytes(model: onnx.ModelProto) -> bytes:
    """Serialize; the same model always gives the same bytes."""
    data: bytes = model.SerializeToString(deterministic=True)
    return data


def _placeholder(graph: fx.GraphModule) -> fx.Node:
    placeholder: fx.Node = next(node for node in graph.graph.nodes if node.op == "placeholder")
    return placeholder


def _value_info(name: str, node: fx.Node) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [BATCH, *node.meta["shape"][1:]])


def _rename_output(out: _Graph, last: str) -> None:
    """Call the graph's result ``output`` whatever the last layer is called."""
    for node in out.nodes:
        for index, value in enumerate(node.output):
            if value == last:
                node.output[index] = OUTPUT
        for index, value in enumerate(node.input):
            if value == last:
                node.input[index] = OUTPUT


def _emit(out: _Graph, node: fx.Node) -> str:
    module = module_of(node)
    source = node.args[0]
    if isinstance(module, QUANTIZERS):
        assert isinstance(source, fx.Node)  # noqa: S101  (quantizers are inserted after a node)
        return _quantize(out, out.values[source], source.meta["label"], module.params)
    kind = kind_of(module)
    emitter = _EMITTERS.get(kind)
    if emitter is None:
        raise UnsupportedOpError(
            f"{kind} cannot be written as ONNX",
            where=f"layer '{node.meta['label']}'",
            remedy=f"use one of: {', '.join(sorted(_EMITTERS))}",
        )
    if _clamped_by_quantizer(node, module):
        return out.values[source]  # type: ignore[index]
    value = emitter(out, node, module)
    if RULES[kind].output is Output.SAME and on_grid(source):
        # the value is on its input's grid already: the pair lets the runtime run this operation on integers
        return _quantize(out, value, node.meta["label"], quantizer_of(node).params)
    return value


def _clamped_by_quantizer(node: fx.Node, module: nn.Module) -> bool:
    """Whether ReLU or a clip does nothing that the quantizer after it does not do: ORT fuses Add only without it."""
    users = list(node.users)
    if len(users) != 1 or users[0].op != "call_module" or not isinstance(module, nn.ReLU | nn.Hardtanh):
        return False
    quantizer = module_of(users[0])
    if not isinstance(quantizer, ActivationQuantizer):
        return False
    params = quantizer.params
    low, high = (0.0, float("inf")) if isinstance(module, nn.ReLU) else (module.min_val, module.max_val)
    half_step = params.scale / 2
    return params.lowest > low - half_step and params.highest < high + half_step


def _quantize(out: _Graph, value: str, label: str, params: QuantParams) -> str:
    parameters = (
        out.constant(f"{label}:s", np.array(params.scale, np.float32)),
        out.constant(f"{label}:z", np.array(params.zero_point, np.uint8)),
    )
    quantized = out.op("QuantizeLinear", (value, *parameters), f"{label}:q")
    return out.op("DequantizeLinear", (quantized, *parameters), f"{label}:d")


# ── one emitter per operation ───────────────────────────────────────────────────────────────────────────────────────


def _inputs(out: _Graph, node: fx.Node) -> list[str]:
    return [out.values[value] for value in node.args if isinstance(value, fx.Node)]


def _plain(kind: str) -> Callable[[_Graph, fx.Node, nn.Module], str]:
    return lambda out, node, _: out.op(kind, _inputs(out, node), node.meta["label"])


def _weights(out: _Graph, node: fx.Node, layer: _Weighted) -> list[str]:
    """Constants of a weighted layer: float as they are, int8 and int32 through DequantizeLinear."""
    label = node.meta["label"]
    if not isinstance(layer, WEIGHTED):
        constants = [out.constant(f"{label}.w", _array(layer.weight))]
        if layer.bias is not None:
            constants.append(out.constant(f"{label}.b", _array(layer.bias)))
        return constants
    integers = layer.freeze()
    # ORT makes an integer kernel of Gemm only when the weights' zero points are spelled out
    zero_points = out.constant(f"{label}.w:z", np.zeros(integers.weight.shape[0], np.int8))
    names = [_dequantize(out, f"{label}.w", integers.weight, integers.weight_params, zero_points)]
    if integers.bias is not None and integers.bias_params is not None:
        names.append(_dequantize(out, f"{label}.b", integers.bias, integers.bias_params))
    return names


def _dequantize(out: _Graph, name: str, value: Tensor, params: QuantParams, *zero_points: str) -> str:
    stored = out.constant(f"{name}:q", _array(value))
    scales = out.constant(f"{name}:s", np.array(params.scales, np.float32))
    return out.op("DequantizeLinear", (stored, scales, *zero_points), name, axis=params.axis)


def _conv(out: _Graph, node: fx.Node, layer: nn.Module) -> str:
    assert isinstance(layer, nn.Conv1d | nn.Conv2d)  # noqa: S101
    if layer.padding_mode != "zeros" or isinstance(layer.padding, str):
        raise UnsupportedOpError(
            f"padding {layer.padding!r} with mode '{layer.padding_mode}'",
            where=f"layer '{node.meta['label']}'",
            remedy="give the padding as numbers, with zeros",
        )
    return out.op(
        "Conv",
        (*_inputs(out, node), *_weights(out, node, layer)),
        node.meta["label"],
        kernel_shape=layer.kernel_size,
        strides=layer.stride,
        pads=(*layer.padding, *layer.padding),
        dilations=layer.dilation,
        group=layer.groups,
    )


def _conv_transpose(out: _Graph, node: fx.Node, layer: nn.Module) -> str:
    assert isinstance(layer, nn.ConvTranspose1d | nn.ConvTranspose2d)  # noqa: S101
    padding = tuple(int(side) for side in layer.padding)
    return out.op(
        "ConvTranspose",
        (*_inputs(out, node), *_weights(out, node, layer)),
        node.meta["label"],
        kernel_shape=layer.kernel_size,
        strides=layer.stride,
        pads=(*padding, *padding),
        dilations=layer.dilation,
        output_padding=layer.output_padding,
        group=layer.groups,
    )


def _gemm(out: _Graph, node: fx.Node, layer: nn.Module) -> str:
    assert isinstance(layer, nn.Linear)  # noqa: S101
    return out.op("Gemm", (*_inputs(out, node), *_weights(out, node, layer)), node.meta["label"], transB=1)


def _projection(out: _Graph, node: fx.Node, layer: nn.Module) -> str:
    assert isinstance(layer, ops.Projection)  # noqa: S101
    label, inputs = node.meta["label"], _inputs(out, node)
    weight = out.constant(f"{label}.w", _array(layer.weight).T)
    if layer.bias is None:
        return out.op("MatMul", (*inputs, weight), label)
    product = out.op("MatMul", (*inputs, weight), f"{label}:product")
    return out.op("Add", (product, out.constant(f"{label}.b", _array(layer.bias))), label)


def _batch_norm(out: _Graph, node: fx.Node, layer: nn.Module) -> str:
    assert isinstance(layer, nn.BatchNorm1d | nn.BatchNorm2d)  # noqa: S101
    label = node.meta["label"]
    tensors = {"g": layer.weight, "b": layer.bias, "m": layer.running_mean, "v": layer.running_var}
    constants = [
        out.constant(f"{label}.{key}", _array(tensor)) for key, tensor in tensors.items() if tensor is not None
    ]
    return out.op("BatchNormalization", (*_inputs(out, node), *constants), label, epsilon=layer.eps)


def _clip(out: _Graph, node: fx.Node, layer: nn.Module) -> str:
    assert isinstance(layer, nn.Hardtanh)  # noqa: S101  (ReLU6 is one)
    label = node.meta["label"]
    low = out.constant(f"{label}.low", np.array(layer.min_val, np.float32))
    high = out.constant(f"{label}.high", np.array(layer.max_val, np.float32))
    return out.op("Clip", (*_inputs(out, node), low, high), label)


def _leaky_relu(out: _Graph, node: fx.Node, layer: nn.Module) -> str:
    return out.op("LeakyRelu", _inputs(out, node), node.meta["label"], alpha=layer.negative_slope)


def _hard_sigmoid(out: _Graph, node: fx.Node, _: nn.Module) -> str:
    return out.op("HardSigmoid", _inputs(out, node), node.meta["label"], alpha=1 / 6, beta=0.5)


def _softmax(out: _Graph, node: fx.Node, layer: nn.Module) -> str:
    axis = layer.dim if isinstance(layer.dim, int) else -1
    return out.op("Softmax", _inputs(out, node), node.meta["label"], axis=axis)


def _max_pool(out: _Graph, node: fx.Node, pool: nn.Module) -> str:
    assert isinstance(pool, nn.MaxPool1d | nn.MaxPool2d)  # noqa: S101
    window = _window(node, pool)
    return out.op("MaxPool", _inputs(out, node), node.meta["label"], **window)


def _average_pool(out: _Graph, node: fx.Node, pool: nn.Module) -> str:
    assert isinstance(pool, nn.AvgPool1d | nn.AvgPool2d)  # noqa: S101
    padded = any(_per_axis(pool.padding, 1))
    # what hangs over the edge in ceil mode counts in no window
    include = int(pool.count_include_pad and (padded or not pool.ceil_mode))
    return out.op(
        "AveragePool", _inputs(out, node), node.meta["label"], count_include_pad=include, **_window(node, pool)
    )


def _window(
    node: fx.Node, pool: nn.MaxPool1d | nn.MaxPool2d | nn.AvgPool1d | nn.AvgPool2d
) -> Mapping[str, tuple[int, ...]]:
    """Return a pool's attributes; in ceil mode as pads after the edge, which every runtime takes alike."""
    before, after = (shape[2:] for shape in (_source(node).meta["shape"], node.meta["shape"]))
    axes = len(after)
    kernel, stride, padding = (_per_axis(value, axes) for value in (pool.kernel_size, pool.stride, pool.padding))
    dilation = _per_axis(getattr(pool, "dilation", 1), axes)
    ends = []
    for axis in range(axes):
        reach = (after[axis] - 1) * stride[axis] + (kernel[axis] - 1) * dilation[axis] + 1
        hangs_over = max(0, reach - before[axis] - 2 * padding[axis])
        ends.append(padding[axis] + hangs_over)
    window = {"kernel_shape": kernel, "strides": stride, "pads": (*padding, *ends)}
    return window if all(side == 1 for side in dilation) else {**window, "dilations": dilation}


def _source(node: fx.Node) -> fx.Node:
    source = node.args[0]
    assert isinstance(source, fx.Node)  # noqa: S101  (every operation but the input reads a node)
    return source


def _per_axis(value: int | tuple[int, ...], axes: int) -> tuple[int, ...]:
    return (value,) * axes if isinstance(value, int) else tuple(value)


def _concat(out: _Graph, node: fx.Node, layer: nn.Module) -> str:
    return out.op("Concat", _inputs(out, node), node.meta["label"], axis=layer.axis)


def _reshape(out: _Graph, node: fx.Node, layer: nn.Module) -> str:
    assert isinstance(layer, ops.Reshape)  # noqa: S101
    label = node.meta["label"]
    if len(layer.sample_shape) == 1:
        return out.op("Flatten", _inputs(out, node), label, axis=1)
    shape = out.constant(f"{label}.shape", np.array([0, *layer.sample_shape], np.int64))  # 0: as in the input
    return out.op("Reshape", (*_inputs(out, node), shape), label)


def _pad(out: _Graph, node: fx.Node, layer: nn.Module) -> str:
    assert isinstance(layer, ops.Pad)  # noqa: S101
    rank = len(node.meta["shape"])
    pairs = [layer.pads[i : i + 2] for i in range(0, len(layer.pads), 2)]  # last axis first, as torch wants them
    before, after = [0] * rank, [0] * rank
    for axis, (left, right) in zip(range(rank - 1, -1, -1), pairs, strict=False):
        before[axis], after[axis] = left, right
    label = node.meta["label"]
    inputs = [*_inputs(out, node), out.constant(f"{label}.pads", np.array(before + after, np.int64))]
    if layer.value:
        inputs.append(out.constant(f"{label}.fill", np.array(layer.value, np.float32)))
    return out.op("Pad", inputs, label, mode="constant")


def _resize(out: _Graph, node: fx.Node, layer: nn.Module) -> str:
    assert isinstance(layer, nn.Upsample)  # noqa: S101
    label = node.meta["label"]
    sizes = zip(_source(node).meta["shape"], node.meta["shape"], strict=True)
    factors = [_resize_factor(before, after) for before, after in sizes]
    scales = out.constant(f"{label}.scales", np.array(factors, np.float32))
    nearest = layer.mode == "nearest"
    transformation = "asymmetric" if nearest else "align_corners" if layer.align_corners else "pytorch_half_pixel"
    extra = {"nearest_mode": "floor"} if nearest else {}
    return out.op(
        "Resize",
        (*_inputs(out, node), "", scales),
        label,
        mode="nearest" if nearest else "linear",
        coordinate_transformation_mode=transformation,
        **extra,
    )


def _resize_factor(before: int, after: int) -> np.float32:
    """Return the factor with which ONNX, which multiplies and cuts off, comes to the size ``after``."""
    factor = np.float32(after / before)
    while int(before * float(factor)) < after:
        factor = np.nextafter(factor, np.float32(np.inf))
    return factor


def _scale(out: _Graph, node: fx.Node, layer: nn.Module) -> str:
    assert isinstance(layer, ops.Scale)  # noqa: S101
    label, value = node.meta["label"], _inputs(out, node)[0]
    factor, offset = _array(layer.factor), _array(layer.offset)
    scales, shifts = bool(np.any(factor != 1)), bool(np.any(offset != 0))
    if scales or not shifts:
        name = f"{label}:scaled" if shifts else label
        value = out.op("Mul", (value, out.constant(f"{label}.factor", factor)), name)
    return out.op("Add", (value, out.constant(f"{label}.offset", offset)), label) if shifts else value


def _layer_norm(out: _Graph, node: fx.Node, layer: nn.Module) -> str:
    assert isinstance(layer, nn.LayerNorm)  # noqa: S101
    label = node.meta["label"]
    weight = np.ones(layer.normalized_shape, np.float32) if layer.weight is None else _array(layer.weight)
    constants = [out.constant(f"{label}.w", weight)]
    if layer.bias is not None:
        constants.append(out.constant(f"{label}.b", _array(layer.bias)))
    inputs = (*_inputs(out, node), *constants)
    return out.op("LayerNormalization", inputs, label, axis=-len(layer.normalized_shape), epsilon=layer.eps)


def _gelu(out: _Graph, node: fx.Node, layer: nn.Module) -> str:
    """X / 2 * (1 + erf(x / sqrt 2)), or with the hyperbolic tangent that approximates it."""
    assert isinstance(layer, nn.GELU)  # noqa: S101
    label, x = node.meta["label"], _inputs(out, node)[0]

    def number(name: str, value: float) -> str:
        return out.constant(f"{label}.{name}", np.array(value, np.float32))

    if layer.approximate == "none":
        inner = out.op("Erf", (out.op("Div", (x, number("root", math.sqrt(2))), f"{label}:narrow"),), f"{label}:erf")
    else:
        squared = out.op("Mul", (x, x), f"{label}:squared")
        cubed = out.op("Mul", (squared, number("cubic", 0.044715)), f"{label}:cubic")
        slope = out.op("Add", (cubed, number("one", 1.0)), f"{label}:slope")
        bent = out.op("Mul", (x, slope), f"{label}:bent")
        narrow = out.op("Mul", (bent, number("root", math.sqrt(2 / math.pi))), f"{label}:narrow")
        inner = out.op("Tanh", (narrow,), f"{label}:tanh")
    raised = out.op("Add", (inner, number("shift", 1.0)), f"{label}:raised")
    weighted = out.op("Mul", (x, raised), f"{label}:weighted")
    return out.op("Mul", (weighted, number("half", 0.5)), label)


def _mish(out: _Graph, node: fx.Node, _: nn.Module) -> str:
    label, x = node.meta["label"], _inputs(out, node)[0]
    softened = out.op("Softplus", (x,), f"{label}:softplus")
    return out.op("Mul", (x, out.op("Tanh", (softened,), f"{label}:tanh")), label)


def _elu(out: _Graph, node: fx.Node, layer: nn.Module) -> str:
    return out.op("Elu", _inputs(out, node), node.meta["label"], alpha=layer.alpha)


def _prelu(out: _Graph, node: fx.Node, layer: nn.Module) -> str:
    assert isinstance(layer, nn.PReLU)  # noqa: S101
    label, rank = node.meta["label"], len(node.meta["shape"])
    slopes = _array(layer.weight).reshape(-1, *(1,) * (rank - 2))  # (C, 1, …)
    return out.op("PRelu", (*_inputs(out, node), out.constant(f"{label}.slopes", slopes)), label)


def _reduce(out: _Graph, node: fx.Node, layer: nn.Module) -> str:
    assert isinstance(layer, ops.Reduce)  # noqa: S101
    return out.op(layer.name, _inputs(out, node), node.meta["label"], axes=layer.axes, keepdims=1)


def _transpose(out: _Graph, node: fx.Node, layer: nn.Module) -> str:
    return out.op("Transpose", _inputs(out, node), node.meta["label"], perm=layer.order)


def _slice(out: _Graph, node: fx.Node, layer: nn.Module) -> str:
    assert isinstance(layer, ops.Slice)  # noqa: S101
    label = node.meta["label"]
    ends = {"starts": layer.start, "ends": layer.stop, "axes": layer.axis, "steps": layer.step}
    constants = [out.constant(f"{label}.{name}", np.array([value], np.int64)) for name, value in ends.items()]
    return out.op("Slice", (*_inputs(out, node), *constants), label)


def _gather(out: _Graph, node: fx.Node, layer: nn.Module) -> str:
    assert isinstance(layer, ops.Gather)  # noqa: S101
    label = node.meta["label"]
    indices = out.constant(f"{label}.indices", _array(layer.indices).astype(np.int64))
    return out.op("Gather", (*_inputs(out, node), indices), label, axis=layer.axis)


def _array(tensor: Tensor) -> NDArray[np.generic]:
    array: NDArray[np.generic] = tensor.detach().cpu().numpy()
    return array


_EMITTERS: Mapping[str, Callable[[_Graph, fx.Node, nn.Module], str]] = {
    "Conv": _conv,
    "ConvTranspose": _conv_transpose,
    "Gemm": _gemm,
    "Projection": _projection,
    "BatchNormalization": _batch_norm,
    "Relu": _plain("Relu"),
    "Clip": _clip,
    "LeakyRelu": _leaky_relu,
    "HardSwish": _plain("HardSwish"),
    "HardSigmoid": _hard_sigmoid,
    "Tanh": _plain("Tanh"),
    "Sigmoid": _plain("Sigmoid"),
    "Softmax": _softmax,
    "MaxPool": _max_pool,
    "AveragePool": _average_pool,
    "GlobalAveragePool": _plain("GlobalAveragePool"),
    "Add": _plain("Add"),
    "Sub": _plain("Sub"),
    "Mul": _plain("Mul"),
    "Scale": _scale,
    "Div": _plain("Div"),
    "MatMul": _plain("MatMul"),
    "LayerNormalization": _layer_norm,
    "Gelu": _gelu,
    "Mish": _mish,
    "Elu": _elu,
    "Softplus": _plain("Softplus"),
    "PRelu": _prelu,
    "ReduceMean": _reduce,
    "ReduceMax": _reduce,
    "Transpose": _transpose,
    "Slice": _slice,
    "Gather": _gather,
    **{name: _plain(name) for name in ops.FUNCTIONS},
    "Concat": _concat,
    "Reshape": _reshape,
    "Pad": _pad,
    "ResizeNearest": _resize,
    "ResizeLinear": _resize,
}

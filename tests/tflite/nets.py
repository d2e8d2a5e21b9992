"""Small ONNX graphs for the tests of the TFLite writer, float and QDQ int8 from the same lines, and what runs them.

Shapes: N batch, C channels, H height, W width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from ai_edge_litert.interpreter import Interpreter as LiteRt
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from pipeline.tflite import write_tflite
from tests.quant.exact import run_exactly

Floats = NDArray[np.float32]

FLOAT_TOLERANCE = 2e-5  # relative to the largest output: sums of float32 in another order
STEPS_LITERT = 1  # LiteRT rounds ties otherwise than ONNX Runtime
STEPS_OLD = 2  # 2.14 rescales in fixed point and rounds twice
_STEP_ROUNDING = 0.01  # of a step: outputs are compared as real numbers


class Net:
    """A graph under construction.  In int8 mode ``q`` and ``weights`` add Q/DQ pairs, in float mode they do not."""

    def __init__(self, *shape: int, int8: bool = False, seed: int = 0, opset: int = 13) -> None:
        self.rng = np.random.default_rng(seed)
        self.int8 = int8
        self.opset = opset
        self.samples: Floats = self.rng.normal(0, 1, (8, *shape)).astype(np.float32)
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: list[onnx.TensorProto] = []
        self._scales: dict[str, np.float32] = {}
        self.input = self.q("input")

    @property
    def input_params(self) -> tuple[float, int]:
        """Scale and zero point of the graph's input."""
        return self._range(self.samples)

    def const(self, values: object, dtype: type = np.float32) -> str:
        """Add an initializer."""
        name = f"constant{len(self.initializers)}"
        self.initializers.append(numpy_helper.from_array(np.asarray(values, dtype), name))
        return name

    def random(self, *shape: int) -> str:
        """Add an initializer of random numbers."""
        return self.const(self.rng.normal(0, 1, shape))

    def op(self, kind: str, *inputs: str, **attributes: Any) -> str:
        """Add a node and return its output."""
        output = f"{kind.lower()}{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, inputs, [output], name=f"features.{output}", **attributes))
        return output

    def qop(self, kind: str, *inputs: str, **attributes: Any) -> str:
        """Add a node and quantize its output."""
        return self.q(self.op(kind, *inputs, **attributes))

    def q(self, value: str, scale: float | None = None, zero_point: int = 0) -> str:
        """Quantize and dequantize to uint8; without a scale over the range of the samples."""
        if not self.int8:
            return value
        if scale is None:
            seen = self.samples if value == "input" else run_ort(self.model(value), self.samples)
            scale, zero_point = self._range(seen)
        parameters = (self.const(scale), self.const(zero_point, np.uint8))
        quantized = self.op("QuantizeLinear", value, *parameters)
        result = self.op("DequantizeLinear", quantized, *parameters)
        self._scales[result] = np.float32(scale)
        return result

    @staticmethod
    def _range(values: Floats) -> tuple[float, int]:
        low, high = min(float(values.min()), 0.0), max(float(values.max()), 1e-3)
        scale = (high - low) / 255
        return scale, round(-low / scale)

    def weights(self, *shape: int, axis: int = 0) -> str:
        """Add random weights, int8 with one scale per index of ``axis`` in int8 mode."""
        values = self.rng.normal(0, 1, shape).astype(np.float32) / np.sqrt(np.prod(shape[1:]))
        if not self.int8:
            return self.const(values)
        scale = np.abs(values).max(tuple(i for i in range(values.ndim) if i != axis)) / 127
        along = [1] * values.ndim
        along[axis] = -1
        steps = np.rint(values / scale.reshape(along)).astype(np.int8)
        zeros = self.const(np.zeros(scale.shape), np.int8)
        result = self.op("DequantizeLinear", self.const(steps, np.int8), self.const(scale), zeros, axis=axis)
        self._scales[result] = scale
        return result

    def bias(self, size: int, x: str, weights: str) -> str:
        """Add a random bias, int32 in int8 mode."""
        values = self.rng.normal(0, 0.5, size).astype(np.float32)
        if not self.int8:
            return self.const(values)
        scale = (self._scales[x] * self._scales[weights]).astype(np.float32)
        return self.op("DequantizeLinear", self.const(np.rint(values / scale), np.int32), self.const(scale), axis=0)

    def conv(self, x: str, channels: int, per_group: int, *kernel: int, **attributes: Any) -> str:
        """Add a convolution with weights and bias (without a quantizer behind it)."""
        weights = self.weights(channels, per_group, *kernel)
        return self.op("Conv", x, weights, self.bias(channels, x, weights), **attributes)

    def gemm(self, x: str, outputs: int, inputs: int) -> str:
        """Add a linear layer (without a quantizer behind it)."""
        weights = self.weights(outputs, inputs)
        return self.op("Gemm", x, weights, self.bias(outputs, x, weights), transB=1)

    def model(self, output: str, batch: int | str = "N") -> onnx.ModelProto:
        """Return the graph that computes this value."""
        shape = [batch, *self.samples.shape[1:]]
        graph = helper.make_graph(
            self.nodes,
            "test",
            [helper.make_tensor_value_info("input", onnx.TensorProto.FLOAT, shape)],
            [helper.make_empty_tensor_value_info(output)],
            self.initializers,
        )
        typed = helper.make_tensor_value_info(output, onnx.TensorProto.FLOAT, None)
        graph.output[0].CopyFrom(typed)
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", self.opset)], ir_version=8)


@dataclass(frozen=True, kw_only=True)
class Result:
    """Real-valued outputs in ONNX's order, and the size of an output step (None: float)."""

    values: Floats
    step: float | None
    operators: tuple[str, ...]


def run_ort(model: onnx.ModelProto, x: Floats) -> Floats:
    """Run in ONNX Runtime, without the 16-bit sums of some x86 processors."""
    return run_exactly(model.SerializeToString(), x)


def run_tflite(data: bytes, x: Floats) -> Result:
    """Run inputs in ONNX's order in LiteRT, with the batch that they have."""
    interpreter = LiteRt(model_content=data, num_threads=1)
    start = interpreter.get_input_details()[0]
    x = x.transpose(0, 2, 3, 1) if x.ndim == 4 else x
    interpreter.resize_tensor_input(start["index"], x.shape, strict=False)
    interpreter.allocate_tensors()
    end = interpreter.get_output_details()[0]
    interpreter.set_tensor(start["index"], _quantized(x, start))
    interpreter.invoke()
    values = _real(interpreter.get_tensor(end["index"]), end)
    return Result(
        values=values.transpose(0, 3, 1, 2) if values.ndim == 4 else values,
        step=float(end["quantization"][0]) or None,
        operators=tuple(op["op_name"] for op in interpreter._get_ops_details()),
    )


def assert_close(got: Result, wanted: Floats) -> None:
    """Fail unless float outputs are equal but for rounding."""
    assert got.step is None
    assert got.values.shape == wanted.shape
    assert np.abs(got.values - wanted).max() <= FLOAT_TOLERANCE * np.abs(wanted).max()


def assert_steps(got: Result, wanted: Floats, *, steps: int) -> None:
    """Fail unless the output is int8 and at most so many of its steps away."""
    assert got.step is not None
    assert got.values.shape == wanted.shape
    assert np.abs(got.values - wanted).max() <= (steps + _STEP_ROUNDING) * got.step


def check(
    net: Net,
    output: str,
    written: Sequence[str] | None = None,
    *,
    steps: int = STEPS_LITERT,
    batches: Sequence[int] = (8,),
) -> Floats:
    """Write the graph, compare it with ONNX Runtime and return what that gives for all samples.

    ``written``: the operators that must stand in the file.
    """
    model = net.model(output)
    data = write_tflite(model)
    if written is not None:
        assert operators(data) == list(written)
    wanted = run_ort(model, net.samples)
    for batch in batches:
        got = run_tflite(data, net.samples[:batch])
        if got.step is None:
            assert_close(got, wanted[:batch])
        else:
            assert_steps(got, wanted[:batch], steps=steps)
    return wanted


def operators(data: bytes) -> Sequence[str]:
    """Names of the operators that are written in a file (delegates are not)."""
    interpreter = LiteRt(model_content=data)
    return [op["op_name"] for op in interpreter._get_ops_details() if op["op_name"] != "DELEGATE"]


def _quantized(x: Floats, details: dict[str, Any]) -> NDArray[Any]:
    scale, zero_point = details["quantization"]
    if details["dtype"] == np.float32:
        return x
    steps: NDArray[np.int8] = np.clip(np.rint(x / np.float32(scale)) + zero_point, -128, 127).astype(np.int8)
    return steps


def _real(values: NDArray[Any], details: dict[str, Any]) -> Floats:
    scale, zero_point = details["quantization"]
    if details["dtype"] == np.float32:
        return values.astype(np.float32)
    real: Floats = (values.astype(np.float32) - zero_point) * np.float32(scale)
    return real

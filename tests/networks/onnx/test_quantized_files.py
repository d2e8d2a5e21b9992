"""Files that are quantized already: what becomes of them is as near to the float network as they are."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import numpy_helper
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
from torch import nn

from pipeline.declare.recipe import QuantizeSpec
from pipeline.networks.from_onnx import network_from
from pipeline.networks.from_torch import folded_graph
from pipeline.quant.calibrate import calibrate
from pipeline.quant.fakequant import ActivationQuantizer
from pipeline.quant.prepare import prepare
from pipeline.quant.to_onnx import to_bytes, write_onnx
from tests.networks.onnx.written import Array, random
from tests.quant.exact import exact_session

SHAPE = (3, 12, 12)
ROUNDING_DB = 1.0  # two roundings of the same values, each its own way


class Samples(CalibrationDataReader):  # type: ignore[misc]  # the library is untyped
    def __init__(self, x: Array) -> None:
        self.left = [{"input": each[None]} for each in x]

    def get_next(self) -> dict[str, Array] | None:
        return self.left.pop() if self.left else None


def sqnr_db(wanted: Array, found: Array) -> float:
    return 10 * math.log10(float((wanted**2).sum() / ((wanted - found) ** 2).sum()))


def kept_by(file: Path, grids: set[tuple[float, int]]) -> list[tuple[float, int]]:
    """Return which grids stand in a quantized file, too; its int8 numbers are our uint8 minus 128."""
    graph = onnx.load(file).graph
    held = {each.name: numpy_helper.to_array(each) for each in graph.initializer}
    found = []
    for node in graph.node:
        if node.op_type == "QuantizeLinear":
            scale, zero_point = held[node.input[1]], held[node.input[2]]
            shift = 128 if zero_point.dtype == np.int8 else 0
            found += [each for each in grids if np.isclose(each[0], scale, 1e-5) and each[1] == int(zero_point) + shift]
    return found


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("activations", "per_channel"), [("QUInt8", True), ("QInt8", True)])
def test_a_quantized_file_is_quantized_again_without_loss(tmp_path: Path, activations: str, per_channel: bool) -> None:
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(3, 12, 3, padding=1), nn.ReLU(), nn.Conv2d(12, 12, 3), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(12, 16, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 5),
    ).eval()  # fmt: skip
    float_file, file = tmp_path / "float.onnx", tmp_path / "qdq.onnx"
    float_file.write_bytes(to_bytes(write_onnx(folded_graph(network, SHAPE), name="net")))
    x = random(96, *SHAPE)
    kinds = {"activation_type": QuantType[activations], "weight_type": QuantType.QInt8, "per_channel": per_channel}
    quantize_static(float_file, file, Samples(x[:32]), quant_format=QuantFormat.QDQ, **kinds)
    read = network_from(file)
    prepared = prepare(folded_graph(read.eval(), SHAPE), weight_bits=8)
    calibrate(prepared, torch.from_numpy(x[:32]), QuantizeSpec(calibration="min-max"))
    ours = exact_session(to_bytes(write_onnx(prepared.eval(), name="again"))).run(None, {"input": x})[0]
    wanted = onnxruntime.InferenceSession(float_file, providers=["CPUExecutionProvider"]).run(None, {"input": x})[0]
    theirs = exact_session(file.read_bytes()).run(None, {"input": x})[0]
    grids = {
        (float(np.float32(module.params.scale)), module.params.zero_point)
        for module in prepared.modules()
        if isinstance(module, ActivationQuantizer)
    }
    assert set(kept_by(file, grids)) == grids  # all of ours are theirs
    assert sqnr_db(wanted, ours) > sqnr_db(wanted, theirs) - ROUNDING_DB
    assert sqnr_db(theirs, ours) > sqnr_db(wanted, theirs) - ROUNDING_DB

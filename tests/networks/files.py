"""What ONNX Runtime and LiteRT make of a network's files, float and int8, beside the network itself.

Shapes: N batch.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, fx, nn

from pipeline.declare.recipe import QuantizeSpec
from pipeline.graph.kinds import output_node
from pipeline.quant.calibrate import calibrate
from pipeline.quant.grids import on_grid, quantizer_of
from pipeline.quant.prepare import freeze, prepare
from pipeline.quant.to_onnx import to_bytes, write_onnx
from pipeline.tflite import write_tflite
from tests.quant.exact import exact_session, run_exactly
from tests.tflite.nets import run_tflite

_STEPS = 2.01  # sums in another order fall on the other side of a tie, in the layer itself and in what reads it


def drawn(shape: tuple[int, ...], batch: int) -> Tensor:
    """Return the same random inputs (N, …) each time."""
    return torch.randn(batch, *shape, generator=torch.Generator().manual_seed(batch))


@torch.no_grad()
def in_the_files(graph: fx.GraphModule, network: nn.Module, shape: tuple[int, ...]) -> None:
    """Compare what the runtimes make of the float files, with two sizes of batch."""
    model = write_onnx(graph, name="net")
    content = write_tflite(model)
    session = exact_session(to_bytes(model))
    for batch in (1, 3):
        x = drawn(shape, batch)
        wanted = network(x).numpy()
        (from_onnx,) = session.run(None, {"input": x.numpy()})
        for found in (from_onnx, run_tflite(content, x.numpy()).values):
            np.testing.assert_allclose(found, wanted, rtol=1e-3, atol=1e-4 * max(np.abs(wanted).max(), 1e-3))


@torch.no_grad()
def in_int8_files(graph: fx.GraphModule, shape: tuple[int, ...], *, steps: float = _STEPS) -> None:
    """Compare the frozen integers with what the runtimes make of the int8 files, in steps of the output."""
    prepared, x = prepare(graph, weight_bits=8), drawn(shape, 3)
    calibrate(prepared, x, QuantizeSpec(calibration="min-max"))
    wanted = freeze(prepared.eval())(x).numpy()
    last = output_node(prepared)
    step = quantizer_of(last).params.scale if on_grid(last) else float(np.ptp(wanted)) / 255
    model = write_onnx(prepared, name="net")
    for found in (run_exactly(to_bytes(model), x.numpy()), run_tflite(write_tflite(model), x.numpy()).values):
        np.testing.assert_allclose(found, wanted, rtol=0, atol=steps * step)

"""What the exported files of one small network execute on a Cortex-A72: no more than yesterday.

The network is always the same. A change of the writers, of quantization or of a runtime that makes its files slower or
faster shows here without any noise. To accept new numbers::

    python -m tests.runtimes.emulation.test_exported_counts
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from pipeline.declare.recipe import QuantizeSpec
from pipeline.declare.words import RuntimeName
from pipeline.networks.from_torch import folded_graph
from pipeline.quant.calibrate import calibrate
from pipeline.quant.prepare import prepare
from pipeline.quant.to_onnx import to_bytes, write_onnx
from pipeline.runtimes.emulation.counting import Counting
from pipeline.tflite import write_tflite
from tests.runtimes.emulation.systems import emulated_target

ACCEPTED = Path(__file__).with_name("exported_counts.json")
WITHIN = 0.01
TARGET = "raspberry-pi-4b"
RUNTIMES: tuple[RuntimeName, ...] = ("onnxruntime", "litert")
SHAPE = (3, 24, 24)


class Net(nn.Module):
    """A residual block, a depthwise convolution, a global mean and a linear layer: what most small networks are of."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, 2, 1)
        self.first = nn.Conv2d(16, 16, 3, padding=1)
        self.second = nn.Conv2d(16, 16, 3, padding=1)
        self.depthwise = nn.Conv2d(16, 16, 3, 2, 1, groups=16)
        self.pointwise = nn.Conv2d(16, 32, 1)
        self.head = nn.Linear(32, 10)

    def forward(self, x: Tensor) -> Tensor:
        """(n, 3, 24, 24) → (n, 10)."""
        x = torch.relu(self.stem(x))
        x = torch.relu(x + self.second(torch.relu(self.first(x))))
        x = torch.relu(self.pointwise(torch.relu(self.depthwise(x))))
        return self.head(x.mean((2, 3)))  # type: ignore[no-any-return]


def files(folder: Path) -> Iterator[tuple[str, Path, RuntimeName]]:
    """Write the network's four files."""
    torch.manual_seed(0)
    graph = folded_graph(Net().eval(), SHAPE)
    models = {"fp32": write_onnx(graph, name="net")}
    prepared = prepare(graph, weight_bits=8)
    calibrate(prepared, torch.randn(16, *SHAPE), QuantizeSpec(calibration="min-max"))
    models["int8"] = write_onnx(prepared.eval(), name="net")
    for precision, model in models.items():
        for runtime in RUNTIMES:
            content = to_bytes(model) if runtime == "onnxruntime" else write_tflite(model)
            path = folder / f"net.{precision}.{runtime}"
            path.write_bytes(content)
            yield f"{precision} in {runtime}", path, runtime


def counted(folder: Path) -> dict[str, int]:
    """Count one inference of each file; name → instructions."""
    _, system = emulated_target(TARGET)
    sample = np.random.default_rng(0).standard_normal((1, *SHAPE)).astype(np.float32)
    with Counting(system) as counting:
        return {
            name: round(counting.count(path, runtime, {"input": sample})["total"])
            for name, path, runtime in files(folder)
        }


def test_exported_files_take_no_more_and_no_fewer_instructions_than_before(tmp_path: Path) -> None:
    accepted = json.loads(ACCEPTED.read_text())
    found = counted(tmp_path)
    assert found.keys() == accepted.keys()
    changed = [
        f"{name}: {found[name]} instructions, {found[name] / accepted[name] - 1:+.1%} against {accepted[name]}"
        for name in found
        if found[name] != pytest.approx(accepted[name], rel=WITHIN)
    ]
    again = "if that is wanted, accept them: python -m tests.runtimes.emulation.test_exported_counts"
    assert not changed, "\n".join([*changed, again])


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as made:
        ACCEPTED.write_text(f"{json.dumps(counted(Path(made)), indent=2)}\n")

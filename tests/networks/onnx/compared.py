"""What karui reads from an ONNX file beside what ONNX Runtime makes of it.

Shapes: N batch, C channels, H height, W width.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from pipeline.graph.kinds import compute_nodes, kind_of, module_of
from pipeline.networks.from_onnx import network_from
from pipeline.networks.from_torch import flat_graph
from tests.networks.onnx.written import Array, model, node, random, write

MAP = (1, 4, 6, 8)  # N, C, H, W
W3 = random(6, 4, 3, 3, seed=1)
INTS = np.int64


def ints(*numbers: int) -> Array:
    return np.array(numbers, np.int64)


@dataclass(frozen=True, kw_only=True)
class Case:
    """Nodes from ``x`` to ``y``, their constants, and the opsets in which they are tried."""

    nodes: Sequence[onnx.NodeProto]
    constants: Mapping[str, Any]
    opsets: tuple[int, ...] = (13,)
    shape: tuple[int, ...] = MAP

    def at(self, opset: int, folder: Path) -> Path:
        """Write the file of one opset."""
        return write(model(self.nodes, self.shape, self.constants, opset=opset), folder)


def case(
    op: str,
    inputs: str = "x",
    constants: Mapping[str, Any] | None = None,
    opsets: tuple[int, ...] = (13,),
    shape: tuple[int, ...] = MAP,
    **attributes: Any,
) -> Case:
    """Return a case of one node."""
    return Case(nodes=[node(op, inputs, "y", **attributes)], constants=constants or {}, opsets=opsets, shape=shape)


def each_opset(cases: Mapping[str, Case]) -> list[Any]:
    """Return a parameter for each case and opset."""
    return [pytest.param(name, opset, id=f"{name}-{opset}") for name, one in cases.items() for opset in one.opsets]


def one_by_one(path: Path, samples: Array, output: str = "y") -> Array:
    """Return what ONNX Runtime makes of samples (n, …) of a file for one at a time: (n, *shape in the file)."""
    session = onnxruntime.InferenceSession(path.read_bytes(), providers=["CPUExecutionProvider"])
    return np.stack([session.run([output], {"x": each[None]})[0] for each in samples])


def kinds(path: Path, **options: Any) -> list[str]:
    """Read a file, compare with ONNX Runtime in a batch of 3, and name the operations of the flat graph."""
    network = network_from(path, **options)
    samples = random(3, *network.sample_shape, seed=7)
    graph = flat_graph(network, network.sample_shape)
    turned = samples if network.order is None else samples.transpose(network.order)
    expected = one_by_one(path, np.ascontiguousarray(turned))
    with torch.no_grad():
        for each in (network.eval(), graph):
            found = each(torch.from_numpy(samples)).numpy()
            if found.ndim < expected.ndim:  # the file's first axis counts samples
                found = found[:, None]
            np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max())
    return [kind_of(module_of(each)) for each in compute_nodes(graph)]

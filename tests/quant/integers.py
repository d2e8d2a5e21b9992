"""What ONNX Runtime's integer kernels give one by one, beside what the frozen network makes of the same inputs.

Shapes: N batch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import helper
from torch import Tensor, fx

from pipeline.graph.kinds import compute_nodes, module_of
from pipeline.quant.exact import exact_session
from pipeline.quant.frozen import FrozenQuantizer


@dataclass(frozen=True, kw_only=True)
class Gap:
    """Where one kernel's result and the frozen operation's are apart, both fed with the kernel's own inputs."""

    label: str
    most_steps: float
    share: float  # of the values that differ
    from_tie: float  # of a step: how far the value before rounding is from the middle, at most, where they differ


def steps_in_onnxruntime(model: onnx.ModelProto, x: Tensor) -> dict[str, NDArray[np.uint8]]:
    """Return the integers (N, …) behind every quantizer, by its node's name."""
    shown = onnx.ModelProto()
    shown.CopyFrom(model)
    names = [node.output[0] for node in shown.graph.node if node.op_type == "QuantizeLinear"]
    shown.graph.output.extend(helper.make_tensor_value_info(name, onnx.TensorProto.UINT8, None) for name in names)
    session = exact_session(shown.SerializeToString())
    return dict(zip(names, session.run(names, {"input": x.numpy()}), strict=True))


class _Compared(fx.Interpreter):
    """Runs a frozen network on the runtime's own integers, node by node."""

    def __init__(self, frozen: fx.GraphModule, steps: Mapping[str, NDArray[np.uint8]]) -> None:
        super().__init__(frozen)
        self.steps, self.gaps = steps, list[Gap]()

    def run_node(self, node: fx.Node) -> Any:
        result = super().run_node(node)
        found = self.steps.get(str(node.meta.get("label")))
        if node.op != "call_module" or found is None:
            return result
        quantizer = module_of(node)
        assert isinstance(quantizer, FrozenQuantizer)
        params = quantizer.params
        exact = self.env[node.args[0]].double() / params.scale  # type: ignore[index]
        ours = (exact.float().round() + params.zero_point).clamp(*params.grid)
        theirs = torch.from_numpy(found.astype(np.float32))
        apart = ours != theirs
        self.gaps.append(
            Gap(
                label=str(node.meta["label"]),
                most_steps=float((ours - theirs).abs().max()),
                share=float(apart.float().mean()),
                from_tie=float(((exact - exact.floor() - 0.5).abs()[apart]).max()) if apart.any() else 0.0,
            )
        )
        return (theirs - params.zero_point) * params.scale


@torch.no_grad()
def gaps(frozen: fx.GraphModule, model: onnx.ModelProto, x: Tensor) -> list[Gap]:
    """Compare every kernel of an int8 file with the frozen operation on the kernel's own inputs."""
    compared = _Compared(frozen, steps_in_onnxruntime(model, x))
    compared.run(x)
    assert len(compared.gaps) == sum(isinstance(module_of(node), FrozenQuantizer) for node in compute_nodes(frozen))
    return compared.gaps

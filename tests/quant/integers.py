"""Whether an int8 network is the same four times: trained with rounding, as integers, and in the two files.

ONNX Runtime's kernels are compared one by one, each fed with its own inputs; LiteRT's and fake-quantization's outputs
at the end, within what shaken roundings explain.

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

from pipeline.declare.recipe import QuantizeSpec
from pipeline.graph.kinds import compute_nodes, module_of, output_node
from pipeline.networks.from_torch import folded_graph
from pipeline.quant.calibrate import bound_scales, calibrate
from pipeline.quant.correct import correct_biases
from pipeline.quant.equalize import equalized
from pipeline.quant.fakequant import ActivationQuantizer, QWeighted
from pipeline.quant.frozen import FrozenPool, FrozenQuantizer, shaken_outputs
from pipeline.quant.grids import quantizer_of
from pipeline.quant.prepare import freeze, prepare
from pipeline.quant.to_onnx import write_onnx
from pipeline.tflite import write_tflite
from tests.quant.exact import exact_session
from tests.quant.random_networks import Drawn, draw
from tests.tflite.nets import run_tflite

# a value that two kernels round differently is this near to the middle between two steps: float32 knows a quotient of
# 255 steps to 2^-16, and a sum before it to a few times that
FROM_TIE = 0.01
SHAKEN_SHARE, SHAKES, FACTOR = 0.05, 2, 3.0  # as when files are checked
LEAST_MEAN_STEPS, LEAST_MOST_STEPS = 1.0, 2.0
EQUALIZED_EVERY, CORRECTED_EVERY = 5, 7
TRAINED_EVERY = 2  # every other network is trained for some steps, alternately with moving averages and LSQ


@dataclass(frozen=True, kw_only=True)
class Gap:
    """Where one kernel's result and the frozen operation's are apart, both fed with the kernel's own inputs."""

    label: str
    most_steps: float
    share: float  # of the values that differ
    from_tie: float  # in steps: how far the value before rounding is from the middle, at most, where they differ


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
    pools = [module for module in frozen.modules() if isinstance(module, FrozenPool)]
    for pool in pools:
        pool.round_result = False  # the quantizer behind it rounds the same; so the distance from a tie is seen
    compared = _Compared(frozen, steps_in_onnxruntime(model, x))
    compared.run(x)
    assert len(compared.gaps) == sum(isinstance(module_of(node), FrozenQuantizer) for node in compute_nodes(frozen))
    return compared.gaps


# ── random networks ─────────────────────────────────────────────────────────────────────────────────────────────────


def faults(seed: int) -> list[str]:
    """Quantize the random network of this seed, write both files and say what is wrong with them."""
    drawn = draw(seed)
    prepared = _quantized(drawn, seed)
    frozen, model = freeze(prepared), write_onnx(prepared, name="random")
    found = [
        f"{gap.label}: {gap.most_steps:g} steps, {gap.from_tie:.3g} from a tie, {100 * gap.share:.2g} % of the values"
        for gap in gaps(frozen, model, drawn.inputs)
        if gap.most_steps > 1 or gap.from_tie > FROM_TIE
    ]
    with torch.no_grad():
        integers, fake = frozen(drawn.inputs), prepared(drawn.inputs)
    if not bool(torch.isfinite(integers).all()):
        found.append("outputs that are no finite numbers")
    litert = torch.from_numpy(run_tflite(write_tflite(model), drawn.inputs.numpy()).values)
    step = quantizer_of(output_node(prepared)).params.scale
    moved = (shaken_outputs(frozen, drawn.inputs, share=SHAKEN_SHARE, times=SHAKES) - integers).abs() / step
    for name, other in {"LiteRT": litert, "fake-quantization": fake}.items():
        apart = ((other - integers) / step).abs().round()  # both are whole steps
        if apart.mean() > max(LEAST_MEAN_STEPS, FACTOR * float(moved.flatten(1).mean(1).max())):
            found.append(f"{name}: {float(apart.mean()):.3g} steps away on average")
        if apart.max() > max(LEAST_MOST_STEPS, FACTOR * float(moved.max())):
            found.append(f"{name}: {float(apart.max()):.3g} steps away at most")
    return found


def _quantized(drawn: Drawn, seed: int) -> fx.GraphModule:
    graph = folded_graph(drawn.network, drawn.shape)
    if seed % EQUALIZED_EVERY == 0:
        graph = equalized(graph, drawn.inputs) or graph
    prepared = prepare(graph, weight_bits=7 if seed % 3 == 0 else 8)
    method = ("min-max", "mse", "percentile")[seed % 5 % 3]
    calibrate(prepared, drawn.inputs, QuantizeSpec.model_validate({"calibration": method}))
    if seed % CORRECTED_EVERY == 0:
        correct_biases(prepared, graph, drawn.inputs)
    if seed % TRAINED_EVERY == 0:
        _train(prepared, drawn.inputs, learned=seed % (2 * TRAINED_EVERY) == 0)
    return prepared.eval()


def _train(prepared: fx.GraphModule, inputs: Tensor, *, learned: bool) -> None:
    """Let ranges and weights move."""
    if learned:
        for module in prepared.modules():
            if isinstance(module, ActivationQuantizer | QWeighted):
                module.learn_step_size()
    prepared.train()
    optimizer = torch.optim.Adam(prepared.parameters(), 1e-2)
    for _ in range(4):
        output = prepared(inputs)
        loss = (output - output.detach().roll(1, 0)).square().mean() / (output.detach().square().mean() + 1e-6)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    bound_scales(prepared)

"""Write a folded (float) or prepared (int8) graph as ONNX: short names, no traces, the same bytes every time.

Needs: a graph from ``graph.fold`` or ``quant.prepare`` (in evaluation mode).
Guarantees: opset 13 and IR 7 unless an operation needs more (so that old runtimes load the file); node names are the
layers' names in the user's network; dynamic batch ``N``; several inputs and outputs apart, under their own names; int8
graphs in QDQ form with uint8 activations, int8 weights per output channel, int32 biases; every DequantizeLinear of
weights has scale initializers of its own; every value between two integer operations passes through one QuantizeLinear
and one DequantizeLinear.
"""

from __future__ import annotations

from collections.abc import Mapping

import onnx
import torch
from onnx import helper
from torch import fx

from pipeline.errors import UnsupportedOpError
from pipeline.graph.ends import Input, Outputs, is_end
from pipeline.graph.kinds import compute_nodes, kind_of, module_of, output_node
from pipeline.quant.emitters import EMITTERS
from pipeline.quant.emitters.draft import INPUT, OUTPUT, Draft
from pipeline.quant.grids import QUANTIZERS, clamped_by_quantizer, on_grid, quantizer_of
from pipeline.quant.scheme import RULES, Output

_IR_OF_OPSET = {13: 7, 14: 7, 17: 8}
BATCH = "N"


@torch.no_grad()
def write_onnx(graph: fx.GraphModule, *, name: str) -> onnx.ModelProto:
    """Return the checked ONNX model of a folded or prepared graph.

    Raises UnsupportedOpError (operation, layer, what to do) for what ONNX opset 13/14 has no operation for.
    """
    inputs, outputs = _inputs(graph), _outputs(graph)
    out = Draft({*inputs, *outputs})
    out.values.update({node: name for name, node in inputs.items()})
    for node in graph.graph.nodes:
        if not is_end(node):
            out.values[node] = _emit(out, node)
    _rename(out, {out.values[node]: name for name, node in outputs.items()})
    model = helper.make_model(
        helper.make_graph(
            out.nodes,
            name,
            [_value_info(name, node) for name, node in inputs.items()],
            [_value_info(name, node) for name, node in outputs.items()],
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


def _inputs(graph: fx.GraphModule) -> dict[str, fx.Node]:
    cut = {node: module_of(node) for node in compute_nodes(graph)}
    several = {module.name: node for node, module in cut.items() if isinstance(module, Input)}
    return several or {INPUT: next(node for node in graph.graph.nodes if node.op == "placeholder")}


def _outputs(graph: fx.GraphModule) -> dict[str, fx.Node]:
    last = output_node(graph)
    ends = module_of(last) if last.op == "call_module" else None
    if not isinstance(ends, Outputs):
        return {OUTPUT: last}
    return dict(zip(ends.names, last.all_input_nodes, strict=True))


def _value_info(name: str, node: fx.Node) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [BATCH, *node.meta["shape"][1:]])


def _rename(out: Draft, ends: Mapping[str, str]) -> None:
    """Call the graph's results what they are called, whatever layers make them."""
    for node in out.nodes:
        node.output[:] = [ends.get(value, value) for value in node.output]
        node.input[:] = [ends.get(value, value) for value in node.input]


def _emit(out: Draft, node: fx.Node) -> str:
    module = module_of(node)
    source = node.args[0]
    if isinstance(module, QUANTIZERS):
        assert isinstance(source, fx.Node)  # noqa: S101  (quantizers are inserted after a node)
        if out.values[source] == f"{source.meta['label']}:d":  # on this grid already
            return out.values[source]
        return out.quantize(out.values[source], source.meta["label"], module.params)
    kind = kind_of(module)
    emitter = EMITTERS.get(kind)
    if emitter is None:
        raise UnsupportedOpError(
            f"{kind} cannot be written as ONNX",
            where=f"layer '{node.meta['label']}'",
            remedy=f"use one of: {', '.join(sorted(EMITTERS))}",
        )
    if clamped_by_quantizer(node):  # ONNX Runtime fuses Add only without it
        return out.values[source]  # type: ignore[index]
    value = emitter(out, node, module)
    if RULES[kind].output is Output.SAME and on_grid(source):
        # the value is on its input's grid already: the pair lets the runtime run this operation on integers
        return out.quantize(value, node.meta["label"], quantizer_of(node).params)
    return value

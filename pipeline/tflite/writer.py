"""ONNX → .tflite, float or int8, in one pass over the graph.

Needs: an ONNX model of opset 13 or later with float32 inputs; int8 in QDQ form (see ``pipeline.tflite.graph``).
Guarantees: NHWC images inside and at the ends, other values in ONNX's order; int8 activations with the numbers of the
graph's uint8 minus 128; written for a batch of one and right for every other after ``resize_tensor_input``; operator
versions that tflite-runtime 2.14 knows; the same bytes every time.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import onnx

from pipeline.errors import UnsupportedOpError, nearest
from pipeline.tflite import layout
from pipeline.tflite.builders import BUILDERS
from pipeline.tflite.draft import Draft
from pipeline.tflite.flatbuffer import Port
from pipeline.tflite.graph import Node, read_graph
from pipeline.tflite.projections import with_projections
from pipeline.tflite.shapes import infer_shapes


def write_tflite(
    model: onnx.ModelProto, metadata: Mapping[str, bytes] | None = None, *, bytes_in: bool = False
) -> bytes:
    """Return the .tflite file of a float or QDQ-int8 ONNX model.

    The first dimension of the inputs may be dynamic: it is the batch.  Images (N, C, H, W) become (N, H, W, C) at the
    graph's inputs and outputs; all other shapes stay.  An input that is quantized at once and an output that was
    dequantized last become int8 tensors.  The model's ``metadata_props`` go along as metadata, and
    so does ``metadata`` (name → content).  ``bytes_in``: the input is uint8, with the numbers of the graph's own.

    Raises UnsupportedOpError (operation, layer, what to do) for what it cannot write, ModelError for a graph that it
    cannot read.
    """
    graph = read_graph(model)
    _refuse_unknown(graph.nodes)
    shapes = infer_shapes(model)
    graph = with_projections(graph, shapes)
    draft = Draft(graph, shapes)
    inputs = [_input(draft, name, bytes_in=bytes_in) for name in graph.inputs]
    for node in graph.nodes:
        draft.keep(node.output, BUILDERS[node.op](draft, node))
    outputs = [_output(draft, name, value) for name, value in graph.outputs.items()]
    texts = {each.key: each.value.encode() for each in model.metadata_props}
    return draft.file.to_bytes(inputs, outputs, {**texts, **(metadata or {})})


def _refuse_unknown(nodes: Iterable[Node]) -> None:
    for node in nodes:
        if node.op not in BUILDERS:
            raise UnsupportedOpError(
                f"{node.op} cannot be written as TFLite{nearest(node.op, BUILDERS)}",
                where=f"layer '{node.name}'",
                remedy=f"rewrite the layer with these ONNX operations: {', '.join(sorted(BUILDERS))}",
            )


def _input(draft: Draft, name: str, *, bytes_in: bool) -> Port:
    shape = draft.shape_of(name, f"input '{name}'")
    stored = draft.new(name, shape, layout.port(shape.rank), draft.graph.goal(name))
    draft.keep(name, stored)
    tensor = draft.from_bytes(stored) if bytes_in and stored.params is not None else stored.tensor
    return Port(name=name, tensor=tensor)


def _output(draft: Draft, name: str, value: str) -> Port:
    stored = draft.stored(value, f"output '{name}'")
    return Port(name=name, tensor=draft.in_axes(stored, layout.port(stored.shape.rank)).tensor)

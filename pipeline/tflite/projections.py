"""Gemm between two Reshapes that fold axes and unfold them again, as one Gemm of more axes: FULLY_CONNECTED knows such.

Shapes: N batch, F input features, O output features.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from pipeline.tflite.graph import Graph, Node
from pipeline.tflite.shapes import Shape


def with_projections(graph: Graph, shapes: Mapping[str, Shape]) -> Graph:
    """Return the graph without such Reshapes: (N, …, F) → (N * …, F) → (N * …, O) → (N, …, O) is one layer."""
    makers = {node.output: node for node in graph.nodes}
    joined: dict[str, Node] = {}
    gone: set[str] = set()
    for node in graph.nodes:
        folding = makers.get(node.input(0))
        unfolding = _only_reader(graph, node.output)
        if node.op != "Gemm" or folding is None or unfolding is None:
            continue
        before, after = shapes.get(folding.input(0)), shapes.get(unfolding.output)
        if (
            {folding.op, unfolding.op} == {"Reshape"}
            and before
            and after
            and _alike(before, after, shapes[node.output])
        ):
            joined[node.output] = replace(node, inputs=(folding.input(0), *node.inputs[1:]), output=unfolding.output)
            gone.add(unfolding.output)
            if _only_reader(graph, folding.output) is not None:
                gone.add(folding.output)
    nodes = tuple(joined.get(node.output, node) for node in graph.nodes if node.output not in gone)
    return graph.of(nodes) if joined else graph


def _alike(before: Shape, after: Shape, product: Shape) -> bool:
    """Whether only the last axis is another after the layer, and is the layer's own."""
    same = before.rank > 2 and before.dims[:-1] == after.dims[:-1] and before.batch == after.batch
    return same and before.batch != before.rank - 1 and product.dims[-1] == after.dims[-1]


def _only_reader(graph: Graph, value: str) -> Node | None:
    after = graph.readers.get(value, ())
    return after[0] if len(after) == 1 and value not in graph.outputs.values() else None

"""What recurrent layers of an ONNX file have to do."""

from __future__ import annotations

from onnx import NodeProto

from pipeline.estimating.work import RECURRENT, Work
from pipeline.inspecting.onnx_graph import Graph, Shape, attribute

_BATCH_READ, _BATCH_MADE = 1, 2  # (steps, batch, features), (steps, directions, batch, hidden)


def work_of_recurrence(node: NodeProto, *, steps: int, weight: Shape) -> Work:
    """Return the work of an LSTM, GRU or RNN over so many steps; ``weight``: (directions, gates * H, F)."""
    directions, columns, features = weight
    hidden = attribute(node, "hidden_size", 1)
    return Work(
        kernel=node.op_type,
        reads=steps * features,
        makes=steps * hidden * directions,
        rows=steps,
        columns=columns,
        depth=features + hidden,
        groups=directions,
    )


def moves_steps_alone(graph: Graph, node: NodeProto) -> bool:
    """Whether a transpose only brings the steps before the batch, or back: the recurrent layer's cost has it in it."""
    if node.op_type != "Transpose":
        return False
    order = next((tuple(each.ints) for each in node.attribute if each.name == "perm"), ())
    maker = graph.makers.get(node.input[0])
    if maker is not None and maker.op_type in RECURRENT:
        batch = _BATCH_MADE
    elif any(reader.op_type in RECURRENT for reader in graph.readers.get(node.output[0], ())) and len(order) > 1:
        batch = order[_BATCH_READ]
    else:
        return False
    rest = [axis for axis in order if axis != batch]
    return rest == sorted(rest)

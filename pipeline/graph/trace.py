"""From the user's network to a flat graph of known operations: what fake-quantization and the writers work on.

Needs: a network that ``torch.fx`` can trace (no control flow that depends on values), one input, one output.
Guarantees: a flat graph (``kinds.check_flat``); dropout and identities are gone; reshapes keep the batch; the traced
network computes the same as the original (checked on an example).

Shapes: N batch, C channels, H height, W width.
"""

from __future__ import annotations

import math

import torch
from torch import fx, nn
from torch.fx.passes.shape_prop import ShapeProp

from pipeline.errors import ModelError
from pipeline.graph.convert import shape_of, to_known_modules
from pipeline.graph.kinds import check_flat, output_node

_TRACE_BATCH = 3  # unlikely to be a layer's own size, so that a reshape which mixes the batch shows


def trace(network: nn.Module, sample_shape: tuple[int, ...]) -> fx.GraphModule:
    """Return the flat graph of ``network`` (evaluation mode) for samples of ``sample_shape``.

    Raises ModelError where tracing fails and UnsupportedOpError (operation, layer, what to do) for unknown operations.
    """
    network = network.eval()
    graph = _symbolic_trace(network)
    traced = fx.GraphModule(network, graph)
    example = torch.linspace(-1, 1, _TRACE_BATCH * math.prod(sample_shape)).reshape(_TRACE_BATCH, *sample_shape)
    with torch.no_grad():
        expected = network(example)
        output_node(traced)  # one
        ShapeProp(traced).propagate(example)
        to_known_modules(traced)
        ShapeProp(traced).propagate(example)
        _annotate(traced)
        if not torch.allclose(traced(example), expected, rtol=1e-4, atol=1e-5):
            raise ModelError(
                "the traced network computes something else than the network itself",
                remedy="its forward() must not depend on values, on the batch size or on training mode",
            )
    check_flat(traced, after="trace")
    return traced


def _symbolic_trace(network: nn.Module) -> fx.Graph:
    tracer = fx.Tracer()
    tracer.record_stack_traces = True  # an unknown operation is then shown in the user's own file
    try:
        return tracer.trace(network)
    except Exception as error:  # whatever the user's code raises under tracing
        raise ModelError(
            f"the network cannot be traced: {error}",
            remedy="forward() may not branch on values or shapes of tensors; compute such things in __init__",
        ) from error


def _annotate(traced: fx.GraphModule) -> None:
    seen: dict[str, int] = {}
    for node in traced.graph.nodes:
        node.meta["shape"] = shape_of(node) if node.op != "output" else ()
        name = str(node.target) if node.op == "call_module" else node.name
        seen[name] = seen.get(name, 0) + 1
        node.meta["label"] = name if seen[name] == 1 else f"{name}_{seen[name]}"

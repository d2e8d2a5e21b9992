"""The operations a flat graph is made of, and how to ask a node of one what it is.

A *flat* graph is a ``torch.fx`` graph in which every computing node is a ``call_module`` of a module type in ``KINDS``;
``node.meta`` holds ``label`` (unique; the layer's name in the user's network) and ``shape`` (with the batch
first).  ``trace`` makes one; every pass after it needs one and leaves one, and ``check_flat`` says so at each run.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import fx, nn

from pipeline.errors import ModelError, UnsupportedOpError
from pipeline.graph import ends, ops
from pipeline.graph.recurrent import Recurrent

REPORT_IT = "this is a bug in karui; please report it with the network file"

# module type → name of the operation (ONNX operator names, but for the two resizes, the two pads and Scale)
KINDS: Mapping[type[nn.Module], str] = {
    nn.Conv1d: "Conv",
    nn.Conv2d: "Conv",
    nn.Conv3d: "Conv",
    nn.ConvTranspose1d: "ConvTranspose",
    nn.ConvTranspose2d: "ConvTranspose",
    nn.ConvTranspose3d: "ConvTranspose",
    ops.Projection: "Projection",
    nn.Linear: "Gemm",
    nn.BatchNorm1d: "BatchNormalization",
    nn.BatchNorm2d: "BatchNormalization",
    nn.BatchNorm3d: "BatchNormalization",
    nn.ReLU: "Relu",
    nn.ReLU6: "Clip",
    nn.Hardtanh: "Clip",
    nn.LayerNorm: "LayerNormalization",
    nn.LeakyReLU: "LeakyRelu",
    nn.PReLU: "PRelu",
    nn.ELU: "Elu",
    nn.GELU: "Gelu",
    nn.Mish: "Mish",
    nn.Softplus: "Softplus",
    nn.Hardswish: "HardSwish",
    nn.Hardsigmoid: "HardSigmoid",
    nn.Tanh: "Tanh",
    nn.Sigmoid: "Sigmoid",
    nn.Softmax: "Softmax",
    nn.MaxPool1d: "MaxPool",
    nn.MaxPool2d: "MaxPool",
    nn.AvgPool1d: "AveragePool",
    nn.AvgPool2d: "AveragePool",
    ops.GlobalAveragePool: "GlobalAveragePool",
    ops.Add: "Add",
    ops.Sub: "Sub",
    ops.Mul: "Mul",
    ops.Div: "Div",
    ops.MatMul: "MatMul",
    ops.Function: "Function",
    ops.Power: "Pow",
    ops.Reduce: "Reduce",
    Recurrent: "Recurrent",
    ops.Permute: "Transpose",
    ops.Slice: "Slice",
    ops.Gather: "Gather",
    ops.Scale: "Scale",
    ops.Concat: "Concat",
    ops.Reshape: "Reshape",
    ops.Pad: "Pad",
    nn.Upsample: "Resize",
    ends.Input: "Input",
    ends.Outputs: "Outputs",
}


def kind_of(module: nn.Module) -> str:
    """Return the operation's name for a module of a traced network."""
    for known, kind in KINDS.items():
        if isinstance(module, known):
            if isinstance(module, nn.Upsample):
                return "ResizeNearest" if module.mode == "nearest" else "ResizeLinear"
            if isinstance(module, ops.Pad):
                return "Pad" if module.value == 0 else "PadFilled"
            return module.name if isinstance(module, ops.Function | ops.Reduce | Recurrent) else kind
    raise UnsupportedOpError(f"unknown operation {type(module).__name__}")


def module_of(node: fx.Node) -> nn.Module:
    """Return the module that a ``call_module`` node calls."""
    return node.graph.owning_module.get_submodule(str(node.target))  # type: ignore[union-attr]


def compute_nodes(traced: fx.GraphModule) -> list[fx.Node]:
    """Return the nodes that compute something, in order."""
    return _computing(traced.graph)


def _computing(graph: fx.Graph) -> list[fx.Node]:
    return [node for node in graph.nodes if node.op == "call_module"]


def output_node(traced: fx.GraphModule) -> fx.Node:
    """Return the node whose value the network returns."""
    result = next(node for node in traced.graph.nodes if node.op == "output").args[0]
    if not isinstance(result, fx.Node):
        raise ModelError(
            "the network returns more than one tensor",
            where="network",
            remedy="return one tensor from forward(): what is trained, and what the files give",
        )
    return result


def check_flat(graph: fx.GraphModule, *, after: str, beside: tuple[type[nn.Module], ...] = ()) -> None:
    """Check that a graph is flat, as described above; ``beside``: further module types that may stand in it.

    Raises ModelError that names the pass ``after`` which it is not.
    """
    labels: set[str] = set()
    for node in graph.graph.nodes:
        if node.op == "output":
            continue
        known = node.op == "placeholder" or (
            node.op == "call_module" and isinstance(module_of(node), (*KINDS, *beside))
        )
        label, shape = node.meta.get("label"), node.meta.get("shape")
        if not known or label is None or label in labels or not shape:
            raise broken_promise(after, f"'{node.name}' ({node.op}) is no known operation with a label and a shape")
        labels.add(label)


def broken_promise(after: str, what: str) -> ModelError:
    """Return the error of a pass that does not leave what it promises."""
    return ModelError(what, where=f"graph after {after}", remedy=REPORT_IT)

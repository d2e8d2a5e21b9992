"""The page docs/operations.md: what is read from PyTorch and from ONNX files, and what of it runs on 8-bit integers.

python bench/list_operations.py > docs/operations.md
"""

from __future__ import annotations

from pipeline.networks.aten import ATEN, MEANINGLESS
from pipeline.networks.aten.ends import ENDS
from pipeline.networks.onnx import ONNX
from pipeline.networks.onnx.files import OPSETS
from pipeline.networks.onnx.linear import LINEAR
from pipeline.quant.scheme import RULES, Output
from pipeline.tflite.builders import BUILDERS

_ABOUT = """# Operations

Made by `python bench/list_operations.py`; a test compares it with the code.

karui has `torch.export` write down which ATen functions a network calls, and reads these:

{functions}

In evaluation mode these hand on what they get and vanish: {vanishing}.

Reshapes, transposes, views and the like cost nothing where the next layer does not ask for another order.  Whatever
follows from parameters alone (weight norm, position tables) becomes a constant.  Another function is taken apart as
torch itself does it (`nn.LSTMCell`, `F.glu`, `torch.movedim` and many more are made of those above), and parts that are
assigned to (`y[:, 1:] = x`) are spelled out as cuts and joins.  Anything else is refused before any training, all at
once, each with its layer and your line.

## In the files

Both formats hold every operation; "int8" says whether it computes on 8-bit integers there.  A float operation between
two integer layers has a dequantizer before it and a quantizer behind it: its neighbours stay on integers.  What has
integer kernels stays float where rounding would cost more than it saves: sums that a layer norm reads, a softmax that
only float operations read, arithmetic between float operations.

| operation | int8 | why not |
|---|---|---|
{rows}

The TFLite writer also reads these ONNX operations: {onnx}.

## From ONNX files

Nodes of these operations are read (opset {first} to {last}); what they become is listed above:

{nodes}

These, where they are linear in their only computed input and small, are written as one matrix:

{matrices}

Constants, `Shape`, `Size` and whatever follows from them alone are computed while the file is read, and an `If` that
they decide is followed. `python bench/bench_onnx_nodes.py` takes the onnx package's own cases of each node through
import, graph and files.
"""
_WIDTH = 120


def page() -> str:
    """Return the page."""
    rows = [
        f"| {kind} | {'yes' if rule.output is not Output.FLOAT else 'no'} | {rule.note} |"
        for kind, rule in sorted(RULES.items())
        if kind not in ("Input", "Outputs")
    ]
    return _ABOUT.format(
        functions=_wrapped(sorted(ATEN.keys() - {*ENDS, "grid"})),
        vanishing=", ".join(f"`{name}`" for name in sorted(MEANINGLESS)),
        rows="\n".join(rows),
        first=OPSETS[0],
        last=OPSETS[-1],
        nodes=_wrapped(sorted(ONNX)),
        matrices=_wrapped(sorted(LINEAR)),
        onnx=", ".join(f"`{name}`" for name in sorted(set(BUILDERS) - set(RULES))),
    )


def _wrapped(names: list[str]) -> str:
    lines = [""]
    for name in names:
        word = f"`{name}`"
        if len(lines[-1]) + len(word) > _WIDTH:
            lines.append("")
        lines[-1] += f"{' ' if lines[-1] else ''}{word}"
    return "\n".join(lines)


if __name__ == "__main__":
    print(page(), end="")

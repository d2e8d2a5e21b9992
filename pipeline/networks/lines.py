"""Where a call stands in the user's network: its layer, the line of the user's code, and a refusal that says both."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import fx

from pipeline.errors import UnsupportedOpError
from pipeline.networks.flat import Refusal

_TORCH = Path(torch.__file__).parent
_KARUI = Path(__file__).parent
# modules that are layers of the user's network, with names of their own
_LAYERS = ("torch.nn.modules.", "pipeline.networks.onnx.modules.")


def layer_of(node: fx.Node) -> str:
    """Name a call after the layer it stands in; a function of the user's own forward() after its block and itself."""
    stack = list((node.meta.get("nn_module_stack") or {}).values())
    path, kind = stack[-1] if stack else ("", "")
    path = re.sub(r"@\d+$", "", path)
    name = str(node.target).split(".")[1].strip("_") if "." in str(node.target) else node.name
    if str(kind).startswith(_LAYERS) and "container" not in str(kind):
        return path or name
    return ".".join(part for part in (path, name) if part)


def as_written(node: fx.Node, name: str) -> str:
    """Name a call as users write it: the layer of torch.nn that makes it, or the function."""
    stack = list((node.meta.get("nn_module_stack") or {}).values())
    kind = str(stack[-1][1]) if stack else ""
    own = kind.startswith("torch.nn.modules.") and "container" not in kind
    return f"nn.{kind.rpartition('.')[2]}" if own else name


def place_of(node: fx.Node) -> tuple[str, str, str]:
    """Return the layer, and place and text of the line of the user's code that made this call."""
    stack = list((node.meta.get("nn_module_stack") or {}).values())
    layer = stack[-1][0] if stack and stack[-1][0] else node.name
    frames = re.findall(r'File "([^"]+)", line (\d+), in .*\n\s*(.*)', node.meta.get("stack_trace") or "")
    own = [frame for frame in frames if not any(map(Path(frame[0]).is_relative_to, (_TORCH, _KARUI)))]
    if not own:
        return layer, "", ""
    file, number, text = own[-1]
    return layer, f"{file}:{number}", text


def refused(refusals: Sequence[Refusal]) -> UnsupportedOpError:
    """Return one error for all refusals, each kind once."""
    seen: dict[str, Refusal] = {}
    for refusal in refusals:
        seen.setdefault(refusal.what, refusal)
    first = refusals[0]
    others = [f"{each.what} is not supported (layer '{each.layer}'{each.spot})" for each in seen.values()][1:]
    return UnsupportedOpError(
        f"{first.what} is not supported",
        where=f"{first.place}: layer '{first.layer}'" if first.place else f"layer '{first.layer}'",
        remedy="\n  ".join(
            part
            for part in (
                first.line,
                *others,
                "write this layer with supported torch.nn modules, or leave it out of the network that is exported",
            )
            if part
        ),
    )

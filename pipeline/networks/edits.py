"""Structural changes of a network, replayed from what they take away: a plan is no code, and fits into a record.

Shapes: O output channels, I input channels; weights (O, I, …).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from pipeline.artifacts.training import Edit
from pipeline.errors import ModelError

Convolution = nn.Conv1d | nn.Conv2d | nn.Conv3d | nn.ConvTranspose2d
_SIZES = {
    "out": ("out_channels", "out_features", "num_features", "normalized_shape"),
    "in": ("in_channels", "in_features"),
}


def apply(network: nn.Module, edits: Sequence[Edit]) -> nn.Module:
    """Take the channels away, in place, and return the network; raises ModelError when a plan is another network's."""
    for edit in edits:
        try:
            layer = network.get_submodule(edit.layer)
        except AttributeError as error:
            raise ModelError(
                f"the pruning plan names '{edit.layer}', which this network has not",
                where="network",
                remedy="it was made for another network: use the network file and options that it was made with",
            ) from error
        _take_away(layer, edit)
    return network


def _take_away(layer: nn.Module, edit: Edit) -> None:
    size_name = next((name for name in _SIZES[edit.side] if hasattr(layer, name)), None)
    size = getattr(layer, size_name) if size_name else 0
    if isinstance(size, tuple):  # of a layer norm
        (size,) = size
    gone = set(edit.indices)
    keep = torch.tensor([index for index in range(size) if index not in gone])
    if size_name is None or not gone <= set(range(size)) or not len(keep):
        raise _misfit(edit)
    transposed = isinstance(layer, nn.ConvTranspose2d)  # its weights are (I, O, …)
    groups = layer.groups if isinstance(layer, Convolution) else 1
    depthwise = isinstance(layer, Convolution) and groups == layer.in_channels == layer.out_channels > 1
    setattr(layer, size_name, (len(keep),) if size_name == "normalized_shape" else len(keep))
    if depthwise:  # every channel is a group of its own
        for name in ("groups", "in_channels", "out_channels"):
            setattr(layer, name, len(keep))
        _select(layer, "weight", keep, axis=0)
        _select_others(layer, size, keep)
    elif edit.side == "in":
        _select(layer, "weight", _in_each_group(keep, size, groups, edit), axis=0 if transposed else 1)
    else:
        _in_each_group(keep, size, groups, edit)
        _select(layer, "weight", keep, axis=1 if transposed else 0)
        _select_others(layer, size, keep)


def _in_each_group(keep: Tensor, size: int, groups: int, edit: Edit) -> Tensor:
    """Return what is kept of one group's channels; a grouped convolution has to lose equally many in each.

    Its weights hold one group's input channels only, so of these the very same have to go.
    """
    kept = [keep[keep // (size // groups) == group] % (size // groups) for group in range(groups)]
    if any(len(each) != len(kept[0]) for each in kept):
        raise _misfit(edit)
    if edit.side == "in" and not all(torch.equal(each, kept[0]) for each in kept):
        raise _misfit(edit)
    return kept[0]


def _misfit(edit: Edit) -> ModelError:
    return ModelError(
        "the pruning plan does not fit this layer",
        where=f"layer '{edit.layer}'",
        remedy="it was made for another network: use the network file and options that it was made with",
    )


def _select_others(layer: nn.Module, size: int, keep: Tensor) -> None:
    """Cut what else a layer holds for each output channel: bias, statistics, gains of its own."""
    for name, tensor in [*layer.named_parameters(recurse=False), *layer.named_buffers(recurse=False)]:
        if name != "weight" and tensor.dim() and len(tensor) == size:
            _select(layer, name, keep, axis=0)


def _select(layer: nn.Module, name: str, keep: Tensor, *, axis: int) -> None:
    tensor = getattr(layer, name, None)
    if tensor is None:
        return
    selected = tensor.detach().index_select(axis, keep.to(tensor.device)).clone()
    setattr(layer, name, nn.Parameter(selected) if isinstance(tensor, nn.Parameter) else selected)

"""Seeded augmentation of a training batch; a label that is a map of the picture moves with it.

Shapes: N batch, C channels, H height, W width.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from pipeline.declare.recipe import AugmentSpec

Inputs = Tensor | Mapping[str, Tensor]  # of a network with one input, or with several
Wanted = Mapping[str, Tensor]
_Move = Callable[[Tensor], Tensor]  # (N, …, H, W) → the same, moved
_ONLY = "input"


def augment(inputs: Inputs, wanted: Wanted, spec: AugmentSpec) -> tuple[Inputs, Wanted]:
    """Return a randomly changed batch; draws from torch's global generator.

    Pictures (N, C, H, W) are shifted and mirrored, all inputs of one sample alike, and so are labels (N, H, W).
    Noise goes to every input of floating-point numbers.
    """
    if isinstance(inputs, Tensor):
        changed, wanted = _augmented({_ONLY: inputs}, wanted, spec)
        return changed[_ONLY], wanted
    return _augmented(inputs, wanted, spec)


def _augmented(inputs: Mapping[str, Tensor], wanted: Wanted, spec: AugmentSpec) -> tuple[Mapping[str, Tensor], Wanted]:
    pictures = [name for name, tensor in inputs.items() if tensor.dim() == 4]
    maps = [name for name, tensor in wanted.items() if tensor.dim() == 3]
    for move in _moves(inputs[pictures[0]], spec) if pictures else ():
        inputs = {**inputs, **{name: move(inputs[name]) for name in pictures}}
        wanted = {**wanted, **{name: move(wanted[name]) for name in maps}}
    if spec.noise:
        inputs = {
            name: tensor + torch.randn_like(tensor) * spec.noise if tensor.is_floating_point() else tensor
            for name, tensor in inputs.items()
        }
    return inputs, wanted


def _moves(picture: Tensor, spec: AugmentSpec) -> list[_Move]:
    """Draw what happens to every sample of the batch; in this order, on which the weights of a seed depend."""
    moves = [_shift(len(picture), most, picture.device) for most in (spec.shift_px, spec.crop_padding_px) if most]
    if spec.flip:
        moves.append(_mirror(torch.rand(len(picture), device=picture.device) < 0.5))
    return moves


def _mirror(mirrored: Tensor) -> _Move:
    """Mirror the samples that ``mirrored`` (N,) says left-right."""

    def move(values: Tensor) -> Tensor:
        return torch.where(mirrored.view(-1, *[1] * (values.dim() - 1)), values.flip(-1), values)

    return move


def _shift(count: int, most: int, device: torch.device) -> _Move:
    """Shift every sample by its own whole pixels; edges are repeated."""
    down, right = torch.randint(-most, most + 1, (2, count, 1, 1), device=device)

    def move(values: Tensor) -> Tensor:
        height, width = values.shape[-2:]
        rows = (down + torch.arange(height, device=device)[None, :, None]).clamp(0, height - 1)  # (N, H, 1)
        columns = (right + torch.arange(width, device=device)[None, None, :]).clamp(0, width - 1)  # (N, 1, W)
        picked = torch.arange(count, device=device)[:, None, None]  # (N, 1, 1)
        if values.dim() == 3:
            return values[picked, rows, columns]  # (N, H, W)
        return values.permute(0, 2, 3, 1)[picked, rows, columns].permute(0, 3, 1, 2)  # (N, C, H, W), channels last

    return move

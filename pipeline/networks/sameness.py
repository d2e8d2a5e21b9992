"""Whether a flat graph computes what the network does that it was read from."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, fx, nn

from pipeline.errors import ModelError

_CHECKED_BATCHES = (3, 2)
_TOLERANCE = 1e-4  # of the largest output


def check_same(network: nn.Module, flat: fx.GraphModule, sample_shape: tuple[int, ...]) -> None:
    """Refuse a flat graph that computes something else.  Raises ModelError."""
    if not is_same(network, flat, sample_shape):
        raise ModelError(
            "the traced network computes something else than the network itself",
            remedy="its forward() must not depend on values, on the batch size or on training mode",
        )


@torch.no_grad()
def is_same(network: nn.Module, flat: fx.GraphModule, sample_shape: tuple[int, ...]) -> bool:
    """Tell whether both compute the same for random inputs, in two sizes of batch."""
    generator = torch.Generator().manual_seed(0)
    for batch in _CHECKED_BATCHES:
        example = torch.randn(batch, *sample_shape, generator=generator)
        if not (_near(flat(example), network(example.clone())) or _near_in_float64(network, flat, example)):
            return False
    return True


def _near_in_float64(network: nn.Module, flat: fx.GraphModule, example: Tensor) -> bool:
    """Compare once more where float32 may have no digits left: the norm of values that are all alike has none."""
    exact = example.double()
    try:
        expected = copy.deepcopy(network).double()(exact.clone())
    except RuntimeError:  # it makes float32 itself
        return False
    return _near(copy.deepcopy(flat).double()(exact), expected)


def _near(found: Tensor, expected: Tensor) -> bool:
    """Compare numbers; a logarithm of random input may have none in the same places."""
    finite = expected.isfinite()
    if found.shape != expected.shape or not torch.equal(found.isfinite(), finite):
        return False
    apart = (found - expected)[finite].abs()
    largest = expected[finite].abs().max() if apart.numel() else 0.0
    return not apart.numel() or float(apart.max()) <= _TOLERANCE * max(float(largest), 1e-6)

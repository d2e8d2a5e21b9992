"""What trains: a processor with so many threads, or a graphics card."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch

from pipeline.errors import ConfigError


def pick_device(device: str) -> torch.device:
    """Turn ``cpu`` or ``cuda`` into a device; raises ConfigError when CUDA is asked for and absent."""
    if device == "cuda" and not torch.cuda.is_available():
        raise ConfigError("no CUDA device here", where="--device cuda", remedy="use --device auto or --device cpu")
    return torch.device(device)


@contextlib.contextmanager
def using_threads(count: int) -> Iterator[None]:
    """Compute with so many threads of the processor, whatever OMP_NUM_THREADS says.

    The last bits of sums depend on it, and weights on sums.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)

"""What the loop trains and is judged on: prepared samples, held as tensors or read ahead by a thread.

Shapes: N samples of a split, n of them at once, C channels, H height, W width.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import torch
from torch import Tensor

from pipeline.data.source import ArraySource, Batch, Indices, Source, everything
from pipeline.onboard.arrays import Arrays, length
from pipeline.onboard.frontend import Frontend, prepare
from pipeline.training.augment import Inputs

_AT_ONCE = 1024  # samples prepared together


class Samples(Protocol):
    """Samples of one split as the network sees them."""

    @property
    def device(self) -> torch.device:
        """Return where the batches lie."""

    @property
    def source(self) -> Source:
        """Return the same samples as a source whose inputs are prepared already: what ``Task.answer`` reads."""

    def __len__(self) -> int:
        """Return N."""

    def batches(self, order: Tensor, size: int) -> Iterator[tuple[Inputs, dict[str, Tensor]]]:
        """Yield (inputs, wanted) in this order, ``size`` samples at once.

        ``inputs`` is (n, …), or name → (n, …) of a network with several; ``wanted``: name of the label → (n, …).
        """


@dataclass(frozen=True, kw_only=True, eq=False)
class Held:
    """Samples held in memory, prepared once."""

    inputs: dict[str, Tensor]  # name → (N, …); pictures channels last
    wanted: dict[str, Tensor]  # name → (N, …)
    strata: Indices | None = None  # (N,)
    groups: Indices | None = None  # (N,)

    def __len__(self) -> int:
        return len(next(iter(self.inputs.values())))

    @property
    def device(self) -> torch.device:
        """Return where the tensors lie."""
        return next(iter(self.inputs.values())).device

    @cached_property
    def source(self) -> Source:
        """Return the same samples as arrays; on a processor they share the tensors' memory."""
        return ArraySource(
            inputs={name: tensor.cpu().numpy() for name, tensor in self.inputs.items()},
            labels={name: tensor.cpu().numpy() for name, tensor in self.wanted.items()},
            strata=self.strata,
            groups=self.groups,
        )

    def batches(self, order: Tensor, size: int) -> Iterator[tuple[Inputs, dict[str, Tensor]]]:
        """Yield batches by index."""
        for chosen in torch.split(order.to(self.device), size):
            inputs = {name: tensor[chosen] for name, tensor in self.inputs.items()}
            yield _bare(inputs), {name: tensor[chosen] for name, tensor in self.wanted.items()}


@dataclass(frozen=True, kw_only=True, eq=False)
class Streamed:
    """Samples read and prepared while training, one batch ahead."""

    source: PreparedSource
    device: torch.device

    def __len__(self) -> int:
        return len(self.source)

    def batches(self, order: Tensor, size: int) -> Iterator[tuple[Inputs, dict[str, Tensor]]]:
        """Read, prepare and yield; the next batch is read meanwhile."""
        with ThreadPoolExecutor(1) as reader:
            parts = [chosen.numpy() for chosen in torch.split(order.cpu(), size)]
            ahead = reader.submit(self._read, parts[0])
            for following in [*parts[1:], None]:
                batch = ahead.result()
                if following is not None:
                    ahead = reader.submit(self._read, following)
                yield batch

    def _read(self, chosen: Indices) -> tuple[Inputs, dict[str, Tensor]]:
        batch = self.source.read(chosen)
        return _bare(to_tensors(batch.inputs, self.device)), to_tensors(batch.wanted, self.device)


@dataclass(frozen=True, kw_only=True, eq=False)
class PreparedSource:
    """Another source's samples as the network sees them, prepared whenever they are read."""

    whole: Source
    frontend: Frontend

    def __len__(self) -> int:
        return len(self.whole)

    @property
    def strata(self) -> Indices | None:
        """Return those of the other source."""
        return self.whole.strata

    @property
    def groups(self) -> Indices | None:
        """Return those of the other source."""
        return self.whole.groups

    def read(self, indices: Indices) -> Batch:
        """Return the samples at ``indices``, prepared."""
        batch = self.whole.read(indices)
        return Batch(inputs=prepare(batch.inputs, self.frontend), wanted=batch.wanted)

    def wanted(self, indices: Indices) -> Arrays:
        """Return the labels at ``indices``."""
        return self.whole.wanted(indices)


def hold(source: Source, frontend: Frontend, device: torch.device) -> Samples:
    """Hold a source as tensors on ``device`` if it is in memory, else stream it; the same values either way.

    Several inputs keep the order in which the source names them.
    """
    prepared = PreparedSource(whole=source, frontend=frontend)
    if not isinstance(source, ArraySource):
        return Streamed(source=prepared, device=device)
    indices = everything(source)
    portions = (indices[start : start + _AT_ONCE] for start in range(0, len(indices), _AT_ONCE))
    inputs = _filled((prepared.read(some).inputs for some in portions), len(source))
    return Held(
        inputs={name: tensor.to(device) for name, tensor in inputs.items()},
        wanted=to_tensors(source.wanted(everything(source)), device),
        strata=source.strata,
        groups=source.groups,
    )


def _filled(portions: Iterable[Arrays], samples: int) -> dict[str, Tensor]:
    """Return the portions one after the other, written to their place at once: joining them would need it all twice."""
    whole: dict[str, Tensor] = {}
    done = 0
    for portion in portions:
        count = length(portion)
        for name, tensor in to_tensors(portion, torch.device("cpu")).items():
            if name not in whole:
                layout = torch.contiguous_format if tensor.is_contiguous() else torch.channels_last
                whole[name] = torch.empty((samples, *tensor.shape[1:]), dtype=tensor.dtype, memory_format=layout)
            whole[name][done : done + count] = tensor
        done += count
    return whole


def to_tensors(arrays: Arrays, device: torch.device) -> dict[str, Tensor]:
    """Return arrays as tensors; pictures (n, C, H, W) channels last, held or streamed.

    That halves the time per step on processors, and noise is drawn in the order of the memory.
    """
    tensors = {name: torch.from_numpy(array) for name, array in arrays.items()}
    return {
        name: (tensor.contiguous(memory_format=torch.channels_last) if tensor.dim() == 4 else tensor).to(device)
        for name, tensor in tensors.items()
    }


def _bare(inputs: dict[str, Tensor]) -> Inputs:
    """Take the only input out of its name."""
    return next(iter(inputs.values())) if len(inputs) == 1 else inputs

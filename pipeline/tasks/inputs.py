"""Single samples in a figure: as pictures where they are some, else as a table of their values.

Shapes: M samples shown, C channels, H height, W width.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.artifacts.evidence import Figure, Pictures, Table
from pipeline.data.source import Source
from pipeline.judging.stats import Indices
from pipeline.tasks.protocol import Put

_VALUES_SHOWN = 16  # of a table's row


def samples_figure(
    title: str, source: Source, indices: Indices, captions: Sequence[str], put: Put, *, note: str = ""
) -> Figure:
    """Show the samples at ``indices`` (M ≥ 1) with a caption each."""
    raw = first_input(source, indices)  # (M, C, H, W) or (M, …)
    if is_picture(raw.shape[1:]):
        return Pictures(title=title, images=put(as_bytes(raw)), captions=tuple(captions), note=note)
    rows = tuple((caption, _values(sample)) for caption, sample in zip(captions, raw, strict=True))
    return Table(title=title, columns=("sample", "values"), rows=rows, note=note)


def first_input(source: Source, indices: Indices) -> NDArray[Any]:
    """Return what is shown of the samples at ``indices``: their first input, the only one of most."""
    shown: NDArray[Any] = next(iter(source.read(indices).inputs.values()))
    return shown


def is_picture(shape: tuple[int, ...]) -> bool:
    """Tell whether one sample of this shape is a picture: (1, H, W) or (3, H, W)."""
    return len(shape) == 3 and shape[0] in (1, 3)


def as_bytes(raw: NDArray[Any]) -> NDArray[np.uint8]:
    """Return pictures (M, C, H, W) as bytes: those that are bytes as they are, any other range stretched.

    The smallest and the largest value of all M become black and white.
    """
    # 8x8 digits have grey levels 0 … 16 in bytes: only a range that uses most of a byte is taken as it is
    if raw.dtype == np.uint8 and raw.size and raw.max() > 127:
        return raw
    values = np.nan_to_num(raw.astype(np.float64))
    low, high = (values.min(), values.max()) if values.size else (0.0, 1.0)
    stretched: NDArray[np.uint8] = np.round(255 * (values - low) / (high - low or 1.0)).astype(np.uint8)
    return stretched


def _values(sample: NDArray[Any]) -> str:
    flat = sample.reshape(-1)
    more = f", … ({flat.size} values)" if flat.size > _VALUES_SHOWN else ""
    return ", ".join(f"{value:.4g}" for value in flat[:_VALUES_SHOWN]) + more

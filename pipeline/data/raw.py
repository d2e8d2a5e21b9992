"""What one sample is before any preprocessing, for whoever uses the files later: picture, row of a table, array.

Shapes: n samples.
"""

from __future__ import annotations

from pipeline.data.source import Dataset, everything
from pipeline.onboard.about import ARRAY, PICTURE, TABLE, Raw

_LOOKED_AT = 1024  # training samples
_COLOURS = {1: "L", 3: "RGB"}
_DARK = 127  # pixels of 8 bits go beyond; smaller numbers count something else


def raws_of(dataset: Dataset) -> dict[str, Raw]:
    """Return input → what its raw samples are."""
    samples = dataset.train.read(everything(dataset.train)[:_LOOKED_AT]).inputs  # (n, …) each
    found = {}
    for name, values in samples.items():
        dtype, shape = values.dtype.name, tuple(values.shape[1:])
        if (
            shape
            and shape == dataset.card.stored_shape(name) != dataset.card.inputs.get(name, dataset.card.input).shape
        ):
            shape = shape[1:]  # of one step
        pixels = len(shape) == 3 and shape[0] in _COLOURS and dtype == "uint8" and int(values.max()) > _DARK
        if dataset.columns:
            found[name] = Raw(TABLE, dtype, shape, columns=dataset.columns)
        elif dataset.pictures:
            form = dataset.pictures
            colours = _COLOURS[shape[0]]
            found[name] = Raw(PICTURE, dtype, shape, colours, resize=form.resize, background=form.background)
        elif pixels:
            found[name] = Raw(PICTURE, dtype, shape, _COLOURS[shape[0]])
        else:
            found[name] = Raw(ARRAY, dtype, shape)
    return found

"""TFLite files of early converters: scales of a bias are said to be those of an axis that it does not have.

Newer runtimes refuse them.  A tensor of one axis has scales along that axis, so nothing is guessed.
"""

from __future__ import annotations

import struct

from pipeline.onboard.flatbuffer import field, number_of_values, offset, tables

_SUBGRAPHS, _TENSORS, _SHAPE, _QUANTIZATION, _AXIS = 2, 0, 0, 4, 6  # fields of Model, SubGraph, Tensor and so on


def with_own_axes(content: bytes) -> bytes:
    """Return the file with the scales of tensors of one axis along that axis.  Raises ValueError for a damaged file."""
    corrected = bytearray(content)
    for subgraph in tables(content, field(content, offset(content, 0), _SUBGRAPHS)):
        for tensor in tables(content, field(content, subgraph, _TENSORS)):
            shape, scales = field(content, tensor, _SHAPE), field(content, tensor, _QUANTIZATION)
            if shape is None or scales is None or number_of_values(content, shape) != 1:
                continue
            axis = field(content, offset(content, scales), _AXIS)
            if axis is not None:
                struct.pack_into("<i", corrected, axis, 0)
    return bytes(corrected)

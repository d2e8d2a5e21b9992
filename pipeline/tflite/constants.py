"""Constants of an ONNX graph, plain or quantized, and the parameters of quantized activations.

uint8 is turned into int8 here: all values and zero points minus 128, the same real numbers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import ModelError
from pipeline.graph.params import INT8, INT32, UINT8, QuantParams

Array = NDArray[Any]  # of a type that only the file knows

_INT8, _UINT8 = np.dtype(np.int8), np.dtype(np.uint8)


@dataclass(frozen=True, kw_only=True)
class Constant:
    """Values as they are stored (float32, int8, int32 …) and, if quantized, what they stand for."""

    values: Array
    params: QuantParams | None = None

    def real(self) -> NDArray[np.float64]:
        """Return the real numbers."""
        if self.params is None:
            return self.values.astype(np.float64)
        numbers = np.array(self.params.zero_points, np.float64), np.array(self.params.scales, np.float64)
        zero_point, scale = (_along(each, self.params.axis, self.values.ndim) for each in numbers)
        real: NDArray[np.float64] = (self.values.astype(np.float64) - zero_point) * scale
        return real

    def is_symmetric_int8(self, axis: int) -> bool:
        """Whether integer kernels take it as weights whose output channels lie along ``axis``."""
        if self.params is None or self.values.dtype != _INT8:
            return False
        return not any(self.params.zero_points) and (self.params.per_tensor or self.params.axis == axis)

    @property
    def tensor_params(self) -> QuantParams | None:
        """Parameters when it is int8 with one scale."""
        if self.params is None or not self.params.per_tensor or self.values.dtype != _INT8:
            return None
        return self.params


def quantized_constant(values: Array, scale: Array, zero_point: Array | None, axis: int) -> Constant:
    """Return the constant that ``DequantizeLinear`` of these integers stands for."""
    scales = tuple(np.atleast_1d(scale).astype(np.float32).tolist())
    zeros = (0,) * len(scales)
    if zero_point is not None:
        zeros = tuple(np.broadcast_to(np.asarray(zero_point, np.int64), (len(scales),)).tolist())
    grid = {_INT8: INT8, _UINT8: UINT8}.get(values.dtype, INT32)
    along = axis % values.ndim if len(scales) > 1 else 0
    params = QuantParams(scales=scales, zero_points=zeros, grid=grid, axis=along)
    if values.dtype == _UINT8:
        shift = UINT8.lowest - INT8.lowest
        return Constant(values=(values.astype(np.int16) - shift).astype(np.int8), params=params.as_int8())
    return Constant(values=values, params=params)


def quantize_constant(values: Array, scale: Array, zero_point: Array | None, axis: int) -> Array:
    """Return what ``QuantizeLinear`` of these numbers gives (uint8 when there is no zero point)."""
    dtype = _UINT8 if zero_point is None else zero_point.dtype
    zeros = np.zeros_like(scale) if zero_point is None else zero_point.astype(np.float32)
    steps = np.rint(values / _along(scale, axis, values.ndim)) + _along(zeros, axis, values.ndim)
    limits = np.iinfo(dtype)
    rounded: Array = np.clip(steps, limits.min, limits.max).astype(dtype)
    return rounded


def activation_params(scale: Array, zero_point: Array | None, *, where: str) -> QuantParams:
    """Return the parameters of a QuantizeLinear or DequantizeLinear of activations, on the int8 grid.

    Raises ModelError for more than one scale and for types other than uint8 and int8.
    """
    dtype = _UINT8 if zero_point is None else zero_point.dtype
    if scale.size != 1 or dtype not in (_UINT8, _INT8):
        raise ModelError(
            f"activations quantized to {dtype} with {scale.size} scales",
            where=where,
            remedy="quantize activations to uint8 or int8 with one scale per tensor",
        )
    zero = 0 if zero_point is None else int(zero_point.reshape(()))
    params = QuantParams.of(float(np.float32(scale.reshape(()))), zero, UINT8 if dtype == _UINT8 else INT8)
    return params.as_int8()


def _along(values: Array, axis: int, rank: int) -> Array:
    """Shape one number per channel so that it broadcasts along ``axis``."""
    if values.size == 1:
        return values.reshape(())
    shape = [1] * rank
    shape[axis] = -1
    return values.reshape(shape)

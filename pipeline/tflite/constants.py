"""Constants of an ONNX graph, plain or quantized, and the parameters of quantized activations.

uint8 is turned into int8 here: all values and zero points minus 128, the same real numbers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import ModelError

Array = NDArray[Any]  # of a type that only the file knows

INT8_MIN, INT8_MAX = -128, 127
_UINT8_SHIFT = 128


@dataclass(frozen=True, kw_only=True)
class Int8Params:
    """real = (q - zero_point) * scale, with q in -128 … 127."""

    scale: float
    zero_point: int

    def quantize(self, value: float) -> np.int8:
        """Return the nearest int8; values out of range saturate."""
        steps = np.rint(np.clip(value / self.scale + self.zero_point, INT8_MIN, INT8_MAX))
        return np.int8(steps)

    def real(self, steps: int) -> float:
        """Return what an int8 stands for."""
        return (steps - self.zero_point) * self.scale


@dataclass(frozen=True, kw_only=True)
class Constant:
    """Values as they are stored (float32, int8, int32 …) and, if quantized, one scale or one per index of ``axis``."""

    values: Array
    scale: NDArray[np.float32] | None = None  # (1,) or (channels,)
    zero_point: NDArray[np.int64] | None = None  # as scale
    axis: int = 0

    def real(self) -> NDArray[np.float64]:
        """Return the real numbers."""
        if self.scale is None or self.zero_point is None:
            return self.values.astype(np.float64)
        scale, zero_point = (_along(each, self.axis, self.values.ndim) for each in (self.scale, self.zero_point))
        real: NDArray[np.float64] = (self.values.astype(np.float64) - zero_point) * scale
        return real

    def is_symmetric_int8(self, axis: int) -> bool:
        """Whether integer kernels take it as weights whose output channels lie along ``axis``."""
        if self.scale is None or self.zero_point is None or self.values.dtype != np.int8:
            return False
        return not self.zero_point.any() and (self.scale.size == 1 or self.axis == axis)

    @property
    def params(self) -> Int8Params | None:
        """Parameters when it is int8 with one scale."""
        if self.scale is None or self.zero_point is None or self.scale.size != 1 or self.values.dtype != np.int8:
            return None
        return Int8Params(scale=float(self.scale[0]), zero_point=int(self.zero_point[0]))


def quantized_constant(values: Array, scale: Array, zero_point: Array | None, axis: int) -> Constant:
    """Return the constant that ``DequantizeLinear`` of these integers stands for."""
    scales = np.atleast_1d(scale).astype(np.float32)
    zeros: NDArray[np.int64] = np.zeros(scales.shape, np.int64)
    if zero_point is not None:
        zeros += np.asarray(zero_point, np.int64)
    if values.dtype == np.uint8:
        values, zeros = (values.astype(np.int16) - _UINT8_SHIFT).astype(np.int8), zeros - _UINT8_SHIFT
    return Constant(values=values, scale=scales, zero_point=zeros, axis=axis % max(values.ndim, 1))


def quantize_constant(values: Array, scale: Array, zero_point: Array | None, axis: int) -> Array:
    """Return what ``QuantizeLinear`` of these numbers gives (uint8 when there is no zero point)."""
    dtype = np.dtype(np.uint8) if zero_point is None else zero_point.dtype
    zeros = np.zeros_like(scale) if zero_point is None else zero_point.astype(np.float32)
    steps = np.rint(values / _along(scale, axis, values.ndim)) + _along(zeros, axis, values.ndim)
    limits = np.iinfo(dtype)
    rounded: Array = np.clip(steps, limits.min, limits.max).astype(dtype)
    return rounded


def activation_params(scale: Array, zero_point: Array | None, *, where: str) -> Int8Params:
    """Return the parameters of a QuantizeLinear or DequantizeLinear of activations.

    Raises ModelError for more than one scale and for types other than uint8 and int8.
    """
    dtype = np.dtype(np.uint8) if zero_point is None else zero_point.dtype
    if scale.size != 1 or dtype not in (np.dtype(np.uint8), np.dtype(np.int8)):
        raise ModelError(
            f"activations quantized to {dtype} with {scale.size} scales",
            where=where,
            remedy="quantize activations to uint8 or int8 with one scale per tensor",
        )
    shift = _UINT8_SHIFT if dtype == np.uint8 else 0
    zero = 0 if zero_point is None else int(zero_point.reshape(()))
    return Int8Params(scale=float(np.float32(scale.reshape(()))), zero_point=zero - shift)


def _along(values: Array, axis: int, rank: int) -> Array:
    """Shape one number per channel so that it broadcasts along ``axis``."""
    if values.size == 1:
        return values.reshape(())
    shape = [1] * rank
    shape[axis] = -1
    return values.reshape(shape)

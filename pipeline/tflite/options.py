"""Operator options of the TFLite schema, filled in."""

from __future__ import annotations

from collections.abc import Sequence

from ai_edge_litert import schema_py_generated as schema

from pipeline.tflite.graph import Activation

_FUSED = {
    Activation.NONE: schema.ActivationFunctionType.NONE,
    Activation.RELU: schema.ActivationFunctionType.RELU,
    Activation.RELU_N1_TO_1: schema.ActivationFunctionType.RELU_N1_TO_1,
    Activation.RELU6: schema.ActivationFunctionType.RELU6,
}
SAME, VALID = schema.Padding.SAME, schema.Padding.VALID


def options(kind: str, activation: Activation | None = None, **fields: float | Sequence[int]) -> object:
    """Return an object of the schema's table ``<kind>Options`` with these fields and this fused activation function."""
    table: object = getattr(schema, f"{kind}OptionsT")()
    if activation is not None:
        fields["fusedActivationFunction"] = _FUSED[activation]
    for name, value in fields.items():
        if not hasattr(table, name):
            raise AttributeError(f"{kind}Options has no field {name}")
        setattr(table, name, value)
    return table

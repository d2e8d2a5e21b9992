"""The table: what stands in the flat graph for a call of an ATen function."""

from __future__ import annotations

from collections.abc import Mapping

from pipeline.networks.aten.choices import CHOICES
from pipeline.networks.aten.ends import ENDS
from pipeline.networks.aten.functions import FUNCTIONS
from pipeline.networks.aten.joins import JOINS
from pipeline.networks.aten.layers import LAYERS
from pipeline.networks.aten.norms import NORMS
from pipeline.networks.aten.pointwise import POINTWISE
from pipeline.networks.aten.products import PRODUCTS
from pipeline.networks.aten.recurrent import RECURRENT
from pipeline.networks.aten.reductions import REDUCTIONS
from pipeline.networks.aten.shapes import SHAPES, Handler
from pipeline.networks.aten.volumes import VOLUMES
from pipeline.networks.aten.windows import WINDOWS

ATEN: Mapping[str, Handler] = {
    **CHOICES,
    **ENDS,
    **FUNCTIONS,
    **JOINS,
    **LAYERS,
    **NORMS,
    **POINTWISE,
    **PRODUCTS,
    **RECURRENT,
    **REDUCTIONS,
    **SHAPES,
    **VOLUMES,
    **WINDOWS,
}

# functions that hand their first argument on as it is, in evaluation mode
MEANINGLESS = frozenset(
    {
        "_assert_async",
        "_assert_scalar",
        "_assert_tensor_metadata",
        "alias",
        "alpha_dropout",
        "clone",
        "contiguous",
        "detach",
        "detach_copy",
        "dropout",
        "feature_alpha_dropout",
        "feature_dropout",
        "lift_fresh_copy",
        "to",
        "type_as",
    }
)

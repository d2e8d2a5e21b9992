"""Networks that people use, by which the cost model of ``count_layers.py`` is judged: none of them is among the drawn.

Needs the extra ``zoo`` (timm and torchvision).
"""

from __future__ import annotations

from collections.abc import Mapping

from pipeline.inspecting.subject import Asked

TINY, SMALL = (3, 32, 32), (3, 64, 64)
_RECIPES = ("digits", "digits-ds-cnn", "digits-mlp", "fashion-resnet8", "segment")
_NAMED = (
    ("torchvision:mobilenet_v3_small", SMALL),
    ("torchvision:shufflenet_v2_x0_5", SMALL),
    ("torchvision:resnet18", TINY),
    ("torchvision:mobilenet_v2", SMALL),
    ("torchvision:squeezenet1_1", SMALL),
    ("timm:mnasnet_small", SMALL),
    ("timm:efficientnet_lite0", TINY),
    ("timm:mobilevitv2_050", SMALL),
)

KNOWN: Mapping[str, Asked] = {
    **{name: Asked(subject=name) for name in _RECIPES},
    "mlp of 30 features": Asked(subject="mlp", shape=(30,), classes=2),
    **{
        f"{name.partition(':')[2]} {shape[1]}x{shape[2]}": Asked(subject=name, shape=shape, classes=100)
        for name, shape in _NAMED
    },
}

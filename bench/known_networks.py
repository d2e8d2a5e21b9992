"""Networks that people use, by which the cost model of ``count_layers.py`` is judged: none of them is among the drawn.

Needs the extra ``zoo`` (timm and torchvision).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import timm
import torchvision.models as tv
from torch import nn

from pipeline.inspecting.subject import Asked, built

Make = Callable[[], tuple[nn.Module, tuple[int, ...]]]
TINY, SMALL = (3, 32, 32), (3, 64, 64)
_RECIPES = ("digits", "digits-ds-cnn", "digits-mlp", "fashion-resnet8", "segment")


def _recipe(name: str) -> Make:
    return lambda: built(Asked(subject=name))


def _timm(name: str, shape: tuple[int, ...]) -> Make:
    return lambda: (timm.create_model(name, pretrained=False, num_classes=100), shape)


KNOWN: Mapping[str, Make] = {
    **{name: _recipe(name) for name in _RECIPES},
    "mlp of 30 features": lambda: built(Asked(subject="mlp", shape=(30,), classes=2)),
    "mobilenet_v3_small 64x64": lambda: (tv.mobilenet_v3_small(weights=None, num_classes=100), SMALL),
    "shufflenet_v2_x0_5 64x64": lambda: (tv.shufflenet_v2_x0_5(weights=None, num_classes=100), SMALL),
    "resnet18 32x32": lambda: (tv.resnet18(weights=None, num_classes=100), TINY),
    "mobilenet_v2 64x64": lambda: (tv.mobilenet_v2(weights=None, num_classes=100), SMALL),
    "squeezenet1_1 64x64": lambda: (tv.squeezenet1_1(weights=None, num_classes=100), SMALL),
    "mnasnet_small 64x64": _timm("mnasnet_small", SMALL),
    "efficientnet_lite0 32x32": _timm("efficientnet_lite0", TINY),
    "mobilevitv2_050 64x64": _timm("mobilevitv2_050", SMALL),
}

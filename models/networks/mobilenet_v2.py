"""MobileNetV2: inverted residuals with linear bottlenecks, any width multiplier and any picture size.

Sandler et al., "MobileNetV2: Inverted Residuals and Linear Bottlenecks", 2018 (arXiv:1801.04381), table 2.
Pictures too small for all five halvings keep their size in the first ones: the last map has at least 3 pixels a side
(7x7 at 224 pixels, 4x4 at 32).  Dropout before the classifier is left out.

``build((3, 224, 224), 1000)`` has 3,504,872 parameters and 300,774,272 MACs.
``build((3, 96, 96), 2, width=0.35)`` has 398,690 parameters and 10,656,688 MACs.
``build((1, 28, 28), 10, width=0.35)`` has 408,650 parameters and 12,841,824 MACs.

Shapes: N batch, C channels, H height, W width, K classes.
"""

from __future__ import annotations

from torch import Tensor, nn

# expansion, channels, blocks, stride of the first block
TABLE_2 = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))
STEM_CHANNELS = 32
LAST_CHANNELS = 1280
HALVINGS = 5
SMALLEST_MAP_PX = 3


class InvertedResidual(nn.Module):
    """1x1 up, depthwise 3x3, 1x1 down without activation; the input is added where shapes allow."""

    def __init__(self, channels_in: int, channels_out: int, stride: int, expansion: int) -> None:
        super().__init__()
        inner = channels_in * expansion
        layers = _conv(channels_in, inner, kernel=1) if expansion > 1 else []
        layers += _conv(inner, inner, kernel=3, stride=stride, groups=inner)
        layers += [nn.Conv2d(inner, channels_out, 1, bias=False), nn.BatchNorm2d(channels_out)]
        self.branch = nn.Sequential(*layers)
        self.residual = stride == 1 and channels_in == channels_out

    def forward(self, x: Tensor) -> Tensor:
        """(N, C_in, H, W) → (N, C_out, H/stride, W/stride)."""
        y: Tensor = self.branch(x)
        return x + y if self.residual else y


class MobileNetV2(nn.Module):
    """Stem, inverted residuals, 1x1 to the last width, mean over the picture, one Linear."""

    def __init__(self, input_shape: tuple[int, ...], classes: int, width: float) -> None:
        super().__init__()
        skipped = HALVINGS - _halvings(min(input_shape[1:]))  # strides that become 1, from the front
        strides = [2, *(stride for _, _, _, stride in TABLE_2)]
        for index in [i for i, stride in enumerate(strides) if stride == 2][:skipped]:
            strides[index] = 1
        channels = _rounded(STEM_CHANNELS * width)
        layers = _conv(input_shape[0], channels, kernel=3, stride=strides[0])
        for (expansion, base, blocks, _), stride in zip(TABLE_2, strides[1:], strict=True):
            for index in range(blocks):
                channels_out = _rounded(base * width)
                layers.append(InvertedResidual(channels, channels_out, stride if index == 0 else 1, expansion))
                channels = channels_out
        last = _rounded(LAST_CHANNELS * max(1.0, width))
        layers += _conv(channels, last, kernel=1)
        self.features = nn.Sequential(*layers)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(last, classes)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) → logits (N, K)."""
        x = self.pool(self.features(x)).flatten(1)  # (N, last)
        logits: Tensor = self.fc(x)
        return logits


def build(input_shape: tuple[int, ...], classes: int, *, width: float = 1.0) -> nn.Module:
    """Build a MobileNetV2 for inputs (C, H, W) and K classes.

    ``width`` multiplies all channel counts (0.35, 0.5, 0.75, 1.0, 1.4 in the paper); they stay multiples of 8.
    Raises ValueError for an input that is no picture and for a width that is not positive.
    """
    if len(input_shape) != 3:
        raise ValueError(f"input {input_shape}: a picture (C, H, W) is needed")
    if width <= 0:
        raise ValueError(f"width {width}: the multiplier is above 0, for example 0.35 or 1.0")
    net = MobileNetV2(input_shape, classes, width)
    for module in net.modules():
        if isinstance(module, nn.Conv2d):
            # fan_in: fan_out of a depthwise convolution counts all channels and would start it near zero
            nn.init.kaiming_normal_(module.weight, mode="fan_in", nonlinearity="relu")
    nn.init.normal_(net.fc.weight, std=0.01)
    nn.init.zeros_(net.fc.bias)
    return net


def _halvings(side_px: int) -> int:
    """How often a side can be halved (rounding up) before fewer than ``SMALLEST_MAP_PX`` pixels are left, at most 5."""
    count = 0
    while count < HALVINGS and -(-side_px // 2) >= SMALLEST_MAP_PX:
        side_px = -(-side_px // 2)
        count += 1
    return count


def _rounded(channels: float) -> int:
    """Nearest multiple of 8, never more than 10 % below (the reference code's rule)."""
    rounded = max(8, int(channels + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * channels else rounded


def _conv(channels_in: int, channels_out: int, *, kernel: int, stride: int = 1, groups: int = 1) -> list[nn.Module]:
    return [
        nn.Conv2d(channels_in, channels_out, kernel, stride, kernel // 2, groups=groups, bias=False),
        nn.BatchNorm2d(channels_out),
        nn.ReLU6(),
    ]

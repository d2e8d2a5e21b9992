"""Depthwise-separable network for keyword spotting (DS-CNN), as in MLPerf Tiny, for pictures of any size.

Zhang et al., "Hello Edge: Keyword Spotting on Microcontrollers", 2017 (arXiv:1711.07128); Banbury et al., "MLPerf Tiny
Benchmark", 2021 (arXiv:2106.07597).  One convolution with a large kernel and stride 2, four blocks of depthwise 3x3 and
pointwise 1x1, mean over the picture, Linear.  Differences from MLPerf's model: no dropout, no bias beside a batch
normalisation, and the padding of the first convolution is the same on both sides (same output size).

``build((1, 49, 10), 12)`` has 23,180 parameters and 2,656,768 MACs.
``build((1, 8, 8), 10, kernel_height=3, kernel_width=3, stride=1)`` has 21,066 parameters and 1,233,536 MACs.

Shapes: N batch, C channels, H height (frames), W width (coefficients), K classes.
"""

from __future__ import annotations

from torch import Tensor, nn


class SeparableBlock(nn.Module):
    """Depthwise 3x3 and pointwise 1x1, each with batch normalisation and ReLU."""

    def __init__(self, channels_in: int, channels_out: int) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(channels_in, channels_in, 3, 1, 1, groups=channels_in, bias=False)
        self.bn1 = nn.BatchNorm2d(channels_in)
        self.relu1 = nn.ReLU()
        self.pointwise = nn.Conv2d(channels_in, channels_out, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels_out)
        self.relu2 = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        """(N, C_in, H, W) → (N, C_out, H, W)."""
        x = self.relu1(self.bn1(self.depthwise(x)))
        out: Tensor = self.relu2(self.bn2(self.pointwise(x)))
        return out


class DsCnn(nn.Module):
    """First convolution, separable blocks, mean over the picture, one Linear."""

    def __init__(
        self,
        input_shape: tuple[int, ...],
        classes: int,
        *,
        width: int,
        blocks: int,
        kernel: tuple[int, int],
        stride: int,
    ) -> None:
        super().__init__()
        channels, height, side_width = input_shape
        padding = (_padding(height, kernel[0], stride), _padding(side_width, kernel[1], stride))
        self.conv1 = nn.Conv2d(channels, width, kernel, stride, padding, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu1 = nn.ReLU()
        self.blocks = nn.Sequential(*(SeparableBlock(width, width) for _ in range(blocks)))
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(width, classes)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) → logits (N, K)."""
        x = self.relu1(self.bn1(self.conv1(x)))  # (N, width, H/stride, W/stride)
        x = self.pool(self.blocks(x)).flatten(1)  # (N, width)
        logits: Tensor = self.fc(x)
        return logits


def build(
    input_shape: tuple[int, ...],
    classes: int,
    *,
    width: int = 64,
    blocks: int = 4,
    kernel_height: int = 10,
    kernel_width: int = 4,
    stride: int = 2,
) -> nn.Module:
    """Build a DS-CNN for inputs (C, H, W) and K classes.

    ``kernel_height``, ``kernel_width`` and ``stride`` belong to the first convolution.  Raises ValueError for an input
    that is no picture and for an option below its smallest value.
    """
    if len(input_shape) != 3:
        raise ValueError(f"input {input_shape}: a picture (C, H, W) is needed")
    if min(width, kernel_height, kernel_width, stride) < 1 or blocks < 0:
        raise ValueError("width, kernel_height, kernel_width and stride are at least 1, blocks at least 0")
    net = DsCnn(input_shape, classes, width=width, blocks=blocks, kernel=(kernel_height, kernel_width), stride=stride)
    for module in net.modules():
        if isinstance(module, nn.Conv2d):
            # fan_in: fan_out of a depthwise convolution counts all channels and would start it near zero
            nn.init.kaiming_normal_(module.weight, mode="fan_in", nonlinearity="relu")
    return net


def _padding(size: int, kernel: int, stride: int) -> int:
    """Zeros on each side so that the output is ceil(size / stride), as far as equal sides can give that."""
    total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
    return (total + 1) // 2

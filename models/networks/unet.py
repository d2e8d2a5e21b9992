"""U-Net: a path that halves the picture, a path that doubles it again, and the details handed across.

Ronneberger et al., "U-Net: Convolutional Networks for Biomedical Image Segmentation", 2015 (arXiv:1505.04597), with
padded convolutions, batch normalisation (Ioffe & Szegedy, 2015, arXiv:1502.03167), and resizing followed by a
convolution in place of the transposed convolution (Odena et al., "Deconvolution and Checkerboard Artifacts", 2016).

``build((1, 48, 48), 11)`` has 130,091 parameters and 75,055,104 MACs.
``build((3, 96, 96), 2, width=8, depth=3, upsample="bilinear")`` has 134,682 parameters and 110,960,640 MACs.

Shapes: N batch, C channels, H height, W width, K classes.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

UPSAMPLE = ("nearest", "bilinear")


class Down(nn.Module):
    """Half the picture, then two convolutions."""

    def __init__(self, channels_in: int, channels_out: int) -> None:
        super().__init__()
        self.pool = nn.MaxPool2d(2)
        self.convs = _convs(channels_in, channels_out)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) → (N, 2 C, H / 2, W / 2)."""
        halved: Tensor = self.convs(self.pool(x))
        return halved


class Up(nn.Module):
    """Twice the picture, half the channels, then two convolutions over it and what comes across."""

    def __init__(self, channels: int, upsample: str) -> None:
        super().__init__()
        self.resize = nn.Upsample(
            scale_factor=2, mode=upsample, align_corners=False if upsample == "bilinear" else None
        )
        self.narrow = nn.Sequential(*_conv(channels, channels // 2))
        self.convs = _convs(channels, channels // 2)

    def forward(self, x: Tensor, across: Tensor) -> Tensor:
        """(N, C, H, W) and (N, C / 2, 2 H, 2 W) → (N, C / 2, 2 H, 2 W)."""
        doubled: Tensor = self.convs(torch.cat([across, self.narrow(self.resize(x))], 1))
        return doubled


class UNet(nn.Module):
    """``depth`` times down, as often up, and a 1x1 convolution that makes one map per class."""

    def __init__(self, channels: int, classes: int, width: int, depth: int, upsample: str) -> None:
        super().__init__()
        self.first = _convs(channels, width)
        self.down = nn.ModuleList(Down(width << level, width << (level + 1)) for level in range(depth))
        self.up = nn.ModuleList(Up(width << level, upsample) for level in range(depth, 0, -1))
        self.head = nn.Conv2d(width, classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) → (N, K, H, W)."""
        x = self.first(x)
        across = []
        for down in self.down:
            across.append(x)
            x = down(x)
        for up in self.up:
            x = up(x, across.pop())
        maps: Tensor = self.head(x)
        return maps


def build(
    input_shape: tuple[int, ...], classes: int, *, width: int = 16, depth: int = 2, upsample: str = "nearest"
) -> nn.Module:
    """Build the network for pictures (C, H, W) and a map for each of K classes.

    ``width``: channels at full size, doubled each time the picture is halved, ``depth`` times in all.  ``upsample``:
    "nearest" or "bilinear".  Raises ValueError for an input that is no picture or cannot be halved so often.
    """
    if len(input_shape) != 3:
        raise ValueError(f"input {input_shape}: a picture (C, H, W) is needed")
    if upsample not in UPSAMPLE:
        raise ValueError(f"upsample '{upsample}': known are {', '.join(UPSAMPLE)}")
    if min(width, depth) < 1:
        raise ValueError(f"width {width}, depth {depth}: each is at least 1")
    channels, height, side_width = input_shape
    if height % (1 << depth) or side_width % (1 << depth):
        raise ValueError(f"input {input_shape} with depth {depth}: height and width must be multiples of {1 << depth}")
    net = UNet(channels, classes, width, depth, upsample)
    for module in net.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
    return net


def _convs(channels_in: int, channels_out: int) -> nn.Sequential:
    return nn.Sequential(*_conv(channels_in, channels_out), *_conv(channels_out, channels_out))


def _conv(channels_in: int, channels_out: int) -> list[nn.Module]:
    return [
        nn.Conv2d(channels_in, channels_out, 3, 1, 1, bias=False),
        nn.BatchNorm2d(channels_out),
        nn.ReLU(),
    ]

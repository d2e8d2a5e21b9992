"""Plain convolutional network: stages of Conv, BatchNorm, ReLU, each ending in MaxPool; mean over the picture, Linear.

After Simonyan & Zisserman, "Very Deep Convolutional Networks", 2014 (arXiv:1409.1556): 3x3 convolutions, the width
doubles when the picture halves.  Batch normalisation: Ioffe & Szegedy, 2015 (arXiv:1502.03167).  The mean over the
picture in place of large Linear layers: Lin et al., "Network in Network", 2013 (arXiv:1312.4400); it makes the
weights fit any picture size.

``build((1, 8, 8), 10)`` has 288,170 parameters and 2,379,008 MACs.
``build((1, 28, 28), 10, width=16, stages=3)`` has 72,666 parameters and 7,338,880 MACs.

Shapes: N batch, C channels, H height, W width, K classes.
"""

from __future__ import annotations

from torch import Tensor, nn

MIN_POOLED_PX = 2  # a picture smaller than this is not halved again


class Cnn(nn.Module):
    """Stages of convolutions, each with a MaxPool at its end while the picture is large enough."""

    def __init__(self, input_shape: tuple[int, ...], classes: int, width: int, stages: int, convs: int) -> None:
        super().__init__()
        channels, height, side_width = input_shape
        side_px = min(height, side_width)
        layers: list[nn.Module] = []
        for stage in range(stages):
            for _ in range(convs):
                layers += _conv(channels, width << stage)
                channels = width << stage
            if side_px // 2 >= MIN_POOLED_PX:
                layers.append(nn.MaxPool2d(2))
                side_px //= 2
        self.features = nn.Sequential(*layers)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(channels, classes)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) → logits (N, K)."""
        x = self.features(x)  # (N, width * 2^(stages-1), about H / 2^stages, about W / 2^stages)
        x = self.pool(x).flatten(1)  # (N, width * 2^(stages-1))
        logits: Tensor = self.fc(x)
        return logits


def build(
    input_shape: tuple[int, ...], classes: int, *, width: int = 32, stages: int = 3, convs_per_stage: int = 2
) -> nn.Module:
    """Build the network for inputs (C, H, W) and K classes.

    ``width``: channels of the first stage, doubled in each further one.  Raises ValueError for an input that is no
    picture and for a width, stage or convolution count below 1.
    """
    if len(input_shape) != 3:
        raise ValueError(f"input {input_shape}: a picture (C, H, W) is needed")
    if min(width, stages, convs_per_stage) < 1:
        raise ValueError(f"width {width}, stages {stages}, convs_per_stage {convs_per_stage}: each is at least 1")
    net = Cnn(input_shape, classes, width, stages, convs_per_stage)
    for module in net.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
    return net


def _conv(channels_in: int, channels_out: int) -> list[nn.Module]:
    return [
        nn.Conv2d(channels_in, channels_out, 3, 1, 1, bias=False),
        nn.BatchNorm2d(channels_out),
        nn.ReLU(),
    ]

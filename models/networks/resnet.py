"""CIFAR-style residual networks of any depth: 8, 14, 20, 32, 56, 110 … and bottlenecks to 152 and beyond.

He et al., "Deep Residual Learning for Image Recognition", 2015 (arXiv:1512.03385), section 4.2.
Basic blocks: depth = 6n + 2 with widths (w, 2w, 4w).  Bottleneck blocks: depth = 9n + 2, each block
1x1 → 3x3 → 1x1 with four times the width at its end.  MLPerf Tiny's ResNet-8 is ``depth=8, width=16``.

At (1, 28, 28), 10 classes, width 16:  depth 8 has 77,850 parameters and 9.4 million MACs.

Shapes: N batch, C channels, H height, W width, K classes.
"""

from __future__ import annotations

from torch import Tensor, nn


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and the shortcut around them."""

    expansion = 1

    def __init__(self, channels_in: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels_in, width, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu1 = nn.ReLU()
        self.conv2 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.shortcut = _shortcut(channels_in, width, stride)
        self.relu2 = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        """(N, C_in, H, W) → (N, width, H/stride, W/stride)."""
        y = self.relu1(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        return self.relu2(y + self.shortcut(x))


class Bottleneck(nn.Module):
    """1x1 down, 3x3, 1x1 up to four times the width, and the shortcut around them."""

    expansion = 4

    def __init__(self, channels_in: int, width: int, stride: int) -> None:
        super().__init__()
        channels_out = width * self.expansion
        self.conv1 = nn.Conv2d(channels_in, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu1 = nn.ReLU()
        self.conv2 = nn.Conv2d(width, width, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.relu2 = nn.ReLU()
        self.conv3 = nn.Conv2d(width, channels_out, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(channels_out)
        self.shortcut = _shortcut(channels_in, channels_out, stride)
        self.relu3 = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        """(N, C_in, H, W) → (N, 4*width, H/stride, W/stride)."""
        y = self.relu1(self.bn1(self.conv1(x)))
        y = self.relu2(self.bn2(self.conv2(y)))
        y = self.bn3(self.conv3(y))
        return self.relu3(y + self.shortcut(x))


class ResNet(nn.Module):
    """Stem, three stages that halve the picture and double the width, mean over the picture, one Linear."""

    def __init__(self, channels_in: int, classes: int, blocks_per_stage: int, width: int, *, bottleneck: bool) -> None:
        super().__init__()
        block = Bottleneck if bottleneck else BasicBlock
        self.conv1 = nn.Conv2d(channels_in, width, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu1 = nn.ReLU()
        stages: list[nn.Module] = []
        channels = width
        for stage in range(3):
            for index in range(blocks_per_stage):
                stride = 2 if stage > 0 and index == 0 else 1
                stages.append(block(channels, width << stage, stride))
                channels = (width << stage) * block.expansion
        self.blocks = nn.Sequential(*stages)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(channels, classes)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) → logits (N, K)."""
        x = self.blocks(self.relu1(self.bn1(self.conv1(x))))
        x = self.pool(x).flatten(1)  # (N, channels)
        logits: Tensor = self.fc(x)
        return logits


def build(
    input_shape: tuple[int, ...], classes: int, *, depth: int = 8, width: int = 16, bottleneck: bool = False
) -> nn.Module:
    """Build a ResNet for inputs (C, H, W) and K classes; raises ValueError for a depth that no n gives."""
    layers_per_n = 9 if bottleneck else 6
    if depth < layers_per_n + 2 or (depth - 2) % layers_per_n:
        kind = (
            "bottleneck depths are 9n + 2 (11, 20, 29, 38 … 110, 155)"
            if bottleneck
            else "depths are 6n + 2 (8, 14, 20 … 152)"
        )
        raise ValueError(f"depth {depth}: {kind}")
    net = ResNet(input_shape[0], classes, (depth - 2) // layers_per_n, width, bottleneck=bottleneck)
    for module in net.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
    return net


def _shortcut(channels_in: int, channels_out: int, stride: int) -> nn.Module:
    if stride == 1 and channels_in == channels_out:
        return nn.Identity()
    return nn.Sequential(nn.Conv2d(channels_in, channels_out, 1, stride, bias=False), nn.BatchNorm2d(channels_out))

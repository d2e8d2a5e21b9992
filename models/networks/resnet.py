"""Residual networks: CIFAR-style of any depth (8, 14, 20 … 110, 152) and the ImageNet layouts 18, 34, 50, 101, 152.

He et al., "Deep Residual Learning for Image Recognition", 2015 (arXiv:1512.03385).
``layout="cifar"`` (section 4.2): three stages of widths (w, 2w, 4w).  Basic blocks (two 3x3): depth = 6n + 2;
bottleneck blocks (1x1 → 3x3 → 1x1, four times the width at the end): depth = 9n + 2.  MLPerf Tiny's ResNet-8 is
``depth=8, width=16``.
``layout="imagenet"`` (table 1): four stages of widths (w, 2w, 4w, 8w), basic blocks for 18 and 34, bottlenecks
for 50, 101 and 152; the 7x7 stem with stride 2 and its max pool where the picture has 64 pixels or more, a 3x3 stem
below.  The stride of a bottleneck sits in its 3x3 convolution ("v1.5", as in torchvision).

``build((1, 28, 28), 10, depth=8)`` has 77,754 parameters and 9,345,920 MACs.
``build((3, 32, 32), 10, depth=20)`` has 272,474 parameters and 40,813,184 MACs.
``build((3, 32, 32), 10, depth=29, bottleneck=True)`` has 313,114 parameters and 47,106,560 MACs.
``build((3, 224, 224), 1000, depth=50, layout="imagenet")`` has 25,557,032 parameters and 4,089,184,256 MACs.
``build((3, 224, 224), 1000, depth=101, layout="imagenet")`` has 44,549,160 parameters and 7,801,405,440 MACs.
``build((3, 224, 224), 1000, depth=152, layout="imagenet")`` has 60,192,808 parameters and 11,513,626,624 MACs.

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
        out: Tensor = self.relu2(y + self.shortcut(x))
        return out


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
        out: Tensor = self.relu3(y + self.shortcut(x))
        return out


Block = type[BasicBlock] | type[Bottleneck]

# depth → block and blocks per stage (table 1)
IMAGENET_LAYOUTS: dict[int, tuple[Block, tuple[int, ...]]] = {
    18: (BasicBlock, (2, 2, 2, 2)),
    34: (BasicBlock, (3, 4, 6, 3)),
    50: (Bottleneck, (3, 4, 6, 3)),
    101: (Bottleneck, (3, 4, 23, 3)),
    152: (Bottleneck, (3, 8, 36, 3)),
}
LARGE_PICTURE_PX = 64


class ResNet(nn.Module):
    """Stem, stages that halve the picture and double the width, mean over the picture, one Linear."""

    def __init__(
        self, stem: nn.Sequential, classes: int, block: Block, blocks_per_stage: tuple[int, ...], width: int
    ) -> None:
        super().__init__()
        self.stem = stem  # ends with ``width`` channels
        blocks: list[nn.Module] = []
        channels = width
        for stage, count in enumerate(blocks_per_stage):
            for index in range(count):
                stride = 2 if stage > 0 and index == 0 else 1
                blocks.append(block(channels, width << stage, stride))
                channels = (width << stage) * block.expansion
        self.blocks = nn.Sequential(*blocks)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(channels, classes)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) → logits (N, K)."""
        x = self.blocks(self.stem(x))  # (N, channels, about H / 2^(stages-1), …)
        x = self.pool(x).flatten(1)  # (N, channels)
        logits: Tensor = self.fc(x)
        return logits


def build(
    input_shape: tuple[int, ...],
    classes: int,
    *,
    depth: int = 8,
    width: int | None = None,
    bottleneck: bool = False,
    layout: str = "cifar",
) -> nn.Module:
    """Build a ResNet for inputs (C, H, W) and K classes.

    ``width``: channels of the first stage; 16 for CIFAR, 64 for ImageNet when not given.  ``bottleneck`` chooses the
    block of the CIFAR layout; in the ImageNet layout the depth does.  Raises ValueError for an input that is no
    picture, an unknown layout, a depth that the layout does not have and a width below 1.
    """
    if len(input_shape) != 3:
        raise ValueError(f"input {input_shape}: a picture (C, H, W) is needed")
    if layout not in ("cifar", "imagenet"):
        raise ValueError(f"layout '{layout}': known are cifar, imagenet")
    imagenet = layout == "imagenet"
    block, blocks_per_stage = _imagenet_layout(depth) if imagenet else _cifar_layout(depth, bottleneck=bottleneck)
    width = (64 if imagenet else 16) if width is None else width
    if width < 1:
        raise ValueError(f"width {width}: at least one channel is needed")
    large = imagenet and min(input_shape[1:]) >= LARGE_PICTURE_PX
    net = ResNet(_stem(input_shape[0], width, large=large), classes, block, blocks_per_stage, width)
    for module in net.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
    return net


def _cifar_layout(depth: int, *, bottleneck: bool) -> tuple[Block, tuple[int, ...]]:
    layers_per_n = 9 if bottleneck else 6
    if depth < layers_per_n + 2 or (depth - 2) % layers_per_n:
        known = "9n + 2 (11, 20, 29 … 110, 155)" if bottleneck else "6n + 2 (8, 14, 20 … 110, 152)"
        hint = f'; ResNet-{depth} of the paper is layout="imagenet"' if depth in IMAGENET_LAYOUTS else ""
        kind = "bottleneck depths" if bottleneck else "depths"
        raise ValueError(f"depth {depth}: {kind} of the CIFAR layout are {known}{hint}")
    return (Bottleneck if bottleneck else BasicBlock), ((depth - 2) // layers_per_n,) * 3


def _imagenet_layout(depth: int) -> tuple[Block, tuple[int, ...]]:
    if depth not in IMAGENET_LAYOUTS:
        known = ", ".join(map(str, IMAGENET_LAYOUTS))
        raise ValueError(f"depth {depth}: depths of the ImageNet layout are {known}")
    return IMAGENET_LAYOUTS[depth]


def _stem(channels_in: int, width: int, *, large: bool) -> nn.Sequential:
    kernel, stride = (7, 2) if large else (3, 1)
    layers: list[nn.Module] = [
        nn.Conv2d(channels_in, width, kernel, stride, kernel // 2, bias=False),
        nn.BatchNorm2d(width),
        nn.ReLU(),
    ]
    if large:
        layers.append(nn.MaxPool2d(3, 2, 1))
    return nn.Sequential(*layers)


def _shortcut(channels_in: int, channels_out: int, stride: int) -> nn.Module:
    if stride == 1 and channels_in == channels_out:
        return nn.Identity()
    return nn.Sequential(nn.Conv2d(channels_in, channels_out, 1, stride, bias=False), nn.BatchNorm2d(channels_out))

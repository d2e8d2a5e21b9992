"""A network of your own: any torch.nn.Module that turns a batch of samples into a row of values for each.

karui calls ``build(input_shape, classes, **options)``: shape and classes come from the data-set card (for regression,
``classes`` is the number of targets), the options from [network.options] in the recipe.  Modules beside this file can
be imported; when one of them is edited, the network is trained anew.

``build((3, 32, 32), 2)`` has 6,154 parameters.

Shapes: N batch, C channels, H height, W width, K classes.
"""

from __future__ import annotations

from torch import Tensor, nn


class MyNetwork(nn.Module):
    """Three convolutions that halve the picture, the mean over what is left, and one Linear to the classes."""

    def __init__(self, channels: int, classes: int, width: int) -> None:
        super().__init__()
        self.features = nn.Sequential(
            _block(channels, width),  # (N, width, H/2, W/2)
            _block(width, 2 * width),  # (N, 2*width, H/4, W/4)
            _block(2 * width, 4 * width),  # (N, 4*width, H/8, W/8)
        )
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(4 * width, classes)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) → logits (N, K).  No "if" that looks at values: the network must be traceable."""
        x = self.pool(self.features(x)).flatten(1)  # (N, 4*width)
        logits: Tensor = self.fc(x)
        return logits


def _block(channels_in: int, channels_out: int) -> nn.Sequential:
    # Conv, BatchNorm and ReLU in this order become one integer operation in the int8 files
    return nn.Sequential(
        nn.Conv2d(channels_in, channels_out, kernel_size=3, stride=2, padding=1, bias=False),
        nn.BatchNorm2d(channels_out),
        nn.ReLU(),
    )


def build(input_shape: tuple[int, ...], classes: int, *, width: int = 8) -> nn.Module:
    """Build the network for pictures (C, H, W) and K classes; ``width``: channels of the first convolution."""
    return MyNetwork(input_shape[0], classes, width)

"""Small networks that use every operation the quantization table knows."""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn


class Residual(nn.Module):
    """Convolutions, a residual sum, max and mean pooling, a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 8, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(8)
        self.conv2 = nn.Conv2d(8, 8, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(8)
        self.pool = nn.MaxPool2d(2)
        self.fc = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.bn1(self.conv1(x)))
        x = F.relu(self.bn2(self.conv2(x)) + x)
        x = self.pool(x).mean((2, 3))
        logits: Tensor = self.fc(x)
        return logits


class Mixed(nn.Module):
    """Concatenation, average pooling, ReLU6, sigmoid gate, upsampling, reshape by view."""

    def __init__(self) -> None:
        super().__init__()
        self.left = nn.Conv2d(3, 4, 1)
        self.right = nn.Conv2d(3, 4, 3, padding=1)
        self.depthwise = nn.Conv2d(8, 8, 3, padding=1, groups=8)
        self.act = nn.ReLU6()
        self.gate = nn.Conv2d(8, 8, 1)
        self.average = nn.AvgPool2d(2)
        self.up = nn.Upsample(scale_factor=2, mode="nearest")
        self.fc = nn.Linear(8 * 8 * 8, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.cat([self.left(x), F.relu(self.right(x))], 1)
        x = self.act(self.depthwise(x))
        x = x * torch.sigmoid(self.gate(x))
        x = self.up(self.average(x))
        logits: Tensor = self.fc(x.view(x.size(0), -1))
        return logits


class TanhMlp(nn.Module):
    """Affine and tanh, twice; dropout that must vanish."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Flatten(), nn.Linear(192, 16), nn.Tanh(), nn.Dropout(0.5), nn.Linear(16, 16), nn.Tanh(), nn.Linear(16, 5)
        )

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.body(x)
        return logits


class Odd(nn.Module):
    """What no integer kernel has: a transposed convolution, hard swish, a constant, a lone batch norm, a pad."""

    def __init__(self) -> None:
        super().__init__()
        self.bn = nn.BatchNorm2d(3)
        self.up = nn.ConvTranspose2d(3, 4, 2, stride=2)
        self.swish = nn.Hardswish()
        self.conv = nn.Conv2d(4, 5, 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.swish(self.up(self.bn(x))) * 0.5 + 0.1
        x = self.conv(F.pad(x, (1, 1, 1, 1)))
        return torch.flatten(F.adaptive_avg_pool2d(x, 1), 1)


ALL: dict[str, type[nn.Module]] = {"residual": Residual, "mixed": Mixed, "tanh-mlp": TanhMlp, "odd": Odd}
SAMPLE_SHAPE = (3, 8, 8)


def build(name: str, *, seed: int = 0) -> nn.Module:
    """Make a network whose batch norms have seen data."""
    torch.manual_seed(seed)
    network = ALL[name]().train()
    with torch.no_grad():
        for _ in range(5):
            network(torch.randn(32, *SAMPLE_SHAPE))
    return network.eval()


def inputs(count: int, *, seed: int = 1) -> Tensor:
    """Draw (count, 3, 8, 8)."""
    return torch.randn(count, *SAMPLE_SHAPE, generator=torch.Generator().manual_seed(seed))

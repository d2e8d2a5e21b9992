"""Count what networks take in LiteRT whose times on boards were published, for the table that estimates rest on.

    python bench/count_published.py >> pipeline/estimating/reference.csv

EfficientDet-Lite0 at 320×320 without its post-processing, random weights, float and int8: times of TFLite 2.18 with
XNNPACK on one thread, from NobuoTsukamoto/benchmarks, tensorflow/lite/efficentdet/efficientdet.md.
"""

from __future__ import annotations

import csv
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from pipeline import catalog
from pipeline.declare.recipe import QuantizeSpec
from pipeline.estimating.table import reference
from pipeline.networks.from_torch import folded_graph
from pipeline.quant.calibrate import calibrate
from pipeline.quant.prepare import prepare
from pipeline.quant.to_onnx import write_onnx
from pipeline.runtimes.emulation.counting import Counting
from pipeline.runtimes.emulation.system import system_for
from pipeline.tflite import write_tflite

# board, its profile, MHz, float ms, int8 ms
PUBLISHED = (
    ("Raspberry Pi 4B", "raspberry-pi-4b", 1800, 328.65, 197.75),
    ("Raspberry Pi 5", "raspberry-pi-5", 2400, 104.01, 44.94),
)
SIDE, WIDTH, ANCHORS, CLASSES = 320, 64, 9, 90
SIZES = (40, 20, 10, 5, 3)  # of the five levels


class Block(nn.Module):
    """An inverted bottleneck."""

    def __init__(self, inputs: int, expand: int, outputs: int, kernel: int, stride: int) -> None:
        super().__init__()
        middle = inputs * expand
        grow = [nn.Conv2d(inputs, middle, 1), nn.ReLU6()] if expand > 1 else []
        depthwise = nn.Conv2d(middle, middle, kernel, stride, kernel // 2, groups=middle)
        self.body = nn.Sequential(*grow, depthwise, nn.ReLU6(), nn.Conv2d(middle, outputs, 1))
        self.same = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        """Run it."""
        return x + self.body(x) if self.same else self.body(x)  # type: ignore[no-any-return]


def separable(outputs: int) -> nn.Sequential:
    """Return a depthwise and a pointwise convolution."""
    return nn.Sequential(nn.Conv2d(WIDTH, WIDTH, 3, padding=1, groups=WIDTH, bias=False), nn.Conv2d(WIDTH, outputs, 1))


class Node(nn.Module):
    """A node of the pyramid: levels brought to one size and width, added, convolved."""

    def __init__(self, inputs: Sequence[tuple[int, int]], size: int) -> None:  # channels and size of each
        super().__init__()
        self.size = size
        self.to_width = nn.ModuleList(
            nn.Conv2d(channels, WIDTH, 1) if channels != WIDTH else nn.Identity() for channels, _ in inputs
        )
        self.out = separable(WIDTH)

    def forward(self, *levels: Tensor) -> Tensor:
        """Run it."""
        total = None
        for level, narrow in zip(levels, self.to_width, strict=True):
            x = narrow(level)
            if x.shape[-1] > self.size:
                x = F.max_pool2d(x, 3, 2, 1)
            elif x.shape[-1] < self.size:
                x = F.interpolate(x, (self.size, self.size))
            total = x if total is None else total + x
        return self.out(F.relu6(total))  # type: ignore[arg-type, no-any-return]


class EfficientDetLite0(nn.Module):
    """Backbone, three rounds of the pyramid, heads for classes and boxes side by side."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 32, 3, 2, 1), nn.ReLU6())
        stages, channels = [], 32
        for repeats, kernel, stride, expand, outputs in (
            (1, 3, 1, 1, 16), (2, 3, 2, 6, 24), (2, 5, 2, 6, 40), (3, 3, 2, 6, 80), (3, 5, 1, 6, 112),
            (4, 5, 2, 6, 192), (1, 3, 1, 6, 320),
        ):  # fmt: skip
            blocks = []
            for number in range(repeats):
                blocks.append(Block(channels, expand, outputs, kernel, 1 if number else stride))
                channels = outputs
            stages.append(nn.Sequential(*blocks))
        self.stages = nn.ModuleList(stages)
        self.sixth = nn.Conv2d(320, WIDTH, 1)
        self.down, self.up = nn.ModuleList(), nn.ModuleList()
        widths = [40, 112, 320, WIDTH, WIDTH]
        for number in range(3):
            own = widths if number == 0 else [WIDTH] * 5
            self.down.append(
                nn.ModuleList(
                    Node([(own[k], SIZES[k]), (own[4] if k == 3 else WIDTH, SIZES[k + 1])], SIZES[k]) for k in range(4)
                )
            )
            self.up.append(
                nn.ModuleList(
                    Node([(own[k], SIZES[k]), *([(WIDTH, SIZES[k])] if k < 4 else []), (WIDTH, SIZES[k - 1])], SIZES[k])
                    for k in range(1, 5)
                )
            )
        self.heads = nn.ModuleList(
            nn.ModuleList([*(separable(WIDTH) for _ in range(3)), separable(outputs)])
            for outputs in (ANCHORS * CLASSES, ANCHORS * 4)
        )

    def forward(self, x: Tensor) -> Tensor:
        """(n, 3, 320, 320) → (n, anchors, classes + 4)."""
        x = self.stem(x)
        taken = []
        for place, stage in enumerate(self.stages):
            x = stage(x)
            if place in (2, 4, 6):
                taken.append(x)
        sixth = F.max_pool2d(self.sixth(x), 3, 2, 1)
        levels = [*taken, sixth, F.max_pool2d(sixth, 3, 2, 1)]
        for down, up in zip(self.down, self.up, strict=True):
            between = [levels[4]]
            for k in (3, 2, 1, 0):
                between.insert(0, down[k](levels[k], between[0]))  # type: ignore[index]
            after = [between[0]]
            for k in (1, 2, 3):
                after.append(up[k - 1](levels[k], between[k], after[-1]))  # type: ignore[index]
            levels = [*after, up[3](levels[4], after[-1])]  # type: ignore[index]
        found = []
        for head in self.heads:
            layers = list(head.children())
            parts = []
            for level in levels:
                y = level
                for each in layers[:-1]:
                    y = F.relu6(each(y))
                y = layers[-1](y)
                parts.append(y.permute(0, 2, 3, 1).reshape(y.shape[0], -1, y.shape[1] // ANCHORS))
            found.append(torch.cat(parts, 1))
        return torch.cat(found, 2)


def files(folder: Path) -> dict[str, Path]:
    """Write the network's TFLite files, precision → file."""
    torch.manual_seed(0)
    graph = folded_graph(EfficientDetLite0().eval(), (3, SIDE, SIDE))
    made = {"fp32": folder / "float.tflite", "int8": folder / "int8.tflite"}
    made["fp32"].write_bytes(write_tflite(write_onnx(graph, name="EfficientDet-Lite0")))
    prepared = prepare(graph, weight_bits=8)
    calibrate(prepared, torch.randn(2, 3, SIDE, SIDE), QuantizeSpec(calibration="min-max"))
    made["int8"].write_bytes(write_tflite(write_onnx(prepared.eval(), name="EfficientDet-Lite0")))
    return made


def main() -> None:
    """Print a row for each board and precision."""
    names = list(reference()[0].counts)
    rows = csv.writer(sys.stdout, lineterminator="\n")
    sample = np.random.default_rng(0).standard_normal((1, 3, SIDE, SIDE)).astype(np.float32)
    with tempfile.TemporaryDirectory() as folder:
        made = files(Path(folder))
        for board, profile, clock_mhz, *published in PUBLISHED:
            system = system_for(catalog.load_target(profile))
            with Counting(system) as counting:
                for (precision, path), ms in zip(made.items(), published, strict=True):
                    counts = counting.count(path, "litert", {"input": sample})
                    words = (system.processor.name, clock_mhz, board, "litert", "EfficientDet-Lite0", precision, ms)
                    rows.writerow([*words, *(round(counts[name]) for name in names)])
                    sys.stdout.flush()


if __name__ == "__main__":
    main()

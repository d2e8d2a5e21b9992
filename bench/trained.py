"""Four known networks, each trained once on real pictures of 64×64 pixels: what quantizers are compared on.

The pictures come from a data set of karui, resized; they and a card for them lie in one folder with the weights.  What
is in the folder already is not made again.  torchvision and timm are needed (bench_zoo says how they are installed).

    python bench/trained.py FOLDER [--pictures DATA] [--only NAME …]

Shapes: N pictures of (3, 64, 64).
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from pathlib import Path

import click
import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from pipeline import catalog, elsewhere
from pipeline.data.load import load, reference
from pipeline.data.source import Dataset, Source
from pipeline.declare.recipe import NetworkSpec
from pipeline.networks.build import build_network
from pipeline.networks.from_torch import folded_graph
from pipeline.onboard.arrays import Signature, TensorSpec
from pipeline.onboard.frontend import prepare
from pipeline.quant.to_onnx import to_bytes, write_onnx

SHAPE = (3, 64, 64)
_TRAIN, _VAL, _TEST, _CALIBRATED = 6000, 600, 5000, 256  # pictures
_BATCH, _LEARNING_RATE, _WEIGHT_DECAY = 64, 2e-3, 0.01
_CARD = """\
# Pictures of another data set ({source}) at 64x64 pixels in three channels, for comparisons of quantizers.
name = "{name}"
title = "{title}, 64x64"
kind = "npz"
classes = {classes}

[input]
shape = [3, 64, 64]
divide = 255
mean = [{mean:.4f}]
std = [{std:.4f}]

[files.all]
path = "pictures.npz"

[split]
val = {val}

[calibration]
samples = {calibrated}
"""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A network, and how long it is trained."""

    network: str
    epochs: int


PLANS = {
    "mobilenet_v3_small": Plan(network="torchvision:mobilenet_v3_small", epochs=10),
    "mobilenet_v2": Plan(network="torchvision:mobilenet_v2", epochs=10),
    "resnet18": Plan(network="torchvision:resnet18", epochs=3),
    "efficientnet_lite0": Plan(network="timm:efficientnet_lite0", epochs=6),
}


def card_in(folder: Path, pictures: str) -> Path:
    """Return the card of resized pictures in the folder, made if it is not there."""
    card = folder / "pictures.toml"
    if card.exists():
        return card
    declared, place = catalog.load_card(pictures)
    dataset = load(reference(declared, place))
    x_train, y_train = _resized(dataset.train, _TRAIN + _VAL, seed=0)
    x_test, y_test = _resized(dataset.test, _TEST, seed=1)
    folder.mkdir(parents=True, exist_ok=True)
    np.savez(folder / "pictures.npz", x_train=x_train, y_train=y_train, x_test=x_test, y_test=y_test)
    scaled = x_train.astype(np.float32) / 255
    text = _CARD.format(
        source=declared.name,
        name=f"{declared.name}-64",
        title=declared.title,
        classes=list(dataset.classes),
        mean=float(scaled.mean()),
        std=float(scaled.std()),
        val=_VAL,
        calibrated=_CALIBRATED,
    )
    card.write_text(text.replace("'", '"'), encoding="utf-8")
    return card


def _resized(source: Source, most: int, *, seed: int) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Return at most so many pictures as bytes (N, 3, 64, 64), and their classes (N,)."""
    chosen = np.random.default_rng(seed).permutation(len(source))[:most]
    read = source.read(chosen)
    x = torch.from_numpy(read.inputs["input"]).float()
    grown = F.interpolate(x, size=SHAPE[1:], mode="bilinear").expand(-1, SHAPE[0], -1, -1)
    return grown.round().clamp(0, 255).to(torch.uint8).numpy(), read.wanted["class"]


def float_file(name: str, card: Path) -> Path:
    """Return the trained network as a float ONNX file beside the card, trained if its weights are not there."""
    weights, written = card.with_name(f"{name}.safetensors"), card.with_name(f"{name}.onnx")
    if weights.exists() and written.exists():
        return written
    declared, folder = catalog.load_card(str(card))
    dataset = load(reference(declared, folder))
    network = _built(PLANS[name].network, len(dataset.classes))
    if weights.exists():
        network.load_state_dict(load_file(weights))
    else:
        _train(name, network, dataset)
        save_file(network.state_dict(), weights)
    written.write_bytes(to_bytes(write_onnx(folded_graph(network.eval(), SHAPE), name=name)))
    return written


def _built(name: str, classes: int) -> nn.Module:
    given, made = TensorSpec("input", "float32", SHAPE, "CHW"), TensorSpec("output", "float32", (classes,), "K")
    signature = Signature((given,), (made,))
    return build_network(elsewhere.reference(NetworkSpec(file=name), beside=None, signature=signature), seed=0)


def _inputs(dataset: Dataset, source: Source) -> tuple[Tensor, Tensor]:
    read = source.read(np.arange(len(source)))
    return torch.from_numpy(prepare(read.inputs, dataset.frontend)["input"]), torch.from_numpy(read.wanted["class"])


def _train(name: str, network: nn.Module, dataset: Dataset) -> None:
    x, classes = _inputs(dataset, dataset.train)
    started, epochs = time.process_time(), PLANS[name].epochs
    torch.manual_seed(0)
    network.train().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimizer = torch.optim.AdamW(network.parameters(), lr=_LEARNING_RATE, weight_decay=_WEIGHT_DECAY)
    steps = epochs * math.ceil(len(x) / _BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=_LEARNING_RATE, total_steps=steps)
    for epoch in range(epochs):
        losses = []
        for chosen in torch.randperm(len(x)).split(_BATCH):  # type: ignore[no-untyped-call]
            flipped = x[chosen].flip(3) if torch.rand(()) < 0.5 else x[chosen]
            loss = F.cross_entropy(network(flipped.contiguous(memory_format=torch.channels_last)), classes[chosen])
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            schedule.step()
            losses.append(float(loss.detach()))
        print(
            f"{name}: epoch {epoch + 1}, loss {np.mean(losses):.3f}, {time.process_time() - started:.0f} s", flush=True
        )
    network.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]


@click.command()
@click.argument("folder", type=click.Path(file_okay=False, path_type=Path))
@click.option("--pictures", default="fashion-mnist", show_default=True, help="A data set with pictures and classes.")
@click.option("--only", multiple=True, type=click.Choice(sorted(PLANS)), help="Only these networks.")
def main(folder: Path, pictures: str, only: tuple[str, ...]) -> None:
    """Train what is not trained yet."""
    torch.set_num_threads(1)
    card = card_in(folder, pictures)
    for name in only or PLANS:
        print(float_file(name, card))


if __name__ == "__main__":
    main()

"""``karui quantize``: a recipe, and a card where there is none, for a model file and some samples."""

from __future__ import annotations

import io
import os
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from pipeline import catalog
from pipeline.errors import ConfigError
from pipeline.graph.ends import apart, joined_arrays
from pipeline.networks.from_onnx import network_from
from pipeline.networks.onnx.ends import Shapes, input_names
from pipeline.networks.onnx.modules import OnnxNetwork
from pipeline.onboard.arrays import Arrays, Predict, Signature, TensorSpec
from pipeline.onboard.stepping import stepping
from pipeline.runs.store import write_atomic
from pipeline.starting.files import NAME, plain_name, relative, render
from pipeline.starting.given import Given
from pipeline.starting.samples import given_by
from pipeline.starting.sequences import carried_of, sequences_by

_VAL, _TEST = 0.1, 0.4  # nothing is trained: most samples measure
_AT_ONCE = 16


@dataclass(frozen=True, kw_only=True)
class Quantizing:
    """The files to write, and what was found."""

    recipe: Path
    files: Mapping[Path, bytes]
    said: tuple[str, ...]

    @property
    def in_the_way(self) -> tuple[Path, ...]:
        """Return which of the files are there already and hold something else."""
        return tuple(
            path
            for path, content in self.files.items()
            if os.path.lexists(path) and not (path.is_file() and path.read_bytes() == content)
        )

    def write(self) -> None:
        """Write all files whole.  Raises StorageError."""
        for path, content in self.files.items():
            write_atomic(path, content)


def quantizing(
    model: Path,
    data: str,
    *,
    name: str = "",
    shapes: Mapping[str, tuple[int, ...]] | None = None,
    output: str = "",
    carry: Sequence[str] = (),
    epochs: int = 0,
) -> Quantizing:
    """Return what to write so that ``karui run`` quantizes a model file.

    ``data``: a card, a folder of pictures or an .npz file; ``shapes``: input → shape with the batch in front, where the
    file leaves axes free; ``output``: which of several; ``carry``: "stateN=state" for what is handed on to the next
    call, unless names say it, or "none"; ``epochs``: of training with simulated int8, on the labels or, without any, on
    what the float network gives.
    Raises ConfigError, DataError, and ModelError as ``network_from`` does.
    """
    name = name or plain_name(model.name.split(".")[0]) or "my-model"
    if not NAME.fullmatch(name):
        what = f"'{name}' is no name: small letters, digits, '-', '_' and '.' alone"
        raise ConfigError(what, where="--name", remedy="the files and the run folder are called like that")
    recipe = Path(f"{name}.toml")
    card = card_named(data)
    network = network_from(model, sample_shape=_asked(model, card, shapes or {}), output=output)
    files: dict[Path, bytes] = {}
    given: Given | None = None
    carried, said = ({}, "") if card is not None else carried_of(network.inputs, network.outputs, carry)
    if carried and epochs:
        raise ConfigError(
            "a network that carries a state is not trained", where="--epochs", remedy="leave --epochs out"
        )
    if card is None:
        signature = Signature(network.inputs, network.outputs, carried)
        given = (
            sequences_by(Path(data), signature, _predict(network))
            if carried
            else given_by(Path(data), network.inputs, network.outputs)
        )
        card = Path(f"{name}-data.toml")
        files.update(_card(given, network, carried, name, card))
    text = render(
        "quantize.toml",
        name=name,
        model=relative(model),
        output=output,
        card=relative(card) if card.exists() or card.is_absolute() else card.name,
        command=f"karui run {recipe}",
        epochs=epochs,
        distilled=given is not None and given.task == "agreement",
    )
    files[recipe] = text.encode()
    return Quantizing(
        recipe=recipe, files=files, said=(f"{model}: {network.said}", *filter(None, [said]), *_told(given))
    )


def _told(given: Given | None) -> tuple[str, ...]:
    if given is None:
        return ()
    told = [f"{given.place}: {given.said}"]
    if given.task == "agreement":
        told.append("nobody says what is right: int8 is compared with what the float network gives")
    if given.divide != 1:
        told.append("the network is given pictures as 0 … 1; if it takes them otherwise, say so in the card's [input]")
    return tuple(told)


def card_named(data: str) -> Path | None:
    """Return the card that is meant; None for samples."""
    if data.endswith(".toml") or data in catalog.names("data"):
        return catalog.find("data", data)
    return None


def _asked(model: Path, card: Path | None, shapes: Mapping[str, tuple[int, ...]]) -> Shapes | None:
    """Return the shapes of a sample's inputs where somebody says them."""
    if shapes:
        names = input_names(model)
        for name in shapes:
            if name not in names:
                what = f"{model} has no input '{name}'; it has {', '.join(names)}"
                raise ConfigError(what, where="--input", remedy=f"for example: --input {names[0]}=1,3,224,224")
        return {name: _sample_shape(shape) for name, shape in shapes.items()}
    if card is None:
        return None
    declared = catalog.load_card(str(card))[0]
    return {name: spec.shape for name, spec in declared.inputs.items()} or declared.input.shape or None


def _sample_shape(shape: tuple[int, ...]) -> tuple[int, ...]:
    if len(shape) == 4 and shape[3] in (1, 3) and shape[1] not in (1, 3):  # (1, H, W, C)
        return shape[3], shape[1], shape[2]
    return shape[1:]


def _card(given: Given, network: OnnxNetwork, carried: Mapping[str, str], name: str, card: Path) -> dict[Path, bytes]:
    """Return the card, and the samples with what the float network gives for them where nobody labelled them."""
    files: dict[Path, bytes] = {}
    held = Path(f"{name}-samples.npz") if given.inputs else None
    if held is not None:
        files[held] = _npz({**given.inputs, "y": _outputs(network, given, carried)})
    val, test = (max(1, int(share * given.samples)) for share in (_VAL, _TEST))
    least = network.outputs[0].shape[0] if given.task == "classification" else 1  # every split holds every class
    text = render(
        "samples.toml",
        given=given,
        name=f"{name}-data",
        place=relative(given.place),
        files={"all": held.as_posix()} if held is not None else files_of(given),
        arrays=[pair for pair in given.arrays if pair[0] != pair[1]],
        inputs=network.inputs,
        outputs=network.outputs if given.task == "agreement" else (),
        carried={into: output for output, into in carried.items()},
        val=max(val, least),
        test=max(test, least),
    )
    return {card: text.encode(), **files}


def files_of(given: Given) -> dict[str, str]:
    """Return role → file as a card names them; {} for a folder of pictures."""
    if given.kind == "image-folder":
        return {}
    return {role: relative(file) for role, file in (given.files or {"all": given.place}).items()}


def _npz(arrays: Mapping[str, NDArray[Any]]) -> bytes:
    """Return an .npz file, the same bytes every time: ``numpy.savez`` writes down the time of day."""
    held = io.BytesIO()
    with zipfile.ZipFile(held, "w") as archive:
        for name, array in arrays.items():
            member = io.BytesIO()
            np.save(member, array, allow_pickle=False)
            archive.writestr(zipfile.ZipInfo(f"{name}.npy"), member.getvalue())
    return held.getvalue()


def _predict(network: OnnxNetwork) -> Predict:
    """Return the network as a function of its inputs by name."""

    @torch.no_grad()
    def predict(inputs: Arrays) -> Arrays:
        found = network.eval()(torch.from_numpy(joined_arrays(inputs)))
        outputs: Arrays = apart(network.outputs, found.numpy())
        return outputs

    return predict


def _outputs(network: OnnxNetwork, given: Given, carried: Mapping[str, str]) -> NDArray[np.float32]:
    """Return what the float network gives for all samples, (N, …); several outputs side by side."""
    predict = stepping(_predict(network), Signature(network.inputs, network.outputs, dict(carried)))
    found = []
    for start in range(0, given.samples, _AT_ONCE):
        some = {name: each[start : start + _AT_ONCE] for name, each in given.inputs.items()}
        if not given.steps:
            shaped = zip(some.items(), network.inputs, strict=True)
            some = {name: _prepared(x, spec, given) for (name, x), spec in shaped}
        outputs = list(predict(some).values())
        found.append(outputs[0] if len(outputs) == 1 else np.concatenate([_flat(each) for each in outputs], 1))
    return np.concatenate(found)


def _prepared(x: NDArray[Any], spec: TensorSpec, given: Given) -> NDArray[np.float32]:
    return np.asarray(x.reshape(-1, *spec.shape).astype(np.float32) / np.float32(given.divide), np.float32)


def _flat(outputs: NDArray[Any]) -> NDArray[Any]:
    return outputs.reshape(len(outputs), -1)

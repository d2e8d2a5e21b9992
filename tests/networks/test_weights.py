"""Weights: loaded strictly, taken over from another network, read from every kind of file, never running its code."""

from __future__ import annotations

import itertools
import pickle
import time
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import Tensor, nn

from pipeline.errors import ModelError
from pipeline.networks.weights import fit_start, load_state, read_weights, without_wrapper

# ── loading ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_weights_that_fit_are_loaded() -> None:
    source, sink = nn.Linear(3, 2), nn.Linear(3, 2)
    load_state(sink, source.state_dict(), where="a checkpoint")
    assert torch.equal(sink.weight, source.weight)


def test_weights_of_another_network_are_listed_and_nothing_is_loaded() -> None:
    module = nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 2))
    bias = module.get_parameter("1.bias")
    before = bias.clone()
    weights = {
        "0.weight": torch.zeros(5, 3),
        "0.bias": torch.zeros(2),
        "1.bias": torch.ones(2),
        "2.bias": torch.ones(1),
    }
    with pytest.raises(ModelError) as caught:
        load_state(module, weights, where="best.pt")
    assert str(caught.value).splitlines() == [
        "best.pt: the weights are those of another network: 3 tensors do not fit",
        "  '0.weight': expected (2, 3), found (5, 3)",
        "  '1.weight': missing, expected (2, 2)",
        "  '2.bias': unexpected, found (1,)",
        "  the network has 0.weight, 0.bias, 1.weight, 1.bias",
        "  the file has 0.weight, 0.bias, 1.bias, 2.bias",
    ]
    assert torch.equal(bias, before)


def test_the_nearest_tensor_of_the_file_is_named() -> None:
    module = nn.Sequential(nn.Linear(3, 2), nn.Linear(3, 2))
    weights = {"block0.weight": torch.zeros(2, 3), "1.weight": torch.zeros(2, 3), "1.bias": torch.zeros(2)}
    with pytest.raises(ModelError) as caught:
        load_state(module, {**weights, "block0.bias": torch.zeros(2)}, where="x.pt")
    assert "'0.weight': missing, expected (2, 3); nearest in the file: 'block0.weight'" in caught.value.remedy
    assert "'0.bias': missing, expected (2,); nearest in the file: 'block0.bias'" in caught.value.remedy


def test_a_long_list_of_mismatches_is_cut() -> None:
    with pytest.raises(ModelError, match="and 3 more"):
        load_state(nn.ReLU(), {f"layer{index}": torch.zeros(1) for index in range(11)}, where="x")


# ── reading ─────────────────────────────────────────────────────────────────────────────────────────────────────────

WEIGHTS = {"fc.weight": torch.arange(6.0).reshape(2, 3), "fc.bias": torch.tensor([1.0, -1.0])}


def save_npz(weights: dict[str, Tensor], path: Path) -> None:
    np.savez_compressed(path, **{name: tensor.numpy() for name, tensor in weights.items()})  # type: ignore[arg-type]


WRITERS: dict[str, Callable[[Path], None]] = {
    "plain.safetensors": lambda path: safetensors.torch.save_file(WEIGHTS, path),
    "plain.npz": lambda path: save_npz(WEIGHTS, path),
    "plain.pt": lambda path: torch.save(WEIGHTS, path),
    "UPPER.PT": lambda path: torch.save(WEIGHTS, path),
    "old.pth": lambda path: torch.save(WEIGHTS, path, _use_new_zipfile_serialization=False),
    "state.pt": lambda path: torch.save({"epoch": 3, "state_dict": WEIGHTS}, path),
    "model.pth": lambda path: torch.save({"model": WEIGHTS, "optimizer": {"lr": 0.1}}, path),
    "tutorial.pt": lambda path: torch.save({"epoch": 3, "model_state_dict": WEIGHTS, "loss": 0.3}, path),
    "lightning.ckpt": lambda path: torch.save({"state_dict": WEIGHTS, "hyper_parameters": {"lr": 0.1}}, path),
    "pytorch_model.bin": lambda path: torch.save(WEIGHTS, path),
    "net.pt": lambda path: torch.save({"net": WEIGHTS}, path),
    "ema.pt": lambda path: torch.save({"ema": WEIGHTS, "updates": 7}, path),
    "nested.pt": lambda path: torch.save({"model": {"state_dict": WEIGHTS}}, path),
}


@pytest.mark.parametrize("name", WRITERS)
def test_every_kind_of_weights_file(tmp_path: Path, name: str) -> None:
    WRITERS[name](tmp_path / name)
    weights = read_weights(tmp_path / name)
    assert weights.keys() == WEIGHTS.keys()
    assert all(torch.equal(weights[key], WEIGHTS[key]) for key in WEIGHTS)


class Bomb:
    """Pickled code that would leave a trace when it ran."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[object, ...]:
        return (Path.touch, (self.trace,))


@pytest.mark.parametrize("name", ["a.pt", "a.npz", "a.pth"])
def test_pickled_code_is_refused_and_not_run(tmp_path: Path, name: str) -> None:
    path, trace = tmp_path / name, tmp_path / "ran"
    if name.endswith(".pt"):
        torch.save({"fc.weight": Bomb(trace)}, path)
    elif name.endswith(".pth"):
        path.write_bytes(pickle.dumps({"fc.weight": Bomb(trace)}))
    else:
        np.savez(path, weight=np.array([Bomb(trace)], dtype=object))
    with pytest.raises(ModelError) as caught:
        read_weights(path)
    assert caught.value.where == str(path)
    assert not trace.exists()


def test_a_whole_pickled_module_is_refused_with_the_cure(tmp_path: Path) -> None:
    torch.save(nn.Linear(2, 2), tmp_path / "module.pt")
    with pytest.raises(ModelError) as caught:
        read_weights(tmp_path / "module.pt")
    assert "only plain tensors are read" in caught.value.what
    assert "torch.save(model.state_dict(), FILE)" in caught.value.remedy


def test_torchscript_says_what_it_is_and_how_to_save_it_instead(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch calls its own format old
        torch.jit.script(nn.Linear(2, 2)).save(tmp_path / "scripted.pt")  # type: ignore[no-untyped-call]
    with pytest.raises(ModelError, match="is a TorchScript file") as caught:
        read_weights(tmp_path / "scripted.pt")
    assert "torch.jit.load('scripted.pt').state_dict()" in caught.value.remedy


def test_nobody_is_told_to_switch_the_safety_off(tmp_path: Path) -> None:
    torch.save({"model": nn.Linear(2, 2)}, tmp_path / "whole.pt")
    torch.save({"scale": np.float64(3), "w": torch.zeros(1)}, tmp_path / "scalar.pt")
    for name in ("whole.pt", "scalar.pt"):
        with pytest.raises(ModelError) as caught:
            read_weights(tmp_path / name)
        assert "weights_only" not in str(caught.value)
        assert "state_dict()" in caught.value.remedy


def test_an_npz_is_refused_by_what_it_declares(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.networks.weights.LARGEST_WEIGHTS_BYTES", 1000)
    np.savez_compressed(tmp_path / "bomb.npz", w=np.zeros(1000, np.float32))
    with pytest.raises(ModelError, match=r"declares 4,128 bytes of weights, expected at most 1,000"):
        read_weights(tmp_path / "bomb.npz")


@pytest.mark.parametrize("name", WRITERS)
@pytest.mark.parametrize("keep", [0.0, 0.5, 0.95])
def test_a_cut_file_is_refused(tmp_path: Path, name: str, keep: float) -> None:
    path = tmp_path / name
    WRITERS[name](path)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * keep)])
    with pytest.raises(ModelError) as caught:
        read_weights(path)
    assert caught.value.where == str(path)
    assert caught.value.remedy


@pytest.mark.parametrize("name", ["noise.safetensors", "noise.npz", "noise.pt"])
def test_another_kind_of_file_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(np.random.default_rng(0).bytes(4096))
    with pytest.raises(ModelError):
        read_weights(tmp_path / name)


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (torch.zeros(3), "holds a Tensor, not a state dict"),
        ({}, "holds a dict, not a state dict"),
        ({"fc.weight": 3.0}, "'fc.weight' is a float, not a tensor"),
        ({"state_dict": {"fc.weight": torch.zeros(1), "step": 4}}, "'step' is a int, not a tensor"),
    ],
)
def test_a_pt_file_without_a_state_dict(tmp_path: Path, content: object, text: str) -> None:
    torch.save(content, tmp_path / "odd.pt")
    with pytest.raises(ModelError) as caught:
        read_weights(tmp_path / "odd.pt")
    assert caught.value.what == text


def test_a_missing_file_and_an_unknown_ending(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="there is no such weights file"):
        read_weights(tmp_path / "none.pt")
    with pytest.raises(ModelError, match=r"'.h5' is no weights file") as caught:
        read_weights(tmp_path / "keras.h5")
    assert caught.value.remedy == "known: .safetensors, .npz, .pt, .pth, .ckpt, .bin"


def test_a_folder_is_no_weights_file(tmp_path: Path) -> None:
    (tmp_path / "dir.npz").mkdir()
    with pytest.raises(ModelError, match="there is no such weights file"):
        read_weights(tmp_path / "dir.npz")


# ── taking over ─────────────────────────────────────────────────────────────────────────────────────────────────────


def state(*widths: int) -> dict[str, Tensor]:
    layers = [nn.Linear(*pair) for pair in itertools.pairwise(widths)]
    return nn.Sequential(*layers).state_dict()


def test_a_start_that_fits_needs_nothing_new() -> None:
    assert fit_start(state(3, 4, 2), state(3, 4, 2), "1", "run:before") == ()


def test_a_head_of_another_size_is_made_anew_and_named_in_order() -> None:
    assert fit_start(state(3, 4, 7), state(3, 4, 2), "1", "run:before") == ("1.weight", "1.bias")


def test_a_start_without_a_head_gets_one() -> None:
    backbone = {name: tensor for name, tensor in state(3, 4, 2).items() if name.startswith("0")}
    assert fit_start(state(3, 4, 2), backbone, "1", "run:before") == ("1.weight", "1.bias")


def test_whatever_else_does_not_fit_is_listed() -> None:
    start = {**state(3, 5, 2), "2.bias": torch.zeros(1)}
    with pytest.raises(ModelError) as caught:
        fit_start(state(3, 4, 7), start, "1", "run:before")
    assert str(caught.value).splitlines() == [
        "run:before: the weights are those of another network: 3 tensors do not fit",
        "  '0.weight': expected (4, 3), found (5, 3)",
        "  '0.bias': expected (4,), found (5,)",
        "  '2.bias': unexpected, found (1,)",
    ]


@pytest.mark.parametrize("wrapper", ["module.", "_orig_mod.", "model.", "module._orig_mod.", "classifier."])
def test_what_wrappers_put_before_all_names_is_taken_away(wrapper: str) -> None:
    own = state(3, 4, 2)
    wrapped = {wrapper + name: tensor for name, tensor in own.items()} | {"n_averaged": torch.tensor(3)}
    found, taken = without_wrapper(wrapped, own)
    assert (list(found), taken) == (list(own), wrapper)


def test_names_that_fit_or_never_will_stay_as_they_are() -> None:
    own = {f"model.{name}": tensor for name, tensor in state(3, 2).items()}
    assert without_wrapper(own, own) == (own, "")
    other = {"module.stem.weight": torch.zeros(1)}
    assert without_wrapper(other, own) == (other, "")
    assert without_wrapper({"module.model.0.weight": own["model.0.weight"]}, own)[1] == "module."


def test_an_archive_may_not_unpack_to_many_times_its_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.networks.weights._ALWAYS_UNPACKED_BYTES", 1000)
    np.savez_compressed(tmp_path / "bomb.npz", w=np.zeros(100_000, np.float32))
    torch.save({"w": torch.zeros(100_000)}, tmp_path / "stored.pt")
    with zipfile.ZipFile(tmp_path / "stored.pt") as stored, zipfile.ZipFile(tmp_path / "bomb.pt", "w") as packed:
        for member in stored.infolist():
            packed.writestr(member.filename, stored.read(member), zipfile.ZIP_DEFLATED)
    assert read_weights(tmp_path / "stored.pt")["w"].shape == (100_000,)
    for name in ("bomb.npz", "bomb.pt"):
        with pytest.raises(ModelError, match=r"declares 40\d,\d+ bytes of weights, expected at most"):
            read_weights(tmp_path / name)


# ── what torch would search for minutes ─────────────────────────────────────────────────────────────────────────────


def _pickled(path: Path, pickled: bytes) -> Path:
    """Write a torch file whose tensors are described by these bytes."""
    torch.save({"w": torch.zeros(1)}, path)
    with zipfile.ZipFile(path) as archive:
        members = {member.filename: archive.read(member) for member in archive.infolist()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, pickled if name.endswith("data.pkl") else content)
    return path


@pytest.mark.parametrize(
    ("pickled", "words"),
    [
        (b"\x80\x02c" + b"m" * 300_000 + b"\nname\n.", "a word of 300,000 characters"),
        (b"\x80\x02ctorch\n" + b"\0" * 300_000 + b"\n.", "a word of 300,000 characters"),
        (b"\x80\x02ctorch\nno end" + b"\0" * 300_000, "no newline found|no readable"),
        (b"\x80\x02X" + (300_000).to_bytes(4, "little") + b"x" * 300_000 + b".", "a word of 300,000 characters"),
    ],
    ids=["module", "name", "no end", "text"],
)
@pytest.mark.parametrize("old", [False, True], ids=["zip", "old format"])
def test_endless_words_are_refused_at_once(tmp_path: Path, pickled: bytes, words: str, *, old: bool) -> None:
    path = tmp_path / "w.pt"
    if old:
        path.write_bytes(pickled * 5)  # so many lie there before the tensors
    else:
        _pickled(path, pickled)
    began = time.monotonic()
    with pytest.raises(ModelError, match=words):
        read_weights(path)
    assert time.monotonic() - began < 5  # measured: 0.1; torch alone takes minutes


# ── versions and other classes ──────────────────────────────────────────────────────────────────────────────────────


class Versioned(nn.Linear):
    """A layer that knows an older version of itself, as networks of torchvision do."""

    _version = 2

    def _load_from_state_dict(
        self, state: dict[str, Tensor], prefix: str, metadata: dict[str, int], *more: Any
    ) -> None:
        assert metadata.get("version") == 2
        super()._load_from_state_dict(state, prefix, metadata, *more)


def test_a_layer_that_asks_for_its_version_is_told(tmp_path: Path) -> None:
    source, network = Versioned(3, 2), nn.Sequential(Versioned(3, 2))
    safetensors.torch.save_file(
        {f"0.{name}": each for name, each in source.state_dict().items()}, tmp_path / "w.safetensors"
    )
    load_state(network, read_weights(tmp_path / "w.safetensors"), where="w")
    assert torch.equal(network.get_parameter("0.weight"), source.weight)


def test_auxiliary_heads_for_other_classes_are_made_anew_and_nothing_else() -> None:
    def heads(classes: int, width: int = 8) -> dict[str, Tensor]:
        parts = {"body": nn.Linear(4, width), "fc": nn.Linear(8, classes), "aux": nn.Linear(6, classes)}
        return nn.ModuleDict(parts).state_dict()

    assert fit_start(heads(3), heads(10), "fc", "start") == ("fc.weight", "fc.bias", "aux.weight", "aux.bias")
    with pytest.raises(ModelError, match=r"'body.weight': expected \(9, 4\), found \(8, 4\)"):
        fit_start({**heads(3), **{k: v for k, v in heads(3, 9).items() if "body" in k}}, heads(10), "fc", "start")

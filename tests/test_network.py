"""The user's network file: what is built from it, and what each mistake in it says."""

from __future__ import annotations

import hashlib
import os
import pickle
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import Tensor, nn

from pipeline.artifacts import NetworkRef
from pipeline.errors import ModelError
from pipeline.network import build_network, load_state, read_weights
from pipeline.spec import OptionValue

GOOD = """\
import dataclasses
from torch import nn

@dataclasses.dataclass
class Config:
    width: int

class Net(nn.Module):
    def __init__(self, features, classes, width):
        super().__init__()
        self.fc1 = nn.Linear(features, Config(width).width)
        self.fc2 = nn.Linear(width, classes)

    def forward(self, x):
        x = x.flatten(1)
        return self.fc2(self.fc1(x).relu())

def build(input_shape, classes, *, width=8):
    return Net(input_shape[0] * input_shape[1] * input_shape[2], classes, width)
"""


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """Run torch on one thread: tiny layers on busy cores spend their time waiting for each other otherwise."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def reference(folder: Path, source: str, **options: OptionValue) -> NetworkRef:
    path = folder / "mine.py"
    path.write_text(source, encoding="utf-8")
    digest = hashlib.sha256(source.encode()).hexdigest()
    return NetworkRef(sha256=digest, options=options, input_shape=(1, 4, 4), classes=3, path=path)


def refusal(ref: NetworkRef) -> ModelError:
    with pytest.raises(ModelError) as caught:
        build_network(ref, seed=0)
    assert caught.value.exit_code == 4
    return caught.value


# ── building ────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_good_file_is_built_in_training_mode(tmp_path: Path) -> None:
    network = build_network(reference(tmp_path, GOOD, width=5), seed=0)
    assert network.training
    assert all(parameter.requires_grad and parameter.grad is None for parameter in network.parameters())
    assert network.get_parameter("fc1.weight").shape == (5, 16)
    assert network(torch.zeros(7, 1, 4, 4)).shape == (7, 3)


def test_the_seed_decides_the_weights_and_the_global_state_stays(tmp_path: Path) -> None:
    ref = reference(tmp_path, GOOD)
    before = torch.random.get_rng_state()
    first, again, other = (build_network(ref, seed=seed).get_parameter("fc1.weight") for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_batch_norm_statistics_are_untouched_by_the_check(tmp_path: Path) -> None:
    ref = reference(tmp_path, GOOD.replace("self.fc2 =", "self.bn = nn.BatchNorm1d(width); self.fc2 ="))
    assert build_network(ref, seed=0).get_buffer("bn.num_batches_tracked") == 0


def test_nothing_is_written_beside_the_users_file(tmp_path: Path) -> None:
    build_network(reference(tmp_path, GOOD), seed=0)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.py"]


def test_an_edit_of_the_same_length_in_the_same_second_is_seen(tmp_path: Path) -> None:
    first = build_network(reference(tmp_path, GOOD), seed=0)
    ref = reference(tmp_path, GOOD.replace("width=8", "width=9"))
    os.utime(ref.path, (1_700_000_000, 1_700_000_000))
    second = build_network(ref, seed=0)
    assert first.get_parameter("fc1.weight").shape[0] == 8
    assert second.get_parameter("fc1.weight").shape[0] == 9


def test_a_changed_file_is_refused(tmp_path: Path) -> None:
    ref = reference(tmp_path, GOOD)
    ref.path.write_text(GOOD + "# more\n", encoding="utf-8")
    error = refusal(ref)
    assert "changed since it was read" in error.what
    assert error.where == str(ref.path)
    ref.path.unlink()
    assert "cannot be read: No such file" in refusal(ref).what


IN_INIT = "self.fc2 = nn.Linear(width, classes)"
IN_FORWARD = "return self.fc2(self.fc1(x).relu())"
IN_BUILD = "return Net("


@pytest.mark.parametrize(
    ("old", "new", "line", "what", "remedy"),
    [
        ("import dataclasses", "import no_such_package", 1, "importing the file raised ModuleNotFoundError", "import"),
        ("class Config:", "class Config", 5, "importing the file raised SyntaxError: expected ':'", "class Config"),
        ("class Net", "1 / 0\nclass Net", 8, "importing the file raised ZeroDivisionError: division by zero", "1 / 0"),
        ("class Net", "raise SystemExit(3)\nclass Net", 8, "importing the file raised SystemExit: 3", "raise System"),
        ("def build", "def make", None, "there is no function build", "write: def build(input_shape"),
        ("def build", "build = 3\ndef make", None, "build is a int, not a function", "write: def build(input_shape"),
        (IN_INIT, "self.fc2 = nn.Linear(width)", 12, "build() raised TypeError", "self.fc2 = nn.Linear(width)"),
        (IN_BUILD, "raise ValueError('no')\n    return Net(", 19, "build() raised ValueError: no", "raise ValueError"),
        (IN_BUILD, "return str(3)  # ", None, "build() returned a str", "must return a torch.nn.Module"),
        ("*, width=8", "*, width", None, "build(input_shape, classes, *, width) cannot be called", "it is called as"),
        ("(input_shape, classes, *, ", "(*, ", None, "build(*, width=8) cannot be called", "it is called as"),
        (
            "x = x.flatten(1)",
            "x = x.flatten(1)[:, 1:]",
            16,
            "forward() raised RuntimeError: mat1 and mat2 shapes cannot be multiplied",
            "return self.fc2(self.fc1(x).relu())\n  forward() gets (2, 1, 4, 4) and must return logits (2, 3)",
        ),
        (IN_FORWARD, "return None", None, "forward() returned None, not a tensor", "must return logits (2, 3)"),
        (IN_FORWARD, "return (x, x)", None, "forward() returned a tuple, not a tensor", "must return logits (2, 3)"),
        (IN_FORWARD, "return x", None, "forward() returned shape (2, 16), expected (2, 3)", "one row per sample"),
        (IN_FORWARD, IN_FORWARD + ".sum(0)", None, "forward() returned shape (3,), expected (2, 3)", "must return"),
    ],
)
def test_a_mistake_names_the_users_own_line(  # noqa: PLR0917  (parametrize passes by name)
    tmp_path: Path, old: str, new: str, line: int | None, what: str, remedy: str
) -> None:
    assert old in GOOD
    ref = reference(tmp_path, GOOD.replace(old, new, 1))
    error = refusal(ref)
    assert error.where == (f"{ref.path}:{line}" if line else str(ref.path))
    assert error.what.startswith(what)
    assert remedy in error.remedy
    half_loaded = f"karui_network_mine_{ref.sha256[:12]}"
    assert (half_loaded in sys.modules) == (not error.what.startswith("importing"))


def test_a_wrong_option_names_the_nearest(tmp_path: Path) -> None:
    error = refusal(reference(tmp_path, GOOD, widht=4))
    assert error.what == "build() has no option 'widht'; did you mean 'width'?"
    assert "[network.options]" in error.remedy
    without = GOOD.replace(", *, width=8", "").replace("classes, width)\n\n", "classes, 8)\n\n")
    without = without.replace("input_shape[2], classes, width)", "input_shape[2], classes, 8)")
    assert refusal(reference(tmp_path, without, width=4)).what == "build() has no option 'width'; it has none"


def test_a_build_that_takes_any_option_gets_them(tmp_path: Path) -> None:
    source = GOOD.replace("*, width=8", "**options").replace("classes, width)\n", "classes, options['width'])\n")
    source = source.replace("def __init__(self, features, classes, options['width'])", "def __init__(self, f, c, w)")
    network = build_network(reference(tmp_path, source, width=6), seed=0)
    assert network.get_parameter("fc1.weight").shape[0] == 6


def test_a_failed_import_can_be_tried_again(tmp_path: Path) -> None:
    marker = tmp_path / "there"
    source = f"import pathlib\nif not pathlib.Path({str(marker)!r}).exists():\n    raise OSError('not yet')\n" + GOOD
    ref = reference(tmp_path, source)
    assert "OSError: not yet" in refusal(ref).what
    marker.touch()
    assert isinstance(build_network(ref, seed=0), nn.Module)


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
    ]
    assert torch.equal(bias, before)


def test_a_long_list_of_mismatches_is_cut() -> None:
    with pytest.raises(ModelError, match="and 3 more"):
        load_state(nn.ReLU(), {f"layer{index}": torch.zeros(1) for index in range(11)}, where="x")


# ── reading ─────────────────────────────────────────────────────────────────────────────────────────────────────────

WEIGHTS = {"fc.weight": torch.arange(6.0).reshape(2, 3), "fc.bias": torch.tensor([1.0, -1.0])}


def save_npz(weights: dict[str, Tensor], path: Path) -> None:
    np.savez_compressed(path, **{name: tensor.numpy() for name, tensor in weights.items()})


WRITERS: dict[str, Callable[[Path], None]] = {
    "plain.safetensors": lambda path: safetensors.torch.save_file(WEIGHTS, path),
    "plain.npz": lambda path: save_npz(WEIGHTS, path),
    "plain.pt": lambda path: torch.save(WEIGHTS, path),
    "UPPER.PT": lambda path: torch.save(WEIGHTS, path),
    "old.pth": lambda path: torch.save(WEIGHTS, path, _use_new_zipfile_serialization=False),
    "state.pt": lambda path: torch.save({"epoch": 3, "state_dict": WEIGHTS}, path),
    "model.pth": lambda path: torch.save({"model": WEIGHTS, "optimizer": {"lr": 0.1}}, path),
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
    assert caught.value.remedy == "known: .safetensors, .npz, .pt, .pth"


def test_a_folder_is_no_weights_file(tmp_path: Path) -> None:
    (tmp_path / "dir.npz").mkdir()
    with pytest.raises(ModelError, match="there is no such weights file"):
        read_weights(tmp_path / "dir.npz")

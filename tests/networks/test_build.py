"""The user's network file: what is built from it, and what each mistake in it says."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from pipeline.artifacts.networks import NetworkRef
from pipeline.declare.words import OptionValue
from pipeline.errors import ModelError
from pipeline.networks.build import build_network, called_layers, check_training_step, head_name
from pipeline.onboard.arrays import Signature, TensorSpec
from tests import learnable

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


ASKED = Signature(
    inputs=(TensorSpec("input", "float32", (1, 4, 4), "CHW"),), outputs=(TensorSpec("output", "float32", (3,), "K"),)
)


def reference(folder: Path, source: str, asked: Signature = ASKED, **options: OptionValue) -> NetworkRef:
    path = folder / "mine.py"
    path.write_text(source, encoding="utf-8")
    return learnable.network_at(path, asked, **options)


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
    ref.path.write_text(GOOD + "more = 1\n", encoding="utf-8")
    error = refusal(ref)
    assert "the network file has changed since it was read" in error.what
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
            "return self.fc2(self.fc1(x).relu())\n  forward() gets (2, 1, 4, 4) and must return (2, 3)",
        ),
        (IN_FORWARD, "return None", None, "forward() returned None, not a tensor", "must return (2, 3)"),
        (IN_FORWARD, "return (x, x)", None, "forward() returned a tuple, not a tensor", "must return (2, 3)"),
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


# ── what the data asks for ──────────────────────────────────────────────────────────────────────────────────────────


def test_a_build_that_asks_for_the_signature_gets_it_alone(tmp_path: Path) -> None:
    source = GOOD.replace("def build(input_shape, classes, *", "def build(signature, *").replace(
        "Net(input_shape[0] * input_shape[1] * input_shape[2], classes, width)",
        "Net(signature.input.shape[1] * signature.input.shape[2], signature.output.shape[0], width)",
    )
    network = build_network(reference(tmp_path, source, width=5), seed=0)
    assert network.get_parameter("fc2.weight").shape == (3, 5)
    assert refusal(reference(tmp_path, source, widht=5)).what.endswith("did you mean 'width'?")


def asked(outputs: tuple[TensorSpec, ...], *more: TensorSpec) -> Signature:
    return Signature(inputs=(*ASKED.inputs, *more), outputs=outputs)


MAPS = (TensorSpec("output", "float32", (3, 4, 4), "KHW"),)
MAPPING = """
from torch import nn
def build(input_shape, classes):
    return nn.Conv2d(input_shape[0], classes, 3, padding=PADDING)
"""


def test_maps_are_asked_for_as_such(tmp_path: Path) -> None:
    good = reference(tmp_path, MAPPING.replace("PADDING", "1"), asked(MAPS))
    assert build_network(good, seed=0)(torch.zeros(5, 1, 4, 4)).shape == (5, 3, 4, 4)
    error = refusal(reference(tmp_path, MAPPING.replace("PADDING", "0"), asked(MAPS)))
    assert error.what == "forward() returned shape (2, 3, 2, 2), expected (2, 3, 4, 4)"
    assert error.remedy == "forward() gets (2, 1, 4, 4) and must return (2, 3, 4, 4): one map per class and sample"


SEVERAL = """
import torch
from torch import nn

class Several(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(4, 16)
        self.fc = nn.Linear(16, 3)
    def forward(self, picture, word):
        assert word.dtype == torch.int64
        x = picture.flatten(1) + self.embed(word)[:, 0]
        return self.fc(x), x

def build(signature):
    assert [spec.name for spec in signature.inputs] == ["input", "word"]
    return Several()
"""
WORD = TensorSpec("word", "int64", (1,), "F")
TWO = (*ASKED.outputs, TensorSpec("state", "float32", (16,), "F"))


def test_several_inputs_and_outputs_go_in_the_signatures_order(tmp_path: Path) -> None:
    ref = reference(tmp_path, SEVERAL, asked(TWO, WORD))
    network = build_network(ref, seed=0)
    check_training_step(network, ref)
    error = refusal(reference(tmp_path, SEVERAL, asked(TWO[::-1], WORD)))
    assert error.what == "forward() returned shape (2, 3), (2, 16), expected (2, 16), (2, 3)"
    assert error.remedy.startswith("forward() gets (2, 1, 4, 4), (2, 1) and must return (2, 16), (2, 3): ")
    assert "a tuple" in refusal(reference(tmp_path, SEVERAL, asked(TWO[:1], WORD))).what


def test_what_fails_in_training_mode_alone_is_found_and_the_network_left_as_it_was(tmp_path: Path) -> None:
    source = GOOD.replace("        x = x.flatten(1)\n", "        x = x.flatten(1)\n        assert not self.training\n")
    ref = reference(tmp_path, source)
    with pytest.raises(ModelError, match="a training step raised AssertionError") as caught:
        check_training_step(build_network(ref, seed=0), ref)
    assert caught.value.where == f"{ref.path}:16"
    with_norm = reference(tmp_path, GOOD.replace("self.fc2 =", "self.bn = nn.BatchNorm1d(width); self.fc2 ="))
    network = build_network(with_norm, seed=0)
    check_training_step(network, with_norm)
    assert network.get_buffer("bn.num_batches_tracked") == 0
    assert all(parameter.grad is None for parameter in network.parameters())


# ── layers ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_head_may_be_made_before_the_body(tmp_path: Path) -> None:
    network = build_network(learnable.network(tmp_path), seed=0)
    assert head_name(network, learnable.SHAPE) == "fc"
    assert called_layers(network, learnable.SHAPE) == [*(f"body.{index}" for index in range(9)), "fc"]
    assert network.training


def test_a_network_without_layers_has_no_head() -> None:
    with pytest.raises(ModelError, match="no Linear or Conv"):
        head_name(nn.Flatten(), learnable.SHAPE)

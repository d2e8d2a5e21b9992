"""A network and the modules beside it: helpers of every kind, two versions in one process, edits that are seen."""

from __future__ import annotations

import copy
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from pipeline import catalog
from pipeline.artifacts.networks import NetworkRef
from pipeline.declare.recipe import NetworkSpec
from pipeline.errors import ModelError
from pipeline.networks.build import build_network
from tests import learnable

HELPER = """
from torch import nn
WIDTH = {width}

class Block(nn.Module):
    def __init__(self, size):
        super().__init__()
        self.fc = nn.Linear(size, WIDTH)
    def forward(self, x):
        return self.fc(x.flatten(1)).relu()
"""
USING = """
import math
from torch import nn
{statement}

def build(input_shape, classes):
    return nn.Sequential({name}.Block(math.prod(input_shape)), nn.Linear({name}.WIDTH, classes))
"""
PLAIN = USING.format(statement="import karui_test_helper", name="karui_test_helper")


def written(folder: Path, files: dict[str, str], code: str = PLAIN) -> NetworkRef:
    """Write helpers and a network that imports them."""
    for name, text in files.items():
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")
    return learnable.network(folder, code, name="mine")


def helped(folder: Path, width: int = 5, code: str = PLAIN) -> NetworkRef:
    folder.mkdir(exist_ok=True)
    return written(folder, {"karui_test_helper.py": HELPER.format(width=width)}, code)


def width_of(network: nn.Module) -> int:
    return len(network.get_parameter("1.weight")[0])


def refusal(ref: NetworkRef) -> ModelError:
    with pytest.raises(ModelError) as caught:
        build_network(ref, seed=0)
    return caught.value


@pytest.mark.parametrize(
    ("files", "statement", "name"),
    [
        (("karui_test_helper.py",), "import karui_test_helper", "karui_test_helper"),
        (("karui_test_helper.py",), "import karui_test_helper as h", "h"),
        (("karui_pkg/__init__.py", "karui_pkg/blocks.py"), "import karui_pkg.blocks", "karui_pkg.blocks"),
        (("karui_pkg/__init__.py", "karui_pkg/blocks.py"), "from karui_pkg import blocks", "blocks"),
        (("karui_pkg/blocks.py",), "from karui_pkg import blocks", "blocks"),
        (("karui_pkg/deep/blocks.py",), "import karui_pkg.deep.blocks as b", "b"),
    ],
)
def test_modules_beside_the_file_are_importable(
    tmp_path: Path, files: tuple[str, ...], statement: str, name: str
) -> None:
    texts = {file: "" if file.endswith("__init__.py") else HELPER.format(width=5) for file in files}
    ref = written(tmp_path, texts, USING.format(statement=statement, name=name))
    before = set(sys.modules)
    assert width_of(build_network(ref, seed=0)) == 5
    assert not {module for module in set(sys.modules) - before if "karui_pkg" in module or "karui_test" in module}
    assert not list(tmp_path.rglob("__pycache__"))


def test_helpers_import_each_other_relatively_and_in_a_circle(tmp_path: Path) -> None:
    sizes = "from karui_pkg import blocks\nimport karui_test_number\ndef width(): return karui_test_number.FOUR"
    files = {
        "karui_pkg/__init__.py": "from .blocks import Block, WIDTH",
        "karui_pkg/blocks.py": "from . import sizes\n" + HELPER.format(width="sizes.width()"),
        "karui_pkg/sizes.py": sizes,
        "karui_test_number.py": "FOUR = 4",
    }
    ref = written(tmp_path, files, USING.format(statement="import karui_pkg", name="karui_pkg"))
    assert set(ref.imports) == {"karui_pkg", "karui_pkg.blocks", "karui_pkg.sizes", "karui_test_number"}
    assert width_of(build_network(ref, seed=0)) == 4


LATE = """
import math
from torch import nn

class Late(nn.Module):
    def __init__(self, size, classes):
        super().__init__()
        import karui_test_helper
        self.block = karui_test_helper.Block(size)
        self.fc = nn.Linear(karui_test_helper.WIDTH, classes)
    def forward(self, x):
        from karui_test_helper import Block
        assert isinstance(self.block, Block)
        return self.fc(self.block(x))

def build(input_shape, classes):
    return Late(math.prod(input_shape), classes)
"""


def test_imports_inside_functions_work_long_after_the_network_was_built(tmp_path: Path) -> None:
    one, other = (build_network(helped(tmp_path / name, width, LATE), seed=0) for name, width in (("a", 5), ("b", 6)))
    for network, width in ((one, 5), (other, 6), (copy.deepcopy(one), 5)):
        network(torch.zeros(2, *learnable.SHAPE))
        assert network.get_parameter("fc.weight").shape[1] == width


def test_a_name_that_is_worked_out_is_found_while_the_network_is_built(tmp_path: Path) -> None:
    code = PLAIN.replace("import karui_test_helper", "import importlib").replace(
        "    return", '    karui_test_helper = importlib.import_module("karui_test_helper")\n    return'
    )
    assert width_of(build_network(helped(tmp_path, 5, code), seed=0)) == 5


def test_two_versions_of_a_helper_in_one_process_are_two(tmp_path: Path) -> None:
    first = helped(tmp_path / "first", 5)
    second = helped(tmp_path / "second", 6)
    assert first.sha256 == second.sha256
    networks = [build_network(ref, seed=0) for ref in (first, second, first)]
    assert [width_of(network) for network in networks] == [5, 6, 5]
    edited = helped(tmp_path / "first", 7)
    assert width_of(build_network(edited, seed=0)) == 7
    assert [network.get_submodule("0")(torch.zeros(1, 192)).shape[1] for network in networks] == [5, 6, 5]


def test_a_module_of_the_same_name_that_others_have_imported_stays_theirs(tmp_path: Path) -> None:
    theirs = type(sys)("karui_test_helper")
    sys.modules["karui_test_helper"] = theirs
    try:
        assert width_of(build_network(helped(tmp_path), seed=0)) == 5
        assert sys.modules["karui_test_helper"] is theirs
    finally:
        del sys.modules["karui_test_helper"]


# ── edits ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_an_edited_helper_gives_another_reference_and_a_comment_does_not(tmp_path: Path) -> None:
    before = helped(tmp_path)
    helper = tmp_path / "karui_test_helper.py"
    helper.write_text(helper.read_text() + "# a comment\n")
    commented = learnable.network_at(before.path, before.signature)
    assert commented == before
    assert width_of(build_network(before, seed=0)) == 5
    helper.write_text(helper.read_text() + "MORE = 1\n")
    edited = learnable.network_at(before.path, before.signature)
    assert edited.imports != before.imports
    assert edited.sha256 == before.sha256


def edited(folder: Path) -> None:
    (folder / "karui_test_helper.py").write_text(HELPER.format(width=6))


def removed(folder: Path) -> None:
    (folder / "karui_test_helper.py").unlink()


def shadowed(folder: Path) -> None:
    (folder / "math.py").write_text("def prod(shape): return 192\n")


@pytest.mark.parametrize(
    ("change", "file", "what"),
    [
        (edited, "karui_test_helper.py", "the network file has changed since it was read"),
        (removed, "karui_test_helper", "the network file is gone since it was read"),
        (shadowed, "math.py", "the network file was not there, or not imported, when"),
    ],
)
def test_helpers_that_changed_since_they_were_read_are_refused(
    tmp_path: Path, change: Callable[[Path], None], file: str, what: str
) -> None:
    ref = helped(tmp_path)
    build_network(ref, seed=0)
    change(tmp_path)
    error = refusal(ref)
    assert error.what.startswith(what)
    assert error.where == str(tmp_path / file)
    assert "run again" in error.remedy


def test_lines_of_an_older_version_stand_in_no_error(tmp_path: Path) -> None:
    helped(tmp_path, 5)
    build_network(helped(tmp_path, 5), seed=0)
    error = refusal(written(tmp_path, {"karui_test_helper.py": "\n\n\n\n\nraise ValueError('new')"}))
    assert (error.where, error.remedy) == (f"{tmp_path / 'karui_test_helper.py'}:6", "raise ValueError('new')")


# ── mistakes in helpers ─────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("old", "new", "line", "what"),
    [
        ("WIDTH = 5", "WIDTH = 1 / 0", 3, "importing the file raised ZeroDivisionError"),
        ("WIDTH = 5", "WIDTH = = 5", 3, "importing the file raised SyntaxError"),
        ("nn.Linear(size, WIDTH)", "nn.Linear(size)", 8, "build() raised TypeError"),
        ("x.flatten(1)", "x.nothing", 10, "forward() raised AttributeError"),
    ],
)
def test_a_mistake_in_a_helper_names_its_line(tmp_path: Path, old: str, new: str, line: int, what: str) -> None:
    ref = written(tmp_path, {"karui_test_helper.py": HELPER.format(width=5).replace(old, new)})
    error = refusal(ref)
    assert error.what.startswith(what)
    assert error.where == f"{tmp_path / 'karui_test_helper.py'}:{line}"
    assert "karui_test_helper" not in sys.modules


# ── functions of modules ────────────────────────────────────────────────────────────────────────────────────────────


def of_module(folder: Path, text: str, name: str = "karui_pkg.nets:make") -> NetworkRef:
    """Write a package whose module ``nets`` makes a network with a helper's block, and name it."""
    files = {
        "karui_pkg/__init__.py": "",
        "karui_pkg/nets.py": text,
        "karui_pkg/blocks.py": HELPER.format(width=5),
    }
    for file, content in files.items():
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        (folder / file).write_text(content, encoding="utf-8")
    return catalog.network_ref(NetworkSpec(file=name), beside=folder, signature=learnable.signature())


MAKES = USING.format(statement="from karui_pkg import blocks", name="blocks").replace("def build", "def make")


def test_a_function_of_a_module_makes_the_network(tmp_path: Path) -> None:
    before = set(sys.modules)
    network = build_network(of_module(tmp_path, MAKES), seed=0)
    assert width_of(network) == 5
    assert network(torch.zeros(2, *learnable.SHAPE)).shape == (2, learnable.CLASSES)
    assert not {name for name in set(sys.modules) - before if "karui_pkg" in name}


def test_two_folders_with_modules_of_one_name_make_two_networks(tmp_path: Path) -> None:
    first = of_module(tmp_path / "a", MAKES)
    second = of_module(tmp_path / "b", MAKES)
    (tmp_path / "b/karui_pkg/blocks.py").write_text(HELPER.format(width=7))
    second = catalog.network_ref(NetworkSpec(file=second.name), beside=tmp_path / "b", signature=learnable.signature())
    assert [width_of(build_network(ref, seed=0)) for ref in (first, second, first)] == [5, 7, 5]


@pytest.mark.parametrize(
    ("text", "where", "what"),
    [
        (MAKES.replace("def make", "def other"), "karui_pkg.nets:make", "there is no function make"),
        ("make = 3\n", "karui_pkg.nets:make", "make is a int, not a function"),
        (MAKES.replace("import math", "1 / 0"), "karui_pkg/nets.py:2", "importing karui_pkg.nets raised ZeroDivision"),
        (MAKES.replace("return", "return 1 / 0,"), "karui_pkg/nets.py:7", "make() raised ZeroDivisionError"),
        (MAKES.replace("return", "return 'no'  #"), "karui_pkg.nets:make", "make() returned a str"),
    ],
)
def test_a_mistake_in_a_module_names_its_line(tmp_path: Path, text: str, where: str, what: str) -> None:
    error = refusal(of_module(tmp_path, text))
    assert error.what.startswith(what)
    assert error.where == str(tmp_path / where)


def test_a_module_that_changed_since_it_was_read_is_refused(tmp_path: Path) -> None:
    ref = of_module(tmp_path, MAKES)
    (tmp_path / "karui_pkg/blocks.py").write_text(HELPER.format(width=6))
    error = refusal(ref)
    assert error.where == str(tmp_path / "karui_pkg/blocks.py")
    assert "run again" in error.remedy


def test_an_installed_module_is_imported_as_usual(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    of_module(tmp_path / "lib", MAKES)  # writes it
    monkeypatch.syspath_prepend(tmp_path / "lib")
    spec = NetworkSpec(file="karui_pkg.nets:make")
    ref = catalog.network_ref(spec, beside=tmp_path, signature=learnable.signature())
    try:
        assert ref.version == "unknown"  # it is no distribution
        assert width_of(build_network(ref, seed=0)) == 5
        assert "karui_pkg.nets" in sys.modules
    finally:
        for name in [name for name in sys.modules if name.startswith("karui_pkg")]:
            del sys.modules[name]

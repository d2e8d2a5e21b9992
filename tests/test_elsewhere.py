"""Networks by name: what counts as a name, where modules are looked for, what stands in the reference."""

from __future__ import annotations

import importlib.metadata
from pathlib import Path

import pytest

from pipeline import catalog
from pipeline.declare.recipe import NetworkSpec, Recipe
from pipeline.elsewhere import is_elsewhere
from pipeline.errors import ConfigError
from pipeline.runs.keys import canonical
from pipeline.runs.sources import module_imports
from tests import learnable

MODULE = "from karui_nets import blocks\ndef build(input_shape, classes): return blocks.make(input_shape, classes)\n"


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def package(folder: Path, text: str = MODULE) -> None:
    nets = folder / "karui_nets"
    nets.mkdir(parents=True)
    (nets / "__init__.py").write_text("")
    (nets / "mine.py").write_text(text)
    (nets / "blocks.py").write_text("import torch\nmake = torch.nn.Linear\n")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("timm:resnet18", True),
        ("torchvision:deeplabv3_resnet50", True),
        ("timm:resnet18.a1_in1k", True),
        ("mypackage.nets:build", True),
        ("nets:make_small", True),
        ("resnet", False),
        ("nets/mine.py", False),
        ("./odd:name.py", False),
        ("mypackage.nets:", False),
        (":build", False),
        ("a:b:c", False),
    ],
)
def test_what_counts_as_a_name(text: str, expected: bool) -> None:
    assert is_elsewhere(text) is expected


def test_a_word_in_a_recipe_is_short_for_a_table() -> None:
    declared = {"name": "mine", "data": "digits"}
    short, long = (
        Recipe.model_validate({**declared, "network": network}) for network in ("timm:x", {"file": "timm:x"})
    )
    assert short == long
    assert short.network.options == {}


def test_a_module_beside_the_recipe_comes_first_then_the_working_folder(work: Path) -> None:
    package(work / "project")
    package(work)
    spec = NetworkSpec(file="karui_nets.mine:build", options={"width": 4})
    ref = catalog.network_ref(spec, beside=work / "project", signature=learnable.signature())
    assert (ref.path.parent, ref.name, ref.version) == (work / "project", "karui_nets.mine:build", "")
    assert (ref.function, ref.options) == ("build", {"width": 4})
    assert set(ref.imports) == {"karui_nets", "karui_nets.mine", "karui_nets.blocks"}
    assert catalog.network_ref(spec, signature=learnable.signature()).path.parent == work


def test_code_counts_and_the_place_does_not(work: Path) -> None:
    for folder, text in (("a", MODULE), ("b", MODULE + "# the same\n"), ("c", MODULE + "more = 1\n")):
        package(work / folder, text)
    spec = NetworkSpec(file="karui_nets.mine:build")
    first, moved, edited = (
        canonical(catalog.network_ref(spec, beside=work / folder, signature=learnable.signature())) for folder in "abc"
    )
    assert first == moved
    assert first != edited


def test_what_is_installed_is_known_by_its_version_and_its_own_code(work: Path) -> None:
    ref = catalog.network_ref(NetworkSpec(file="click.core:build"), beside=work, signature=learnable.signature())
    assert ref.version == importlib.metadata.version("click")
    assert "click.core" in ref.imports
    assert {name.partition(".")[0] for name in ref.imports} == {"click"}  # not all that lies beside it


@pytest.mark.parametrize(
    ("name", "what", "remedy"),
    [
        ("karui_nowhere.nets:build", "there is no module 'karui_nowhere.nets'", "looked for karui_nowhere/nets.py in "),
        ("tim:resnet18", "there is no module 'tim'; did you mean 'timm'?", "among what is installed"),
        ("click.nothing:build", "there is no module 'click.nothing'", "among what is installed"),
    ],
)
def test_what_is_found_nowhere(work: Path, name: str, what: str, remedy: str) -> None:
    with pytest.raises(ConfigError) as caught:
        catalog.network_ref(NetworkSpec(file=name), beside=work, signature=learnable.signature())
    assert what in caught.value.what
    assert remedy in caught.value.remedy


def test_a_package_that_is_missing_says_how_to_install_it(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.path", [path for path in __import__("sys").path if not (Path(path) / "timm").is_dir()])
    with pytest.raises(ConfigError) as caught:
        catalog.network_ref(NetworkSpec(file="timm:resnet18"), beside=work, signature=learnable.signature())
    assert caught.value.what == "'timm:resnet18' is a network of timm, which is not installed"
    assert "'.[zoo]'" in caught.value.remedy


def test_modules_of_other_packages_in_the_same_folder_count_only_when_asked(work: Path) -> None:
    package(work)
    (work / "karui_other.py").write_text("x = 1\n")
    (work / "karui_nets/mine.py").write_text("import karui_other\n")
    assert set(module_imports(work, "karui_nets.mine")) == {"karui_nets", "karui_nets.mine", "karui_other"}
    assert set(module_imports(work, "karui_nets.mine", inside="karui_nets")) == {"karui_nets", "karui_nets.mine"}
    assert module_imports(work, "karui_nets.nothing") == {}

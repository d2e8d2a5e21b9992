"""Names, paths and settings → what they declare."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import get_args

import pytest

from pipeline import catalog, shipped
from pipeline.declare.recipe import NetworkSpec, Recipe
from pipeline.errors import ConfigError
from pipeline.onboard.arrays import Signature, TensorSpec
from tests.declared import CARD, RECIPE, TARGET, write
from tests.declared import work as work  # noqa: PLC0414  a fixture

ROOT = Path(__file__).resolve().parent.parent

SIGNATURE = Signature(
    inputs=(TensorSpec("input", "float32", (1, 8, 8), "CHW"),), outputs=(TensorSpec("output", "float32", (10,), "K"),)
)


# ── finding ─────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("kind", get_args(catalog.Kind))
def test_every_listed_name_is_found_from_any_folder(work: Path, kind: catalog.Kind) -> None:
    for name in catalog.names(kind):
        if name != catalog.HOST:
            assert catalog.find(kind, name).stem == name


def test_names_of_the_shipped_content() -> None:
    assert {"digits", "digits-mlp", "digits-ds-cnn", "fashion-resnet8", "printed-digits"} <= set(
        catalog.names("recipe")
    )
    assert {"mlp", "cnn", "resnet", "ds_cnn", "mobilenet_v2"} <= set(catalog.names("network"))
    assert {"host", "raspberry-pi-4b", "x86-laptop-avx2"} <= set(catalog.names("target"))
    assert list(catalog.names("target")) == sorted(catalog.names("target"))


def test_the_working_folder_comes_first(work: Path) -> None:
    mine = write(work / "models/digits.toml", RECIPE)
    assert catalog.find("recipe", "digits") == mine
    assert catalog.load_recipe("digits")[0].name == "mine"
    assert catalog.find("recipe", "digits-mlp") == ROOT / "models/digits-mlp.toml"


def test_files_that_are_no_content_are_not_listed(work: Path) -> None:
    write(work / "models/networks/__init__.py", "")
    write(work / "models/networks/mine.py", "")
    listed = catalog.names("network")
    assert "mine" in listed
    assert "__init__" not in listed


def test_an_installed_wheel_uses_its_own_copies(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = work / "site-packages/pipeline"
    write(package / "_shipped/targets/shipped.toml", TARGET)
    write(work / "site-packages/targets/foreign.toml", TARGET)  # of some other distribution
    monkeypatch.setattr(shipped, "__file__", str(package / "shipped.py"))
    assert catalog.names("target") == ("host", "shipped")
    assert catalog.names("recipe") == ()


def test_an_alias_counts_as_a_name(work: Path) -> None:
    assert catalog.load_target("raspberry-pi-4").name == "raspberry-pi-4b"
    write(work / "targets/aaa-broken.toml", "not TOML")  # someone else's mistake does not hide the others
    write(work / "targets/bbb-odd.toml", "aliases = 3")
    write(work / "targets/rpi4.toml", TARGET)
    assert catalog.load_target("board").name == "rpi4"


def test_a_path_is_taken_as_it_is(work: Path) -> None:
    path = write(work / "elsewhere/board.toml", TARGET)
    write(work / "board.toml", TARGET)
    for name in ("elsewhere/board.toml", str(path), "board.toml"):
        assert catalog.load_target(name).name == "rpi4"


def test_paths_in_a_recipe_start_at_its_own_folder(work: Path) -> None:
    write(work / "project/recipe.toml", RECIPE)
    write(work / "mine.toml", CARD.replace('"Mine"', '"The wrong one"'))
    write(work / "project/mine.toml", CARD)
    network = write(work / "project/net.py", "import helper\nfrom torch import nn\n")
    write(work / "project/helper.py", "x = 1\n")
    recipe, folder = catalog.load_recipe("project/recipe.toml")
    card, card_folder = catalog.load_card(recipe.data, folder)
    assert (card.title, card_folder, folder) == ("Mine", work / "project", work / "project")
    ref = catalog.network_ref(recipe.network, beside=folder, signature=SIGNATURE)
    assert ref.path == network
    assert (ref.options, ref.input_shape, ref.output_channels) == ({"width": 8}, (1, 8, 8), 10)
    assert set(ref.imports) == {"helper"}  # torch is not the user's own
    weights = write(work / "weights.pt", "")
    assert catalog.find_file("weights.pt", beside=folder) == weights  # second: the working folder


def test_code_counts_and_comments_do_not(work: Path) -> None:
    network, helper = work / "net.py", work / "helper.py"

    def digests() -> tuple[str, str]:
        ref = catalog.network_ref(NetworkSpec(file="net.py"), signature=SIGNATURE)
        return ref.sha256, ref.imports["helper"]

    write(network, "import helper\n")
    write(helper, "x = 1\n")
    first = digests()
    write(network, '"""What it is."""\n# imported\nimport helper\n')
    write(helper, "x = 1  # one\n")
    assert digests() == first
    write(helper, "x = 2\n")
    assert digests()[0] == first[0]
    assert digests()[1] != first[1]


@pytest.mark.parametrize(
    ("kind", "name", "text"),
    [
        ("recipe", "digts", "no recipe is called 'digts'; did you mean 'digits'?"),
        ("target", "raspberry-pi4", "no target is called 'raspberry-pi4'; did you mean 'raspberry-pi-4'?"),
        ("network", "restnet", "no network is called 'restnet'; did you mean 'resnet'?"),
        ("data", "zzz", "no data-set card is called 'zzz'"),
        ("recipe", "", "no recipe is called ''"),
    ],
)
def test_an_unknown_name(work: Path, kind: catalog.Kind, name: str, text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        catalog.find(kind, name)
    assert str(caught.value).startswith(text)
    assert "add " in caught.value.remedy


def test_a_path_that_does_not_exist_tells_where_it_was_looked_for(work: Path) -> None:
    beside = work / "project"
    with pytest.raises(ConfigError) as caught:
        catalog.find("network", "nets/mine.py", beside=beside)
    assert caught.value.what == "no file 'nets/mine.py'"
    assert caught.value.remedy == f"looked for {beside}/nets/mine.py and {work}/nets/mine.py"
    with pytest.raises(ConfigError, match="no file"):
        catalog.network_ref(NetworkSpec(file="nets/mine.py"), signature=SIGNATURE)


def test_host_is_this_machine() -> None:
    assert catalog.load_target("host").name == "host"


# ── shipped recipes ─────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("name", catalog.names("recipe"))
def test_every_recipe_is_valid_and_its_parts_exist(work: Path, name: str) -> None:
    recipe, folder = catalog.load_recipe(name)
    assert recipe.name == name
    assert recipe.summary
    assert catalog.find("network", recipe.network.file, beside=folder).is_file()
    assert catalog.load_card(recipe.data, folder)[0].name == recipe.data


def test_digits_starts_from_a_recipe_of_the_same_network() -> None:
    digits, _ = catalog.load_recipe("digits")
    assert digits.finetune is not None
    start, _ = catalog.load_recipe(digits.finetune.start.removeprefix("recipe:"))
    assert start.network == digits.network
    assert isinstance(start, Recipe)


def test_the_promised_limits_stand_in_the_recipes() -> None:
    digits, _ = catalog.load_recipe("digits")
    fashion, _ = catalog.load_recipe("fashion-resnet8")
    assert (digits.limits.accuracy_min, digits.limits.accuracy_drop_pp) == (0.95, 1.0)
    assert (fashion.limits.accuracy_min, fashion.limits.accuracy_drop_pp) == (0.925, 0.2)


def test_the_catalogue_needs_no_torch() -> None:
    code = "import sys, pipeline.catalog as c; c.load_recipe('digits'); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False, cwd=ROOT).returncode == 0

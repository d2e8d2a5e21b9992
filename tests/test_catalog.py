"""Names, paths and settings → what they declare; every way to get one wrong → a text that names place and cure."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import get_args

import pytest

from pipeline import catalog, shipped
from pipeline.declare.recipe import NetworkSpec, Recipe
from pipeline.declare.target import TargetProfile
from pipeline.errors import ConfigError
from pipeline.onboard.arrays import Signature, TensorSpec

ROOT = Path(__file__).resolve().parent.parent
SIGNATURE = Signature(
    inputs=(TensorSpec("input", "float32", (1, 8, 8), "CHW"),), outputs=(TensorSpec("output", "float32", (10,), "K"),)
)

RECIPE = """\
name = "mine"
data = "mine.toml"
[network]
file = "net.py"
[network.options]
width = 8
[train]
epochs = 2
"""
CARD = """\
name = "mine"
title = "Mine"
kind = "npz"
[input]
shape = [1, 8, 8]
[files.all]
path = "mine.npz"
"""
TARGET = """\
name = "rpi4"
title = "A board"
aliases = ["board"]
os = "Debian 12"
python = "3.11"
[cpu]
architecture = "aarch64"
model = "Cortex-A72"
cores = 4
clock_mhz = 1500
[memory]
size_bytes = "1 GiB"
"""


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return an empty working folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def refusal_of_target(work: Path, old: str, new: str) -> str:
    write(work / "targets/rpi4.toml", TARGET.replace(old, new))
    with pytest.raises(ConfigError) as caught:
        catalog.load_target("rpi4")
    assert caught.value.exit_code == 2
    return str(caught.value)


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


# ── files that are wrong ────────────────────────────────────────────────────────────────────────────────────────────


def test_the_target_used_below_is_right(work: Path) -> None:
    write(work / "targets/rpi4.toml", TARGET)
    assert isinstance(catalog.load_target("rpi4"), TargetProfile)


@pytest.mark.parametrize(
    ("old", "new", "text"),
    [
        (
            "[memory]",
            "[limits]\nlatency_p95 = 3\n[memory]",
            "targets/rpi4.toml: [limits] has no 'latency_p95'; did you mean 'latency_p95_ms'?",
        ),
        ("cores = 4", "core = 4", "targets/rpi4.toml: [cpu] has no 'core'; did you mean 'cores'?"),
        ("os =", "cores = 4\nos =", "targets/rpi4.toml: the top level has no 'cores'; did you mean 'cpu.cores'?"),
        ("os =", "zzz = 4\nos =", "targets/rpi4.toml: the top level has no 'zzz'; known: aliases, cpu, limits, memory"),
        ("cores = 4\n", "", "targets/rpi4.toml: [cpu] needs 'cores'"),
        ("cores = 4", 'cores = "four"', 'targets/rpi4.toml: [cpu] cores = "four": expected a whole number'),
        ("cores = 4", 'cores = "1_000"', 'targets/rpi4.toml: [cpu] cores = "1_000": expected a whole number'),
        ("cores = 4", "cores = true", "targets/rpi4.toml: [cpu] cores = true: expected a whole number"),
        ('"1 GiB"', "true", "targets/rpi4.toml: [memory] size_bytes = true: expected a whole number"),
        ("cores = 4", "cores = 0", "targets/rpi4.toml: [cpu] cores = 0: expected at least 1"),
        ("cores = 4", "cores = 1.5", "targets/rpi4.toml: [cpu] cores = 1.5: expected a whole number"),
        (
            '"aarch64"',
            '"arch64"',
            (
                "targets/rpi4.toml: [cpu] architecture = \"arch64\": expected 'aarch64', 'armv7l' or 'x86_64'; "
                "did you mean 'aarch64'?"
            ),
        ),
        (
            '"1 GiB"',
            '"1 gig"',
            (
                "targets/rpi4.toml: [memory] size_bytes = \"1 gig\": '1 gig' is not a size; "
                'write bytes or for example "512 KiB"'
            ),
        ),
        ('["board"]', '"board"', 'targets/rpi4.toml: aliases = "board": expected a list'),
        ('["board"]', '["board", 3]', "targets/rpi4.toml: aliases[1] = 3: expected a string"),
        ('name = "rpi4"', "name = true", "targets/rpi4.toml: name = true: expected a string"),
        ('name = "rpi4"', 'name = "R 4"', 'targets/rpi4.toml: name = "R 4": expected small letters'),
        ("[memory]\nsize_bytes", "memory", "targets/rpi4.toml: [cpu] has no 'memory'"),
        (
            "python =",
            "weight_bits = 6\npython =",
            "targets/rpi4.toml: weight_bits = 6: expected 7 or 8",
        ),
    ],
)
def test_a_wrong_key_or_value(work: Path, old: str, new: str, text: str) -> None:
    assert refusal_of_target(work, old, new).startswith(text)


def test_all_mistakes_of_a_file_are_told_at_once(work: Path) -> None:
    text = refusal_of_target(work, "cores = 4\nclock_mhz = 1500", 'core = 4\nclock_mhz = "fast"')
    assert text.splitlines() == [
        "targets/rpi4.toml: [cpu] has no 'core'; did you mean 'cores'?",
        "targets/rpi4.toml: [cpu] needs 'cores'",
        'targets/rpi4.toml: [cpu] clock_mhz = "fast": expected a whole number',
    ]


@pytest.mark.parametrize(
    ("old", "new", "line", "words"),
    [
        ("cores = 4", "cores 4", 9, "not valid TOML: Expected '='"),
        ("cores = 4", "cores = 4\ncores = 5", 10, "not valid TOML: Cannot overwrite a value"),
        ('size_bytes = "1 GiB"\n', "size_bytes = [1,", 12, "not valid TOML: "),
    ],
)
def test_text_that_is_no_toml_names_file_and_line(work: Path, old: str, new: str, line: int, words: str) -> None:
    assert refusal_of_target(work, old, new).startswith(f"targets/rpi4.toml:{line}: {words}")


def test_text_in_another_encoding_names_file_and_line(work: Path) -> None:
    path = work / "board.toml"
    path.write_bytes(TARGET.replace("A board", "Ein Gerät").encode("latin-1"))
    with pytest.raises(ConfigError) as caught:
        catalog.load_target("board.toml")
    assert str(caught.value).startswith("board.toml:2: not UTF-8 text")


def test_a_file_outside_the_working_folder_is_named_in_full(
    tmp_path_factory: pytest.TempPathFactory, work: Path
) -> None:
    path = write(tmp_path_factory.mktemp("other") / "board.toml", "name = 3")
    with pytest.raises(ConfigError) as caught:
        catalog.load_target(str(path))
    assert str(caught.value).startswith(f"{path}: ")


def test_wrong_keys_deep_inside_a_card(work: Path) -> None:
    write(work / "mine.toml", CARD.replace("path =", "paths =").replace("[1, 8, 8]", "[1, 8, 8]\nmean = [0.1, 0.2]"))
    with pytest.raises(ConfigError) as caught:
        catalog.load_card("mine.toml")
    assert str(caught.value).splitlines() == [
        "mine.toml: [files.all] has no 'paths'; did you mean 'path'?",
        "mine.toml: [input]: 'mean' needs one value or one per channel (1)",
        "mine.toml: [files.all] needs 'path'",
    ]


# ── --set ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_settings_change_what_they_name_and_nothing_else(work: Path) -> None:
    plain, _ = catalog.load_recipe("digits")
    changed, _ = catalog.load_recipe(
        "digits",
        ["train.epochs=5", "train.optimizer=sgd", "network.options.width = 16", "train.augment.flip=true", "seed=7"],
    )
    assert (changed.train.epochs, changed.train.optimizer, changed.train.augment.flip) == (5, "sgd", True)
    assert (changed.network.options["width"], changed.seed) == (16, 7)
    assert changed.train.learning_rate == plain.train.learning_rate
    assert changed.finetune == plain.finetune


def test_settings_may_make_a_table_and_the_last_one_wins(work: Path) -> None:
    write(work / "recipe.toml", RECIPE)
    settings = ["finetune.mode=head", "finetune.start='recipe:digits'", "prune.amount=0.5", "prune.amount=0.25"]
    recipe, _ = catalog.load_recipe("recipe.toml", settings)
    assert recipe.finetune is not None
    assert (recipe.finetune.mode, recipe.finetune.start, recipe.prune.amount) == ("head", "recipe:digits", 0.25)


@pytest.mark.parametrize(
    ("setting", "text"),
    [
        ("train.epoch=5", "--set train.epoch=5: [train] has no 'epoch'; did you mean 'epochs'?"),
        ("trian.epochs=5", "--set trian.epochs=5: the top level has no 'trian'; did you mean 'train'?"),
        ("epochs=5", "--set epochs=5: the top level has no 'epochs'; did you mean 'train.epochs'?"),
        ("train.epochs=many", '--set train.epochs=many: [train] epochs = "many": expected a whole number'),
        ("train.epochs=true", "--set train.epochs=true: [train] epochs = true: expected a whole number"),
        (
            "train.learning_rate='1_0'",
            "--set train.learning_rate='1_0': [train] learning_rate = \"1_0\": expected a number",
        ),
        ("threads='4'", "--set threads='4': threads = \"4\": expected a whole number"),
        ("train=5", "--set train=5: train = 5: expected a table"),
        ("name.x=5", "--set name.x=5: the top level 'name' is a value, not a table"),
        ("train.augment.noise=-1", "--set train.augment.noise=-1: [train.augment] noise = -1: expected at least 0"),
        ("prune.amount=1", "--set prune.amount=1: [prune] amount = 1: expected less than 1"),
        (
            "quantize.method=qad",
            (
                "--set quantize.method=qad: [quantize] method = \"qad\": expected 'qat', 'ptq' or 'none'; "
                "did you mean 'qat'?"
            ),
        ),
        (
            "network.options.width=[1]",
            (
                "--set network.options.width=[1]: [network.options] width = [1]: "
                "expected true or false, a whole number, a number or a string"
            ),
        ),
        (
            "finetune.start=digits",
            "--set finetune.start=digits: [finetune] start = \"digits\": expected 'recipe:NAME', 'run:FOLDER' or",
        ),
        ("train.epochs", "--set: 'train.epochs' is no setting\n  write for example --set train.epochs=5"),
        ("=5", "--set: '=5' is no setting"),
        ("train..epochs=5", "--set: 'train..epochs=5' is no setting"),
    ],
)
def test_a_wrong_setting(work: Path, setting: str, text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        catalog.load_recipe("digits", ["seed=1", setting, "prune.steps=1"])
    assert str(caught.value).startswith(text)
    assert caught.value.exit_code == 2


def test_a_value_cannot_smuggle_in_further_keys(work: Path) -> None:
    with pytest.raises(ConfigError, match="expected a whole number"):
        catalog.load_recipe("digits", ["seed=1\nname='x'"])


def test_a_mistake_of_the_file_is_not_blamed_on_a_setting(work: Path) -> None:
    write(work / "recipe.toml", RECIPE.replace("epochs", "epoch"))
    with pytest.raises(ConfigError) as caught:
        catalog.load_recipe("recipe.toml", ["seed=1"])
    assert str(caught.value) == "recipe.toml: [train] has no 'epoch'; did you mean 'epochs'?"


def test_a_missing_key_of_a_table_that_a_setting_made_is_blamed_on_it(work: Path) -> None:
    write(work / "recipe.toml", RECIPE)
    with pytest.raises(ConfigError) as caught:
        catalog.load_recipe("recipe.toml", ["finetune.mode=head"])
    assert str(caught.value) == "--set finetune.mode=head: [finetune] needs 'start'"


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
    assert (digits.limits.accuracy_min, digits.limits.accuracy_drop_pp) == (0.97, 1.0)
    assert (fashion.limits.accuracy_min, fashion.limits.accuracy_drop_pp) == (0.925, 0.2)


def test_the_catalogue_needs_no_torch() -> None:
    code = "import sys, pipeline.catalog as c; c.load_recipe('digits'); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False, cwd=ROOT).returncode == 0

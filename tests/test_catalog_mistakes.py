"""Every way to get a recipe, card, target or setting wrong → a text that names place and cure."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline import catalog
from pipeline.declare.target import TargetProfile
from pipeline.errors import ConfigError
from tests.declared import CARD, RECIPE, TARGET, write
from tests.declared import work as work  # noqa: PLC0414  a fixture


def refusal_of_target(work: Path, old: str, new: str) -> str:
    write(work / "targets/rpi4.toml", TARGET.replace(old, new))
    with pytest.raises(ConfigError) as caught:
        catalog.load_target("rpi4")
    assert caught.value.exit_code == 2
    return str(caught.value)


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

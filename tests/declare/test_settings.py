"""A recipe's settings as text: all that are in effect, and nobody's folders."""

from __future__ import annotations

from pipeline.declare.recipe import FinetuneSpec, NetworkSpec, Recipe
from pipeline.declare.settings import settings_of


def recipe(**changes: object) -> Recipe:
    return Recipe(name="mine", data="digits", network=NetworkSpec(file="mlp")).model_copy(update=changes)


def test_defaults_are_settings_too_and_values_stand_as_a_recipe_has_them() -> None:
    found = settings_of(recipe(network=NetworkSpec(file="mlp", options={"hidden": 32, "bias": True})))
    assert found["train.epochs"] == "10"
    assert found["train.optimizer"] == '"adamw"'
    assert found["train.augment.flip"] == "false"
    assert found["network.options.hidden"] == "32"
    assert found["network.options.bias"] == "true"
    assert found["seed"] == "0"
    assert "name" not in found
    assert "finetune.start" not in found


def test_paths_lose_their_folders() -> None:
    for start, shown in (
        ("weights:/home/me/net.pt", '"weights:net.pt"'),
        ("run:../runs/first/", '"run:first"'),
        ("recipe:printed-digits", '"recipe:printed-digits"'),
        ("weights:C:\\Users\\me\\net.pt", '"weights:net.pt"'),
    ):
        assert settings_of(recipe(finetune=FinetuneSpec(start=start)))["finetune.start"] == shown
    found = settings_of(recipe(data="/home/me/card.toml", network=NetworkSpec(file="../nets/net.py")))
    assert (found["data"], found["network.file"]) == ('"card.toml"', '"net.py"')

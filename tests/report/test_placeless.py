"""Nobody's folders are passed on: paths from a root lose them, all other words stay."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from pipeline.report.placeless import command_without_places, without_places, word_without_place
from tests.report.recorded import Recorded


@pytest.mark.parametrize(
    ("word", "shown"),
    [
        ("/home/me/mine.toml", "mine.toml"),
        ("--out=/home/me/runs/a/", "--out=a"),
        ("finetune.start=weights:/home/me/net.pt", "finetune.start=weights:net.pt"),
        ("run:~/runs/first", "run:first"),
        ("C:\\Users\\me\\mine.toml", "mine.toml"),
        ('data="/home/me/card.toml"', "data=card.toml"),
        ("runs/mine", "runs/mine"),
        ("../mine.toml", "../mine.toml"),
        ("train.epochs=5", "train.epochs=5"),
        ("https://example.org/data.zip", "https://example.org/data.zip"),
        ("/", "/"),
        ("", ""),
    ],
)
def test_only_a_path_from_a_root_is_cut(word: str, shown: str) -> None:
    assert word_without_place(word) == shown


def test_a_command_stays_a_command() -> None:
    typed = ("karui", "run", "/home/me/mine.toml", "--set", "seed=1", "--out", "/home/me/runs/a")
    assert command_without_places(typed) == ("karui", "run", "mine.toml", "--set", "seed=1", "--out", "a")


def test_report_json_names_no_folder(digits: Recorded) -> None:
    outcome, home = digits.outcome, Path("/home/somebody")
    card = outcome.data.card.model_copy(update={"own": {"folder": str(home / "photos"), "label_column": "kind"}})
    data = dataclasses.replace(outcome.data, card=card, folder=home / "cards")
    network = dataclasses.replace(outcome.network, path=home / "net.py")
    at_home = digits.but(data=data, network=network)
    assert "somebody" not in at_home.json()
    placeless = without_places(at_home.outcome)
    assert placeless.network.path == Path("net.py")
    assert placeless.data.card.own == {"folder": "photos", "label_column": "kind"}
    assert placeless.data.card.classes == card.classes
    assert without_places(placeless) == placeless

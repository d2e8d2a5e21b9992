"""Wrong recipes, targets, cards and settings: file, table, key, what to do, exit status 2, no traceback."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline import catalog
from pipeline.errors import KaruiError
from tests.own_project import Karui
from tests.own_project import karui as karui  # noqa: PLC0414  a fixture

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("epochs = 1\nb", "epoch = 1\nb", "mine.toml: [train] has no 'epoch'; did you mean 'epochs'?"),
        ("epochs = 1\nb", "epochs = -1\nb", "mine.toml: [train] epochs = -1: expected at least 0"),
        ("epochs = 1\nb", "learning_rate = inf\nb", "[train] learning_rate = inf: expected a finite number"),
        ("[limits]", "[limit]", "mine.toml: the top level has no 'limit'; did you mean 'limits'?"),
        ('"mine"', '"My Recipe"', "name = \"My Recipe\": expected small letters, digits, '-', '_' and '.' alone"),
        ('"mine"', "mine", "mine.toml:1: not valid TOML"),
        (
            '"digits"',
            '"digitz"',
            "mine.toml: data = \"digitz\": no data-set card is called 'digitz'; did you mean 'digi",
        ),
        ('"digits"', '"no.toml"', "mine.toml: data = \"no.toml\": no file 'no.toml'\n  looked for"),
        ('"mlp"', '"mpl"', "mine.toml: [network] file = \"mpl\": no network is called 'mpl'; did you mean 'mlp'?"),
        ("[train]", '[finetune]\nstart = "recipe:digitz"\n[train]', '[finetune] start = "recipe:digitz": no recipe is'),
        (
            "[train]",
            '[finetune]\nstart = "weights:no.pt"\n[train]',
            '[finetune] start = "weights:no.pt": no file \'no.',
        ),
        (
            "[train]",
            '[finetune]\nstart = "run:never"\n[train]',
            '[finetune] start = "run:never": there is no run \'nev',
        ),
        ("[train]", '[finetune]\nstart = "digits"\n[train]', "'recipe:NAME', 'run:FOLDER' or 'weights:FILE'"),
        (
            "[train]",
            "seed = 4294967296\n[train]",
            "has no 'seed'; did you mean 'seed' at the top of the file?",
        ),
    ],
)
def test_a_wrong_recipe(old: str, new: str, said: str, karui: Karui) -> None:
    path = karui.recipe()
    path.write_text(path.read_text().replace(old, new, 1))
    karui("run", "mine.toml").refused(2, said)
    assert not Path("runs").exists()


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("network.file=mpl", "--set network.file=mpl: no network is called 'mpl'; did you mean 'mlp'?"),
        ("data=digitz", "--set data=digitz: no data-set card is called 'digitz'; did you mean 'digits'?"),
        ("seed=99999999999999999999", "seed = 99999999999999999999: expected less than 4294967296"),
        ("train.learning_rate=nan", "--set train.learning_rate=nan: [train] learning_rate = nan"),
        ("quantise.method=ptq", "the top level has no 'quantise'; did you mean 'quantize'?"),
    ],
)
def test_a_wrong_setting(setting: str, said: str, karui: Karui) -> None:
    karui.recipe()
    karui("run", "mine.toml", "--set", setting).refused(2, said)


@pytest.mark.parametrize(
    ("kind", "more", "said"),
    [
        ("csv", '[files.all]\npath = "t.csv"', "card.toml: kind = \"csv\" needs 'label_column'"),
        (
            "csv",
            'label_column = "y"\n[files.traim]\npath = "t.csv"',
            "card.toml: [files] has no 'traim'; did you mean 'train'?",
        ),
        ("npz", "", 'card.toml: kind = "npz" needs [files.all]'),
        ("npz", '[files.test]\npath = "t.npz"', 'card.toml: kind = "npz" needs [files.all]'),
        ("image-folder", "", "card.toml: kind = \"image-folder\" needs 'folder'"),
        ("npz", 'classes = ["a", "b", "a"]', "'a' stands there twice"),
        (
            "npz",
            'input = { shape = [] }\n[files.all]\npath = "t.npz"',
            "card.toml: [input] shape = []: expected a list of at least 1",
        ),
        ("pictures", "", "card.toml: kind = \"pictures\": expected 'npz'"),
    ],
)
def test_a_wrong_card(kind: str, more: str, said: str, karui: Karui) -> None:
    shape = "" if "input" in more else "[input]\nshape = [1, 8, 8]"
    karui.write("card.toml", f'name = "c"\ntitle = "C"\nkind = "{kind}"\n{more}\n{shape}\n')
    karui.recipe(data="card.toml")
    karui("run", "mine.toml").refused(2, said)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(data=st.data())
def test_damaged_toml_never_ends_in_a_traceback(data: st.DataObject, tmp_path: Path) -> None:
    kind = data.draw(st.sampled_from(["recipe", "target", "data"]))
    name = {"recipe": "models/digits", "target": "targets/raspberry-pi-4b", "data": "calibration_data/digits"}[kind]
    text = (ROOT / f"{name}.toml").read_text()
    start = data.draw(st.integers(0, len(text)))
    length = data.draw(st.integers(0, 40))
    inserted = data.draw(st.text(max_size=12) | st.sampled_from(["nan", "-1", '"x"', "[[a]]", "{}", "\0", "1e999"]))
    path = tmp_path / "damaged.toml"
    path.write_text(text[:start] + inserted + text[start + length :], encoding="utf-8", errors="replace")
    refused = refusal(kind, str(path))
    if refused is not None:  # some changes do no harm
        assert refused.exit_code == 2
        assert "damaged.toml" in refused.where


def refusal(kind: str, path: str) -> KaruiError | None:
    try:
        match kind:
            case "recipe":
                catalog.load_recipe(path)
            case "target":
                catalog.load_target(path)
            case _:
                catalog.load_card(path)
    except KaruiError as error:
        return error
    return None

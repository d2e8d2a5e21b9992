"""Which data set a card means: kinds, keys and digests; and that a data set is read once per process."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from pipeline.data.kinds import KINDS, own_spec
from pipeline.data.load import load, reference
from pipeline.data.source import INPUT, ArraySource
from pipeline.declare.card import DatasetCard
from pipeline.errors import ConfigError
from tests.data.sets import all_of, card, labels, loaded, pictures, samples, write_npz

SHAPE = (1, 4, 4)


def stored(folder: Path, seed: int = 0, name: str = "s.npz") -> DatasetCard:
    write_npz(folder / name, x=pictures(30, seed=seed), y=labels(30))
    return card("npz", SHAPE, files=all_of(name))


def test_a_data_set_is_read_once_per_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reads = 0
    read = KINDS["npz"].load

    def counted(*given: Any) -> Any:
        nonlocal reads
        reads += 1
        return read(*given)

    monkeypatch.setattr(KINDS["npz"], "load", counted)
    ref = reference(stored(tmp_path), tmp_path)
    first = load(ref)
    assert load(ref) is first
    assert load(reference(ref.card, tmp_path)) is first
    assert reads == 1
    other = reference(stored(tmp_path, seed=1, name="t.npz"), tmp_path)
    second = load(other)
    assert second is not first
    for _ in range(2):  # a run and its start ask in turn
        assert load(ref) is first
        assert load(other) is second
    assert reads == 2
    load(reference(stored(tmp_path, seed=2, name="u.npz"), tmp_path))
    assert load(other) is second
    assert load(ref) is not first  # two are kept, not all that ever were
    assert reads == 4


def test_a_large_data_set_is_let_go_before_the_next_one_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    refs = [reference(stored(tmp_path, seed=seed, name=f"{seed}.npz"), tmp_path) for seed in range(2)]
    first = load(refs[0])
    size = sum(
        each.inputs[INPUT].nbytes for each in (first.train, first.val, first.test) if isinstance(each, ArraySource)
    )
    for most, is_kept in ((size, False), (size + 1, True)):
        monkeypatch.setattr("pipeline.data.load._SMALL_BYTES", most)
        first = load(refs[0])
        load(refs[1])
        assert (load(refs[0]) is first) is is_kept
        load(refs[1])


def test_cards_that_differ_in_their_words_alone_are_not_mixed_up(tmp_path: Path) -> None:
    first = stored(tmp_path)
    second = first.model_copy(update={"title": "another"})
    assert reference(first, tmp_path).digest == reference(second, tmp_path).digest
    assert loaded(first, tmp_path).card.title == "a set"
    assert loaded(second, tmp_path).card.title == "another"


@pytest.mark.parametrize(
    "change", [{"divide": 255}, {"mean": [0.5]}, {"std": [0.5]}, {"normalize": "train"}, {"clip": 3}]
)
def test_preprocessing_is_part_of_the_digest(tmp_path: Path, change: dict[str, Any]) -> None:
    stored(tmp_path)
    plain, changed = (of_this(input={"shape": SHAPE, "divide": 16, **keys}) for keys in ({}, change))
    assert reference(changed, tmp_path).digest != reference(plain, tmp_path).digest


def test_what_is_said_by_default_does_not_change_the_digest(tmp_path: Path) -> None:
    plain = stored(tmp_path)
    told = of_this(input={"shape": SHAPE, "normalize": "train", "divide": 1}, task="classification")
    assert reference(told, tmp_path).digest == reference(plain, tmp_path).digest


def of_this(**more: Any) -> DatasetCard:
    return card("npz", SHAPE, files=all_of("s.npz"), **more)


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ({}, "train"),
        ({"clip": 3}, "train"),
        ({"normalize": "train", "divide": 255}, "train"),
        ({"normalize": "none"}, "none"),
        ({"normalize": "none", "divide": 255}, "none"),
        ({"divide": 255}, None),
        ({"mean": [0.5]}, None),
        ({"std": [1.0]}, None),
    ],
)
def test_what_a_card_does_not_say_is_measured(said: dict[str, Any], expected: str | None) -> None:
    declared = of_this(input={"shape": SHAPE, **said})
    assert declared.input.normalize == expected
    # a card that was written into a record and read again says the same
    assert DatasetCard.model_validate_json(declared.model_dump_json()) == declared
    several = of_this(input={}, inputs={"camera": {"shape": SHAPE, **said}, "speed": {"shape": [2]}})
    assert [spec.normalize for spec in several.inputs.values()] == [expected, "train"]


def test_raw_values_reach_the_network_where_the_card_says_so(tmp_path: Path) -> None:
    plain = stored(tmp_path)
    measured, raw = (
        loaded(declared, tmp_path).frontend[INPUT][0].settings
        for declared in (plain, of_this(input={"shape": SHAPE, "normalize": "none"}))
    )
    assert raw == {"divide": 1.0, "mean": [0.0], "std": [1.0]}
    train = samples(loaded(plain, tmp_path).train).astype(np.float64)
    assert measured == {
        "divide": 1.0,
        "mean": [float(np.float32(train.mean()))],
        "std": [float(np.float32(train.std()))],
    }


@pytest.mark.parametrize("how", ["train", "none"])
def test_normalize_and_numbers_of_ones_own_exclude_each_other(how: str) -> None:
    with pytest.raises(ValueError, match=f'normalize = "{how}" .*; take them out'):
        of_this(input={"shape": SHAPE, "normalize": how, "mean": [0.5]})


@pytest.mark.parametrize(
    ("more", "says"),
    [
        ({"kind": "pictures"}, r"""kind = "pictures": expected 'npz', 'idx', 'image-folder', 'csv' or 'python'"""),
        ({"kind": "npy"}, "; did you mean 'npz'"),
        ({"task": "clasification"}, "there is no task 'clasification'; did you mean 'classification'"),
        ({"sampels": 3}, "the top level has no 'sampels'"),
        ({"when": "2020-01-01"}, "the top level has no 'when'"),
        ({"files": {}}, r'kind = "npz" needs \[files.all\]'),
        ({"files": {"all": {"path": "s"}, "tset": {"path": "t"}}}, r"\[files\] has no 'tset'; did you mean 'test'"),
        ({"input": {"shape": []}}, r"\[input\] shape = \[\]: expected a list of at least 1"),
        ({"input": {}}, r"\[input\] needs 'shape'"),
        ({"input": {}, "inputs": {"a": {}}}, r"\[inputs.a\] needs 'shape'"),
    ],
)
def test_cards_that_cannot_be_meant(tmp_path: Path, more: dict[str, Any], says: str) -> None:
    table = {"name": "set", "title": "", "kind": "npz", "files": all_of("s.npz"), "input": {"shape": SHAPE}, **more}
    declared = DatasetCard.model_validate(table)
    with pytest.raises(ConfigError, match=says):
        reference(declared, tmp_path)


def test_the_file_of_the_card_is_named_where_it_is_known() -> None:
    with pytest.raises(ConfigError) as caught:
        own_spec(card("csv", (2,), lable_column="a", files=all_of("t.csv"), ignored_colums=["b"]), "cards/mine.toml")
    assert str(caught.value).splitlines() == [
        "cards/mine.toml: the top level has no 'lable_column'; did you mean 'label_column'?",
        "cards/mine.toml: the top level has no 'ignored_colums'; did you mean 'ignored_columns'?",
    ]


@pytest.mark.parametrize("kind", KINDS)
def test_other_kinds_have_one_input(kind: str, tmp_path: Path) -> None:
    own = {"image-folder": {"folder": "x"}, "csv": {"label_column": "y"}, "python": {"file": "x.py"}}.get(kind, {})
    inputs = {"a": {"shape": [2]}, "b": {"shape": [2]}}
    table = {"name": "set", "title": "", "kind": kind, "files": all_of("s"), "inputs": inputs, **own}
    declared = DatasetCard.model_validate(table)
    if kind in ("npz", "python"):
        own_spec(declared)
    else:
        with pytest.raises(ConfigError, match=rf'\[inputs\]: kind = "{kind}" has one input, \[input\]'):
            own_spec(declared)


@pytest.mark.parametrize("key", ["val", "test"])
@pytest.mark.parametrize("wrong", [True, 1.0, 1.5, "0.2"])
def test_a_split_is_a_share_or_a_whole_number(key: str, wrong: object) -> None:
    with pytest.raises(ValidationError, match=r"a share below 1|a number"):
        card("npz", SHAPE, split={key: wrong})
    assert card("npz", SHAPE, split={key: 2}).split.model_dump()[key] == 2


@pytest.mark.parametrize("wrong", [{"mean": [True]}, {"mean": ["0.5"]}, {"shape": ["1", 4, 4]}, {"divide": "2_5"}])
def test_numbers_of_a_card_are_written_as_numbers(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match=r"numbers alone, without quotes|a number"):
        card("npz", SHAPE, input={"shape": SHAPE, **wrong})


def test_resizing_is_for_files_of_pictures(tmp_path: Path) -> None:
    declared = card("npz", SHAPE, files=all_of("s.npz"), input={"shape": SHAPE, "resize": "fit"})
    with pytest.raises(ConfigError, match=r"\[input\] resize is for kind = \"image-folder\" alone"):
        reference(declared, tmp_path)

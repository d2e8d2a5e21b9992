"""Tables for a network that is there already: which columns it takes, which one says what is right."""

from __future__ import annotations

import gzip
import struct
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from pipeline.catalog import load_card
from pipeline.data.load import load, reference
from pipeline.errors import ConfigError
from pipeline.onboard.frontend import prepare
from pipeline.starting.models import Quantizing, quantizing
from pipeline.validating import Question, validate
from tests.networks.onnx.written import Array, model, node, random

FEATURES, ROWS = 3, 30


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def network(features: int = FEATURES, outputs: int = 3) -> Path:
    weights = {"v": random(features, outputs)}
    Path("net.onnx").write_bytes(model([node("Gemm", "x v", "y")], ("N", features), weights).SerializeToString())
    return Path("net.onnx")


def table(*columns: tuple[str, Sequence[object]], name: str = "rows.csv", cells: str = ",") -> str:
    lines = [cells.join(each for each, _ in columns)]
    lines += [cells.join(map(str, row)) for row in zip(*(values for _, values in columns), strict=True)]
    Path(name).write_text("\n".join(lines) + "\n")
    return name


def numbers(*names: str, rows: int = ROWS) -> list[tuple[str, list[object]]]:
    return [(name, list(np.round(random(rows, seed=at), 3))) for at, name in enumerate(names)]


def cycled(*values: object) -> list[object]:
    return [values[row % len(values)] for row in range(ROWS)]


def held(made: Quantizing) -> dict[str, Array]:
    """Write the files, and return what training would see."""
    made.write()
    data = load(reference(*load_card("net-data.toml")))
    batch = data.train.read(np.arange(len(data.train)))
    return {**prepare(batch.inputs, data.frontend), **batch.wanted}


def test_a_table_without_labels_is_labelled_by_the_network() -> None:
    made = quantizing(network(), table(*numbers("a", "b", "c")))
    seen = held(made)
    assert seen["input"].shape[1:] == (FEATURES,)
    np.testing.assert_allclose(seen["output"], seen["input"] @ random(FEATURES, 3), atol=1e-5)
    assert any("3 columns of features, without labels" in each for each in made.said)


@pytest.mark.parametrize("label", ["species", "class", "whatever"])
def test_the_column_of_classes_is_found_by_its_name_or_stands_last(label: str) -> None:
    made = quantizing(network(), table(*numbers("a", "b", "c"), (label, cycled("rose", "iris", "lily"))))
    assert set(held(made)) == {"input", "class"}
    assert any(f"'{label}' says what is right" in each for each in made.said)
    assert load_card("net-data.toml")[0].own["label_column"] == label


def test_a_named_column_of_classes_may_stand_anywhere() -> None:
    assert set(held(quantizing(network(), table(("y", cycled(0, 1, 2)), *numbers("a", "b", "c"))))) == {
        "input",
        "class",
    }


def test_numbers_to_predict_are_used() -> None:
    assert set(held(quantizing(network(outputs=1), table(*numbers("a", "b", "c", "price"))))) == {"input", "number"}


def test_labels_that_do_not_fit_are_told() -> None:
    made = quantizing(network(), table(*numbers("a", "b", "c"), ("class", cycled("rose", "iris"))))
    assert set(held(made)) == {"input", "output"}
    assert any("labels do not fit the network's 3" in each for each in made.said)


def test_rows_that_are_counted_are_no_features_unless_the_network_takes_them() -> None:
    counted = ("", list(range(ROWS)))
    assert set(held(quantizing(network(), table(counted, *numbers("a", "b", "c"))))) == {"input", "output"}
    seen = held(quantizing(network(4), table(counted, *numbers("a", "b", "c"))))
    assert seen["input"].shape[1:] == (4,)


def test_words_gaps_semicolons_and_decimal_commas_are_read_as_a_card_reads_them() -> None:
    prices = [f"{row},5" if row % 7 else "" for row in range(ROWS)]
    columns = [("price", prices), ("city", cycled("Oslo", "Rome", "Oslo")), ("class", cycled("a", "b", "c"))]
    for columns_now, kind in ((columns, "class"), (columns[:2], "output")):
        seen = held(quantizing(network(), table(*columns_now, cells=";")))  # type: ignore[arg-type]
        assert set(seen) == {"input", kind}
        assert sorted(set(map(tuple, seen["input"][:, 1:].tolist()))) == [(0.0, 1.0), (1.0, 0.0)]
        assert np.isfinite(seen["input"]).all()


def test_a_folder_with_a_table_for_each_split_keeps_them() -> None:
    Path("sets").mkdir()
    for split in ("train", "test"):
        table(*numbers("a", "b", "c"), ("class", cycled("a", "b", "c")), name=f"sets/{split}.csv")
    quantizing(network(), "sets").write()
    data = load(reference(*load_card("net-data.toml")))
    assert len(data.test) == ROWS


def test_other_columns_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"rows\.csv has 5 columns, and the network takes 3 values"):
        quantizing(network(), table(*numbers("a", "b", "c", "d", "e")))


def test_files_are_judged_on_tables() -> None:
    path, rows = network(), random(ROWS, FEATURES)
    labels = (rows @ random(FEATURES, 3)).argmax(1)
    labels[:9] = np.arange(9) % 3
    columns = [(name, list(rows[:, at])) for at, name in enumerate("abc")]
    labelled = table(*columns, ("class", list(labels)))
    assert validate(Question(model=path, data=labelled)).metric.name == "accuracy"
    plain = table(*columns, name="plain.csv")
    assert validate(Question(model=path, data=plain, beside=path)).value.value == 1.0


def idx(name: str, values: Array) -> None:
    head = struct.pack(f">HBB{values.ndim}I", 0, 8, values.ndim, *values.shape)
    Path(name).write_bytes(gzip.compress(head + values.astype(np.uint8).tobytes()))


def test_idx_files_are_read_with_labels_and_without() -> None:
    nodes = [node("Flatten", "x", "d"), node("Gemm", "d v", "y")]
    Path("net.onnx").write_bytes(model(nodes, ("N", 1, 4, 4), {"v": random(16, 3)}).SerializeToString())
    idx("train-images-idx3-ubyte.gz", 255 * random(ROWS, 4, 4))
    assert set(held(quantizing(Path("net.onnx"), "train-images-idx3-ubyte.gz"))) == {"input", "output"}
    idx("train-labels-idx1-ubyte.gz", np.arange(ROWS) % 3)
    seen = held(quantizing(Path("net.onnx"), "train-images-idx3-ubyte.gz"))
    assert set(seen) == {"input", "class"}
    assert 0.5 < seen["input"].max() <= 1

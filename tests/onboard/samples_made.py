"""Networks that take arrays, pictures or tables, and files to give them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from pipeline.onboard.about import ARRAY, PICTURE, TABLE, About, Column, Input, Raw, Stored
from pipeline.onboard.faults import OnboardFault
from pipeline.onboard.frontend import StepCall
from pipeline.onboard.samples import samples_of
from tests.onboard.test_metadata import ABOUT


def taking(*inputs: tuple[str, Raw], steps: tuple[StepCall, ...] = ()) -> About:
    """Describe a network that takes these inputs, each through the same steps."""
    ends = [Input(name, "", raw.shape, raw, steps, Stored(name, "", "float32", raw.shape)) for name, raw in inputs]
    return replace(ABOUT, inputs=tuple(ends))


THREE = Raw(ARRAY, "float32", (3,))
GREY = Raw(PICTURE, "uint8", (1, 4, 5), colours="L")
COLOUR = Raw(PICTURE, "uint8", (3, 4, 5), colours="RGB")
COLUMNS = Raw(TABLE, "float32", (2,), columns=(Column("size"), Column("colour", ("red", "green"))))
ONE, TWO = taking(("signal", THREE)), taking(("a", THREE), ("b", Raw(ARRAY, "float32", ())))
GREYS, COLOURS, TABLES = taking(("picture", GREY)), taking(("picture", COLOUR)), taking(("row", COLUMNS))


def floats(*shape: int) -> NDArray[np.float32]:
    """Return 0, 1, 2 … in a shape."""
    return np.arange(np.prod(shape, dtype=int), dtype=np.float32).reshape(shape)


def saved(path: Path, array: object) -> Path:
    """Save a .npy file."""
    np.save(path, np.asarray(array))
    return path


def zipped(path: Path, **arrays: NDArray[Any]) -> Path:
    """Save an .npz file."""
    np.savez(path, **arrays)  # type: ignore[arg-type]
    return path


def read(path: Path, about: About) -> tuple[list[str], dict[str, NDArray[Any]]]:
    """Return the names, without the folder they lie in, and the inputs of all portions."""
    portions = list(samples_of(path, about))
    names = [name.removeprefix(f"{path}").lstrip("/") for portion in portions for name in portion.names]
    inputs = {each.name: np.concatenate([portion.inputs[each.name] for portion in portions]) for each in about.inputs}
    return names, inputs


def refused(path: Path, about: About) -> str:
    """Return how a file is refused, without the folder that it lies in."""
    with pytest.raises(OnboardFault) as caught:
        list(samples_of(path, about))
    return str(caught.value).replace(f"{path.parent}/", "")

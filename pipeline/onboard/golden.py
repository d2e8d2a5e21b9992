"""The golden check: recorded inputs must give the recorded outputs, on every machine and after every update.

n recorded samples.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.onboard.arrays import Arrays
from pipeline.onboard.faults import FileRefused
from pipeline.onboard.session import Session

_IN, _OUT = "in:", "out:"  # before the names in the file


@dataclass(frozen=True)
class Golden:
    """Recorded samples: what goes in (already prepared) and what must come out."""

    inputs: Arrays  # (n, …) each
    outputs: Arrays  # (n, …) each


@dataclass(frozen=True)
class Tolerance:
    """How far outputs may be from the recorded ones."""

    steps: float = 1.0  # outputs that are quantized: kernels of other machines may round the other way
    relative: float = 1e-4  # float outputs: share of the largest recorded value; sums in another order


@dataclass(frozen=True)
class GoldenResult:
    """The largest difference, as a share of what is allowed for its output, and where it is."""

    ok: bool
    largest: float  # in ``unit``
    allowed: float
    unit: str  # "steps" or "of the largest value"
    output: str
    sample: int  # index of the recorded sample

    @property
    def summary(self) -> str:
        """One line for people."""
        place = f"output '{self.output}', sample {self.sample}"
        return f"largest difference {self.largest:.3g} {self.unit} (at most {self.allowed:g} allowed): {place}"


def check_golden(session: Session, golden: Golden, tolerance: Tolerance = Tolerance()) -> GoldenResult:
    """Run the recorded inputs and compare.

    Raises what ``Session.run`` raises, and FileRefused where an output is missing or has another shape.
    """
    found = session.run(golden.inputs)
    if not golden.outputs or set(found) != set(golden.outputs):
        raise FileRefused(f"the file makes {sorted(found)}, recorded were {sorted(golden.outputs)}")
    results = [
        _compared(name, found[name], wanted, session.steps, tolerance) for name, wanted in golden.outputs.items()
    ]
    return max(results, key=lambda result: result.largest / result.allowed)


def save_golden(path: Path, golden: Golden) -> None:
    """Write recorded samples as .npz: the same bytes for the same samples."""
    named = {_IN + name: array for name, array in golden.inputs.items()}
    named.update({_OUT + name: array for name, array in golden.outputs.items()})
    with Path(path).open("wb") as file:
        np.savez(file, **named)  # type: ignore[arg-type]  # the stubs take them for the other argument


def load_golden(path: Path) -> Golden:
    """Read recorded samples.  Raises FileRefused for a file that is missing, damaged or something else."""
    try:
        with Path(path).open("rb") as stream, np.load(stream, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
    except Exception as error:  # a damaged zip raises zlib.error, BadZipFile, struct.error, EOFError and more
        raise FileRefused(f"cannot be read as recorded samples: {error}", where=str(path)) from error
    golden = Golden(_with(_IN, arrays), _with(_OUT, arrays))
    if not golden.inputs or not golden.outputs:
        raise FileRefused("holds no recorded inputs and outputs", where=str(path))
    return golden


def _with(prefix: str, arrays: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    return {name[len(prefix) :]: array for name, array in arrays.items() if name.startswith(prefix)}


def _compared(
    name: str, found: NDArray[Any], wanted: NDArray[Any], steps: Mapping[str, float], tolerance: Tolerance
) -> GoldenResult:
    if found.shape != wanted.shape:
        raise FileRefused(f"output '{name}' has the shape {found.shape}, recorded was {wanted.shape}")
    step = steps.get(name)
    unit = "steps" if step else "of the largest value"
    # rounding of the recorded float32 itself must not break a bound of exactly one step
    allowed = tolerance.steps + 1e-3 if step else tolerance.relative
    size = step or float(np.abs(wanted[np.isfinite(wanted)]).max(initial=0.0)) or 1.0
    with np.errstate(invalid="ignore"):  # inf - inf, settled below
        differences = np.abs(found.astype(np.float64) - wanted.astype(np.float64)) / size
    same = (found == wanted) | (np.isnan(found) & np.isnan(wanted))
    differences = np.where(same, 0.0, np.where(np.isnan(differences), np.inf, differences))
    per_sample = differences.reshape(len(differences), -1).max(axis=1, initial=0.0)  # (n,)
    worst = int(np.argsort(per_sample)[-1]) if len(per_sample) else 0
    largest = float(per_sample[worst]) if len(per_sample) else 0.0
    return GoldenResult(largest <= allowed, largest, allowed, unit, name, worst)

"""tflite-runtime 2.14: it lives in an environment of its own, with numpy 1, and runs all files of a module at once.

Shapes: N batch.
"""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

from pipeline.runtimes import unavailable
from pipeline.runtimes.child import python_of
from tests.tflite.nets import Floats, Result

# reads NAME.tflite and NAME.in.npy, writes NAME.out.npy and NAME.step.npy, all as the file itself wants and gives them
_SCRIPT = """
import pathlib, sys
import numpy as np
from tflite_runtime.interpreter import Interpreter

for path in sorted(pathlib.Path(sys.argv[1]).glob("*.tflite")):
    x = np.load(path.with_suffix(".in.npy"))
    interpreter = Interpreter(model_path=str(path), num_threads=1)
    start = interpreter.get_input_details()[0]
    interpreter.resize_tensor_input(start["index"], x.shape, strict=False)
    interpreter.allocate_tensors()
    if start["dtype"] != np.float32:
        scale, zero = start["quantization"]
        x = np.clip(np.rint(x / np.float32(scale)) + zero, -128, 127).astype(np.int8)
    interpreter.set_tensor(start["index"], x)
    interpreter.invoke()
    end = interpreter.get_output_details()[0]
    y, (scale, zero) = interpreter.get_tensor(end["index"]), end["quantization"]
    if end["dtype"] != np.float32:
        y = (y.astype(np.float32) - zero) * np.float32(scale)
    np.save(path.with_suffix(".out.npy"), y)
    np.save(path.with_suffix(".step.npy"), np.float32(scale))
"""


def run_in_old_runtime(files: Mapping[str, tuple[bytes, Floats]]) -> dict[str, Result]:
    """Run files on inputs (N, …) in ONNX's order, in one process; or skip where the runtime is not here."""
    reason = unavailable("tflite-runtime")
    if reason:
        pytest.skip(reason)
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        numbered = {name: f"{index:04}" for index, name in enumerate(files)}
        for name, (data, x) in files.items():
            (folder / f"{numbered[name]}.tflite").write_bytes(data)
            arranged = x.transpose(0, 2, 3, 1) if x.ndim == 4 else x
            np.save(folder / f"{numbered[name]}.in.npy", np.ascontiguousarray(arranged))
        command = [str(python_of("tflite-runtime")), "-I", "-c", _SCRIPT, str(folder)]
        done = subprocess.run(command, check=False, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr[-2000:]
        return {name: _result(folder, number) for name, number in numbered.items()}


def _result(folder: Path, number: str) -> Result:
    values: Floats = np.load(folder / f"{number}.out.npy")
    return Result(
        values=values.transpose(0, 3, 1, 2) if values.ndim == 4 else values,
        step=float(np.load(folder / f"{number}.step.npy")) or None,
        operators=(),
    )

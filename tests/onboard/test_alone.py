"""onboard/ alone under every Python from 3.9 to 3.13 that is here, each with numpy and a runtime and nothing else.

The environments are made once, in build/alone; versions are those that Pythons of that age get.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from filelock import FileLock

import pipeline.onboard
from pipeline.declare.words import RuntimeName
from pipeline.onboard.arrays import Signature, TensorSpec
from pipeline.onboard.decode import largest
from pipeline.onboard.faults import RuntimeMissing
from pipeline.onboard.frames import signature_words
from pipeline.onboard.frontend import StepCall, prepare
from pipeline.onboard.golden import Golden, save_golden
from pipeline.onboard.session import Session
from pipeline.runtimes import open_session
from pipeline.runtimes.child import python_of
from tests.onboard.small_models import MAPS_SHAPE, SAMPLE_SHAPE, onnx_bytes, small_net, tflite_bytes

NET = small_net()
ENVIRONMENTS = Path(__file__).parents[2] / "build" / "alone"
ONNX: RuntimeName = "onnxruntime"
LITERT: RuntimeName = "litert"
TFLITE: RuntimeName = "tflite-runtime"
MINORS = (9, 10, 11, 12, 13)
RUNNING = sys.version_info[1]
PACKAGES = {
    9: ("numpy==2.0.2", "onnxruntime==1.19.2", "ai-edge-litert==2.1.0"),
    10: ("numpy==2.2.6", "onnxruntime==1.23.2", "ai-edge-litert==2.3.0"),
    11: ("numpy==2.4.6", "onnxruntime==1.32.0", "ai-edge-litert==2.3.0"),
    12: ("numpy==2.5.5", "onnxruntime==1.32.0", "ai-edge-litert==2.3.0"),
    13: ("numpy==2.5.5", "onnxruntime==1.32.0", "ai-edge-litert==2.3.0"),
}
STEPS = (StepCall("normalize", {"divide": 32.0, "mean": [3.0, 4.0], "std": [2.0, 2.5]}),)
SIGNATURES = {
    name: Signature((TensorSpec("picture", "float32", SAMPLE_SHAPE, "CHW"),), (TensorSpec("out", "float32", *about),))
    for name, about in {"scores": ((3,), "K"), "maps": (MAPS_SHAPE, "KHW")}.items()
}


@dataclass(frozen=True, kw_only=True)
class Alone:
    """One environment, or why there is none."""

    python: Path | None
    reason: str = ""


def find_python(minor: int) -> Path | None:
    """Find a Python 3.``minor`` that runs: shims of pyenv stand in the path for versions that are not there."""
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
    found = [shutil.which(f"python3.{minor}"), *sorted(pyenv.glob(f"versions/3.{minor}.*/bin/python"), reverse=True)]
    for python in [sys.executable if minor == RUNNING else None, *found]:
        if python is None:
            continue
        told = subprocess.run(
            [python, "-c", "import sys; print(*sys.version_info[:2])"], capture_output=True, text=True, check=False
        )
        if told.stdout.split() == ["3", str(minor)]:
            return Path(python)
    return None


def make(minor: int) -> Alone:
    """Make an environment, unless it is there with these very packages."""
    source = find_python(minor)
    if source is None:
        return Alone(python=None, reason=f"there is no Python 3.{minor} on this machine")
    folder, packages = ENVIRONMENTS / f"3.{minor}", PACKAGES[minor]
    python, mark = folder / "bin" / "python", folder / "packages.txt"
    with FileLock(ENVIRONMENTS / f"3.{minor}.lock"):
        if mark.exists() and mark.read_text() == "\n".join(packages):
            return Alone(python=python)
        shutil.rmtree(folder, ignore_errors=True)
        pip = [sys.executable, "-m", "pip", "--python", str(python), "--disable-pip-version-check"]
        install = [*pip, "install", "-q", "--no-compile", *packages]
        for command in ([str(source), "-m", "venv", "--without-pip", str(folder)], install):
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode:
                return Alone(python=None, reason=f"{' '.join(command)}: {done.stderr[-300:]}")
        mark.write_text("\n".join(packages))
    return Alone(python=python)


@pytest.fixture(scope="session")
def environments() -> dict[str, Alone]:
    ENVIRONMENTS.mkdir(parents=True, exist_ok=True)
    with ThreadPoolExecutor(len(MINORS)) as pool:
        made = list(pool.map(make, MINORS))
    found = {f"3.{minor}": each for minor, each in zip(MINORS, made, strict=True)}
    try:
        return {**found, "numpy 1": Alone(python=python_of(TFLITE))}
    except RuntimeMissing as fault:
        return {**found, "numpy 1": Alone(python=None, reason=str(fault))}


@dataclass(frozen=True, kw_only=True)
class Case:
    """A folder as it would be copied to a device, and what came out here."""

    folder: Path
    prepared: np.ndarray
    outputs: dict[str, dict[str, np.ndarray]]  # format → file → (n, …)


def files_of(kind: str) -> dict[str, tuple[bytes, str]]:
    write = onnx_bytes if kind == "onnx" else tflite_bytes
    return {
        f"{kind}-{what}-{'int8' if int8 else 'float'}": (write(NET, int8=int8, maps=what == "maps"), what)
        for what in ("scores", "maps")
        for int8 in (False, True)
    }


@pytest.fixture(scope="session")
def case(tmp_path_factory: pytest.TempPathFactory) -> Case:
    folder = tmp_path_factory.mktemp("device")
    own = Path(pipeline.onboard.__file__).parent
    shutil.copytree(own, folder / "pipeline" / "onboard", ignore=shutil.ignore_patterns("__pycache__"))
    (folder / "pipeline" / "__init__.py").touch()
    raw = np.random.default_rng(5).integers(0, 256, (300, *SAMPLE_SHAPE), np.uint8)
    np.save(folder / "raw.npy", raw)
    prepared = prepare({"picture": raw}, {"picture": STEPS})
    about: dict[str, dict[str, Any]] = {}
    outputs: dict[str, dict[str, np.ndarray]] = {}
    pairs: tuple[tuple[str, RuntimeName], ...] = (("onnx", ONNX), ("tflite", LITERT))
    for kind, runtime in pairs:
        outputs[kind], about[kind] = {}, {}
        for name, (data, what) in files_of(kind).items():
            (folder / name).write_bytes(data)
            session = open_session(folder / name, runtime, signature=SIGNATURES[what])
            found = session.run(prepared)
            outputs[kind][name] = found["out"]
            save_golden(folder / f"{name}.npz", Golden(prepared, found))
            about[kind][name] = described(name, session)
    by_runtime = {ONNX: about["onnx"], LITERT: about["tflite"], TFLITE: about["tflite"]}
    words = {"frontend": [asdict(step) for step in STEPS], "files": by_runtime}
    (folder / "cases.json").write_text(json.dumps(words))
    return Case(folder=folder, prepared=prepared["picture"], outputs=outputs)


def described(name: str, session: Session) -> dict[str, object]:
    return {"path": name, "signature": signature_words(session.signature), "steps": dict(session.steps)}


def run_alone(case: Case, python: Path, runtime: str, name: str) -> dict[str, Any]:
    words = json.loads((case.folder / "cases.json").read_text())
    (case.folder / "case.json").write_text(json.dumps({**words, "name": name}))
    script = Path(__file__).with_name("alone.py")
    done = subprocess.run(
        [str(python), "-I", str(script), str(case.folder), runtime], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout.splitlines()[-1]))


ALL = [(f"3.{minor}", runtime) for minor in MINORS for runtime in (ONNX, LITERT)] + [("numpy 1", TFLITE)]


@pytest.mark.parametrize(("environment", "runtime"), ALL)
def test_it_gives_the_same_numbers_alone(
    environments: dict[str, Alone], case: Case, environment: str, runtime: str
) -> None:
    alone = environments[environment]
    if alone.python is None:
        needed = os.environ.get("CI") == "true" and environment == f"3.{RUNNING}"
        (pytest.fail if needed else pytest.skip)(f"onboard/ was not tried under {environment}: {alone.reason}")
    name = f"{environment}-{runtime}".replace(" ", "")
    report = run_alone(case, alone.python, runtime, name)

    assert report["why_not"] is None
    assert 0 < report["memory"] < 60 * 2**20
    assert environment in ("numpy 1", ".".join(report["python"].split(".")[:2]))
    assert not {"torch", "pydantic", "scipy", "onnx"} & set(report["modules"])
    # the same bits: what goes into the network does not depend on the machine
    assert np.array_equal(np.load(case.folder / f"{name}-prepared.npy"), case.prepared)
    for file, wanted in case.outputs["onnx" if runtime == ONNX else "tflite"].items():
        about, got = report["files"][file], np.load(case.folder / f"{name}-{file}.npy")
        assert about["golden"], about["summary"]
        step = about["steps"].get("out", 0.0)
        assert bool(step) is file.endswith("int8")
        # int8: kernels of other versions may round the other way; float32: sums in another order
        np.testing.assert_allclose(got, wanted, rtol=0, atol=1.01 * step or 2e-6 * float(np.abs(wanted).max()))
        assert (np.array(about["decisions"]) == largest(wanted)).mean() >= (0.99 if step else 1)
        assert about["times"] == 3

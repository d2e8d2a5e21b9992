"""Run by ``test_alone`` in interpreters that have numpy and a runtime and nothing else: python alone.py FOLDER RUNTIME.

FOLDER holds ``pipeline/onboard``, cases as .npz (raw inputs and what came out elsewhere) and the model files.
"""

import json
import platform
import sys
from pathlib import Path

folder, runtime = Path(sys.argv[1]), sys.argv[2]
sys.path.insert(0, str(folder))

import numpy as np  # noqa: E402

from pipeline.onboard.decode import largest, softmax  # noqa: E402
from pipeline.onboard.frames import signature_from  # noqa: E402
from pipeline.onboard.frontend import StepCall, prepare  # noqa: E402
from pipeline.onboard.golden import check_golden, load_golden  # noqa: E402
from pipeline.onboard.memory import STATUS, peak_bytes  # noqa: E402
from pipeline.onboard.session import module_of, open_session  # noqa: E402

case = json.loads((folder / "case.json").read_text())
calls = tuple(StepCall(each["step"], each["settings"]) for each in case["frontend"])
raw = np.load(folder / "raw.npy")
first = next(iter(case["files"][runtime].values()))
files = {}
report = {
    # ahead of everything else: memory that the process has had is not asked for again
    "memory": peak_bytes(folder / first["path"], runtime, threads=1) if STATUS.exists() else 1,
    "python": platform.python_version(),
    "numpy": np.__version__,
    "runtime": module_of(runtime).version(runtime),
    "why_not": module_of(runtime).why_not(runtime),
}
prepared = prepare({"picture": raw}, {"picture": calls})
np.save(folder / f"{case['name']}-prepared.npy", prepared["picture"])
for name, about in case["files"][runtime].items():
    path = folder / about["path"]
    session = open_session(path, runtime, signature=signature_from(about["signature"]), steps=about["steps"])
    outputs = session.run(prepared)
    (output,) = outputs
    np.save(folder / f"{case['name']}-{name}.npy", outputs[output])
    golden = check_golden(session, load_golden(folder / f"{name}.npz"))
    files[name] = {
        "golden": golden.ok,
        "summary": golden.summary,
        "decisions": largest(softmax(outputs[output])).tolist(),
        "steps": dict(session.steps),
        "times": len(session.timer({"picture": prepared["picture"][:1]})(3)),
    }
report["files"] = files
report["modules"] = sorted({name.split(".")[0] for name in sys.modules})
print(json.dumps(report))  # noqa: T201  # its answer

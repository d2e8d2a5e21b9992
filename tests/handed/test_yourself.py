"""The lines of "Run it yourself", run as they stand where nothing but numpy, Pillow and the runtime is installed."""

from __future__ import annotations

import dataclasses
import html
import json
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline.artifacts.evidence import Spread
from pipeline.artifacts.files import Exported, Way
from pipeline.artifacts.outcome import Outcome
from pipeline.declare.words import RuntimeName
from pipeline.onboard.about import PICTURE, About, Raw
from pipeline.onboard.answers import Answer
from pipeline.predict import Model, predicted
from pipeline.report.yourself import PICTURE_FILE, ROWS_FILE, SAMPLE_FILE, yourselves
from pipeline.runs.finished import load_outcome, store_of
from tests.bare import bare_python
from tests.handed.made import NAMES, inputs_of, own_answers

ALL = (*NAMES, "masks")
PROGRAMS: Mapping[str, RuntimeName] = {"onnxruntime": "onnxruntime", "litert": "litert"}
ELSEWHERE = ("torch", "scipy", "onnx", "pipeline", "click", "pydantic", "matplotlib", "sklearn", "pip")
# runs each job's lines in its folder, as if they were typed there
DRIVER = """
import contextlib, importlib.util, io, json, os, sys
there = [name for name in json.loads(sys.argv[1]) if importlib.util.find_spec(name)]
assert not there, there
for folder, code in json.load(sys.stdin):
    os.chdir(folder)
    printed, names = io.StringIO(), {}
    with contextlib.redirect_stdout(printed):
        exec(compile(code, "lines", "exec"), names)
    print(json.dumps([printed.getvalue(), names["y"].tolist()]))
"""


@dataclass(frozen=True, kw_only=True)
class Ran:
    """What the lines printed, and the outputs that they came to."""

    printed: str
    y: np.ndarray


@dataclass(frozen=True, kw_only=True)
class Bare:
    """Environments with numpy, Pillow and one runtime each."""

    pythons: Mapping[str, Path]

    def run(self, program: str, jobs: list[tuple[Path, str]]) -> list[Ran]:
        """Run lines, each in its folder."""
        done = subprocess.run(
            [self.pythons[program], "-I", "-c", DRIVER, json.dumps(ELSEWHERE)],
            input=json.dumps([(str(folder), code) for folder, code in jobs]),
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr[-3000:]
        lines = [json.loads(line) for line in done.stdout.splitlines()]
        return [Ran(printed=printed.strip(), y=np.array(y)) for printed, y in lines]


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Bare:
    folder = tmp_path_factory.mktemp("bare")
    packages = {"onnxruntime": ("onnxruntime",), "litert": ("ai-edge-litert",)}
    return Bare(pythons={name: bare_python(folder / name, "numpy", "pillow", *more) for name, more in packages.items()})


def shipping(outcome: Outcome, way: Way) -> Outcome:
    """Return the run as if this file were the one that ships."""
    target = outcome.targets[0]
    verdict = dataclasses.replace(target.verdict, ship=way)
    return dataclasses.replace(outcome, targets=(dataclasses.replace(target, verdict=verdict),))


def lay(folder: Path, run: Path, sample: Path) -> Path:
    """Lay the run's files and one sample beside each other."""
    folder.mkdir()
    for path in run.iterdir():
        if path.suffix in (".onnx", ".tflite") or path.name in ("model.json", "labels.txt"):
            shutil.copy(path, folder / path.name)
    wanted = {".csv": ROWS_FILE, ".npy": SAMPLE_FILE}.get(sample.suffix, PICTURE_FILE)
    shutil.copy(sample, folder / wanted)
    return folder


def test_the_lines_say_how_many_threads(runs: Path) -> None:
    outcome = load_outcome(runs / "runs" / "yes-no")
    spread = Spread(threads=4, tried=(), place=outcome.observed[0].place)
    for answered in outcome.observed[0].answers:
        alone = shipping(outcome, answered.way)
        alone = dataclasses.replace(alone, targets=(dataclasses.replace(alone.targets[0], spread=None),))
        several = dataclasses.replace(alone, targets=(dataclasses.replace(alone.targets[0], spread=spread),))
        (one,), (four,) = yourselves(alone), yourselves(several)
        if answered.way.program == "onnxruntime":
            assert "options.intra_op_num_threads = 1\n" in one.code
            assert "options.intra_op_num_threads = 4\n" in four.code
        else:
            assert "num_threads" not in one.code
            assert f"Interpreter('{four.filename}', num_threads=4)" in four.code


def check_printed(printed: str, answer: Answer, about: About) -> None:
    """Compare what the lines printed with what ``karui predict`` answers."""
    if about.task == "regression":
        np.testing.assert_allclose(json.loads(printed), list(answer.numbers.values()), rtol=1e-5)
    elif about.task == "segmentation":
        shares = json.loads(printed.replace("'", '"'))
        assert shares == pytest.approx(answer.numbers, abs=0.5 / 256)  # of 256 pixels not one differs
    else:
        assert printed == answer.label


@pytest.mark.parametrize("program", PROGRAMS)
@pytest.mark.parametrize("name", ALL)
def test_the_lines_give_what_the_run_found(name: str, program: str, bare: Bare, runs: Path, tmp_path: Path) -> None:
    outcome = load_outcome(runs / "runs" / name)
    folder = runs / "runs" / name
    inputs = inputs_of(runs, name, tmp_path, most=6 if name in ("pics", "masks") else 1)
    for answered in outcome.observed[0].answers:
        if answered.way.program != program:
            continue
        (own,) = yourselves(shipping(outcome, answered.way))
        lines = [line for line in own.code.splitlines() if line and "import " not in line]
        assert len(lines) <= (20 if ROWS_FILE in own.files else 15), own.code
        places = [lay(tmp_path / f"{own.filename}-{number}", folder, sample) for number, sample in enumerate(inputs)]
        assert all((places[0] / file).is_file() for file in own.files), own.files
        ran = bare.run(program, [(place, own.code) for place in places])
        decided = store_of(folder).get_array(answered.decisions)
        for number, each in enumerate(ran):
            check_printed(each.printed, _own(decided[number], outcome), _about(outcome))


def _about(outcome: Outcome) -> About:
    about = outcome.files[0].about
    assert about is not None
    return about


def _own(decided: np.ndarray, outcome: Outcome) -> Answer:
    """Return a decision of the run as an answer."""
    classes = outcome.facts.classes
    if outcome.task == "regression":
        return Answer(numbers={"": float(decided.ravel()[0]) * _about(outcome).outputs[0].times})
    if outcome.task == "segmentation":
        return Answer(numbers={name: float((decided == k).mean()) for k, name in enumerate(classes)})
    return Answer(label=classes[int(decided)])


# ── pictures as people have them ────────────────────────────────────────────────────────────────────────────────────


def awkward_pictures(folder: Path, side: int) -> list[Path]:
    """Write pictures of many sizes and modes: turned by EXIF, transparent, grey, of a palette."""
    random = np.random.default_rng(1)
    found = []

    def save(name: str, picture: Image.Image, **options: object) -> None:
        picture.save(folder / name, **options)  # type: ignore[arg-type]  # Pillow's stubs name each format's options
        found.append(folder / name)

    def drawn(width: int, height: int) -> Image.Image:
        coarse = random.integers(0, 256, (5, 7, 3)).astype(np.uint8)
        return Image.fromarray(coarse).resize((width, height), Image.Resampling.NEAREST)

    turned = Image.Exif()
    turned[0x0112] = 6
    save("large.jpg", drawn(400, 300), exif=turned)
    save("wide.jpg", drawn(301, 47))
    clear = drawn(37, 90)
    clear.putalpha(Image.fromarray(random.integers(0, 256, (90, 37)).astype(np.uint8)))
    save("clear.png", clear)
    save("clear.webp", clear, lossless=True)
    save("grey.png", drawn(50, 33).convert("L"))
    save("palette.gif", drawn(64, 63).convert("P"))
    save("tall.tiff", drawn(20, 71), exif=turned)
    save("exact.bmp", drawn(side, side))
    return found


CHANNELS = {"pics": "RGB", "eights": "L"}


@pytest.mark.parametrize("program", PROGRAMS)
@pytest.mark.parametrize("resize", ["squash", "fit", "crop"])
@pytest.mark.parametrize("name", CHANNELS)
def test_pictures_of_any_size_become_what_predict_makes_of_them(  # noqa: PLR0917
    name: str, resize: str, program: str, bare: Bare, runs: Path, tmp_path: Path
) -> None:
    folder = runs / "runs" / name
    outcome = _taking_pictures(load_outcome(folder), CHANNELS[name], resize)
    pictures = awkward_pictures(tmp_path, _about(outcome).inputs[0].shape[1])
    ways = [each.way for each in outcome.observed[0].answers if each.way.program == program]
    assert {way.variant.precision for way in ways} == {"fp32", "int8"}
    labels = set()
    for way in ways:
        (own,) = yourselves(shipping(outcome, way))
        file = next(each for each in outcome.files if each.variant == way.variant)
        assert file.about is not None
        model = Model(path=folder / file.filename, about=file.about, runtime=PROGRAMS[program])
        answers = [each.answer for each in predicted(model, list(map(str, pictures)))]
        places = [lay(tmp_path / f"{own.filename}-{path.name}", folder, path) for path in pictures]
        ran = bare.run(program, [(place, own.code) for place in places])
        for each, answer in zip(ran, answers, strict=True):
            check_printed(each.printed, answer, file.about)
            shares = dict(answer.top)
            powers = np.exp(each.y[0] - each.y[0].max())  # the outputs agree too, not only the class
            assert (powers / powers.sum()).max() == pytest.approx(max(shares.values()), abs=1e-5)
            labels.add(answer.label)
    assert len(labels) > 1


def _taking_pictures(outcome: Outcome, colours: str, resize: str) -> Outcome:
    """Return a run as if it had been trained on pictures of any size."""
    changed = partial(_with_raw, colours=colours, resize=resize)
    exports = (dataclasses.replace(each, files=tuple(map(changed, each.files))) for each in outcome.exports)
    return dataclasses.replace(outcome, exports=tuple(exports))


def _with_raw(file: Exported, *, colours: str, resize: str) -> Exported:
    assert file.about is not None
    (source,) = file.about.inputs
    raw = Raw(PICTURE, "uint8", source.raw.shape, colours=colours, resize=resize, background=(200, 90, 10))
    about = dataclasses.replace(file.about, inputs=(dataclasses.replace(source, raw=raw),))
    return dataclasses.replace(file, about=about)


def test_the_page_shows_the_lines(runs: Path) -> None:
    for name in ALL:
        outcome, _ = own_answers(runs, name)
        (own,) = yourselves(outcome)
        page = (runs / "runs" / name / "report.html").read_text()
        assert html.escape(own.code, quote=False).replace('"', "&#34;").replace("'", "&#39;") in page

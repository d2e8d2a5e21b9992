"""Files and words that nobody means: each ends with status 2 or 4, in few words, at once, and in little memory."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.refusal import _MOST_TOLD
from tests.own_project import KARUI, Karui, draw
from tests.own_project import karui as karui  # noqa: PLC0414  a fixture

LONGEST_MESSAGE = 3000  # characters; a screen
WITHIN_S = 10.0  # measured: below 1 s; other tests run beside it
MEMORY_MIB = 700  # of the whole command; measured: 110

TARGET = (Path(__file__).parents[1] / "targets" / "raspberry-pi-4b.toml").read_text()
DIGITS = "9" * 5000
DOTTED = ".".join(["a"] * 20_000)
RECIPE = 'name = "mine"\ndata = "digits"\n[network]\nfile = "mlp"\n'
CARD = 'name = "c"\ntitle = "C"\nkind = "npz"\n[files.all]\npath = "set.npz"\n[input]\nshape = [4]\n'
PICTURES = 'name = "c"\ntitle = "C"\nkind = "image-folder"\nfolder = "pics"\n[input]\nshape = [3, 8, 8]\n'
SHA = "a" * 64


def _files(karui: Karui, **files: str) -> None:
    """Write a recipe, card and target, those given instead of good ones."""
    whole = {"recipe": RECIPE, "card": CARD, "target": TARGET} | files
    for name, text in whole.items():
        karui.write(f"{name}.toml", text)


def _with_card(card: str) -> dict[str, str]:
    return {"recipe": RECIPE.replace('"digits"', '"card.toml"'), "card": card}


def _refused_shortly(karui: Karui, *arguments: str, words: str) -> None:
    began = time.monotonic()
    said = karui("run", *arguments)
    assert time.monotonic() - began < WITHIN_S
    assert said.status in (2, 4), said.err
    said.refused(said.status, words)
    assert len(said.err) < LONGEST_MESSAGE
    assert not Path("runs").exists()


FILES = {
    "nested arrays": ({"recipe": RECIPE + "x = " + "[" * 5000 + "]" * 5000}, "too deeply"),
    "nested tables": ({"recipe": RECIPE + "x = " + "{a = " * 5000 + "1" + "}" * 5000}, "too deeply"),
    "nested in a target": ({"target": TARGET + "x = " + "[" * 5000}, "too deeply"),
    "nested just so": ({"recipe": RECIPE + "x = " + "[" * 300 + "]" * 300}, "x"),
    "nested in a card": (_with_card("x = " + "[" * 400 + "]" * 400 + "\n" + CARD), ""),
    "dotted key": ({"recipe": f"{RECIPE}{DOTTED} = 1\n"}, "too deeply"),
    "dotted table": ({"recipe": f"{RECIPE}[{DOTTED}]\n"}, "too deeply"),
    "dotted quoted key": ({"recipe": RECIPE + '"a" . '.join([""] * 9999) + "b = 1\n"}, "too deeply"),
    "long integer": ({"recipe": f"seed = {DIGITS}\n{RECIPE}"}, "too many digits"),
    "long hexadecimal": ({"recipe": f"seed = 0x{DIGITS}\n{RECIPE}"}, "seed = a number of thousands of digits"),
    "long epochs": ({"recipe": f"{RECIPE}[train]\nepochs = {DIGITS[:40]}\n"}, "expected at most 1000000"),
    "many epochs": ({"recipe": f"{RECIPE}[train]\nepochs = 99999999\n"}, "expected at most 1000000"),
    "long rate": ({"recipe": f"{RECIPE}[train]\nlearning_rate = {DIGITS[:4000]}\n"}, "learning_rate"),
    "long size": ({"target": TARGET.replace('"8 MiB"', f'"{DIGITS} GiB"')}, "size_bytes"),
    "large size": ({"target": TARGET.replace('"8 MiB"', DIGITS[:4000])}, "size_bytes"),
    "many unknown keys": ({"recipe": "".join(f"key{n} = 1\n" for n in range(20_000)) + RECIPE}, "19,990 mistakes more"),
    "many unknown card keys": (_with_card("".join(f"key{n} = 1\n" for n in range(20_000)) + CARD), "mistakes more"),
    "a long unknown key": ({"recipe": f"{'k' * 50_000} = 1\n{RECIPE}"}, "has no 'kkk"),
    "a long wrong line": ({"recipe": f"{RECIPE}x = {'k' * 50_000}\n"}, "not valid TOML"),
    "a large file": ({"recipe": RECIPE + "# long\n" * 700_000}, "expected at most 4,194,304"),
    "nobody's home": ({"recipe": RECIPE.replace('"digits"', '"~nosuchuser/card.toml"')}, "no user 'nosuchuser'"),
    "nobody's network": ({"recipe": RECIPE.replace('"mlp"', '"~nosuchuser/net.py"')}, "no user 'nosuchuser'"),
    "nobody's file": (_with_card(CARD.replace("set.npz", "~nosuchuser/set.npz")), "no user 'nosuchuser'"),
    "nobody's folder": (_with_card(PICTURES.replace("pics", "~nosuchuser")), "no user 'nosuchuser'"),
    "nobody's weights": ({"recipe": RECIPE + '[finetune]\nstart = "weights:~nosuchuser/w"\n'}, "no user 'nosuchuser'"),
    "zero byte in a name": ({"recipe": RECIPE.replace('"digits"', '"dig\\u0000its"')}, "is called 'dig\\x00its'"),
    "zero byte in a path": ({"recipe": RECIPE.replace('"digits"', '"a\\u0000/card.toml"')}, "zero byte"),
    "zero byte in a network": ({"recipe": RECIPE.replace('"mlp"', '"a\\u0000.py"')}, "zero byte"),
    "zero byte in weights": ({"recipe": RECIPE + '[finetune]\nstart = "weights:a\\u0000.pt"\n'}, "zero byte"),
    "zero byte in a run": ({"recipe": RECIPE + '[finetune]\nstart = "run:a\\u0000b"\n'}, "there is no run"),
    "zero byte in a file": (_with_card(CARD.replace("set.npz", "a\\u0000.npz")), "zero byte"),
    "zero byte in a folder": (_with_card(PICTURES.replace("pics", "a\\u0000b")), "zero byte"),
    "zero byte in a class": (_with_card('classes = ["a\\u0000", "b"]\n' + CARD), "set.npz"),
    "zero byte in the file": ({"recipe": RECIPE + "\0"}, "not valid TOML"),
}  # fmt: skip


@pytest.mark.parametrize("case", FILES)
def test_a_hostile_file(case: str, karui: Karui) -> None:
    files, words = FILES[case]
    _files(karui, **files)
    _refused_shortly(karui, "recipe.toml", "--target", "target.toml", words=words)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--set", f"{DOTTED}=1"), "too deeply"),
        (("--set", f"train={'[' * 5000}"), "too deeply"),
        (("--set", f"seed={DIGITS}"), "too many digits"),
        (("--set", f"train.epochs={DIGITS[:100]}"), "expected at most 1000000"),
        (("--set", "data=~nosuchuser/x.toml"), "no user 'nosuchuser'"),
        (("--target", "~nosuchuser/x.toml"), "no user 'nosuchuser'"),
        (("--target", ""), "no target is called ''"),
        (("--target", "a\0b.toml"), "holds a zero byte"),
        (("--out", "a\0b"), "holds a zero byte"),
        (("--out", ""), "a run needs a folder of its own"),
        (("--out", "~nosuchuser/x"), "no user 'nosuchuser'"),
        (("--out", "."), "a run needs a folder of its own"),
        (("--out", "x" * 5000), "file name too long"),
        (("--set", f"data={'x' * 5000}"), "file name too long"),
        (("--set", f"data={'x' * 5000}/y.toml"), "file name too long"),
        (("--threads", DIGITS[:30]), "is not in the range"),
        (("--threads", DIGITS), "not a valid integer"),
    ],
    ids=lambda value: value[0][:8] if isinstance(value, tuple) else "",
)
def test_a_hostile_argument(arguments: tuple[str, ...], words: str, karui: Karui) -> None:
    _files(karui)
    said = karui("run", "recipe.toml", *arguments)
    assert said.status == 2, said.err
    assert words in said.err
    assert "bug in karui" not in said.err
    assert not Path("runs").exists()


@pytest.mark.parametrize("command", ["show", "compare", "report"])
@pytest.mark.parametrize("run", ["", "a\0b", "~nosuchuser", "loop", "x" * 5000])
def test_a_run_that_cannot_be(command: str, run: str, karui: Karui) -> None:
    Path("loop").symlink_to("loop")
    said = karui(command, run)
    assert said.status == 2, said.err
    assert "bug in karui" not in said.err


URLS = [
    "http://[::1",
    "http://",
    "https://:80/x",
    "http://a:99999/x",
    "http://a b/c",
    "http://a\\u0000b/c",
    "::::",
    "http://a:0/x",
]


@pytest.mark.parametrize("url", URLS)
def test_a_broken_address(url: str, karui: Karui) -> None:
    card = CARD.replace('"set.npz"', f'"set.npz"\nurl = "{url}"\nsha256 = "{SHA}"')
    _files(karui, **_with_card(card))
    _refused_shortly(karui, "recipe.toml", words="is no http or https address")


LINKS: dict[str, Callable[[], None]] = {
    "recipe.toml": lambda: None,
    "card.toml": lambda: None,
    "set.npz": lambda: None,
    "target.toml": lambda: None,
    "pics": lambda: None,
    "pics/cat": lambda: draw(Path("pics"), ["cow", "dog"], 9, side=8),
    "pics/dog/000.png": lambda: draw(Path("pics"), ["cow", "dog"], 9, side=8),
}


@pytest.mark.parametrize("link", LINKS)
def test_a_link_to_itself(link: str, karui: Karui) -> None:
    _files(karui, **_with_card(PICTURES if link.startswith("pics") else CARD))
    LINKS[link]()
    Path(link).parent.mkdir(exist_ok=True)
    Path(link).unlink(missing_ok=True)
    Path(link).symlink_to(Path(link).name)
    _refused_shortly(karui, "recipe.toml", "--target", "target.toml", words="error: ")


@pytest.mark.parametrize("variable", ["KARUI_CACHE", "KARUI_DATA"])
def test_a_folder_of_nobody(variable: str, karui: Karui, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(variable, "~nosuchuser/x")
    _files(karui, **({} if variable == "KARUI_CACHE" else _with_card(CARD)))
    karui("run", "recipe.toml").refused(2, f"{variable}: '~nosuchuser/x': there is no user 'nosuchuser'")


def test_memory_stays_small(karui: Karui) -> None:
    _files(karui, recipe=f"{RECIPE}{DOTTED} = 1\n")
    command = ["bash", "-c", f'ulimit -v {MEMORY_MIB * 1024}; exec "$@"', "-", *KARUI, "run", "recipe.toml"]
    environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 2, done.stderr
    assert "too deeply" in done.stderr


def test_few_of_many_mistakes_are_told(karui: Karui) -> None:
    _files(karui, recipe="".join(f"key{number} = 1\n" for number in range(15)) + RECIPE)
    said = karui("run", "recipe.toml")
    said.refused(2, "has no 'key0'", "has no 'key9'", "and 5 mistakes more")
    assert said.err.count("has no 'key") == _MOST_TOLD


# ── what acts on a terminal ─────────────────────────────────────────────────────────────────────────────────────────

ACTING = "\x1b]0;title\x07\u202egnp.\x9b31m"


def test_names_reach_the_terminal_written_out(karui: Karui) -> None:
    karui("run", f"{ACTING}.toml").refused(2, "\\x1b]0;title\\x07\\u202egnp.\\x9b31m")
    _files(
        karui, recipe=RECIPE + f'"{ACTING.replace(chr(27), chr(92) + "u001b").replace(chr(7), chr(92) + "u0007")}" = 1'
    )
    said = karui("run", "recipe.toml", "--json")
    for text in (said.out, said.err):
        assert text.isprintable() or not set(text) & set("\x1b\x07\u202e\x9b")
    assert json.loads(said.out)["error"]["exit_status"] == 2


def test_class_names_act_nowhere(karui: Karui) -> None:
    draw(Path("pics"), ["c\x1b[31mat", "d\u202eog"], 40, side=8)
    _files(karui, **_with_card(PICTURES))
    command = ("recipe.toml", "--set", "quantize.method=none", "--set", "train.epochs=20", "--threads", "1")
    for more in ((), ("--json",)):
        said = karui("run", *command, *more)
        assert said.status == 0, said.err
        assert not set(said.out + said.err) & {"\x1b", "\u202e"}
    page = Path("runs/mine/report.html").read_text()
    assert not set(page) & {"\x1b", "\u202e"}
    assert "d\\u202eog" in page


# ── what networks print ─────────────────────────────────────────────────────────────────────────────────────────────

LOUD = """
import ctypes, os, sys
from torch import nn
print("import")
class Net(nn.Sequential):
    def forward(self, x):
        print("forward")
        os.write(1, b"descriptor")
        ctypes.CDLL(None).printf(b"from C")
        sys.__stdout__.write("the first stdout")
        return super().forward(x)
def build(input_shape, classes):
    print("build")
    return Net(nn.Flatten(), nn.Linear(64, classes))
"""


def test_json_is_pure_whatever_a_network_prints(karui: Karui) -> None:
    karui.write("net.py", LOUD.replace("super().forward(x)", "nn.Sequential.forward(self, x)"))
    _files(karui, recipe=RECIPE.replace('"mlp"', '"net.py"'))
    command = ("run", "recipe.toml", "--until", "train", "--set", "train.epochs=1", "--threads", "1", "--json")
    done = subprocess.run([*KARUI, *command], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    json.loads(done.stdout)
    for loud in ("import", "build"):
        assert f"\n{loud}" in f"\n{done.stderr}"


def test_completion_offers_names_without_torch(karui: Karui) -> None:
    karui.recipe("mine")
    karui.write("net.tflite", "")
    code = "import sys; from pipeline.cli import main\ntry:\n    main()\n"
    code += "finally:\n    print('torch' in sys.modules, file=sys.stderr)"
    for begun, offered in (
        ("run di", "digits"),
        ("run mi", "mine.toml"),
        ("run --target rasp", "raspberry-pi-5"),
        ("bench ne", "net.tflite"),
        ("sh", "show"),
    ):
        words = f"karui {begun}"
        asked = {"_KARUI_COMPLETE": "bash_complete", "COMP_WORDS": words, "COMP_CWORD": str(words.count(" "))}
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=False, env={**os.environ, **asked}
        )
        assert f"plain,{offered}" in done.stdout.splitlines(), done.stderr
        assert done.stderr.splitlines()[-1] == "False"

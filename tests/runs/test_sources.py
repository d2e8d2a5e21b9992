"""A digest of code changes with what the code does; imports are found by path, and nothing is run."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.runs.sources import code_digest, imported, local_imports

CODE = '''"""Doubles."""
# a comment

FACTOR = 2
"""What is multiplied with."""


class Doubler:
    """Doubles."""

    def twice(self, value: float) -> float:
        """Return twice the value."""
        return FACTOR * value
'''


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"""Doubles."""', '"""Another text."""'),
        ('"""Doubles."""', ""),
        ('"""Return twice the value."""', "# twice"),
        ('"""What is multiplied with."""', ""),
        ("# a comment", "# another\n# one"),
        ("FACTOR = 2", "FACTOR   =   (2)  # two"),
        ("\n\n\n", "\n"),
        ("self, value: float", "\n        self,\n        value: float,\n    "),
    ],
)
def test_words_and_layout_do_not_count(old: str, new: str) -> None:
    assert old in CODE
    assert code_digest(CODE.replace(old, new).encode()) == code_digest(CODE.encode())


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("FACTOR = 2", "FACTOR = 3"),
        ("FACTOR = 2", "FACTOR = 2.0"),
        ("FACTOR = 2", "FACTOR = True"),
        ("FACTOR = 2", "FACTOR: int = 2"),
        ("FACTOR * value", "value * FACTOR"),
        ("FACTOR * value", "FACTOR + value"),
        ("-> float", "-> int"),
        ("def twice", "async def twice"),
        ("def twice", "@staticmethod\n    def twice"),
        ("value: float", "value: float = 1"),
        ("        return", "        value = 'text'\n        return"),
        ("        return", "        print('text')\n        return"),
        ("class Doubler:", "class Doubler(str):"),
    ],
)
def test_what_code_does_counts(old: str, new: str) -> None:
    assert old in CODE
    assert code_digest(CODE.replace(old, new).encode()) != code_digest(CODE.encode())


def test_what_does_not_parse_counts_byte_by_byte() -> None:
    broken = b"def f(:  # comment"
    assert code_digest(broken) == code_digest(broken)
    assert code_digest(broken) != code_digest(broken + b"!")
    assert code_digest(b"x = 1\0") != code_digest(b"x = 1")


_nested = st.recursive(st.sampled_from("ab"), lambda part: st.tuples(part, part), max_leaves=4)


@given(first=_nested, second=_nested)
def test_two_trees_never_look_the_same(first: object, second: object) -> None:
    def code(value: object) -> bytes:
        return f"x = {value!r}".replace("'", "").encode()  # nested tuples of names

    assert (code_digest(code(first)) == code_digest(code(second))) == (first == second)


def test_the_encoding_of_the_file_is_heeded() -> None:
    text = "# -*- coding: latin-1 -*-\nname = 'ü'\n"
    assert code_digest(text.encode("latin-1")) == code_digest(text.replace("latin-1", "utf-8").encode())


@pytest.mark.parametrize(
    ("code", "names"),
    [
        ("import a.b, c", {"a.b", "c"}),
        ("from a import b as x", {"a", "a.b"}),
        ("from a import *", {"a"}),
        ("from . import b", {"p.q", "p.q.b"}),
        ("from .a import b", {"p.q.a", "p.q.a.b"}),
        ("from .. import b", {"p", "p.b"}),
        ("from ... import b", {"b"}),
        ("from .... import b", set()),
        ("def f():\n    import a", {"a"}),
        ("try:\n    import a\nexcept ImportError:\n    import b", {"a", "b"}),
        ("import importlib\nx = importlib.import_module('a.b')", {"importlib", "a.b"}),
        ("x = import_module('.a', __package__)", {"p.q.a"}),
        ("x = __import__('a')", {"a"}),
        ("x = import_module(name)", set()),
        ("if TYPE_CHECKING:\n    import a\nelse:\n    import b", {"b"}),
        ("if typing.TYPE_CHECKING:\n    import a", set()),
        ("if not TYPE_CHECKING:\n    import a", {"a"}),
    ],
)
def test_names_that_are_imported(code: str, names: set[str]) -> None:
    assert set(imported(ast.parse(code), "p.q")) == names


FILES = {
    "net.py": """
import json, os.path, numpy
import torch.nn.functional as F
import helper
from package.sub import layer
from parts.deep import wheel
from . import beside
from pipeline.errors import ConfigError
def build():
    import importlib
    return importlib.import_module("late")
""",
    "helper.py": "from other import x\nimport net\n",
    "other.py": "import helper  # a circle\n",
    "package/__init__.py": "from .names import NAMES\n",
    "package/names.py": "",
    "package/sub/__init__.py": "from ..far import y\n",
    "package/sub/layer.py": "",
    "package/far.py": "import package.unused_name\n",
    "package/unused.py": "",
    "parts/deep/wheel.py": "from . import screw\nfrom parts import bolt\n",  # folders without __init__.py
    "parts/deep/screw.py": "",
    "parts/bolt.py": "def broken(:\n",
    "beside.py": "",
    "late.py": "",
    "unused.py": "",
    "pipeline/errors.py": "",
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, text in FILES.items():
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return tmp_path


def test_what_a_file_imports_from_its_folder(folder: Path) -> None:
    found = local_imports(folder / "net.py")
    assert {name: path.relative_to(folder).as_posix() for name, path in found.items()} == {
        "beside": "beside.py",
        "helper": "helper.py",
        "late": "late.py",
        "other": "other.py",
        "package": "package/__init__.py",
        "package.far": "package/far.py",
        "package.names": "package/names.py",
        "package.sub": "package/sub/__init__.py",
        "package.sub.layer": "package/sub/layer.py",
        "parts.bolt": "parts/bolt.py",
        "parts.deep.screw": "parts/deep/screw.py",
        "parts.deep.wheel": "parts/deep/wheel.py",
    }
    assert list(found) == sorted(found)


def test_the_working_folder_does_not_matter(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = list(local_imports(folder / "net.py"))
    monkeypatch.chdir(folder)
    assert list(local_imports(Path("net.py"))) == names
    (folder / "elsewhere").mkdir()
    monkeypatch.chdir(folder / "elsewhere")
    assert list(local_imports(Path("../net.py"))) == names


def test_a_file_that_imports_nothing_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "net.py").write_text("import numpy, helper\nimport importlib\nimportlib.import_module('/etc/x')\n")
    assert local_imports(tmp_path / "net.py") == {}
    (tmp_path / "broken.py").write_text("def (")
    assert local_imports(tmp_path / "broken.py") == {}
    with pytest.raises(OSError, match=r"gone\.py"):
        local_imports(tmp_path / "gone.py")


def test_nothing_is_run(tmp_path: Path) -> None:
    (tmp_path / "net.py").write_text("import helper\n")
    (tmp_path / "helper.py").write_text("raise SystemExit\n")
    assert list(local_imports(tmp_path / "net.py")) == ["helper"]

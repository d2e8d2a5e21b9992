"""Paths as people write them, and those that can be none."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.errors import ConfigError
from pipeline.paths import expanded, resolved


def test_home_is_found_and_everything_else_stays() -> None:
    assert expanded("~/x") == Path.home() / "x"
    assert expanded("a/~b") == Path("a/~b")


@pytest.mark.parametrize(("path", "words"), [("~nosuchuser/x", "no user 'nosuchuser'"), ("a\0b", "a zero byte")])
def test_what_is_no_path_is_refused(path: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words) as caught:
        expanded(path, where="card")
    assert caught.value.where == "card"


def test_a_link_to_itself_leads_nowhere(tmp_path: Path) -> None:
    loop, link = tmp_path / "loop", tmp_path / "link"
    loop.symlink_to(loop)
    link.symlink_to(tmp_path)
    assert resolved(link / "x") == tmp_path.resolve() / "x"
    with pytest.raises(ConfigError, match="leads to itself"):
        resolved(loop)

"""What git says of a folder, in real repositories, hostile ones among them: nothing of theirs ever runs."""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path

import pytest

from pipeline import git
from pipeline.artifacts.outcome import Commit
from pipeline.git import commit_of


def run_git(folder: Path, *words: str) -> str:
    who = ("-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgsign=false")
    command = ["git", *who, "-C", str(folder), *words]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    folder = tmp_path / "project"
    folder.mkdir()
    run_git(folder, "init", "--quiet")
    (folder / "net.py").write_text("x = 1\n")
    run_git(folder, "add", ".")
    run_git(folder, "commit", "--quiet", "-m", "first")
    return folder


def test_a_committed_folder_has_its_commit(repository: Path) -> None:
    sha = run_git(repository, "rev-parse", "HEAD")[:10]
    assert commit_of(repository) == Commit(sha=sha, changed=False)
    deeper = repository / "recipes"
    deeper.mkdir()
    assert commit_of(deeper) == Commit(sha=sha, changed=False)


def test_changed_and_new_files_are_changes(repository: Path) -> None:
    (repository / "net.py").write_text("x = 2\n")
    found = commit_of(repository)
    assert found is not None
    assert found.changed is True
    assert found.text == f"commit {found.sha}, with uncommitted changes"
    run_git(repository, "commit", "--quiet", "-am", "second")
    (repository / "other.py").write_text("")
    assert (again := commit_of(repository)) is not None
    assert again.changed is True
    assert again.sha != found.sha


def test_what_the_run_itself_writes_is_no_change(repository: Path) -> None:
    (repository / "runs" / "[1]").mkdir(parents=True)
    (repository / "runs" / "[1]" / "run.json").write_text("{}")
    (repository / "out").mkdir()
    (repository / "out" / "run.json").write_text("{}")
    left_out = (repository / "runs" / "[1]", repository / "out", repository.parent / "elsewhere")
    assert (found := commit_of(repository, without=left_out)) is not None
    assert found.changed is False


def test_no_repository_no_commit_and_no_git(repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert commit_of(tmp_path) is None
    assert commit_of(tmp_path / "nowhere") is None
    (tmp_path / "empty").mkdir()
    run_git(tmp_path / "empty", "init", "--quiet")
    assert commit_of(tmp_path / "empty") is None
    monkeypatch.setenv("GIT_DIR", str(repository / ".git"))  # as inside a hook of another repository
    assert commit_of(tmp_path) is None
    monkeypatch.setenv("PATH", str(tmp_path))
    assert commit_of(repository) is None


@pytest.mark.parametrize("name", ["evil", "e=v.il", "e v"])
def test_nothing_of_a_hostile_repository_runs(repository: Path, tmp_path: Path, name: str) -> None:
    trace, trap = tmp_path / "ran", tmp_path / "trap.sh"
    trap.write_text(f"#!/bin/sh\necho $0 >> {trace}\ncat\n")
    trap.chmod(0o755)
    (repository / ".gitattributes").write_text(f"* filter={name}\n")
    run_git(repository, "add", ".")
    run_git(repository, "commit", "--quiet", "-m", "attributes")
    for key in ("clean", "smudge", "process"):
        run_git(repository, "config", f"filter.{name}.{key}", str(trap))
    for key in ("core.fsmonitor", "core.pager", "core.sshCommand", "diff.external", "core.editor"):
        run_git(repository, "config", key, str(trap))
    hook = repository / ".git/hooks/post-index-change"
    hook.write_text(trap.read_text())
    hook.chmod(0o755)
    trace.unlink(missing_ok=True)
    (repository / "net.py").write_text("x = 3\n")
    os.utime(repository / ".gitattributes", (1, 1))  # git must look into it to see that it is the same
    found = commit_of(repository)
    assert not trace.exists()
    assert found is not None
    assert found.changed is (None if "=" in name or " " in name else True)
    subprocess.run(["git", "-C", str(repository), "status"], check=False, capture_output=True)
    assert trace.exists()  # the trap works


def test_a_folder_that_looks_like_a_bare_repository_is_none(repository: Path, tmp_path: Path) -> None:
    bare = tmp_path / "bare"
    run_git(tmp_path, "clone", "--quiet", "--bare", str(repository), str(bare))
    assert commit_of(bare) is None


def test_a_git_that_hangs_is_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "git").write_text("#!/bin/sh\nexec sleep 20\n")
    (tmp_path / "git").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setattr(git, "_TIMEOUT_S", 0.2)
    begin = time.monotonic()
    assert commit_of(tmp_path) is None
    assert time.monotonic() - begin < 5

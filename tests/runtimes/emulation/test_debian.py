"""The system of a target: named by its Debian, unpacked without leaving its folder."""

from __future__ import annotations

import shutil
import tarfile
from io import BytesIO
from pathlib import Path

import pytest

from pipeline.errors import EmulationError
from pipeline.runtimes.emulation import debian

needs_dpkg = pytest.mark.skipif(shutil.which("dpkg-deb") is None, reason="dpkg-deb is not on this machine")


@pytest.mark.parametrize(
    ("system", "suite"),
    [("Raspberry Pi OS 64-bit (Debian 12)", "bookworm"), ("Debian 11", "bullseye"), ("Debian 13", "trixie")],
)
def test_a_system_names_its_debian(system: str, suite: str) -> None:
    assert debian.suite_of(system) == suite


@pytest.mark.parametrize("system", ["Ubuntu 24.04", "Debian 7", ""])
def test_other_systems_are_refused(system: str) -> None:
    with pytest.raises(EmulationError, match="cannot be set up here") as refused:
        debian.suite_of(system)
    assert "Debian 12" in refused.value.remedy


def package(folder: Path, *members: tarfile.TarInfo) -> Path:
    """Write a .deb that holds these members, each with the content "x"."""
    data = BytesIO()
    with tarfile.open(fileobj=data, mode="w") as archive:
        for member in members:
            member.size = 1 if member.isfile() else 0
            archive.addfile(member, BytesIO(b"x"))
    parts = {"debian-binary": b"2.0\n", "control.tar": tarfile_of_control(), "data.tar": data.getvalue()}
    written = b"!<arch>\n"
    for name, content in parts.items():
        written += f"{name:<16}{0:<12}{0:<6}{0:<6}{'100644':<8}{len(content):<10}`\n".encode() + content
        written += b"\n" * (len(content) % 2)
    path = folder / "made.deb"
    path.write_bytes(written)
    return path


def tarfile_of_control() -> bytes:
    control = BytesIO()
    with tarfile.open(fileobj=control, mode="w") as archive:
        text = b"Package: made\nVersion: 1\nArchitecture: all\nMaintainer: nobody\nDescription: none\n"
        member = tarfile.TarInfo("./control")
        member.size = len(text)
        archive.addfile(member, BytesIO(text))
    return control.getvalue()


def link(name: str, target: str) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.type, member.linkname = tarfile.SYMTYPE, target
    return member


@needs_dpkg
def test_links_from_the_root_stay_inside(tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    debian._unpack(package(tmp_path, tarfile.TarInfo("./etc/file"), link("./usr/there", "/etc/file")), root)
    debian._relative_links(root)
    assert (root / "usr/there").read_text() == "x"
    assert (root / "usr/there").resolve() == root / "etc/file"


@needs_dpkg
def test_a_package_does_not_leave_its_folder(tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    made = package(tmp_path, tarfile.TarInfo("../outside"))
    with pytest.raises(EmulationError, match="cannot be unpacked") as refused:
        debian._unpack(made, root)
    assert refused.value.where == "made.deb"
    assert not (tmp_path / "outside").exists()


def test_without_apt_it_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(EmulationError, match="apt-get and dpkg-deb are missing"):
        debian.unpack_system(tmp_path / "root", tmp_path, suite="bookworm", architecture="aarch64")


def test_a_command_that_fails_says_why(tmp_path: Path) -> None:
    with pytest.raises(EmulationError, match=r"^apt-get: E: .*nonsense"):
        debian._run("apt-get", "nonsense")


def apt_of_a_source_that_is_gone(folder: Path) -> list[str]:
    """Return options for apt in folders of its own, with a mirror that lacks what it should have."""
    (folder / "lists" / "partial").mkdir(parents=True)
    sources = folder / "sources.list"
    sources.write_text(f"deb [trusted=yes] file:{folder}/nowhere bookworm main\n")
    places = {"Dir::Etc::sourcelist": sources, "Dir::Etc::sourceparts": "/dev/null", "Dir::State": folder}
    return [part for name, value in places.items() for part in ("-o", f"{name}={value}")]


@needs_dpkg
def test_what_is_asked_for_may_be_had_without_every_list(tmp_path: Path) -> None:
    assert debian._after_update(apt_of_a_source_that_is_gone(tmp_path), lambda: "went on") == "went on"


@needs_dpkg
def test_without_the_list_that_is_needed_it_is_named(tmp_path: Path) -> None:
    options = apt_of_a_source_that_is_gone(tmp_path)
    with pytest.raises(EmulationError, match=r"^apt-get: E: .*nowhere"):
        debian._after_update(options, lambda: debian._run("apt-get", *options, "--quiet=2", "download", "python3"))

"""The system of a target that runs Debian: its packages through this machine's own apt sources, unpacked and never run.

Nothing is installed on this machine: apt works in folders of its own, and needs no root.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tarfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from pipeline.errors import EmulationError

_PACKAGES = ("python3-minimal", "libpython3-stdlib", "libstdc++6", "libgomp1")
_MORE = {"armv7l": ("python3-numpy",)}  # of which the package index has no wheel
_SUITES = {11: "bullseye", 12: "bookworm", 13: "trixie"}
_GLIBC = {"bullseye": 31, "bookworm": 36, "trixie": 41}  # 2.31 …
_ARCHITECTURES = {"aarch64": "arm64", "armv7l": "armhf", "x86_64": "amd64"}
_SOURCE = re.compile(r"^ *\d+ (\S+) ([a-z]+)(-\S+)?/main ", re.MULTILINE)
_KEYS = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
KERNEL = "linux-image-cloud-arm64"
_TIMEOUT_S = 300
_QUIET = ("--quiet=2", "--option", "Acquire::Retries=2")


def suite_of(system: str) -> str:
    """Return Debian's name for what a target runs: "Raspberry Pi OS 64-bit (Debian 12)" is bookworm.

    Raises EmulationError for a system that is not Debian's.
    """
    number = re.search(r"Debian (\d+)", system)
    if number is None or int(number[1]) not in _SUITES:
        known = ", ".join(f"Debian {each}" for each in _SUITES)
        raise EmulationError(f"'{system}' cannot be set up here", remedy=f"the target's os names one of {known}")
    return _SUITES[int(number[1])]


def glibc_minor(suite: str) -> int:
    """Return the second number of a suite's C library, which says what wheels run there."""
    return _GLIBC[suite]


def packages_of(architecture: str) -> tuple[str, ...]:
    """Return the packages that Python and the runtimes need."""
    return (*_PACKAGES, *_MORE.get(architecture, ()))


def unpack_system(root: Path, scratch: Path, *, suite: str, architecture: str) -> None:
    """Put the packages that Python and the runtimes need into ``root``.

    ``scratch``: for apt's own files.  Raises EmulationError in words.
    """
    if shutil.which("apt-get") is None or shutil.which("dpkg-deb") is None:
        raise EmulationError("apt-get and dpkg-deb are missing here", remedy="the set-up works on Debian and its kin")
    options = _private_apt(scratch, suite, _ARCHITECTURES[architecture])
    packages = packages_of(architecture)
    _after_update(options, lambda: _run("apt-get", *options, *_QUIET, "--yes", "--download-only", "install", *packages))
    for folder in ("bin", "sbin", "lib"):  # one tree, as on the device
        (root / "usr" / folder).mkdir(parents=True, exist_ok=True)
        (root / folder).symlink_to(Path("usr") / folder)
    for package in sorted((scratch / "cache" / "archives").glob("*.deb")):
        _unpack(package, root)
    _relative_links(root)
    _choose_alternatives(root)


def unpack_kernel(folder: Path, scratch: Path, *, suite: str) -> None:
    """Put the ARM64 kernel for virtual machines, which needs no modules to start, into ``folder`` as ``vmlinuz``.

    ``scratch``: for apt's own files.  Raises EmulationError in words.
    """
    options = _private_apt(scratch, suite, _ARCHITECTURES["aarch64"])
    depends = _after_update(options, lambda: _run("apt-cache", *options, "depends", KERNEL))
    found = re.search(r"Depends: (linux-image-\S+)", depends)
    if found is None:
        raise EmulationError(f"{suite} has no package {KERNEL}")
    archives, unpacked = scratch / "cache" / "archives", scratch / "unpacked"
    unpacked.mkdir()
    _run("apt-get", *options, *_QUIET, "download", found[1], folder=archives)
    for package in archives.glob("linux-image-*.deb"):
        _unpack(package, unpacked)
    for image in unpacked.glob("boot/vmlinuz-*"):
        image.rename(folder / "vmlinuz")


def _private_apt(scratch: Path, suite: str, architecture: str) -> list[str]:
    """Lay out folders for apt with this machine's Debian sources for another suite and architecture."""
    for folder in ("etc", "state/lists/partial", "cache/archives/partial", "dpkg"):
        (scratch / folder).mkdir(parents=True)
    (scratch / "dpkg" / "status").touch()
    sources = scratch / "etc" / "sources.list"
    found = sorted(set(_debian_sources()))
    if not found:
        raise EmulationError(
            "this machine's apt has no source of Debian's packages",
            remedy="add one, for example: deb http://deb.debian.org/debian bookworm main",
        )
    options = f"arch={architecture}" + (f" signed-by={_KEYS}" if _KEYS.exists() else "")
    sources.write_text("".join(f"deb [{options}] {uri} {suite}{pocket} main\n" for uri, pocket in found))
    places = {
        "Dir::Etc": scratch / "etc",
        "Dir::Etc::sourcelist": sources,
        "Dir::Etc::sourceparts": os.devnull,
        "Dir::State": scratch / "state",
        "Dir::State::status": scratch / "dpkg" / "status",
        "Dir::Cache": scratch / "cache",
        "APT::Architecture": architecture,
        "APT::Architectures": architecture,
        "APT::Install-Recommends": "false",
        "Acquire::Languages": "none",
    }
    root = {"APT::Sandbox::User": "root"} if os.geteuid() == 0 else {}
    return [part for name, value in {**places, **root}.items() for part in ("-o", f"{name}={value}")]


def _after_update(options: Sequence[str], then: Callable[[], str]) -> str:
    """Get the lists of packages and go on; one that cannot be had, of a mirror in the middle of its own update, may do.

    Raises EmulationError with what the lists lacked where it did not.
    """
    try:
        _run("apt-get", *options, *_QUIET, "update")
    except EmulationError as missing:
        try:
            return then()
        except EmulationError:
            raise missing from None
    return then()


def _debian_sources() -> Iterator[tuple[str, str]]:
    """Yield address and pocket ("", "-updates", "-security") of every source of Debian's main packages."""
    for uri, _, pocket in _SOURCE.findall(_run("apt-cache", "policy")):
        if uri.rstrip("/").endswith(("/debian", "/debian-security")) and pocket in ("", "-updates", "-security"):
            yield uri, pocket


def _unpack(package: Path, root: Path) -> None:
    with subprocess.Popen(["dpkg-deb", "--fsys-tarfile", str(package)], stdout=subprocess.PIPE) as reading:  # noqa: S603, S607
        assert reading.stdout is not None  # noqa: S101  (a pipe)
        try:
            with tarfile.open(fileobj=reading.stdout, mode="r|") as archive:
                archive.extractall(root, filter="tar")  # nothing outside of root
        except (tarfile.TarError, OSError) as error:
            raise EmulationError(f"cannot be unpacked: {error}", where=package.name) from error
        reading.stdout.read()
    if reading.returncode:
        raise EmulationError(f"dpkg-deb ended with status {reading.returncode}", where=package.name)


def _relative_links(root: Path) -> None:
    """Let links that begin at the root begin at ``root``."""
    for folder, folders, files in os.walk(root):
        for path in (Path(folder) / name for name in (*folders, *files)):
            if path.is_symlink() and (target := path.readlink()).is_absolute():
                inside = root / target.relative_to("/")
                path.unlink()
                path.symlink_to(os.path.relpath(inside, path.parent))


def _choose_alternatives(root: Path) -> None:
    """Link the linear algebra that numpy asks for, as its packages do when they are installed."""
    for kind in ("blas", "lapack"):
        for library in root.glob(f"usr/lib/*/{kind}/lib{kind}.so.3"):
            library.parent.with_name(library.name).symlink_to(library.relative_to(library.parents[1]))


def _run(*command: str, folder: Path | None = None) -> str:
    try:
        done = subprocess.run(  # noqa: S603  # apt and its kin
            command, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False, cwd=folder
        )
    except subprocess.TimeoutExpired as error:
        raise EmulationError(f"{command[0]} did not finish in {_TIMEOUT_S} s", remedy="try again") from error
    except OSError as error:
        raise EmulationError(f"{command[0]} does not start: {error}") from error
    if done.returncode:
        raise EmulationError(f"{command[0]}: {_words_of(done.stderr.splitlines())}", remedy="try again later")
    return done.stdout


def _words_of(lines: Sequence[str]) -> str:
    said = [line.strip() for line in lines if line.startswith(("E:", "Err"))] or [line.strip() for line in lines]
    return said[0] if said else "failed without a word"

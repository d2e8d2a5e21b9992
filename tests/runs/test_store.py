"""The store gives back exactly what was put, or says which file is wrong; nothing half-written is ever seen."""

from __future__ import annotations

import hashlib
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from pipeline.errors import StorageError
from pipeline.runs.store import Store, remove_leftovers, write_atomic

# a tiny disk of its own for one command, where the kernel lets a user have one
_OWN_DISK = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c"]


def _run_on_disk(mount_options: str, folder: Path, code: str) -> subprocess.CompletedProcess[str]:
    folder.mkdir()
    mount = f'mount -t tmpfs -o {mount_options} tmpfs "$0"'
    if not shutil.which("unshare") or subprocess.run([*_OWN_DISK, mount, str(folder)], check=False).returncode:
        pytest.skip("this system lets no user mount a tmpfs (unshare --user --mount), so there is no full disk to try")
    command = [*_OWN_DISK, f'{mount} && exec "$1" -c "$2" "$0"', str(folder), sys.executable, code]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@given(data=st.binary(max_size=4096))
def test_bytes_come_back_under_their_sha256(data: bytes, tmp_path_factory: pytest.TempPathFactory) -> None:
    store = Store(tmp_path_factory.mktemp("store"))
    digest = store.put(data)
    assert digest == hashlib.sha256(data).hexdigest()
    assert store.get(digest) == data
    assert store.path(digest).read_bytes() == data
    assert store.put(data) == digest
    assert [file.name for file in store.root.iterdir()] == [digest]


@given(
    array=hnp.arrays(
        dtype=st.one_of(hnp.floating_dtypes(), hnp.integer_dtypes(), hnp.boolean_dtypes()),
        shape=hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4),
    )
)
def test_arrays_keep_shape_type_and_bits(array: NDArray[np.generic], tmp_path_factory: pytest.TempPathFactory) -> None:
    store = Store(tmp_path_factory.mktemp("store"))
    digest = store.put_array(array)
    back = store.get_array(digest)
    assert (back.shape, back.dtype) == (array.shape, array.dtype)
    assert back.tobytes() == array.tobytes()
    assert store.put_array(array.copy()) == digest


def test_no_pickle_goes_in_or_out(tmp_path: Path) -> None:
    store = Store(tmp_path)
    with pytest.raises(ValueError, match="allow_pickle"):
        store.put_array(np.array([object()]))
    with pytest.raises(StorageError, match=r"is no \.npy array"):
        store.get_array(store.put(b"no array"))


def test_what_is_there_is_not_written_again(tmp_path: Path) -> None:
    store = Store(tmp_path)
    before = store.path(store.put(b"weights")).stat()
    other = Store(tmp_path)  # another process, which remembers nothing
    after = other.path(other.put(b"weights")).stat()
    assert (before.st_ino, before.st_mtime_ns) == (after.st_ino, after.st_mtime_ns)


@pytest.mark.parametrize("read_before", [True, False])
def test_an_altered_file_is_named_and_mended(tmp_path: Path, read_before: bool) -> None:
    store = Store(tmp_path)
    digest = store.put(b"weights")
    if read_before:
        store.path(digest)  # remembered as whole; the change of the file must still be seen
    (tmp_path / digest).write_bytes(b"weighty")
    for read in (store.get, store.path, store.get_array):
        with pytest.raises(StorageError, match="altered") as caught:
            read(digest)
        assert str(tmp_path / digest) in str(caught.value)
        assert "--fresh" in caught.value.remedy
    assert not store.is_whole(digest)
    store.put(b"weights")
    assert store.get(digest) == b"weights"


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    store = Store(tmp_path)
    for read in (store.get, store.path):
        with pytest.raises(StorageError, match=r"0{64}: this file is gone"):
            read("0" * 64)
    with pytest.raises(StorageError, match="is no sha256"):
        store.get("../secret")


def test_a_failed_write_keeps_the_old_file(tmp_path: Path) -> None:
    write_atomic(tmp_path / "new" / "record.json", b"old")
    assert (tmp_path / "new" / "record.json").read_bytes() == b"old"
    write_atomic(tmp_path / "new" / "record.json", b"new")
    assert (tmp_path / "new" / "record.json").read_bytes() == b"new"
    (tmp_path / "file").write_bytes(b"a file")
    (tmp_path / "folder" / "inside").mkdir(parents=True)
    for place in (tmp_path / "file" / "record.json", tmp_path / "folder"):
        with pytest.raises(StorageError) as caught:
            write_atomic(place, b"x")
        assert caught.value.remedy
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "folder", "new"]


def test_files_have_the_rights_that_the_user_wants(tmp_path: Path) -> None:
    old = os.umask(0o027)
    try:
        write_atomic(tmp_path / "record.json", b"x")
    finally:
        os.umask(old)
    assert (tmp_path / "record.json").stat().st_mode & 0o777 == 0o640


def test_a_full_disk_leaves_nothing_half_written(tmp_path: Path) -> None:
    code = """
import sys, pathlib
from pipeline.runs.store import Store, StorageError
store = Store(pathlib.Path(sys.argv[1]) / "store")
small = store.put(b"small")
try:
    store.put(bytes(200_000))
except StorageError as error:
    print(error)
print(sorted(file.name for file in store.root.iterdir()) == [small], store.get(small))
"""
    done = _run_on_disk("size=64k", tmp_path / "disk", code)
    assert "no space left on device" in done.stdout, done.stderr
    assert "--out" in done.stdout
    assert "True b'small'" in done.stdout


def test_a_read_only_disk_says_so(tmp_path: Path) -> None:
    code = """
import sys, pathlib
from pipeline.runs.store import Store, StorageError
try:
    Store(pathlib.Path(sys.argv[1]) / "store").put(b"small")
except StorageError as error:
    print(error)
"""
    done = _run_on_disk("ro,size=64k", tmp_path / "disk", code)
    assert "read-only file system" in done.stdout, done.stderr
    assert "make the folder writable" in done.stdout


def test_a_limit_on_file_size_leaves_nothing_half_written(tmp_path: Path) -> None:
    code = """
import pathlib, resource, sys
from pipeline.runs.store import Store, StorageError
resource.setrlimit(resource.RLIMIT_FSIZE, (65536, 65536))
store = Store(pathlib.Path(sys.argv[1]))
try:
    store.put(bytes(200_000))
except StorageError as error:
    print(error)
print(list(store.root.iterdir()))
"""
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True)
    assert "file too large" in done.stdout
    assert "ulimit -f" in done.stdout
    assert done.stdout.endswith("[]\n")


def test_kill_9_while_writing_leaves_whole_files_only(tmp_path: Path) -> None:
    code = """
import pathlib, sys
from pipeline.runs.store import Store
store = Store(pathlib.Path(sys.argv[1]))
print("ready", flush=True)
number = 0
while True:
    store.put(number.to_bytes(4, "big") * 1_000_000)  # 4 MB: most of the time a write is under way
    number += 1
"""
    for attempt in range(4):
        process = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        time.sleep(0.05 + 0.037 * attempt)
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
        named = [file for file in tmp_path.iterdir() if not file.name.startswith(".")]
        assert named
        for file in named:
            assert hashlib.sha256(file.read_bytes()).hexdigest() == file.name
    remove_leftovers(tmp_path)
    assert not [file for file in tmp_path.iterdir() if file.name.startswith(".")]

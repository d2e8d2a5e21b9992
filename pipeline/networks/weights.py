"""Weights on disk and in the network: read without running code, loaded strictly, taken over from another network."""

from __future__ import annotations

import difflib
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from pipeline.data.checks import UNREADABLE_ARCHIVE
from pipeline.data.npy import read_npy
from pipeline.errors import DataError, ModelError
from pipeline.networks.torch_files import read_torch

WEIGHT_SUFFIXES = (".safetensors", ".npz", ".pt", ".pth", ".ckpt", ".bin")
_COUNTER = "n_averaged"  # what an average of weights (torch.optim.swa_utils) holds besides them
_LISTED = 8  # so many tensors are named, the rest counted
_NAMED = 4  # so many names show how a network, or a file, names its tensors
_COMPARED = 200  # so many names of a file are compared: a hostile one may hold a million
LARGEST_WEIGHTS_BYTES = 8 << 30
_ALWAYS_UNPACKED_BYTES = 512 << 20
_MOST_PACKED = 20  # trained weights hardly pack at all, pruned ones to a tenth

State = Mapping[str, Tensor]  # name → tensor, as nn.Module.state_dict() has them


# ── into the network ────────────────────────────────────────────────────────────────────────────────────────────────


def load_state(module: nn.Module, weights: State, *, where: str) -> None:
    """Copy the weights into the module; names and shapes must be exactly those of ``module.state_dict()``.

    ``where`` names the file or checkpoint.  Raises ModelError that lists mismatched, missing and unexpected tensors;
    the module is unchanged then.
    """
    _check_fit(module.state_dict(), weights, where)
    take_over(module, weights)


def take_over(module: nn.Module, weights: State) -> None:
    """Copy weights of the same version of the module into it.

    What ``state_dict()`` notes beside the tensors is lost in a plain dict and in files; modules that know older
    versions of themselves ask for it.
    """
    state = module.state_dict()
    state.update(weights)
    module.load_state_dict(state)


def without_wrapper(weights: State, own: Iterable[str]) -> tuple[State, str]:
    """Return the weights without what a wrapper put before all names ("module.", "_orig_mod.", …), and what that was.

    ``own`` are the network's names; weights of which one is known already, or none becomes known, stay as they are.
    """
    known = set(own)
    found = {name: tensor for name, tensor in weights.items() if name != _COUNTER or _COUNTER in known}
    taken = ""
    while found and not known & found.keys():
        prefixes = {name.partition(".")[0] + "." for name in found}
        if len(prefixes) > 1 or not all("." in name for name in found):
            return weights, ""
        taken += min(prefixes)
        found = {name.partition(".")[2]: tensor for name, tensor in found.items()}
    return (found, taken) if taken else (weights, "")


def fit_start(own: State, start: State, head: str, where: str) -> tuple[str, ...]:
    """Return the names of the tensors of layer ``head`` that weights to start from do not bring, in ``own``'s order.

    ``own`` are the tensors of the network that starts, ``start`` those that it starts from.  A head for other classes
    is made anew, and so are auxiliary heads, whose tensors have as many rows; every other tensor must fit.  Raises
    ModelError that lists those that do not.
    """
    classes = {
        (len(tensor), len(start[name]))
        for name, tensor in own.items()
        if name.rpartition(".")[0] == head and name in start and tensor.dim() and start[name].dim()
    }
    new = tuple(
        name
        for name, tensor in own.items()
        if (name.rpartition(".")[0] == head and (name not in start or start[name].shape != tensor.shape))
        or (name in start and _for_other_classes(tensor, start[name], classes))
    )
    _check_fit(own, {**start, **{name: own[name] for name in new}}, where)
    return new


def _for_other_classes(tensor: Tensor, start: Tensor, classes: set[tuple[int, int]]) -> bool:
    """Whether two tensors differ by what two heads differ by; ``classes``: how many rows each of the heads has."""
    if tensor.shape == start.shape or not tensor.dim() or not start.dim():
        return False
    return tensor.shape[1:] == start.shape[1:] and (len(tensor), len(start)) in classes


def _check_fit(own: State, weights: State, where: str) -> None:
    missing = [name for name in own if name not in weights]  # in the network's order: files have any
    unexpected = [name for name in sorted(weights) if name not in own]
    complaints = [
        f"'{name}': expected {tuple(tensor.shape)}, found {tuple(weights[name].shape)}"
        for name, tensor in own.items()
        if name in weights and weights[name].shape != tensor.shape
    ]
    complaints += [
        f"'{name}': missing, expected {tuple(own[name].shape)}{_likely(name, own[name], unexpected, weights)}"
        for name in missing
    ]
    complaints += [f"'{name}': unexpected, found {tuple(weights[name].shape)}" for name in unexpected]
    if complaints:
        more = [f"and {len(complaints) - _LISTED} more"] if len(complaints) > _LISTED else []
        both = [f"the network has {_some(own)}", f"the file has {_some(weights)}"] if missing and unexpected else []
        raise ModelError(
            f"the weights are those of another network: {len(complaints)} tensors do not fit",
            where=where,
            remedy="\n  ".join(complaints[:_LISTED] + more + both),
        )


def _likely(name: str, tensor: Tensor, unexpected: Sequence[str], weights: State) -> str:
    """Name the tensor of the file that is most like one of the network's: of its shape, and of a name like its own."""
    alike = [other for other in unexpected[:_COMPARED] if weights[other].shape == tensor.shape]
    close = difflib.get_close_matches(name, alike, n=1, cutoff=0.4)
    return f"; nearest in the file: '{close[0]}'" if close else ""


def _some(names: Iterable[str]) -> str:
    first = list(names)
    return ", ".join(first[:_NAMED]) + (f" … ({len(first)} tensors)" if len(first) > _NAMED else "")


# ── from a file ─────────────────────────────────────────────────────────────────────────────────────────────────────


def read_weights(path: Path) -> dict[str, Tensor]:
    """Return name → tensor of a .safetensors, .npz or torch file: a state dict, also below a usual name for it.

    No code in the file is run.  Raises ModelError for a missing or corrupt file, pickled code, and anything in it that
    is not a named tensor.
    """
    readers = {".safetensors": _read_safetensors, ".npz": _read_npz}
    suffix = path.suffix.lower()
    reader = readers.get(suffix, read_torch) if suffix in WEIGHT_SUFFIXES else None
    if reader is None:
        raise ModelError(
            f"'{path.suffix}' is no weights file", where=str(path), remedy=f"known: {', '.join(WEIGHT_SUFFIXES)}"
        )
    if not path.is_file():
        raise ModelError("there is no such weights file", where=str(path))
    _check_unpacked(path)
    weights = reader(path)
    for name, tensor in weights.items():
        if tensor.is_floating_point() and not tensor.isfinite().all():
            raise ModelError(
                f"'{name}' holds values that are no finite numbers",
                where=str(path),
                remedy="the training that made it diverged: take the weights of an earlier epoch",
            )
    return weights


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    try:
        return safetensors.torch.load_file(path)
    except (safetensors.SafetensorError, OSError) as error:
        raise ModelError(f"no readable safetensors file: {error}", where=str(path), remedy=_CORRUPT) from error


def _read_npz(path: Path) -> dict[str, Tensor]:
    try:
        # opened here: numpy leaves the file open when it is no archive
        with path.open("rb") as file, zipfile.ZipFile(file) as archive:
            members = {member.filename.removesuffix(".npy"): member for member in archive.infolist()}
            return {name: _read_member(archive, member, path) for name, member in members.items()}
    except (*UNREADABLE_ARCHIVE, TypeError) as error:  # TypeError: torch has no such numbers
        raise ModelError(f"no readable .npz of number arrays: {error}", where=str(path), remedy=_CORRUPT) from error


def _check_unpacked(path: Path) -> None:
    """Refuse an archive that would take all memory, by what it says of itself, before anything is unpacked."""
    try:
        with zipfile.ZipFile(path) as archive:
            declared_bytes = sum(member.file_size for member in archive.infolist())
    except UNREADABLE_ARCHIVE:
        return  # another format, or the reader says what is wrong
    largest_bytes = min(LARGEST_WEIGHTS_BYTES, max(_ALWAYS_UNPACKED_BYTES, _MOST_PACKED * path.stat().st_size))
    if declared_bytes > largest_bytes:
        raise ModelError(
            f"declares {declared_bytes:,} bytes of weights, expected at most {largest_bytes:,}",
            where=str(path),
            remedy="is it really the weights of a network?",
        )


def _read_member(archive: zipfile.ZipFile, member: zipfile.ZipInfo, path: Path) -> Tensor:
    with archive.open(member) as file:
        try:
            array = read_npy(file, member.file_size, str(path))
        except DataError as error:
            raise ModelError(f"'{member.filename}' {error.what}", where=str(path), remedy=_CORRUPT) from error
    return torch.from_numpy(np.array(array))


_CORRUPT = "the file may be incomplete: copy or download it again"

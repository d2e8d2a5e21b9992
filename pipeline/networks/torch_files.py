"""Weights in torch's own files: plain tensors below a usual name for them, read without running any code."""

from __future__ import annotations

import pickle  # only for the name of the error that torch.load raises
import pickletools
import re
import struct
import warnings
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO

import torch
from torch import Tensor

from pipeline.data.checks import UNREADABLE_ARCHIVE
from pipeline.errors import ModelError

# where training scripts put the state dict inside a file; averaged weights come last, they are an extra
_STATE_KEYS = ("state_dict", "model_state_dict", "model", "net", "network", "weights", "params", "ema")
_LEVELS = 2  # {"model": {"state_dict": …}}
_LONGEST_WORD = 10_000
_LARGEST_PICKLE_BYTES = 64 << 20  # names and shapes of tensors
_PICKLES_BEFORE_TENSORS = 5  # in a file of torch before 1.6
_CORRUPT = "the file may be incomplete: copy or download it again"
# what torch raises for damaged files, beside UnpicklingError
_ODD_PICKLE = (
    *(OSError, EOFError, RuntimeError, ValueError, LookupError, AttributeError, TypeError),
    *(AssertionError, ArithmeticError, MemoryError, struct.error),
)


def read_torch(path: Path) -> dict[str, Tensor]:
    """Return name → tensor of a torch file.  Raises ModelError, as ``weights.read_weights`` says."""
    _refuse_torchscript(path)
    _refuse_endless_words(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about pickle protocols: it is read or refused all the same
            content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise _pickled_code(path, str(error)) from error
    except _ODD_PICKLE as error:
        raise _damaged(path, error) from error
    return _state_dict(content, path)


def _refuse_torchscript(path: Path) -> None:
    """TorchScript is a program with its weights: torch.load would say how to run it."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except UNREADABLE_ARCHIVE:
        return  # torch.load says what it is
    if any(name.partition("/")[2] == "constants.pkl" for name in names):
        raise ModelError(
            "is a TorchScript file, a program with its weights; only plain tensors are read",
            where=str(path),
            remedy=f"where it was made: torch.save(torch.jit.load({path.name!r}).state_dict(), 'weights.pt')",
        )


def _refuse_endless_words(path: Path) -> None:
    """Refuse words that torch would put into a message: it searches its own messages in quadratic time."""
    try:
        longest = max(map(_longest_word, _pickles(path)), default=0)
    except UNREADABLE_ARCHIVE as error:
        raise _damaged(path, error) from error
    if longest > _LONGEST_WORD:
        raise ModelError(f"holds a word of {longest:,} characters", where=str(path), remedy=_STATE_REMEDY)


def _pickles(path: Path) -> Iterator[IO[bytes] | bytes]:
    """Yield what is pickled in a torch file and large enough to hold a long word."""
    if not zipfile.is_zipfile(path):
        with path.open("rb") as file:
            for _ in range(_PICKLES_BEFORE_TENSORS if path.stat().st_size > _LONGEST_WORD else 0):
                yield file
        return
    with zipfile.ZipFile(path) as archive:
        for member in archive.infolist():
            if member.filename.endswith(".pkl") and member.file_size > _LONGEST_WORD:
                with archive.open(member) as file:
                    yield file.read(_LARGEST_PICKLE_BYTES)


def _longest_word(pickled: IO[bytes] | bytes) -> int:
    texts = (argument for _, argument, _ in pickletools.genops(pickled) if isinstance(argument, str))
    return max((max(map(len, text.split()), default=0) for text in texts if len(text) > _LONGEST_WORD), default=0)


def _damaged(path: Path, error: BaseException) -> ModelError:
    said = (str(error).strip() or type(error).__name__).splitlines()[0]
    return ModelError(f"no readable .pt file: {said}", where=str(path), remedy=_CORRUPT)


def _pickled_code(path: Path, said: str) -> ModelError:
    named = re.search(r"GLOBAL ([\w.]+)", said)
    if not named:
        what = "holds pickled code or is corrupt"
    elif named[1].startswith(("numpy.", "_codecs.")):
        what = f"holds more than tensors ({named[1]})"
    else:
        what = f"holds a whole pickled object with its code ({named[1]}), such as a module"
    return ModelError(
        f"{what}; only plain tensors are read",
        where=str(path),
        remedy="where it was made, save the weights alone: torch.save(model.state_dict(), FILE), or as .safetensors",
    )


def _state_dict(content: object, path: Path) -> dict[str, Tensor]:
    for _ in range(_LEVELS):
        if isinstance(content, Mapping):
            inner = (content[key] for key in _STATE_KEYS if isinstance(content.get(key), Mapping))
            content = next(inner, content)
    if not isinstance(content, Mapping) or not content:
        raise ModelError(f"holds a {type(content).__name__}, not a state dict", where=str(path), remedy=_STATE_REMEDY)
    for name, value in content.items():
        if not isinstance(value, Tensor):
            raise ModelError(
                f"'{name}' is a {type(value).__name__}, not a tensor", where=str(path), remedy=_STATE_REMEDY
            )
    return {str(name): value for name, value in content.items()}


_STATE_REMEDY = f"a state dict is expected: name → tensor, at the top or below {', '.join(_STATE_KEYS)}"

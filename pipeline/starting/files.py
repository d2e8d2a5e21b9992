"""Writes what ``karui init`` found out as a card, a recipe and, where one is asked for, a target, with comments."""

from __future__ import annotations

import json
import os
import re
import shlex
import tomllib
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import jinja2

from pipeline.data.load import load, reference
from pipeline.declare.card import DatasetCard
from pipeline.errors import ConfigError, DataError
from pipeline.runs.store import write_atomic
from pipeline.starting.seen import Seen
from pipeline.visible import shown_text

NAME = re.compile(r"[a-z0-9][a-z0-9_.-]{0,63}")
_VAL, _TEST = 0.15, 0.2  # shares held out, where the classes are large enough
_LEAST_PER_CLASS = 3  # one for each split
_SAMPLES_TO_SEE = 60_000  # samples that training looks at, all epochs together, before more hardly helps


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What suits the data at hand: the parts of a recipe that differ."""

    network: str
    options: str
    epochs: int
    batch_size: int
    learning_rate: str
    weight_decay: str
    schedule: str
    quantize_epochs: int
    shift_px: int
    flip: bool


@dataclass(frozen=True, kw_only=True)
class Project:
    """The files to write, and the command that comes next."""

    files: Mapping[Path, str]
    command: str

    @property
    def in_the_way(self) -> tuple[Path, ...]:
        """Return which of the files are there already."""
        return tuple(path for path in self.files if os.path.lexists(path))

    def write(self) -> None:
        """Write all files whole.  Raises StorageError."""
        for path, text in self.files.items():
            write_atomic(path, text.encode())


def name_for(seen: Seen) -> str:
    """Return a name made of what the data are called: small letters, digits and "-"."""
    return plain_name(seen.place.resolve().name if seen.place.is_dir() else seen.place.name.split(".")[0]) or "my-data"


def plain_name(called: str) -> str:
    """Return a name made of what something is called; "" where nothing is left of it."""
    plain = unicodedata.normalize("NFKD", called).encode("ascii", "ignore").decode().lower()
    name = re.sub(r"[^a-z0-9_]+", "-", plain).strip("-_")[:40]
    return name if NAME.fullmatch(name) else ""


def project(seen: Seen, *, name: str, target: str, default_target: str) -> Project:
    """Return the files for these data, checked as ``karui run`` checks them.

    ``target``: a name, or the .toml file of one, which is written where it is not there.  Raises ConfigError for a
    name that cannot be one, DataError for data that could not be trained on.
    """
    if not NAME.fullmatch(name):
        what = f"'{name}' is no name: small letters, digits, '-', '_' and '.' alone"
        raise ConfigError(what, where="--name", remedy="the files and the run folder are called like that")
    recipe, card = Path(f"{name}.toml"), Path(f"{name}-data.toml")
    command = f"karui run {recipe}" + (f" --target {shlex.quote(target)}" if target != default_target else "")
    title = seen.place.resolve().name
    files = {card: _card(seen, name, title), recipe: _recipe(seen, name, title, card, command)}
    if target.endswith(".toml") and not Path(target).exists():
        files[Path(target)] = render("target.toml", name=_target_name(target))
    _check(seen, files[card])
    return Project(files=files, command=command)


def _check(seen: Seen, card: str) -> None:
    """Try the card as ``karui run`` will; the pixels of pictures excepted, of which there may be many."""
    smallest = min(seen.per_class, default=_LEAST_PER_CLASS)
    if len(seen.per_class) == 1:
        raise DataError(f"{seen.summary}: there is nothing to tell apart", where=str(seen.place))
    if smallest < _LEAST_PER_CLASS and len(seen.own_splits) < 2:
        raise DataError(
            f"{seen.summary}: the smallest class has {smallest}, expected at least {_LEAST_PER_CLASS}: "
            "one to learn from, one to choose by, one to test with",
            where=str(seen.place),
            remedy="add samples, or take the class away; is it really the column of the classes?"
            if seen.columns
            else "add samples, or take the class away",
        )
    if seen.kind != "image-folder":
        load(reference(DatasetCard.model_validate(tomllib.loads(card)), Path.cwd()))


def _card(seen: Seen, name: str, title: str) -> str:
    return render(
        "card.toml",
        seen=seen,
        columns=seen.columns,
        name=name,
        title=title,
        place=relative(seen.place),
        files={role: relative(path) for role, path in seen.files.items()},
        val=_held_out(seen, _VAL),
        test=_held_out(seen, _TEST),
    )


def _recipe(seen: Seen, name: str, title: str, card: Path, command: str) -> str:
    return render("recipe.toml", seen=seen, plan=plan(seen), name=name, title=title, card=card.name, command=command)


def _held_out(seen: Seen, share: float) -> float | int:
    """Return the share of a split, or the number of samples where the share would leave a class out."""
    classes = len(seen.per_class)
    return share if int(share * sum(seen.per_class or (seen.samples,))) >= max(classes, 1) else max(classes, 1)


def plan(seen: Seen) -> Plan:
    """Return network and training that suit the size and the number of samples."""
    side = min(seen.shape[1:]) if seen.is_picture else 0
    if not side:
        network, options = "mlp", 'hidden = "64,32"'
    elif side >= 64:
        network, options = "cnn", "width = 16, stages = 4, convs_per_stage = 1"
    else:
        network, options = "cnn", f"width = {32 if side < 32 else 16}, stages = 3, convs_per_stage = 2"
    few = seen.samples < 2000
    return Plan(
        network=network,
        options=options,
        epochs=min(max(_SAMPLES_TO_SEE // max(seen.samples, 1), 10), 60),
        batch_size=16 if seen.samples < 500 else 32 if few else 128,
        learning_rate="2e-3" if side else "3e-3",
        weight_decay="1e-3" if side else "1e-2",
        schedule="one-cycle" if side else "cosine",
        quantize_epochs=6 if few else 3,
        shift_px=max(side // 16, 1),
        flip=seen.photos,
    )


def _target_name(file: str) -> str:
    name = re.sub(r"[^a-z0-9_.-]+", "-", Path(file).stem.lower()).strip("-_.")
    return name or "my-board"


def relative(path: Path) -> str:
    """Return a path as a card beside the recipe names it: relative where it lies below the working folder."""
    whole, here = path.resolve(), Path.cwd().resolve()
    return (whole.relative_to(here) if whole.is_relative_to(here) else whole).as_posix()


def _toml(value: object) -> str:
    """Return a value as TOML writes it; JSON's strings, lists and booleans are TOML's, but for one character."""
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def _comment(text: str) -> str:
    """Return text that stays on the line of a comment, whatever data are called."""
    return shown_text(text).replace("\n", " ")


def _line(key: str, value: object, comment: str = "") -> str:
    """Return ``key = value``, and a comment in the column where all of them stand."""
    written = f"{key} = {_toml(value)}"
    return f"{written:<37} # {comment}" if comment else written


def render(template: str, **values: object) -> str:
    """Return a template of this folder with these values filled in."""
    environment = jinja2.Environment(  # noqa: S701  TOML, no HTML
        loader=jinja2.PackageLoader("pipeline.starting"),
        undefined=jinja2.StrictUndefined,
        keep_trailing_newline=True,
    )
    environment.filters |= {"toml": _toml, "comment": _comment}
    environment.globals["line"] = _line
    return environment.get_template(template).render(values)

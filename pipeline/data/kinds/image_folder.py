"""Pictures in folders: FOLDER/CLASS/*.png, or FOLDER/{train,val,test}/CLASS/*.png, and whatever else Pillow reads.

Pictures of a class may lie in deeper folders.  Where masks are wanted: FOLDER/images/NAME.* and FOLDER/masks/NAME.png
(the class of each pixel), or the same two folders in FOLDER/{train,val,test}.  Pictures are decoded once; those of very
large folders when they are read.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
from pydantic import JsonValue

from pipeline.data.checks import class_names, missing_shape, picture_shape, several_inputs
from pipeline.data.files import Found, locate_folder, sha256_of_each
from pipeline.data.folders import PictureFolder
from pipeline.data.pictures import MaskedPictureSource, PictureSource, decoded_once
from pipeline.data.source import ArraySource, Parts, Source, Wanted, decoded_fits, everything
from pipeline.declare import words
from pipeline.declare.card import DatasetCard
from pipeline.errors import DataError, nearest
from pipeline.onboard.arrays import PictureForm

_IMAGES, _MASKS = "images", "masks"


class Spec(words.Spec):
    """What only a card of a folder says."""

    folder: str | None = None  # relative to the card, to $KARUI_DATA or absolute


def missing(card: DatasetCard, own: Spec, wanted: Wanted | None) -> str:
    """Say what the card needs and has not; empty when it has all."""
    if own.folder is None:
        return "kind = \"image-folder\" needs 'folder': the folder that holds one folder per class"
    if wanted not in ("class", "mask"):
        return f"kind = \"image-folder\" holds no {wanted}s, which the task '{card.task}' learns from"
    if wanted == "mask" and card.input.resize == "fit":
        return '[input] resize = "fit": the border has no class; masks take "crop" or "squash"'
    return several_inputs(card) or missing_shape(card)


def content(card: DatasetCard, own: Spec, found: Found) -> JsonValue:
    """Return the names and sha256 of all pictures.  Raises DataError."""
    folder = _folder(card, own, found)
    paths = pictures(card, own, found)
    names = [path.relative_to(folder).as_posix() for path in paths]
    return [[name, digest] for name, digest in zip(names, sha256_of_each(paths), strict=True)]


def load(card: DatasetCard, own: Spec, found: Found, wanted: Wanted | None) -> Parts:
    """Return the pictures of the card's folder, decoded if they fit in memory.

    Raises DataError naming the file or the class; ConfigError when the card names no picture shape.
    """
    form = PictureForm(picture_shape(card), card.input.resize or "", card.input.background)
    listed = PictureFolder(folder=_folder(card, own, found))
    roots = listed.splits()
    if wanted == "mask":
        masked = {split: _masked(root, listed, len(card.classes) or None, form) for split, root in roots.items()}
        classes = class_names(card, *(source.wanted(everything(source))["mask"] for source in masked.values()))
        sources: dict[str, Source] = {split: _held(source) for split, source in masked.items()}
    else:
        classes = card.classes or tuple(path.name for path in listed.classes_in(roots["train"]))
        sources = {split: _held(_classified(root, listed, classes, form)) for split, root in roots.items()}
    return Parts(
        classes=classes,
        train=sources["train"],
        val=sources.get("val"),
        test=sources.get("test"),
        places={split: str(root) for split, root in roots.items()},
        pictures=form,
        left_out=dict(Counter(listed.left_out.values())),
    )


def pictures(card: DatasetCard, own: Spec, found: Found) -> list[Path]:
    """Return every picture of the folder in a fixed order, for the digest.  Raises DataError."""
    listed = PictureFolder(folder=_folder(card, own, found))
    return [
        picture
        for root in listed.splits().values()
        for class_folder in listed.classes_in(root)
        for picture in listed.pictures_in(class_folder)
    ]


def _folder(card: DatasetCard, own: Spec, found: Found) -> Path:
    return locate_folder(own.folder or ".", card, found.beside)


def _classified(root: Path, listed: PictureFolder, classes: tuple[str, ...], form: PictureForm) -> PictureSource:
    paths: list[Path] = []
    labels: list[int] = []
    for class_folder in listed.classes_in(root):
        if class_folder.name not in classes:
            raise DataError(
                f"'{class_folder.name}' is no class of the data set{nearest(class_folder.name, classes)}",
                where=str(class_folder),
                remedy="name it in the card's classes, or take the folder away",
            )
        here = listed.pictures_in(class_folder)
        paths += here
        labels += [classes.index(class_folder.name)] * len(here)
    return PictureSource(paths=tuple(paths), labels=np.array(labels, dtype=np.int64), form=form)


def _masked(root: Path, listed: PictureFolder, classes: int | None, form: PictureForm) -> MaskedPictureSource:
    """Pair every picture with the mask of its name."""
    for name in (_IMAGES, _MASKS):
        if not (root / name).is_dir():
            raise DataError(
                f"holds no folder '{name}'", where=str(root), remedy=f"put pictures into {_IMAGES}, masks into {_MASKS}"
            )
    others = [path for path in listed.classes_in(root) if path.name not in (_IMAGES, _MASKS)]
    listed.check_nothing_lost(root, others, f"is neither '{_IMAGES}' nor '{_MASKS}'")
    paths = {_within(path, root / _IMAGES): path for path in listed.pictures_in(root / _IMAGES)}
    masks = {_within(path, root / _MASKS): path for path in listed.pictures_in(root / _MASKS)}
    for name, path in paths.items():
        if name not in masks:
            raise DataError(
                f"has no mask '{name}.png'{nearest(name, masks)}",
                where=str(path),
                remedy=f"put the class of each of its pixels into {root / _MASKS / name}.png",
            )
    for name in masks.keys() - paths.keys():
        listed.leave_out(masks[name], "masks without a picture")
    chosen = tuple(masks[name] for name in paths)
    return MaskedPictureSource(paths=tuple(paths.values()), masks=chosen, form=form, classes=classes)


def _within(path: Path, folder: Path) -> str:
    """Return the path below a folder, without its suffix: what a picture and its mask have in common."""
    return path.relative_to(folder).with_suffix("").as_posix()


def _held(source: PictureSource | MaskedPictureSource) -> Source:
    if not decoded_fits(len(source), source.form.shape):
        source.check()  # better now than in the middle of the training
        return source
    inputs, wanted = decoded_once(source)
    return ArraySource(inputs=inputs, labels=wanted, strata=source.strata, names=source.names)

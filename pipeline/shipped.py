"""Where the content lies that comes with the package: recipes, networks, targets, cards and their data."""

from __future__ import annotations

from pathlib import Path


def shipped_folder(name: str) -> Path:
    """Return a folder of shipped content; in a checkout or an editable install it lies beside the package."""
    package = Path(__file__).resolve().parent
    shipped = package / "_shipped"
    return (shipped if shipped.is_dir() else package.parent) / name

"""A Python environment that holds a few named packages and nothing else, made of those that are installed here."""

from __future__ import annotations

import sys
import venv
from importlib.metadata import distribution
from pathlib import Path


def bare_python(folder: Path, *packages: str) -> Path:
    """Make an environment in a folder, without any network, and return its Python."""
    venv.EnvBuilder(symlinks=True, with_pip=False).create(folder)
    site = folder / "lib" / f"python{sys.version_info[0]}.{sys.version_info[1]}" / "site-packages"
    for package in packages:
        found = distribution(package)
        tops = {path.parts[0] for path in found.files or ()} - {"..", "__pycache__"}
        for top in tops:
            if not (site / top).exists():
                (site / top).symlink_to(Path(str(found.locate_file(top))).resolve())
    return folder / "bin" / "python"

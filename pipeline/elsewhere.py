"""Networks that others have written, by name: of a package of networks, or made by a function of a module.

``timm:resnet18`` and ``torchvision:resnet18`` are networks of these packages; ``mypackage.nets:build`` is a function
``build(input_shape, classes, **options)`` of a module in the recipe's folder, in the working folder, or installed.
Nothing is imported here.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import importlib.util
import re
from pathlib import Path

from pipeline.artifacts.networks import NetworkRef
from pipeline.declare.recipe import NetworkSpec
from pipeline.errors import ConfigError, nearest
from pipeline.onboard.arrays import Signature
from pipeline.runs.sources import code_digest, module_imports

PACKAGES = ("timm", "torchvision")  # whose networks have names
INSTALL = "install it: pip install -c constraints.txt -e '.[zoo]'"
_NAMED = re.compile(rf"(?:{'|'.join(PACKAGES)}):.*|[A-Za-z_][\w.]*:[A-Za-z_]\w*", re.ASCII)
_NO_VERSION = "unknown"  # of a module that belongs to no distribution


def is_elsewhere(name: str) -> bool:
    """Whether a network is named, and no file: ``timm:resnet18``, ``mypackage.nets:build``."""
    return _NAMED.fullmatch(name) is not None


def package_of(name: str) -> str:
    """Return the package of networks that a name is from; "" for a function of a module."""
    package = name.partition(":")[0]
    return package if package in PACKAGES else ""


def reference(spec: NetworkSpec, *, beside: Path | None, signature: Signature) -> NetworkRef:
    """Return the reference to a named network: its name, its version and the code of the user's own that makes it.

    ``beside``: the folder of the recipe, where modules are looked for first.  Raises ConfigError when the package or
    module is not there.
    """
    package = package_of(spec.file)
    if package:
        root, version, imports = Path(), _package_version(package, spec.file), {}
    else:
        module = spec.file.partition(":")[0]
        root, version = _place_of(module, spec.file, beside)
        imports = {name: code_digest(file.read_bytes()) for name, file in modules_of(spec.file, root, version).items()}
    return NetworkRef(
        sha256=hashlib.sha256(f"{spec.file} {version}".encode()).hexdigest(),
        imports=imports,
        options=dict(spec.options),
        signature=signature,
        path=root / spec.file,
        name=spec.file,
        version=version,
    )


def modules_of(name: str, root: Path, version: str) -> dict[str, Path]:
    """Return the modules that make a named network: full name → file; of what is installed only its own package's."""
    module = name.partition(":")[0]
    return module_imports(root, module, inside=module.partition(".")[0] if version else "")


def _package_version(package: str, name: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError as error:
        raise ConfigError(f"'{name}' is a network of {package}, which is not installed", remedy=INSTALL) from error


def _place_of(module: str, name: str, beside: Path | None) -> tuple[Path, str]:
    """Return the folder that a module lies below, and the version of what it belongs to."""
    top = module.partition(".")[0]
    folders = list(dict.fromkeys(folder.resolve() for folder in (beside, Path.cwd()) if folder is not None))
    for folder in folders:
        if module_imports(folder, module, inside=top):
            return folder, ""
    spec = importlib.util.find_spec(top)
    places = [] if spec is None else list(spec.submodule_search_locations or [spec.origin or ""])
    for place in places:
        root = Path(place).parent
        if module_imports(root, module, inside=top):
            return root, _version_of(top)
    looked_in = " and ".join(map(str, folders))
    raise ConfigError(
        f"'{name}' is found nowhere: there is no module '{module}'{_guess(module)}",
        remedy=f"looked for {module.replace('.', '/')}.py in {looked_in}, and among what is installed",
    )


def _guess(module: str) -> str:
    guess = nearest(module, PACKAGES)
    return guess if guess.startswith("; did") else ""


def _version_of(top: str) -> str:
    names = importlib.metadata.packages_distributions().get(top, ())
    return importlib.metadata.version(names[0]) if names else _NO_VERSION

"""Packages that only training needs: imported where they are used, and missed with the command that brings them."""

import importlib
import importlib.util
from types import ModuleType

# Import names, in the order in which a run needs them.
PACKAGES = ("tyro", "numpy", "yaml", "safetensors", "torchmetrics", "ot", "PIL", "matplotlib", "rich")
INSTALL = 'pip install "wgan-kernels[train]"'


class MissingPackage(ImportError):
    """A package of the ``train`` extra is not installed."""


def optional(name: str, purpose: str) -> ModuleType:
    """The module ``name``. Raises MissingPackage, which says what it is for and how to install it."""
    try:
        return importlib.import_module(name)
    except (ImportError, RuntimeError) as error:  # RuntimeError: torchvision beside a torch it was not built for
        package = name.partition(".")[0]
        raise MissingPackage(f"{purpose} needs {package} ({error}): {INSTALL}") from error


def check_installed() -> None:
    """Raises MissingPackage if a run would miss a package somewhere on its way; imports nothing."""
    if missing := [name for name in PACKAGES if importlib.util.find_spec(name) is None]:
        raise MissingPackage(f"training needs {', '.join(missing)}: {INSTALL}")

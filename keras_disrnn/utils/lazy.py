"""Load the names of a package on first use."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Mapping
from typing import Any


def load_lazily(
    package: str, *, names: Mapping[str, str], submodules: Mapping[str, str] | None = None
) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """Return the functions `__getattr__` and `__dir__` of a package with lazy names.

    Args:
        package: Name of the package, its `__name__`.
        names: Functions and classes, and the modules that define them.
        submodules: Attributes that are modules, and the full names of those modules; `None` for
            none.

    Returns:
        `__getattr__`, which imports a name on first use, and `__dir__`, which lists `__all__`.

    Example:

    >>> from keras_disrnn.utils.lazy import load_lazily
    >>> getattr_, dir_ = load_lazily("json", names={"Scanner": "json.scanner"})
    >>> getattr_("no_such_name")
    Traceback (most recent call last):
        ...
    AttributeError: module 'json' has no attribute 'no_such_name'
    >>> "dumps" in dir_()
    True
    """
    module = sys.modules.get(package) or importlib.import_module(package)

    def getattr_(name: str) -> Any:
        if name in names:
            value = getattr(importlib.import_module(names[name]), name)
        elif submodules and name in submodules:
            value = importlib.import_module(submodules[name])
        else:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        setattr(module, name, value)
        return value

    def dir_() -> list[str]:
        return sorted(module.__all__)

    return getattr_, dir_

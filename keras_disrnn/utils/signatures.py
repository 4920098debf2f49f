"""Read the arguments of a function or a class from its source, without running its module.

The command line makes its flags from the arguments of the model and of training. Their modules
import TensorFlow, which takes seconds, but their sources say all that the flags need.
"""

from __future__ import annotations

import ast
import builtins
import importlib
import importlib.util
import inspect
import types
import typing
from collections.abc import Callable
from typing import Any


class _UnknownKind(type):
    def __getattr__(cls, name: str) -> type:
        if name.startswith("__"):
            raise AttributeError(name)
        return Unknown

    def __getitem__(cls, index: Any) -> type:
        return Unknown


class Unknown(metaclass=_UnknownKind):
    """Stands in annotations for a type whose module was not imported."""


def read_function(module: str, name: str) -> Callable[..., Any]:
    """Read a function, or the constructor of a class, from the source of its module.

    The module itself is not imported. Of its imports, only those run that the defaults of the
    arguments need, and those of `typing`. So a default is a constant, or it comes from a module
    that is quick to import. A module without source is imported.

    Args:
        module: Full name of the module.
        name: Name of a function or a class on the top level of the module.

    Returns:
        A function with the arguments, the defaults, the annotations and the docstring of the
        original, and with nothing to do. The docstring is that of the class, if it is one.

    Raises:
        AttributeError: If the module does not define this name.

    Example:

    >>> import inspect
    >>> from keras_disrnn.utils.signatures import read_function
    >>> model = read_function("keras_disrnn.models.disrnn_model", "DisRNNModel")
    >>> inspect.signature(model).parameters["latent_penalty"].default
    0.003
    """
    spec = importlib.util.find_spec(module)
    loader = None if spec is None else spec.loader
    # Bytecode may be installed without the source.
    source = loader.get_source(module) if hasattr(loader, "get_source") else None  # type: ignore
    if source is None:
        return _copy(getattr(importlib.import_module(module), name))
    tree = ast.parse(source)
    found = next((node for node in tree.body if getattr(node, "name", None) == name), None)
    function = found
    if isinstance(found, ast.ClassDef):
        function = next(
            (node for node in found.body if getattr(node, "name", None) == "__init__"), None
        )
    if not isinstance(found, ast.ClassDef | ast.FunctionDef) or not isinstance(
        function, ast.FunctionDef
    ):
        raise AttributeError(f"module {module!r} has no function or constructor {name!r}")
    names = {
        node.id
        for default in (*function.args.defaults, *filter(None, function.args.kw_defaults))
        for node in ast.walk(default)
        if isinstance(node, ast.Name)
    }
    imports = [
        node
        for node in tree.body
        if isinstance(node, ast.ImportFrom)
        and (node.module in ("__future__", "typing") or names & {each.name for each in node.names})
    ]
    doc = ast.get_docstring(found, clean=False)
    function.body, function.decorator_list = [ast.Pass()], []
    space: dict[str, Any] = {"__name__": module}
    stub = ast.fix_missing_locations(ast.Module([*imports, function], []))
    code = compile(stub, f"<arguments of {module}>", "exec")
    exec(code, space)
    made = space[function.name]
    made.__doc__ = doc
    return made


def _copy(target: Any) -> Callable[..., Any]:
    function = target.__init__ if inspect.isclass(target) else target
    copy = types.FunctionType(function.__code__, function.__globals__, function.__name__)
    copy.__defaults__, copy.__kwdefaults__ = function.__defaults__, function.__kwdefaults__
    copy.__annotations__, copy.__doc__ = function.__annotations__, target.__doc__
    return copy


def resolve_annotation(annotation: str, function: Callable[..., Any]) -> Any:
    """Evaluate an annotation of a function that `read_function` returned.

    Args:
        annotation: The annotation.
        function: The function.

    Returns:
        The type. `Unknown` stands for the types that were not imported.

    Example:

    >>> from keras_disrnn.utils.signatures import read_function, resolve_annotation
    >>> train = read_function("keras_disrnn.training.fit", "train")
    >>> resolve_annotation("np.ndarray | int", train)
    keras_disrnn.utils.signatures.Unknown | int
    """
    # Resolve one at a time, because the others may have types that only checkers import.
    holder = types.SimpleNamespace(__annotations__={"it": annotation})
    space = getattr(function, "__globals__")  # noqa: B009 - mypy does not know it
    return typing.get_type_hints(holder, globalns=space, localns=_Names(space))["it"]


class _Names(dict[str, Any]):
    """The names of annotations."""

    def __init__(self, space: dict[str, Any]) -> None:
        super().__init__({**vars(builtins), **space})

    def __missing__(self, name: str) -> type:
        return Unknown

"""The public names: lazy, listed, typed."""

import ast
import importlib
import inspect
import json
import subprocess
import sys

import pytest

import keras_disrnn

SUBMODULES = (
    "analysis",
    "bandit",
    "baselines",
    "data",
    "datasets",
    "experiments",
    "export",
    "plots",
)

IMPORT = """
import json, sys, time
began = time.perf_counter()
import keras_disrnn
seconds = time.perf_counter() - began
names = dir(keras_disrnn)
print(json.dumps([seconds, sorted(sys.modules), names]))
"""


def run(program):
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_importing_the_package_is_quick_and_does_not_import_tensorflow():
    seconds, modules, names = json.loads(run(IMPORT))
    heavy = {"tensorflow", "keras", "numpy", "pandas", "matplotlib", "scipy"}
    assert heavy.isdisjoint(modules)
    print(f"import keras_disrnn: {seconds:.3f} s")
    # The aim is 0.3 s on an idle machine. A busy one gets more time.
    assert seconds < 3
    assert names == sorted(keras_disrnn.__all__)


def test_a_submodule_loads_when_it_is_used():
    program = (
        "import sys, keras_disrnn\n"
        "assert 'keras_disrnn.bandit' not in sys.modules\n"
        "print(keras_disrnn.bandit.QLearning().name)"
    )
    assert run(program).strip() == "q_learning"


def test_submodules_can_be_imported_by_name():
    from keras_disrnn import baselines, export

    assert baselines is keras_disrnn.baselines
    assert baselines.__name__ == "keras_disrnn.models.baselines"
    assert export is keras_disrnn.export
    assert export.__name__ == "keras_disrnn.io.saved_model"


def test_every_public_name_exists_and_is_listed():
    assert dir(keras_disrnn) == sorted(keras_disrnn.__all__)
    for name in keras_disrnn.__all__:
        assert getattr(keras_disrnn, name) is not None
    assert set(SUBMODULES) < set(keras_disrnn.__all__)


def test_type_checkers_see_the_same_names_as_python():
    """The imports under `TYPE_CHECKING` are a second list of the lazy names."""
    tree = ast.parse(inspect.getsource(keras_disrnn))
    imports = next(part.body for part in tree.body if isinstance(part, ast.If))
    seen = {}
    exec(compile(ast.Module(imports, []), "imports", "exec"), seen)
    for name in set(keras_disrnn.__all__) - {"__version__"}:
        assert seen[name] is getattr(keras_disrnn, name), name


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="has no attribute 'DisRNNModle'"):
        _ = keras_disrnn.DisRNNModle


@pytest.mark.parametrize("name", SUBMODULES)
def test_a_submodule_shows_its_public_names_alone(name):
    module = getattr(keras_disrnn, name)
    assert dir(module) == sorted(module.__all__)
    for each in module.__all__:
        assert getattr(module, each) is not None


# === Annotations ===


def public_functions(owner):
    """Yield (name, function) of each public function and method that this package defines."""
    for name in getattr(owner, "__all__", None) or names_defined_in(owner):
        value = getattr(owner, name)
        if inspect.isclass(value):
            yield from public_methods(value)
        elif inspect.isfunction(value):
            yield name, value
        elif inspect.ismodule(value) and owner is not keras_disrnn:
            yield from public_functions(value)


def names_defined_in(module):
    return [
        name
        for name, value in vars(module).items()
        if not name.startswith("_") and getattr(value, "__module__", None) == module.__name__
    ]


def public_methods(kind):
    for base in kind.__mro__:
        if not base.__module__.startswith("keras_disrnn"):
            continue
        for name, value in vars(base).items():
            if name.startswith("_") and name != "__init__":
                continue
            if isinstance(value, property):
                value = value.fget
            function = inspect.unwrap(getattr(value, "__func__", value))
            if inspect.isfunction(function) and "keras_disrnn" in function.__module__:
                yield f"{base.__name__}.{name}", function


def missing_annotations(function):
    """Return the parameters without a type, and "return" if the result has none."""
    parameters = list(inspect.signature(function).parameters.values())
    if parameters and parameters[0].name in ("self", "cls"):
        parameters = parameters[1:]
    missing = [each.name for each in parameters if each.annotation is each.empty]
    if "return" not in function.__annotations__ and function.__name__ != "__init__":
        missing.append("return")
    return missing


MODULES = ("keras_disrnn", *(f"keras_disrnn.{name}" for name in SUBMODULES))


@pytest.mark.parametrize("name", MODULES)
def test_every_public_function_has_types(name):
    parent, _, last = name.partition(".")
    module = importlib.import_module(parent)
    module = getattr(module, last) if last else module
    missing = {
        each: found
        for each, function in public_functions(module)
        if (found := missing_annotations(function))
    }
    assert missing == {}

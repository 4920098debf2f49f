"""Models of the authors' package (`disentangled-rnns`) as files, in and out.

Its users keep parameters as JSON (nested lists) or as a pickle, and the configuration, the fields
of its config object, in the same way.
"""

import json
from pathlib import Path

import numpy as np

from keras_disrnn.io.pickles import read_pickle
from keras_disrnn.io.reference import from_haiku, to_haiku
from keras_disrnn.utils.files import new_folder, write_text

PARAMS = "params.json"
CONFIG = "config.json"


def read_reference(params, config=None):
    """Builds our model from files of the authors' package. Nothing in them is executed.

    Args:
        params: File of the parameters `{module: {name: array}}`: JSON if its name ends in .json,
            else a pickle. It may hold the configuration too, as `{"params": ..., "config": ...}`.
        config: File of the configuration, JSON or a pickle.

    Returns:
        A built `DisRNNModel`; see `keras_disrnn.interop.from_haiku`.

    Raises:
        FileNotFoundError: If a file is not there.
        ValueError: If one cannot be read, is of no known model, or the two do not fit together.
    """
    values, fields = _read(params), None
    if isinstance(values, dict) and set(values) == {"params", "config"}:
        values, fields = values["params"], values["config"]
    if config is not None:
        if fields is not None:
            raise ValueError(f"{config}: {params} has a configuration already; give one of the two")
        fields = _read(config)
    if fields is None:
        raise ValueError(
            f"{params}: the parameters do not say which model they are of; give the file of the "
            "configuration too (in the authors' package, the fields of its config object)"
        )
    if not isinstance(fields, dict):
        raise ValueError(f"{config or params}: expected the configuration as a dict of its fields")
    try:
        return from_haiku(_arrays(values), _without_arrays(fields))
    except (TypeError, ValueError) as error:
        raise ValueError(f"{params}: {error}") from error


def write_reference(model, folder):
    """Writes our model as `params.json` and `config.json`, as the authors' package reads them.

    Args:
        model: A built `DisRNNModel` that the authors' package has too (see
            `keras_disrnn.interop.to_haiku`).
        folder: The new folder. It is made beside its place and moved there once it is whole.

    Raises:
        FileExistsError: If the folder exists.
        ValueError: If the authors' package has no such model.
    """
    params, config = to_haiku(model)
    # A float32 is a float64 too, whose shortest decimals give it back exactly.
    lists = {
        module: {name: value.astype("float64").tolist() for name, value in parameters.items()}
        for module, parameters in params.items()
    }
    with new_folder(folder) as partial:
        write_text(partial / PARAMS, json.dumps(lists, allow_nan=False) + "\n")
        write_text(partial / CONFIG, json.dumps(config, indent=2) + "\n")


def _read(path):
    if Path(path).suffix != ".json":
        return read_pickle(path)
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: expected JSON, but it cannot be read ({error})") from error


def _arrays(values):
    """`{module: {name: float32 array}}`, or an error that names what is none."""
    if not isinstance(values, dict) or not all(isinstance(each, dict) for each in values.values()):
        raise ValueError("expected parameters as {module: {name: array}}")
    arrays = {}
    for module, parameters in values.items():
        for name, value in parameters.items():
            try:
                array = np.asarray(value, "float32")
            except (TypeError, ValueError):
                raise ValueError(f"params: {module}|{name}: expected an array of numbers") from None
            if not np.isfinite(array).all():
                raise ValueError(f"params: {module}|{name}: holds NaN or an infinity")
            arrays.setdefault(module, {})[name] = array
    return arrays


def _without_arrays(fields):
    """The configuration with NumPy's numbers as Python's, so that it can be saved as JSON."""
    plain = {}
    for name, value in fields.items():
        value = value.item() if isinstance(value, np.generic) else value
        try:
            json.dumps({name: value}, allow_nan=False)
        except (TypeError, ValueError):
            raise ValueError(
                f"config: {name}: expected a number, a text or a list of texts, got "
                f"a {type(value).__name__}"
            ) from None
        plain[name] = value
    return plain

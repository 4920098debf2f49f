"""Models of the authors' package (`disentangled-rnns`, JAX): read and write them.

The package keeps parameters as a nested dict `{module: {name: array}}`, as Haiku makes them, and a
configuration as the fields of a dataclass. Users save both as JSON or as pickles. Three of its
models are a `DisRNNModel` here: the plain model (choice only), the neural model (choice and one
neural signal, read from the latents after the update), and the multi-subject model of choice.

Its multi-subject model reads the index of the subject before the observations; ours reads it after
them. Features `[subject, choice, reward]` there are `[choice, reward, subject]` here. The rows of
the input weights are reordered in the same way.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from keras_disrnn.io.pickles import read_pickle
from keras_disrnn.models.disrnn_model import CHOICE_AND_REWARD, DisRNNModel
from keras_disrnn.models.finite import check_weights
from keras_disrnn.models.penalties import PENALTIES
from keras_disrnn.utils.files import new_folder, write_text

Parameters = Mapping[str, Mapping[str, np.ndarray]]
"""Parameters of the authors' package: `{module: {name: array}}`."""

PARAMS = "params.json"
CONFIG = "config.json"

_PLAIN = "hk_disentangled_rnn"
_NEURAL = "hk_neuro_disentangled_rnn"
_SUBJECTS = "multisubject_dis_rnn"


def _penalties(*, of_dopamine: bool = False, of_subjects: bool = False) -> dict[str, str]:
    """Map the authors' names of one kind of penalties to ours."""
    return {
        penalty.reference: penalty.name
        for penalty in PENALTIES.values()
        if penalty.reference is not None
        and penalty.of_subjects == of_subjects
        and (penalty.stage == "dopamine") == of_dopamine
    }


_CONFIG = {
    "obs_size": "num_observations",
    "output_size": "num_arms",
    "latent_size": "num_latents",
    "update_net_n_units_per_layer": "update_units",
    "update_net_n_layers": "num_update_layers",
    "choice_net_n_units_per_layer": "choice_units",
    "choice_net_n_layers": "num_choice_layers",
    "activation": "activation",
    "max_latent_value": "max_latent_value",
    **_penalties(),
}
_NEURAL_CONFIG = {
    "neural_activity_net_n_units_per_layer": "dopamine_units",
    "neural_activity_net_n_layers": "num_dopamine_layers",
    **_penalties(of_dopamine=True),
}
_SUBJECTS_CONFIG = {
    "max_n_subjects": "subjects",
    "subject_embedding_size": "subject_units",
    **_penalties(of_subjects=True),
}
_NAMES = {
    _PLAIN: _CONFIG,
    _NEURAL: {**_CONFIG, **_NEURAL_CONFIG},
    _SUBJECTS: {**_CONFIG, **_SUBJECTS_CONFIG},
}
"""The authors' names of the settings of each model, and ours."""

_UNUSED = {
    _PLAIN: ("latent_multipliers",),
    _NEURAL: ("latent_multipliers",),
    _SUBJECTS: ("latent_multipliers", "subj_emb_global_multipliers"),
}
"""Multipliers that the authors' package creates and never reads."""


# === Files ===


def read_reference(
    params: str | os.PathLike[str], config: str | os.PathLike[str] | None = None
) -> DisRNNModel:
    """Build a `DisRNNModel` from files of the authors' package. Nothing in them is executed.

    Args:
        params: File of the parameters: JSON if its name ends in .json, a pickle otherwise. It may
            hold the configuration too, as `{"params": ..., "config": ...}`.
        config: File of the configuration, JSON or a pickle.

    Returns:
        A built model; see `from_haiku`.

    Raises:
        FileNotFoundError: If a file does not exist.
        ValueError: If a file cannot be read, or the parameters and the configuration are not those
            of one model.
    """
    values, fields = _read(params), None
    if isinstance(values, dict) and set(values) == {"params", "config"}:
        values, fields = values["params"], values["config"]
    if config is not None:
        if fields is not None:
            raise ValueError(
                f"{config}: expected no second configuration, because {params} has one, got both; "
                "give only one of them"
            )
        fields = _read(config)
    if fields is None:
        raise ValueError(
            f"{params}: expected a configuration with the parameters, got none; give its file too "
            "(in the authors' package, the fields of the config object)"
        )
    if not isinstance(fields, dict):
        raise ValueError(
            f"{config or params}: expected the configuration as a dict of its fields, got a "
            f"{type(fields).__name__}"
        )
    try:
        return from_haiku(_to_arrays(values), _to_plain(fields))
    except (TypeError, ValueError) as error:
        raise ValueError(f"{params}: {error}") from error


def write_reference(model: DisRNNModel, folder: str | os.PathLike[str]) -> None:
    """Write a model as `params.json` and `config.json`, which the authors' package can read.

    Args:
        model: A built model that exists in the authors' package (see `to_haiku`).
        folder: The new folder. It appears once it is complete.

    Raises:
        FileExistsError: If the folder exists.
        ValueError: If the authors' package has no such model.

    Example:

    >>> import os, tempfile
    >>> import keras_disrnn
    >>> from keras_disrnn.io.reference import read_reference, write_reference
    >>> model = keras_disrnn.DisRNNModel(num_latents=2, num_signals=0)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     there = os.path.join(folder, "model")
    ...     write_reference(model, there)
    ...     again = read_reference(
    ...         os.path.join(there, "params.json"), os.path.join(there, "config.json")
    ...     )
    >>> again.core.cell.num_latents
    2
    """
    check_weights(model)
    params, config = to_haiku(model)
    # Every float32 is a float64, and the shortest decimals of a float64 restore it exactly.
    lists = {
        module: {name: value.astype("float64").tolist() for name, value in parameters.items()}
        for module, parameters in params.items()
    }
    with new_folder(folder) as partial:
        write_text(partial / PARAMS, json.dumps(lists, allow_nan=False) + "\n")
        write_text(partial / CONFIG, json.dumps(config, indent=2) + "\n")


def _read(path: str | os.PathLike[str]) -> Any:
    if Path(path).suffix != ".json":
        return read_pickle(path)
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: expected JSON, got a file that is not ({error})") from error


def _to_arrays(values: Any) -> dict[str, dict[str, np.ndarray]]:
    """Convert parameters to float32 arrays, or raise an error that names the faulty one."""
    if not isinstance(values, dict) or not all(isinstance(each, dict) for each in values.values()):
        raise ValueError("params: expected {module: {name: array}}, got another structure")
    arrays: dict[str, dict[str, np.ndarray]] = {}
    for module, parameters in values.items():
        for name, value in parameters.items():
            try:
                array = np.asarray(value, "float32")
            except (TypeError, ValueError):
                raise ValueError(
                    f"params: {module}|{name}: expected an array of numbers, got other values"
                ) from None
            if not np.isfinite(array).all():
                raise ValueError(
                    f"params: {module}|{name}: expected finite numbers, got NaN or an infinity"
                )
            arrays.setdefault(module, {})[name] = array
    return arrays


def _to_plain(fields: dict[str, Any]) -> dict[str, Any]:
    """Convert NumPy's numbers in a configuration to Python's, so that JSON can hold them."""
    plain = {}
    for name, value in fields.items():
        value = value.item() if isinstance(value, np.generic) else value
        try:
            json.dumps({name: value}, allow_nan=False)
        except (TypeError, ValueError):
            raise ValueError(
                f"config: {name}: expected a number, a text or a list of texts, got a "
                f"{type(value).__name__}"
            ) from None
        plain[name] = value
    return plain


# === Parameters ===


def from_haiku(params: Parameters, config: Mapping[str, Any]) -> DisRNNModel:
    """Build a `DisRNNModel` from parameters of the authors' package.

    Args:
        params: `{module: {name: array}}` of the plain, the neural or the multi-subject model.
        config: The configuration as a dict.

    Returns:
        A built model. A neural model has `dopamine_timing="post"`; the other models have
        `num_signals=0`. Subjects are named `"0"`, `"1"`, ..., by their index.

    Raises:
        ValueError: If the parameters belong to no known model, or an array is missing, unknown, or
            of another shape than the configuration says.

    Example:

    >>> import keras_disrnn
    >>> from keras_disrnn.io.reference import from_haiku, to_haiku
    >>> model = keras_disrnn.DisRNNModel(num_latents=2, num_signals=0)
    >>> params, config = to_haiku(model)
    >>> config["latent_size"]
    2
    >>> from_haiku(params, config).core.cell.num_latents
    2
    """
    root = _root(params)
    names = _NAMES[root]
    missing = sorted(set(names) - set(config))
    if missing:
        raise ValueError(f"config: expected the field {missing[0]!r}, got {sorted(config)}")
    _check_sizes(params, root, config)
    arguments = {ours: config[theirs] for theirs, ours in names.items()}
    arguments["num_observations"] += root == _SUBJECTS
    model = DisRNNModel(
        **arguments,
        num_signals=1 if root == _NEURAL else 0,
        dopamine_timing="post",
        reference={
            "config": dict(config),
            **{name: _take(params, root, name).tolist() for name in _UNUSED[root]},
        },
    )
    model.trained = model.part_names
    places = _places(model, root)
    given = {(module, name) for module in params for name in params[module]}
    unknown = sorted(given - set(places) - {(root, name) for name in _UNUSED[root]})
    if unknown:
        raise ValueError(
            f"params: expected parameters of this model only, got {'|'.join(unknown[0])!r} too"
        )
    values: dict[str, tuple[Any, np.ndarray]] = {}
    for (module, name), (variable, index, transposed) in places.items():
        value = _take(params, module, name)
        value = value.T if transposed else value
        whole = values.setdefault(variable.path, (variable, np.empty(variable.shape, "float32")))[1]
        if value.shape != whole[index].shape:
            expected = whole[index].T.shape if transposed else whole[index].shape
            got = value.T.shape if transposed else value.shape
            raise ValueError(f"params: {module}|{name}: expected shape {expected}, got {got}")
        whole[index] = value
    for variable, value in values.values():
        variable.assign(value)
    return model


def to_haiku(model: DisRNNModel) -> tuple[dict[str, dict[str, np.ndarray]], dict[str, Any]]:
    """Return the parameters and the configuration of a model for the authors' package.

    Args:
        model: A built model without dopamine, or with one dopamine signal that is read from the
            latents after the update. A model of several subjects must have no dopamine.

    Returns:
        `(params, config)`, the arguments of `from_haiku`. A model that came from `from_haiku`
        returns exactly what it was made from.

    Raises:
        ValueError: If the authors' package has no such model.
    """
    if not isinstance(model, DisRNNModel):
        raise ValueError(f"model: expected a DisRNNModel, got a {type(model).__name__}")
    readout = model.dopamine_readout
    if readout is not None:
        if model.subjects:
            raise ValueError(
                f"num_signals: expected 0 in a model of {model.num_subjects} subjects, got "
                f"{model.num_signals}; the authors' multi-subject model has no neural signal"
            )
        if readout.timing != "post":
            raise ValueError(
                f"dopamine_timing: expected 'post', got {readout.timing!r}; the authors' model "
                "reads the latents after the update"
            )
        if model.num_signals != 1 or model.num_observations != CHOICE_AND_REWARD:
            raise ValueError(
                "model: expected 1 signal and 2 observations, as in the authors' neural model, got "
                f"{model.num_signals} and {model.num_observations}"
            )
    root = _SUBJECTS if model.subjects else _PLAIN if readout is None else _NEURAL
    ours = {
        **model.get_config(),
        "num_observations": model.num_trial_observations,
        "subjects": model.num_subjects,
    }
    reference = model.reference or {}
    config = {"noiseless_mode": False, "x_names": None, "y_names": None}
    config.update(reference.get("config", {}))
    config.update({theirs: ours[name] for theirs, name in _NAMES[root].items()})
    params: dict[str, dict[str, np.ndarray]] = {}
    for (module, name), (variable, index, transposed) in _places(model, root).items():
        value = np.array(variable.numpy()[index], copy=True)
        params.setdefault(module, {})[name] = value.T.copy() if transposed else value
    for name in _UNUSED[root]:
        size = ours["num_latents"] if name == "latent_multipliers" else model.subject_units
        params[root][name] = np.array(reference.get(name, [1.0] * size), "float32")
    return params, config


def _root(params: Parameters) -> str:
    for root in _NAMES:
        if root in params:
            return root
    raise ValueError(
        f"params: expected the modules of {_PLAIN!r}, {_NEURAL!r} or {_SUBJECTS!r}, got "
        f"{sorted(params)[:3]}"
    )


def _check_sizes(params: Parameters, root: str, config: Mapping[str, Any]) -> None:
    """Compare the configuration with the arrays before anything of its sizes is allocated."""
    first = f"{root}/~update_latents/update_net"
    kernel = _take(params, first, "input_weights")
    sizes = {
        "latent_size": len(np.atleast_1d(_take(params, root, "latent_inits"))),
        "update_net_n_units_per_layer": kernel.shape[-1] if kernel.ndim else 0,
        "update_net_n_layers": _count_layers(params[first]),
    }
    readouts = {"choice_net": f"{root}/~predict_targets/choice_net"}
    if root == _NEURAL:
        readouts["neural_activity_net"] = f"{root}/neural_activity_net"
    for name, module in readouts.items():
        bias = np.atleast_1d(_take(params, module, "input_biases"))
        sizes[f"{name}_n_units_per_layer"] = len(bias)
        sizes[f"{name}_n_layers"] = _count_layers(params[module])
    sizes["obs_size"] = (kernel.shape[0] if kernel.ndim else 0) - sizes["latent_size"]
    if root == _SUBJECTS:
        table = np.atleast_2d(_take(params, f"{root}/subject_embedding_weights", "w"))
        sizes["max_n_subjects"], sizes["subject_embedding_size"] = table.shape
        sizes["obs_size"] -= table.shape[1]
    output = _take(params, readouts["choice_net"], "output_biases")
    sizes["output_size"] = len(np.atleast_1d(output))
    for name, size in sizes.items():
        if config[name] != size:
            raise ValueError(
                f"config: {name}: expected {size}, as in the parameters, got {config[name]!r}"
            )


def _count_layers(parameters: Mapping[str, np.ndarray]) -> int:
    """Count the hidden layers of a network. Its input and output have biases too."""
    return sum(name.endswith("_biases") for name in parameters) - 2


def _take(params: Parameters, module: str, name: str) -> np.ndarray:
    if module not in params or name not in params[module]:
        raise ValueError(f"params: expected an array {module}|{name}, got none")
    return np.asarray(params[module][name])


def _places(model: DisRNNModel, root: str) -> dict[tuple[str, str], tuple[Any, Any, bool]]:
    """Map each array of the authors' package to (variable, index into it, whether transposed)."""
    cell = model.core.cell
    places: dict[tuple[str, str], tuple[Any, Any, bool]] = {}
    places[root, "latent_inits"] = (cell.initial_latents, ..., False)

    def bottleneck(
        name: str, layer: Any, *, transposed: bool = False, elements: slice = slice(None)
    ) -> None:
        index = (..., elements)
        places[root, f"{name}_sigma_params"] = (layer.raw_sigma, index, transposed)
        if layer.raw_multiplier is not None:
            places[root, f"{name}_multipliers"] = (layer.raw_multiplier, index, transposed)

    def network(module: str, layer: Any, *, member: tuple[int, ...] = (), before: int = 0) -> None:
        whole = (*member, ...)
        # The authors' networks read the embedding first. Ours read `before` other inputs first.
        rows = np.arange(layer.input_kernel.shape[-2])
        embedding = rows[before : before + model.subject_units]
        rows = np.concatenate([embedding, np.delete(rows, embedding)])
        places[module, "input_weights"] = (layer.input_kernel, (*member, rows), False)
        places[module, "output_weights"] = (layer.output_kernel, whole, False)
        for edge in ("input", "output"):
            places[module, f"{edge}_biases"] = (getattr(layer, f"{edge}_bias"), whole, False)
        for depth in range(layer.num_layers):
            index = (depth, *member, ...)
            places[module, f"layer_{depth}_weights"] = (layer.hidden_kernel, index, False)
            places[module, f"layer_{depth}_biases"] = (layer.hidden_bias, index, False)

    observed = model.num_trial_observations
    choice = model.choice_readout.bottleneck
    update = cell.update_obs_bottleneck
    bottleneck("update_net_obs", update, transposed=True, elements=slice(observed))
    bottleneck("update_net_latent", cell.update_latent_bottleneck, transposed=True)
    bottleneck("latent", cell.latent_bottleneck)
    embedding = model.subject_embedding
    if embedding is not None:
        places[f"{root}/subject_embedding_weights", "w"] = (embedding.kernel, ..., False)
        places[f"{root}/subject_embedding_weights", "b"] = (embedding.bias, ..., False)
        bottleneck("subj_emb_global", embedding.bottleneck)
        bottleneck("update_net_subj", update, transposed=True, elements=slice(observed, None))
        bottleneck("choice_net_latent", choice, elements=slice(cell.num_latents))
        bottleneck("choice_net_subj", choice, elements=slice(cell.num_latents, None))
    else:
        bottleneck("choice_net", choice)
    for latent in range(cell.num_latents):
        name = f"{root}/~update_latents/update_net" + (f"_{latent}" if latent else "")
        network(name, cell.update_network, member=(latent,), before=observed)
    name = f"{root}/~predict_targets/choice_net"
    network(name, model.choice_readout.network, before=cell.num_latents)
    if model.dopamine_readout is not None:
        bottleneck("neural_activity_net", model.dopamine_readout.bottleneck)
        network(f"{root}/neural_activity_net", model.dopamine_readout.network)
    return places

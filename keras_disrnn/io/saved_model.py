"""Fitted models as SavedModels, for programs that have TensorFlow and not this package.

An export is a folder: the SavedModel, its model card `README.md`, the figures of its run, and
`manifest.json`, which is written last and has the version of the format, every input and output,
and the SHA-256 of every other file.
"""

import functools
import hashlib
import json
from pathlib import Path

import keras
import tensorflow as tf
from tensorflow.core.protobuf import saved_model_pb2

from keras_disrnn import native
from keras_disrnn.io.card import read_record, write_card
from keras_disrnn.utils.files import new_folder, write_text
from keras_disrnn.version import __version__

FORMAT = "keras_disrnn.export"
VERSION = 1
"""Version of the format; it changes when a name, shape, type or meaning does."""

MANIFEST = "manifest.json"

_NEEDED = ("step", "compute_latents", "num_observations", "num_arms", "num_signals")


def export(model, path, run=None):
    """Writes a model as a SavedModel; see docs/exports.md for the whole contract.

    - `serve(features)`: whole sessions, `(sessions, rows, observations)` float32, a row of NaN
      being padding. Gives a dict of `choice`, logits `(sessions, rows, arms)` of the choice after
      each row; `dopamine` `(sessions, rows, signals)`, if the model predicts it; and `latents`
      `(sessions, rows, latents)`.
    - `step(features, latents)`: one trial of each session, `(sessions, observations)` and the
      latents before it `(sessions, latents)`. Gives the same without the axis of rows; its
      `latents` go into the next call.
    - `sample_step(features, latents, seed)`: `step`, and `next_choice`, `(sessions,)` int32, drawn
      from the predicted probabilities. `seed` is two int32; the same one gives the same draws.
    - `initial_state(sessions)`: an int32 scalar. Gives the `latents` before the first row.
    - `latents(features)`: the `latents` of `serve` alone.
    - `contract()`: the `version` of the format, int32, and `json`, every input and output.

    The first row of a session is zeros (nothing has happened yet); each further row is the choice
    and the reward of the trial before. Nothing is random but `sample_step`. The weights are
    constants of the file, not variables: it predicts and is not trained on.

    A row that holds an infinity, or a NaN beside numbers, makes every output of its session NaN
    from there on. A model of several subjects reads the subject's index as the last observation of
    every row; it may stand in a row that is NaN otherwise, and for `step` it has to. What is the
    index of no subject makes every output NaN. The manifest has their names, in order, as
    `subjects`.

    Args:
        model: A built `DisRNNModel`, or a baseline.
        path: The new folder. It is made beside its place and moved there once it is whole.
        run: The run folder that the model comes from, for the model card: its `config.yaml`,
            `metrics.json`, `environment.json`, `sessions.csv` and `figures/`.

    Returns:
        The SHA-256 of the manifest, which stands for the whole folder (see `load`).

    Raises:
        FileExistsError: If `path` exists. Nothing is ever overwritten.
        FileNotFoundError: If the run folder lacks a file.
        ValueError: If the model has no weights yet, or is of another kind.
    """
    path = Path(path)
    missing = [name for name in _NEEDED if not hasattr(model, name)]
    if missing:
        raise ValueError(
            f"model: expected a DisRNNModel or a baseline, got a {type(model).__name__}, which has "
            f"no {missing[0]!r}"
        )
    if not model.built:
        raise ValueError("model: it has no weights yet; call it or fit it before the export")
    record = None if run is None else read_record(run)

    with new_folder(path) as partial:
        contract = _contract(model, record)
        _write_saved_model(model, contract, partial)
        _name_tensors(contract, partial)
        write_card(partial / "README.md", path.name, model, contract, record)
        contract["files"] = {
            name: {"bytes": file.stat().st_size, "sha256": _sha256(file)}
            for name, file in sorted(_files(partial).items())
        }
        write_text(partial / MANIFEST, json.dumps(contract, indent=2) + "\n")
        digest = _sha256(partial / MANIFEST)
    return digest


def load(path, digest=None):
    """Loads an export after checking that it is whole and unchanged.

    Every file is held against the manifest before TensorFlow reads any. A SavedModel is a program:
    the check finds damage and changes, but whoever can write a new manifest too can pass it, unless
    `digest` comes from where they cannot write.

    Args:
        path: The folder.
        digest: What `export` returned, the SHA-256 of the manifest, to insist on that very export.

    Returns:
        What `tensorflow.saved_model.load` gives: an object with the endpoints as functions.

    Raises:
        FileNotFoundError: If there is no such folder.
        ValueError: If it is no export, of another version of the format, or not what its manifest
            says.
    """
    check(path, digest)
    return tf.saved_model.load(str(path))


def check(path, digest=None):
    """The checks of `load` alone; returns the manifest as a dict."""
    path = Path(path)
    if not path.is_dir():
        raise FileNotFoundError(f"{path}: no such folder")
    file = path / MANIFEST
    if not file.is_file():
        raise ValueError(
            f"{path}: expected an export with a {MANIFEST}, which is not there; exports of before "
            "version 1 have none, and one that was copied in part may lack it: export the model "
            "again"
        )
    if digest is not None and _sha256(file) != digest.lower():
        raise ValueError(
            f"{file}: expected the SHA-256 {digest}, got {_sha256(file)}; this is another export, "
            "or it was changed"
        )
    manifest = _read_manifest(file)
    listed, found = manifest["files"], _files(path)
    for name, expected in listed.items():
        if name not in found:
            raise ValueError(f"{path}: {name} is missing; copy the whole folder again")
        size = found[name].stat().st_size
        if size != expected["bytes"]:
            raise ValueError(
                f"{path}: expected {expected['bytes']} bytes in {name}, got {size}; copy the "
                "folder again, or export the model again"
            )
        if _sha256(found[name]) != expected["sha256"]:
            raise ValueError(
                f"{path}: {name} is not what was exported (its SHA-256 differs from the "
                "manifest's); copy the folder again, or export the model again"
            )
    for name in sorted(found.keys() - listed.keys() - {MANIFEST}):
        raise ValueError(
            f"{path}: holds {name}, which its manifest does not list; keep other files elsewhere"
        )
    return manifest


def _read_manifest(file):
    try:
        manifest = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{file}: is no JSON ({error}); export the model again") from error
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        raise ValueError(f"{file}: expected the manifest of an export of keras_disrnn")
    version = manifest.get("version")
    if version != VERSION:
        newer = isinstance(version, int) and version > VERSION
        raise ValueError(
            f"{file}: expected version {VERSION} of the format, got {version!r}; "
            + ("update keras-disrnn" if newer else "export the model again")
        )
    files = manifest.get("files")
    whole = isinstance(files, dict) and all(
        isinstance(entry, dict) and {"bytes", "sha256"} <= entry.keys() for entry in files.values()
    )
    if not whole or "saved_model.pb" not in files:
        raise ValueError(f"{file}: its list of files is broken; export the model again")
    return manifest


def _files(folder):
    """Name to path of every file but hidden ones, which TensorFlow never reads."""
    return {
        file.relative_to(folder).as_posix(): file
        for file in folder.rglob("*")
        if not file.is_dir() and not file.name.startswith(".")
    }


def _sha256(file):
    with open(file, "rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


# === The contract ===


def _contract(model, record):
    """Version, and shape, type and unit of every input and output; no tensors and files yet."""
    observations, signals = model.num_observations, model.num_signals
    latents = model.initial_latents.shape[-1]
    columns = (record.config["data"].get("columns") or {}) if record else {}
    further = list(columns.get("observations") or ())
    subjects = getattr(model, "subjects", ())
    count = observations - 2 - bool(subjects)
    further = further or [f"observation_{index + 1}" for index in range(count)]
    names = columns.get("dopamine") or [f"dopamine_{index + 1}" for index in range(signals)]
    if record is None or "columns" not in record.config["data"]:
        names = ["dopamine"] if signals == 1 else names
    names = [names] if isinstance(names, str) else list(names)

    def tensor(*shape, dtype="float32", unit):
        return {"shape": list(shape), "dtype": dtype, "unit": unit}

    def features(*axes):
        read = "".join(f", {name} as in the data" for name in further)
        if subjects:
            read += f"; last the index of the subject, 0 to {len(subjects) - 1} (see subjects)"
        unit = f"of the trial before: choice 0 to {model.num_arms - 1}, reward as in the data{read}"
        return tensor(*axes, observations, unit=unit)

    def latent(*axes):
        return tensor(*axes, latents, unit="none")

    def outputs(*axes):
        found = {"choice": tensor(*axes, model.num_arms, unit="logits of the next choice")}
        if signals:
            unit = f"as in the data: {', '.join(names)}"
            found["dopamine"] = tensor(*axes, signals, unit=unit)
        return {**found, "latents": latent(*axes)}

    def trial():
        return {"features": features(*one), "latents": latent(*one)}

    whole, one = ("sessions", "rows"), ("sessions",)
    seed = tensor(2, dtype="int32", unit="two integers, another pair for each step")
    drawn = tensor(*one, dtype="int32", unit=f"arm, 0 to {model.num_arms - 1}; -1 where undefined")
    return {
        "format": FORMAT,
        "version": VERSION,
        "package": __version__,
        "tensorflow": tf.__version__,
        "model": type(model).__name__,
        **({"subjects": list(subjects)} if subjects else {}),
        "endpoints": {
            "serve": {"inputs": {"features": features(*whole)}, "outputs": outputs(*whole)},
            "step": {"inputs": trial(), "outputs": outputs(*one)},
            "sample_step": {
                "inputs": {**trial(), "seed": seed},
                "outputs": {**outputs(*one), "next_choice": drawn},
            },
            "initial_state": {
                "inputs": {"sessions": tensor(dtype="int32", unit="number of sessions")},
                "outputs": {"latents": latent(*one)},
            },
            "latents": {
                "inputs": {"features": features(*whole)},
                "outputs": {"latents": latent(*whole)},
            },
            "contract": {
                "inputs": {},
                "outputs": {
                    "version": tensor(dtype="int32", unit="version of the format"),
                    "json": tensor(dtype="string", unit="this table as JSON"),
                },
            },
        },
    }


# === The SavedModel ===


def _write_saved_model(model, declared, folder):
    weights = [(variable, variable.numpy()) for variable in model.variables]
    text = json.dumps(declared)
    size = model.initial_latents.shape[-1]
    module = tf.Module()

    def endpoint(function):
        """Makes `function` the module's endpoint of its name."""
        own = declared["endpoints"][function.__name__]

        specs = [
            tf.TensorSpec(
                [None if isinstance(length, str) else length for length in tensor["shape"]],
                tensor["dtype"],
                name=argument,
            )
            for argument, tensor in own["inputs"].items()
        ]

        @functools.wraps(function)
        def traced(*inputs):
            # Callers of the graph alone, such as the C library, are checked nowhere else.
            inputs = [tf.ensure_shape(x, spec.shape) for x, spec in zip(inputs, specs, strict=True)]
            # Nothing native may be in the file, and the weights become constants, which TensorFlow
            # folds: it is to run where this package is not, and soon.
            with native.disabled(), keras.StatelessScope(state_mapping=weights):
                outputs = function(*inputs)
            return {k: tf.cast(v, own["outputs"][k]["dtype"]) for k, v in outputs.items()}

        concrete = tf.function(traced, specs, autograph=False).get_concrete_function()
        # The traced graph itself: of a tf.function the file would hold two copies.
        setattr(module, function.__name__, concrete)
        return concrete

    def compute(values):
        return tf.cast(values, model.compute_dtype)

    def is_spoiled(features):
        features = features[
            ..., : model.num_observations - bool(getattr(model, "subjects", ()))
        ]
        numbers = tf.math.is_finite(features)
        padding = tf.reduce_all(tf.math.is_nan(features), axis=-1)
        return ~(tf.reduce_all(numbers, axis=-1) | padding)

    def is_spoiled_so_far(features):
        return tf.cumsum(tf.cast(is_spoiled(features), tf.int32), axis=1) > 0

    def spoil(outputs, spoiled):
        return {
            name: tf.where(spoiled[..., None], tf.constant(float("nan"), value.dtype), value)
            for name, value in outputs.items()
        }

    def pad(features):
        """A row of padding at the end: neither loop nor shift can do without a row."""
        padding = tf.fill((tf.shape(features)[0], 1, model.num_observations), float("nan"))
        return tf.concat([features, padding], axis=1)

    @endpoint
    def latents(features):
        values = model.compute_latents(compute(pad(features)))[:, :-1]
        return spoil({"latents": values}, is_spoiled_so_far(features))

    @endpoint
    def serve(features):
        padded = pad(features)
        values = latents(features=padded)["latents"]
        outputs = model({"features": compute(padded), "latents": compute(values)})
        outputs = spoil({**outputs, "latents": values}, is_spoiled_so_far(padded))
        return {name: value[:, :-1] for name, value in outputs.items()}

    @endpoint
    def step(features, latents):
        tf.debugging.assert_equal(
            tf.shape(features)[0],
            tf.shape(latents)[0],
            message="features and latents: expected as many sessions in both",
        )
        spoiled = is_spoiled(features) | tf.reduce_any(~tf.math.is_finite(latents), axis=-1)
        return spoil(model.step(compute(features), compute(latents)), spoiled)

    @endpoint
    def sample_step(features, latents, seed):
        outputs = step(features=features, latents=latents)
        # A named generator and plain comparisons, so that other versions of TensorFlow draw alike.
        draws = tf.random.stateless_uniform((tf.shape(features)[0], 1), seed, alg="philox")
        below = tf.cumsum(tf.nn.softmax(outputs["choice"]), axis=-1)[:, :-1]
        drawn = tf.reduce_sum(tf.cast(draws >= below, tf.int32), axis=-1)
        undefined = tf.reduce_any(tf.math.is_nan(outputs["choice"]), axis=-1)
        return {**outputs, "next_choice": tf.where(undefined, -1, drawn)}

    @endpoint
    def initial_state(sessions):
        return {"latents": tf.broadcast_to(model.initial_latents, (sessions, size))}

    @endpoint
    def contract():
        return {"version": tf.constant(VERSION), "json": tf.constant(text)}

    signatures = {name: getattr(module, name) for name in declared["endpoints"]}
    signatures["serving_default"] = serve
    tf.saved_model.save(module, str(folder), signatures)


def _name_tensors(contract, folder):
    """Adds to the contract the graph's own name of each tensor, for TensorFlow's C library."""
    saved = saved_model_pb2.SavedModel.FromString((folder / "saved_model.pb").read_bytes())
    signatures = saved.meta_graphs[0].signature_def
    for name, declared in contract["endpoints"].items():
        for side in ("inputs", "outputs"):
            for key, info in getattr(signatures[name], side).items():
                declared[side][key]["tensor"] = info.name

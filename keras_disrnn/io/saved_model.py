"""Export fitted models as SavedModels, for programs with TensorFlow and without this package.

An export is a folder. It holds the SavedModel, the model card `README.md`, the figures of the run,
and `manifest.json`. The manifest is written last. It has the version of the format, every input and
output, and the SHA-256 of every other file.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import keras
import tensorflow as tf
from tensorflow.core.protobuf import saved_model_pb2

from keras_disrnn import native
from keras_disrnn.io.card import read_record, write_card
from keras_disrnn.io.contract import FORMAT, VERSION, make_contract
from keras_disrnn.models.finite import check_weights
from keras_disrnn.utils.files import new_folder, write_text
from keras_disrnn.utils.plain_files import parse_json

if TYPE_CHECKING:
    from keras_disrnn.models.baselines.base import Baseline
    from keras_disrnn.models.disrnn_model import DisRNNModel
    from keras_disrnn.utils.types import Tensor

__all__ = ["FORMAT", "MANIFEST", "VERSION", "check", "export", "load"]

MANIFEST = "manifest.json"

_NEEDED = ("step", "compute_latents", "num_observations", "num_arms", "num_signals")


def __dir__() -> list[str]:
    return sorted(__all__)


def export(
    model: DisRNNModel | Baseline,
    path: str | os.PathLike[str],
    *,
    run: str | os.PathLike[str] | None = None,
) -> str:
    """Write a model as a SavedModel. The full contract is in docs/exports.md.

    The SavedModel has these endpoints. Each one returns a dict of tensors.

    - `serve(features)` runs whole sessions. `features` is float32 of shape
      `(sessions, time steps, observations)`, and a time step of NaN is padding. The dict has
      `choice`, logits of the choice after each time step, `(sessions, time steps, arms)`;
      `latents`, `(sessions, time steps, latents)`; and, if the model predicts dopamine,
      `dopamine`, `(sessions, time steps, signals)`.
    - `step(features, latents)` runs one trial of each session. `features` is
      `(sessions, observations)`, and `latents` is `(sessions, latents)` from before the trial. The
      dict has the outputs of `serve` without the axis of time steps. Pass its `latents` to the
      next call.
    - `sample_step(features, latents, seed)` also returns `next_choice`, `(sessions,)` int32, drawn
      from the predicted probabilities. `seed` is two int32; the same seed gives the same draws.
    - `initial_state(sessions)` returns the `latents` before the first time step. `sessions` is an
      int32 scalar.
    - `latents(features)` returns only the `latents` of `serve`.
    - `contract()` returns the `version` of the format, int32, and `json`, a description of every
      input and output.

    The first time step of a session is zeros, because nothing has happened yet. Each later time
    step holds the choice and the reward of the trial before. Only `sample_step` is random. The
    weights are constants of the graph: the export predicts, and cannot be trained.

    A time step with an infinity, or with a NaN beside numbers, makes every later output of its
    session NaN. A model of several subjects reads the index of the subject as the last observation.
    That index may stand in a time step that is otherwise NaN, and `step` requires it. An index
    without a subject makes every output NaN. The manifest lists the names of the subjects in order,
    as `subjects`.

    Args:
        model: A built `DisRNNModel` or baseline.
        path: The new folder. It appears once it is complete.
        run: Folder of the run that made the model. The model card reads `config.yaml`,
            `metrics.json`, `environment.json`, `sessions.csv` and `figures/` from it.

    Returns:
        The SHA-256 of the manifest, which identifies the whole folder (see `load`).

    Raises:
        FileExistsError: If `path` exists. Nothing is overwritten.
        FileNotFoundError: If the run folder lacks a file.
        ValueError: If the model is of another kind, or has no weights yet, or has a weight that is
            not finite.
        OSError: If the folder cannot be written, as on a full disk.

    Example:

    >>> import os, tempfile
    >>> import keras_disrnn
    >>> model = keras_disrnn.baselines.QLearning(alpha=0.3, kappa_1=2.0, kappa_2=0.5)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     digest = keras_disrnn.export.export(model, os.path.join(folder, "q_learning"))
    ...     loaded = keras_disrnn.export.load(os.path.join(folder, "q_learning"), digest)
    >>> latents = loaded.initial_state(1)["latents"]
    >>> outputs = loaded.step([[0.0, 0.0]], latents)
    >>> sorted(outputs)
    ['choice', 'dopamine', 'latents']
    """
    path = Path(path)
    missing = [name for name in _NEEDED if not hasattr(model, name)]
    if missing:
        raise ValueError(
            f"model: expected a DisRNNModel or a baseline, got a {type(model).__name__} without "
            f"{missing[0]!r}"
        )
    if not model.built:
        raise ValueError(
            "model: expected a built model, got one without weights; call it or fit it first"
        )
    check_weights(model)
    record = None if run is None else read_record(run)

    with new_folder(path) as partial:
        contract = make_contract(model, record)
        _write_saved_model(model, contract, partial)
        _name_tensors(contract, partial)
        write_card(
            partial / "README.md", title=path.name, model=model, contract=contract, record=record
        )
        contract["files"] = {
            name: {"bytes": file.stat().st_size, "sha256": _sha256(file)}
            for name, file in sorted(_files(partial).items())
        }
        write_text(partial / MANIFEST, json.dumps(contract, indent=2) + "\n")
        digest = _sha256(partial / MANIFEST)
    return digest


def load(path: str | os.PathLike[str], digest: str | None = None) -> Any:
    """Load an export, after a check that it is complete and unchanged.

    The check compares every file with the manifest before TensorFlow reads any of them. It finds
    damage and accidental changes. A SavedModel is a program: whoever can change a file can also
    write a new manifest. Pass a `digest` that you keep elsewhere to detect that.

    Args:
        path: The folder.
        digest: The SHA-256 of the manifest, as `export` returned it. `None` accepts any manifest.

    Returns:
        The result of `tensorflow.saved_model.load`: an object with the endpoints as functions.

    Raises:
        FileNotFoundError: If the folder does not exist.
        ValueError: If the folder is not an export, has another version of the format, or differs
            from its manifest.

    Example:

    >>> import keras_disrnn
    >>> keras_disrnn.export.load("no_such_folder")
    Traceback (most recent call last):
        ...
    FileNotFoundError: no_such_folder: expected the folder of an export, got no such folder
    """
    check(path, digest)
    return tf.saved_model.load(str(path))


def check(path: str | os.PathLike[str], digest: str | None = None) -> dict[str, Any]:
    """Check an export as `load` does, without loading it.

    Args:
        path: The folder.
        digest: The SHA-256 of the manifest, as `export` returned it. `None` accepts any manifest.

    Returns:
        The manifest.

    Raises:
        FileNotFoundError: If the folder does not exist.
        ValueError: If the folder is not an export, has another version of the format, or differs
            from its manifest.

    Example:

    >>> import keras_disrnn
    >>> keras_disrnn.export.check(".")
    Traceback (most recent call last):
        ...
    ValueError: .: expected an export with a manifest.json, got a folder without one; ...
    """
    path = Path(path)
    if not path.is_dir():
        raise FileNotFoundError(f"{path}: expected the folder of an export, got no such folder")
    file = path / MANIFEST
    if not file.is_file():
        raise ValueError(
            f"{path}: expected an export with a {MANIFEST}, got a folder without one; exports from "
            "before version 1 have none, and an incomplete copy may lack it: export the model again"
        )
    if digest is not None and _sha256(file) != digest.lower():
        raise ValueError(
            f"{file}: expected the SHA-256 {digest}, got {_sha256(file)}; this is another export, "
            "or someone changed it"
        )
    manifest = _read_manifest(file)
    listed, found = manifest["files"], _files(path)
    for name, expected in listed.items():
        if name not in found:
            raise ValueError(
                f"{path}: expected the file {name}, got a folder without it; copy the whole folder "
                "again"
            )
        size = found[name].stat().st_size
        if size != expected["bytes"]:
            raise ValueError(
                f"{path}: expected {expected['bytes']} bytes in {name}, got {size}; copy the "
                "folder again, or export the model again"
            )
        if _sha256(found[name]) != expected["sha256"]:
            raise ValueError(
                f"{path}: expected {name} as it was exported, got one with another SHA-256; copy "
                "the folder again, or export the model again"
            )
    for name in sorted(found.keys() - listed.keys() - {MANIFEST}):
        raise ValueError(
            f"{path}: expected only the files of the manifest, got {name} too; keep other files "
            "elsewhere"
        )
    return manifest


def _read_manifest(file: Path) -> dict[str, Any]:
    try:
        manifest = parse_json(file.read_bytes(), file)
    except ValueError as error:
        raise ValueError(f"{error}; export the model again") from error
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        raise ValueError(f"{file}: expected the manifest of an export of keras_disrnn, got another")
    version = manifest.get("version")
    if version != VERSION:
        newer = isinstance(version, int) and version > VERSION
        raise ValueError(
            f"{file}: expected version {VERSION} of the format, got {version!r}; "
            + ("update keras-disrnn" if newer else "export the model again")
        )
    files = manifest.get("files")
    complete = (
        isinstance(files, dict)
        and "saved_model.pb" in files
        and all(
            isinstance(entry, dict) and {"bytes", "sha256"} <= entry.keys()
            for entry in files.values()
        )
    )
    if not complete:
        raise ValueError(
            f"{file}: expected the size and SHA-256 of every file, got an incomplete list; "
            "export the model again"
        )
    return manifest


def _files(folder: Path) -> dict[str, Path]:
    """Map names to paths of all files except hidden ones, which TensorFlow never reads."""
    return {
        file.relative_to(folder).as_posix(): file
        for file in folder.rglob("*")
        if not file.is_dir() and not file.name.startswith(".")
    }


def _sha256(file: Path) -> str:
    with open(file, "rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


# === The SavedModel ===


def _write_saved_model(
    model: DisRNNModel | Baseline, manifest: dict[str, Any], folder: Path
) -> None:
    weights = [(variable, variable.numpy()) for variable in model.variables]
    text = json.dumps(manifest)
    num_latents = model.initial_latents.shape[-1]
    module = tf.Module()

    def endpoint(function: Callable[..., dict[str, Tensor]]) -> Any:
        """Make `function` the endpoint of its name."""
        declared = manifest["endpoints"][function.__name__]
        specs = [
            tf.TensorSpec(
                [None if isinstance(length, str) else length for length in tensor["shape"]],
                tensor["dtype"],
                name=argument,
            )
            for argument, tensor in declared["inputs"].items()
        ]

        @functools.wraps(function)
        def traced(*inputs: Tensor) -> dict[str, Tensor]:
            # The C library runs the graph without any other check of the shapes.
            inputs = tuple(
                tf.ensure_shape(x, spec.shape) for x, spec in zip(inputs, specs, strict=True)
            )
            # The graph must run without this package, so native operations are off. The weights
            # become constants, which TensorFlow folds; that makes a step faster.
            with native.disabled(), keras.StatelessScope(state_mapping=weights):
                outputs = function(*inputs)
            # The contract leaves out a readout that was never trained.
            return {
                k: tf.cast(outputs[k], tensor["dtype"]) for k, tensor in declared["outputs"].items()
            }

        concrete = tf.function(traced, specs, autograph=False).get_concrete_function()
        # Keep the traced graph itself: a tf.function would put two copies into the file.
        setattr(module, function.__name__, concrete)
        return concrete

    def to_compute_dtype(values: Tensor) -> Tensor:
        return tf.cast(values, model.compute_dtype)

    def is_invalid(features: Tensor) -> Tensor:
        """Find time steps that are neither all numbers nor all NaN, apart from the subject."""
        count = model.num_observations - bool(getattr(model, "subjects", ()))
        observed = features[..., :count]
        padding = tf.reduce_all(tf.math.is_nan(observed), axis=-1)
        return ~(tf.reduce_all(tf.math.is_finite(observed), axis=-1) | padding)

    def is_invalid_so_far(features: Tensor) -> Tensor:
        return tf.cumsum(tf.cast(is_invalid(features), tf.int32), axis=1) > 0

    def invalidate(outputs: dict[str, Tensor], invalid: Tensor) -> dict[str, Tensor]:
        return {
            name: tf.where(invalid[..., None], tf.constant(float("nan"), value.dtype), value)
            for name, value in outputs.items()
        }

    def pad(features: Tensor) -> Tensor:
        """Append a time step of padding, because the model needs at least one time step."""
        padding = tf.fill((tf.shape(features)[0], 1, model.num_observations), float("nan"))
        return tf.concat([features, padding], axis=1)

    @endpoint
    def latents(features: Tensor) -> dict[str, Tensor]:
        values = model.compute_latents(to_compute_dtype(pad(features)))[:, :-1]
        return invalidate({"latents": values}, is_invalid_so_far(features))

    @endpoint
    def serve(features: Tensor) -> dict[str, Tensor]:
        padded = pad(features)
        values = latents(features=padded)["latents"]
        outputs = model({"features": to_compute_dtype(padded), "latents": to_compute_dtype(values)})
        outputs = invalidate({**outputs, "latents": values}, is_invalid_so_far(padded))
        return {name: value[:, :-1] for name, value in outputs.items()}

    @endpoint
    def step(features: Tensor, latents: Tensor) -> dict[str, Tensor]:
        tf.debugging.assert_equal(
            tf.shape(features)[0],
            tf.shape(latents)[0],
            message="features and latents: expected as many sessions in both",
        )
        invalid = is_invalid(features) | tf.reduce_any(~tf.math.is_finite(latents), axis=-1)
        return invalidate(
            model.step(to_compute_dtype(features), to_compute_dtype(latents)), invalid
        )

    @endpoint
    def sample_step(features: Tensor, latents: Tensor, seed: Tensor) -> dict[str, Tensor]:
        outputs = step(features=features, latents=latents)
        # Name the generator and use plain comparisons, so that every TensorFlow draws the same.
        draws = tf.random.stateless_uniform((tf.shape(features)[0], 1), seed, alg="philox")
        below = tf.cumsum(tf.nn.softmax(outputs["choice"]), axis=-1)[:, :-1]
        drawn = tf.reduce_sum(tf.cast(draws >= below, tf.int32), axis=-1)
        undefined = tf.reduce_any(tf.math.is_nan(outputs["choice"]), axis=-1)
        return {**outputs, "next_choice": tf.where(undefined, -1, drawn)}

    @endpoint
    def initial_state(sessions: Tensor) -> dict[str, Tensor]:
        return {"latents": tf.broadcast_to(model.initial_latents, (sessions, num_latents))}

    @endpoint
    def contract() -> dict[str, Tensor]:
        return {"version": tf.constant(VERSION), "json": tf.constant(text)}

    signatures = {name: getattr(module, name) for name in manifest["endpoints"]}
    signatures["serving_default"] = serve
    try:
        tf.saved_model.save(module, str(folder), signatures)
    except tf.errors.OpError as error:
        reason = str(error.message).splitlines()[0]
        raise OSError(
            f"{folder}: expected to write a SavedModel, got: {reason}; free some space, and give "
            "the command again"
        ) from error


def _name_tensors(contract: dict[str, Any], folder: Path) -> None:
    """Add the graph's own name of each tensor to the contract, for TensorFlow's C library."""
    saved = saved_model_pb2.SavedModel.FromString((folder / "saved_model.pb").read_bytes())
    signatures = saved.meta_graphs[0].signature_def
    for name, declared in contract["endpoints"].items():
        for side in ("inputs", "outputs"):
            for key, info in getattr(signatures[name], side).items():
                declared[side][key]["tensor"] = info.name

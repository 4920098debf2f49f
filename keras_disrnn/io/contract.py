"""The contract of an export: every endpoint with the shape, type and unit of its tensors."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import tensorflow as tf

from keras_disrnn.version import __version__

if TYPE_CHECKING:
    from keras_disrnn.io.card import Record
    from keras_disrnn.models.baselines.base import Baseline
    from keras_disrnn.models.disrnn_model import DisRNNModel

FORMAT = "keras_disrnn.export"
VERSION = 1
"""Version of the format. It changes when a name, shape, type or meaning changes."""


def make_contract(model: DisRNNModel | Baseline, record: Record | None) -> dict[str, Any]:
    """Describe every endpoint of a model's export.

    Args:
        model: The model.
        record: The record of its run, which names the columns of the data; `None` if unknown.

    Returns:
        The manifest of the export, still without the names of the graph's tensors and without the
        list of files.
    """
    num_latents = model.initial_latents.shape[-1]
    subjects = list(getattr(model, "subjects", ()))
    observations, signals = _column_names(model, record, bool(subjects))
    sessions, one = ("sessions", "time_steps"), ("sessions",)

    read = "".join(f", {name} as in the data" for name in observations)
    if subjects:
        read += f"; last the index of the subject, 0 to {len(subjects) - 1} (see subjects)"
    features_unit = (
        f"of the trial before: choice 0 to {model.num_arms - 1}, reward as in the data{read}"
    )

    def features(axes: tuple[str, ...]) -> dict[str, Any]:
        return _tensor(*axes, model.num_observations, unit=features_unit)

    def latents(axes: tuple[str, ...]) -> dict[str, Any]:
        return _tensor(*axes, num_latents, unit="none")

    def outputs(axes: tuple[str, ...]) -> dict[str, Any]:
        found = {"choice": _tensor(*axes, model.num_arms, unit="logits of the next choice")}
        if signals and "dopamine" not in getattr(model, "untrained_outputs", ()):
            unit = f"as in the data: {', '.join(signals)}"
            found["dopamine"] = _tensor(*axes, model.num_signals, unit=unit)
        return {**found, "latents": latents(axes)}

    def trial() -> dict[str, Any]:
        return {"features": features(one), "latents": latents(one)}

    seed = _tensor(2, dtype="int32", unit="two integers, another pair for each step")
    drawn = f"arm, 0 to {model.num_arms - 1}; -1 where undefined"
    return {
        "format": FORMAT,
        "version": VERSION,
        "package": __version__,
        "tensorflow": tf.__version__,
        "model": type(model).__name__,
        **({"subjects": subjects} if subjects else {}),
        "endpoints": {
            "serve": {"inputs": {"features": features(sessions)}, "outputs": outputs(sessions)},
            "step": {"inputs": trial(), "outputs": outputs(one)},
            "sample_step": {
                "inputs": {**trial(), "seed": seed},
                "outputs": {
                    **outputs(one),
                    "next_choice": _tensor(*one, dtype="int32", unit=drawn),
                },
            },
            "initial_state": {
                "inputs": {"sessions": _tensor(dtype="int32", unit="number of sessions")},
                "outputs": {"latents": latents(one)},
            },
            "latents": {
                "inputs": {"features": features(sessions)},
                "outputs": {"latents": latents(sessions)},
            },
            "contract": {
                "inputs": {},
                "outputs": {
                    "version": _tensor(dtype="int32", unit="version of the format"),
                    "json": _tensor(dtype="string", unit="this table as JSON"),
                },
            },
        },
    }


def _column_names(
    model: DisRNNModel | Baseline, record: Record | None, has_subjects: bool
) -> tuple[list[str], list[str]]:
    """Return the names of the further observations and of the dopamine signals."""
    columns = (record.config["data"].get("columns") or {}) if record else {}
    count = model.num_observations - 2 - has_subjects
    observations = list(columns.get("observations") or ()) or [
        f"observation_{index + 1}" for index in range(count)
    ]
    signals = columns.get("dopamine")
    if isinstance(signals, str):
        signals = [signals]
    if not signals:
        signals = [f"dopamine_{index + 1}" for index in range(model.num_signals)]
        in_table = record is not None and "columns" in record.config["data"]
        if len(signals) == 1 and not in_table:
            signals = ["dopamine"]
    return observations, list(signals)


def _tensor(*shape: int | str, dtype: str = "float32", unit: str) -> dict[str, Any]:
    """Describe a tensor. A text in `shape` names an axis of any size."""
    return {"shape": list(shape), "dtype": dtype, "unit": unit}

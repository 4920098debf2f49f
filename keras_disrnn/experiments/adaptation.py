"""Adapt a fitted model to new subjects: fit their embeddings, and nothing else."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

import keras
import networkx
import numpy as np
import pandas as pd

from keras_disrnn.analysis.bottlenecks import embedding_names
from keras_disrnn.analysis.evaluation import compute_evaluation
from keras_disrnn.analysis.graph import READOUTS, compute_graph
from keras_disrnn.analysis.subjects import compute_embeddings
from keras_disrnn.data import Sessions
from keras_disrnn.experiments.data import load_data
from keras_disrnn.experiments.embedding_search import fit_embedding, make_losses
from keras_disrnn.experiments.folder import ResultFolder, Step, compute_step
from keras_disrnn.experiments.prepared_settings import TfdsData
from keras_disrnn.experiments.settings import BATCH_SIZE, TableData, plain_config
from keras_disrnn.experiments.stored_run import digest_model, load_run
from keras_disrnn.io.keras_file import save_model
from keras_disrnn.models.disrnn_model import DisRNNModel
from keras_disrnn.utils.files import absolute_path, write_json
from keras_disrnn.utils.tables import write_csv

TARGETS = {"choice": ("choice",), "joint": ("choice", "dopamine")}
"""What an embedding can be fitted to, and the readouts that this needs."""


class Adaptation(NamedTuple):
    """A model with new subjects, and the results of their fits.

    Attributes:
        model: The model of the old subjects, followed by the new ones.
        before: The same model with the new subjects at the mean embedding of the old ones.
        subjects: A `pandas.DataFrame` with one row per new subject: `subject`; its embedding
            `subject 1`, ...; `n_choices`, to which it was fitted;
            `normalized_likelihood_before` and `normalized_likelihood` of these choices, at the mean
            embedding and at its own; and `at_limit`, whether a coordinate reached the end of the
            range that was searched. After a joint fit also `n_responses`, `mse_before` and `mse`
            (mean over signals, in squared units of the recording).
    """

    model: DisRNNModel
    before: DisRNNModel
    subjects: pd.DataFrame


def adapt(
    model: DisRNNModel,
    sessions: Sessions,
    targets: Literal["choice", "joint"] = "choice",
    *,
    step: Step = compute_step,
) -> Adaptation:
    """Fit the embeddings of subjects that are new to a model. Everything else stays as it is.

    The embedding of a new subject maximizes the likelihood of its sessions under the model without
    noise. L-BFGS-B with exact gradients finds it. The search starts from the mean embedding of the
    old subjects, or from the embedding of an old subject if that has a higher likelihood. Of many
    old subjects, some that cover the range are tried.

    With `"choice"` the likelihood is that of the choices alone, so that the model's dopamine is a
    prediction. With `"joint"` it is that of choices and dopamine. The dopamine is then normal
    around the model's response, with the variance that fits best for each signal. The joint fits
    of the baselines do the same.

    The search covers the open dimensions that lead to the targets. It covers the range of the old
    subjects and half of that range on both sides, because the networks were not trained further
    away. A new subject has the mean in the other dimensions.

    Args:
        model: A trained model with subjects. It does not change.
        sessions: Training sessions of new subjects. Those of old subjects are skipped.
        targets: `"choice"` or `"joint"`.
        step: `ResultFolder.step` of a folder that keeps each finished subject. By default nothing
            is kept.

    Returns:
        An `Adaptation`. Old subjects keep their embeddings and predictions.

    Raises:
        ValueError: If the model has no subjects, the sessions do not match the model, or no subject
            is new. Also if a new subject has no free choice or, with `"joint"`, no response.
    """
    own = check_new_subjects(model, sessions, targets)
    names = list(own)
    old = compute_embeddings(model)
    dimensions = embedding_names(model.subject_units)
    table = old[list(dimensions)].to_numpy()
    searched = [dimensions.index(name) for name in _read_dimensions(model, TARGETS[targets])]
    before = add_subjects(model, names)
    adapted = add_subjects(model, names)
    assert adapted.subject_embedding is not None
    kernel = adapted.subject_embedding.kernel
    losses = make_losses(adapted, targets)
    rows = []
    for name, part in own.items():
        index = adapted.subjects.index(name)

        def compute(name: str = name, part: Sessions = part, index: int = index) -> dict[str, Any]:
            row = fit_embedding(adapted, part, name, table, searched, dimensions, targets, losses)
            return {"row": row, "kernel": keras.ops.convert_to_numpy(kernel)[index]}

        fitted = step(f"subject-{index}", compute)
        values = keras.ops.convert_to_numpy(kernel).copy()
        values[index] = fitted["kernel"]
        kernel.assign(values)
        rows.append({"subject": name, **fitted["row"]})
    return Adaptation(adapted, before, pd.DataFrame(rows))


def check_new_subjects(model: DisRNNModel, sessions: Sessions, targets: str) -> dict[str, Sessions]:
    """Check that `adapt` can fit the new subjects of sessions.

    Args:
        model: As for `adapt`.
        sessions: As for `adapt`.
        targets: As for `adapt`.

    Returns:
        Dict of the name of each new subject to its `Sessions`.

    Raises:
        ValueError: As for `adapt`.
    """
    if targets not in TARGETS:
        raise ValueError(f"targets: expected one of {', '.join(TARGETS)}, got {targets!r}")
    compute_embeddings(model)
    names = [name for name in dict.fromkeys(sessions.subjects) if name not in model.subjects]
    if not names:
        raise ValueError(
            "sessions: expected a subject that the model does not have, got only "
            f"{', '.join(map(repr, dict.fromkeys(sessions.subjects)))}"
        )
    sessions = sessions.with_subjects(())
    kinds = [("num_observations", model.num_trial_observations), ("num_arms", model.num_arms)]
    if targets == "joint" or sessions.num_signals:
        kinds.append(("num_signals", model.num_signals))
    for kind, want in kinds:
        got = getattr(sessions, kind)
        if want != got:
            raise ValueError(f"{kind}: expected sessions with {want}, as the model has, got {got}")
    if targets == "joint" and not model.num_signals:
        raise ValueError("targets: expected 'choice' for a model without dopamine, got 'joint'")
    for output in ("choice", "dopamine") if targets == "joint" else ("choice",):
        if output in model.untrained_outputs:
            raise ValueError(
                f"model: expected a trained {output} readout for the targets {targets!r}, got one "
                "that was never trained"
            )
    own = {name: sessions.of_subjects([name]) for name in names}
    for name, part in own.items():
        if not part.choice_weight.any():
            raise ValueError(f"sessions: expected a free choice of subject {name!r}, got none")
        if targets == "joint" and not part.dopamine_weight.any():
            raise ValueError(
                f"sessions: expected a dopamine response of subject {name!r} for the targets "
                "'joint', got none; use the targets 'choice', or leave the subject out"
            )
    return own


def adapt_and_score(
    model: DisRNNModel,
    train: Sessions,
    held_out: Sessions,
    *,
    targets: Literal["choice", "joint"] = "choice",
    batch_size: int | None = None,
    step: Step = compute_step,
) -> tuple[Adaptation, dict[str, Any], pd.DataFrame]:
    """Adapt a model to new subjects, and score their sessions before and after.

    Args:
        model: As for `adapt`.
        train: Sessions that the embeddings are fitted to. Sessions of old subjects are skipped.
        held_out: Further sessions of the same subjects.
        targets: As for `adapt`.
        batch_size: Number of sessions in a batch of the scoring; `None` for all at once.
        step: As for `adapt`.

    Returns:
        The `Adaptation`; its scores, a dict of `"before"` and `"after"`, each a dict of `"train"`
        and `"held_out"` to the `summary` of `compute_evaluation`; and the scores of each session, a
        `pandas.DataFrame` like `per_session` with the further columns `part` and `moment`.

    Raises:
        ValueError: As for `adapt`, or if a new subject has no session in one of the parts.
    """
    fitted = _check_parts(model, train, held_out)
    adaptation = adapt(model, train, targets, step=step)
    scores: dict[str, Any] = {}
    tables = []
    for moment, network in (("before", adaptation.before), ("after", adaptation.model)):
        scores[moment] = {}
        for part, sessions in (("train", train), ("held_out", held_out)):
            own = sessions.of_subjects(fitted)
            evaluation = compute_evaluation(network, own, batch_size=batch_size)
            scores[moment][part] = evaluation.summary
            tables.append(evaluation.per_session.assign(part=part, moment=moment))
    return adaptation, scores, pd.concat(tables, ignore_index=True)


def summarize_adaptation(scores: Mapping[str, Any]) -> str:
    """Return the held-out scores before and after an adaptation, one line per score.

    Args:
        scores: The scores that `adapt_and_score` returned.
    """
    lines = []
    for kind, score, name in (
        ("choice", "normalized_likelihood", "normalized likelihood"),
        ("dopamine", "mse", "mean squared error of dopamine"),
    ):
        if kind in scores["after"]["held_out"]:
            before, after = (scores[when]["held_out"][kind][score] for when in ("before", "after"))
            lines.append(
                f"Held-out sessions of new subjects: {name} {before:.4f} at the mean embedding, "
                f"{after:.4f} at their own"
            )
    return "\n".join(lines)


def _check_parts(model: DisRNNModel, train: Sessions, held_out: Sessions) -> set[str]:
    """Check that both parts have sessions of every new subject, and return the new subjects."""
    fitted, scored = (set(part.subjects) - set(model.subjects) for part in (train, held_out))
    for subject in sorted(fitted ^ scored):
        lacks = "held-out" if subject in fitted else "training"
        raise ValueError(
            "sessions: expected training sessions and held-out sessions of every new subject, got "
            f"no {lacks} session of {subject!r}"
        )
    return fitted


def add_subjects(model: DisRNNModel, names: Sequence[str]) -> DisRNNModel:
    """Copy a model and add subjects at the mean embedding of its own subjects.

    Args:
        model: A built model with subjects.
        names: Names of the new subjects.

    Returns:
        The new model, built.

    Example:

    >>> import keras_disrnn
    >>> from keras_disrnn.experiments.adaptation import add_subjects
    >>> model = keras_disrnn.DisRNNModel(
    ...     num_observations=3, num_latents=1, num_signals=0, subjects=["m1", "m2"],
    ...     subject_units=1, seed=0,
    ... )
    >>> add_subjects(model, ["m3"]).subjects
    ('m1', 'm2', 'm3')
    """
    config = {**model.get_config(), "subjects": [*model.subjects, *names]}
    larger = type(model).from_config(config)
    # A subclass with its own constructor may not have its weights yet.
    larger.build((None, None, model.num_observations))
    embedding = model.subject_embedding
    assert embedding is not None
    for variable, own in zip(larger.variables, model.variables, strict=True):
        value = keras.ops.convert_to_numpy(own)
        if own is embedding.kernel:
            mean = value.mean(axis=0, keepdims=True)
            value = np.concatenate([value, np.repeat(mean, len(names), axis=0)])
        variable.assign(value)
    return larger


def _read_dimensions(model: DisRNNModel, readouts: Sequence[str]) -> list[str]:
    """Return the dimensions from which open bottlenecks lead to one of the readouts."""
    graph = compute_graph(model)
    ends = [READOUTS[name] for name in readouts if READOUTS[name] in graph]
    return [
        name
        for name in embedding_names(model.subject_units)
        if name in graph and any(networkx.has_path(graph, name, end) for end in ends)
    ]


def adapt_run(
    run: str | os.PathLike[str],
    out: str | os.PathLike[str],
    data: TableData | TfdsData,
    targets: Literal["choice", "joint"] = "choice",
) -> tuple[Adaptation, dict[str, Any]]:
    """Adapt the model of a run to new subjects, and write the result folder.

    An interrupted call resumes: finished subjects are not fitted again.

    Args:
        run: The folder of a finished run of a model with subjects.
        out: The folder: `model.keras`, with old and new subjects; `subjects.csv`, what was fitted;
            `metrics.json` and `sessions.csv`, the scores before the fit (at the mean embedding) and
            after it; `config.yaml` and `environment.json`.
        data: The table or the prepared data set of the new subjects.
        targets: As for `adapt`.

    Returns:
        The `Adaptation` and the contents of metrics.json.

    Raises:
        FileExistsError: If the folder holds anything but this adaptation, unfinished.
        FileNotFoundError, ValueError: If the run, the data or a setting are wrong.
    """
    config = plain_config({"run": absolute_path(run), "data": data, "targets": targets})
    folder = ResultFolder(out, config, command="adapt", last="metrics.json")
    model, _, _ = load_run(run)
    parts = load_data(data, 0)
    _check_parts(model, parts.train, parts.held_out)
    check_new_subjects(model, parts.train, targets)
    with folder.begin(data=f"{parts.digest}-{digest_model(run)}"):
        adaptation, scores, sessions = adapt_and_score(
            model,
            parts.train,
            parts.held_out,
            targets=targets,
            batch_size=BATCH_SIZE,
            step=folder.step,
        )
        write_csv(folder.path / "subjects.csv", adaptation.subjects)
        write_csv(folder.path / "sessions.csv", sessions)
        save_model(adaptation.model, folder.path / "model.keras")
        write_json(folder.path / "metrics.json", scores)
        folder.discard_steps()
    return adaptation, scores

"""Score a fitted model, as metrics.json has it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd

from keras_disrnn.analysis import (
    compute_bottlenecks,
    compute_evaluation,
    count_bottlenecks,
    open_embeddings,
    open_latents,
)
from keras_disrnn.analysis.graph import compute_graph, graph_to_dict
from keras_disrnn.analysis.scores import untrained_note
from keras_disrnn.data import Sessions
from keras_disrnn.experiments.data import RunData
from keras_disrnn.experiments.settings import (
    BATCH_SIZE,
)
from keras_disrnn.models.disrnn_model import DisRNNModel


def compute_metrics(model: DisRNNModel, sessions: RunData) -> tuple[dict[str, Any], pd.DataFrame]:
    """Compute the scores of a fitted model, as metrics.json has them.

    Args:
        model: The fitted model.
        sessions: The data of the run.

    Returns:
        A dict and a table with one row per session. The dict has the keys

        - `train` and `held_out`, each with the `choice` and `dopamine` scores of
          `compute_evaluation` and, with a true agent, its score and the difference to it;
        - `open_latents`, the names of the latents with an open bottleneck, and with subjects
          `open_embeddings`, the open dimensions of the embedding;
        - `bottlenecks`, the counts; `graph`, its open nodes and edges; and `parameters`, the
          number of weights;
        - `untrained`, the parts that were never trained, if there are any. Scores, graph and counts
          leave them out.
    """
    sessions = sessions.for_model(model)
    metrics: dict[str, Any] = {}
    tables = []
    for part in ("train", "held_out"):
        reference = None if sessions.truth is None else sessions.truth[part]
        evaluation = compute_evaluation(
            model, getattr(sessions, part), batch_size=BATCH_SIZE, reference=reference
        )
        scores = evaluation.summary
        if reference is not None and "choice" in scores:
            choice = scores["choice"]
            scores["true_agent"] = {
                "choice": {"normalized_likelihood": choice.pop("reference_normalized_likelihood")},
                "difference": choice.pop("difference"),
                "difference_se": choice.pop("difference_se"),
            }
        metrics[part] = scores
        tables.append(evaluation.per_session.assign(part=part))
    metrics["open_latents"] = open_latents(model)
    if model.untrained:
        metrics["untrained"] = list(model.untrained)
    if model.subjects and "subject_embedding" not in model.untrained:
        metrics["open_embeddings"] = open_embeddings(model)
    bottlenecks = compute_bottlenecks(model, sessions.train.observation_names)
    metrics["bottlenecks"] = count_bottlenecks(bottlenecks).to_dict("index")
    metrics["graph"] = graph_to_dict(compute_graph(model))
    metrics["parameters"] = model.count_params()
    return metrics, pd.concat(tables, ignore_index=True)


def summarize_metrics(metrics: Mapping[str, Any]) -> str:
    """Return the main scores of a run in one line, and a second line if parts were not trained.

    Args:
        metrics: What `compute_metrics` returned.
    """
    held_out = metrics["held_out"]
    scores = []
    if "choice" in held_out:
        choice = held_out["choice"]["normalized_likelihood"]
        scores.append(f"normalized likelihood {choice:.4f}")
    if "true_agent" in held_out:
        truth = held_out["true_agent"]["choice"]["normalized_likelihood"]
        scores[-1] += f" (true agent {truth:.4f})"
    if "dopamine" in held_out:
        scores.append(f"dopamine R^2 {held_out['dopamine']['r2']:.4f}")
    line = f"Held-out sessions: {', '.join(scores) or 'no scores'}"
    line += f"; open latents: {', '.join(metrics['open_latents']) or 'none'}"
    return "\n".join(filter(None, [line, untrained_note(metrics)]))


def score_sessions(model: DisRNNModel, sessions: Sessions) -> dict[str, Any]:
    """Score a model on sessions.

    Args:
        model: The model.
        sessions: The sessions.

    Returns:
        The scores, as metrics.json has them for one part.

    Raises:
        ValueError: If the sessions have another number of observations or arms than the model.

    Example:

    >>> import keras_disrnn
    >>> from keras_disrnn.data import Sessions
    >>> from keras_disrnn.experiments.metrics import score_sessions
    >>> sessions = Sessions.from_trials([[0, 1], [1, 1]], [[1, 0], [0, 1]])
    >>> model = keras_disrnn.DisRNNModel(num_latents=1, num_signals=0, seed=0)
    >>> score_sessions(model, sessions)["choice"]["n"]
    4
    """
    sessions = sessions.for_model(model)
    for name in ("num_observations", "num_arms"):
        want, got = getattr(model, name), getattr(sessions, name)
        if want != got:
            raise ValueError(f"{name}: expected {want}, as the model has, got a table with {got}")
    scores = compute_evaluation(model, sessions, batch_size=BATCH_SIZE).summary
    return scores | ({"untrained": list(model.untrained)} if model.untrained else {})

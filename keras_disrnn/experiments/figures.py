"""The figures of a run."""

from __future__ import annotations

import functools
import gc
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.backend_bases import FigureCanvasBase

from keras_disrnn.analysis import (
    compute_bottlenecks,
    compute_choice_rule,
    compute_dopamine_predictions,
    compute_dopamine_rule,
    compute_embeddings,
    compute_session_trace,
    compute_update_rules,
    open_embeddings,
    open_latents,
)
from keras_disrnn.data.splits import spread_sessions
from keras_disrnn.experiments.data import RunData
from keras_disrnn.experiments.settings import BATCH_SIZE
from keras_disrnn.models.disrnn_model import DisRNNModel
from keras_disrnn.plots import (
    plot_bottlenecks,
    plot_choice_rule,
    plot_dopamine_rule,
    plot_dopamine_scatter,
    plot_embeddings,
    plot_learning_curves,
    plot_model,
    plot_selection,
    plot_session,
    plot_structure,
    plot_update_rules,
    save_formats,
)

FORMATS = ("png", "pdf")
"""File name extensions of figures."""

MOST_DRAWN = 2**18
"""Trials in the figure of predicted and recorded dopamine. Of more, evenly spaced sessions."""


def check_formats(formats: Sequence[str]) -> None:
    """Check that figures can be saved in formats.

    Args:
        formats: File name extensions.

    Raises:
        ValueError: If there are none, or Matplotlib does not know one.

    Example:

    >>> from keras_disrnn.experiments.figures import check_formats
    >>> check_formats(["png", "pdf"])
    """
    known = FigureCanvasBase.get_supported_filetypes()
    for name in formats or [""]:
        if name not in known:
            raise ValueError(
                f"formats: expected file name extensions such as png, pdf and svg, got {name!r}"
            )


def save_figures(
    path: str | os.PathLike[str],
    plot: Callable[..., Any],
    *args: Any,
    formats: Sequence[str] = FORMATS,
    **kwargs: Any,
) -> None:
    """Draw a figure and save it in several formats. A failure is a warning.

    Args:
        path: The files, without their extension.
        plot: Function that returns the figure.
        *args: Its arguments.
        formats: The extensions.
        **kwargs: Its keyword arguments.
    """
    save_formats(path, plot, *args, formats=formats, **kwargs)


def draw(
    model: DisRNNModel,
    sessions: RunData,
    folder: str | os.PathLike[str],
    *,
    history: pd.DataFrame | None = None,
    metrics: Mapping[str, Any] | None = None,
    formats: Sequence[str] = FORMATS,
    selections: Mapping[str, pd.DataFrame] | None = None,
) -> None:
    """Draw the figures of a fitted model. A figure that fails is a warning; the rest are drawn.

    Args:
        model: The fitted model.
        sessions: The data of the run.
        folder: Where the figures go.
        history: The history that `train` returned, for the learning curves.
        metrics: The metrics that `compute_metrics` returned, for the score of the true agent.
        formats: File name extensions.
        selections: Stage to the table of penalty scales, if the run selected them.
    """
    sessions = sessions.for_model(model)
    train_part, held_out = sessions.train, sessions.held_out
    features = train_part.features[:BATCH_SIZE]
    # Parts that were never trained have no figures.
    choice = not {"core", "choice_readout"} & {*model.untrained}
    dopamine = (
        model.dopamine_readout is not None
        and "dopamine_readout" not in model.untrained
        and held_out.dopamine_weight.any()
    )
    # Computed when a figure needs them, so that a failure affects only that figure.
    bottlenecks = functools.cache(lambda: compute_bottlenecks(model, train_part.observation_names))
    choice_rule = functools.cache(lambda: compute_choice_rule(model, features))
    update_rules = functools.cache(lambda: compute_update_rules(model, features))
    dopamine_rule = functools.cache(lambda: compute_dopamine_rule(model, features))
    figures: dict[str, Callable[[], Any]] = {
        "bottlenecks": lambda: plot_bottlenecks(bottlenecks()),
        "paper_structure": lambda: plot_structure(bottlenecks()),
    }
    if choice:
        figures |= {
            "choice_rule": lambda: plot_choice_rule(choice_rule()),
            "update_rules": lambda: plot_update_rules(update_rules()),
            "session": lambda: plot_session(
                compute_session_trace(model, held_out, 0), latents=open_latents(model) or None
            ),
            "paper_model": lambda: plot_model(
                bottlenecks(),
                choice_rule=choice_rule(),
                update_rules=update_rules(),
                dopamine_rule=dopamine_rule() if dopamine else None,
            ),
        }
    if dopamine:
        figures["dopamine_rule"] = lambda: plot_dopamine_rule(dopamine_rule())
        figures["dopamine"] = lambda: plot_dopamine_scatter(
            compute_dopamine_predictions(
                model, spread_sessions(held_out, MOST_DRAWN), batch_size=BATCH_SIZE
            )
        )
    if model.subjects and "subject_embedding" not in model.untrained:
        figures["subjects"] = lambda: plot_embeddings(
            compute_embeddings(model), dimensions=open_embeddings(model)
        )
    if history is not None:
        truth = (metrics or {}).get("held_out", {}).get("true_agent")
        references = truth and {
            "choice_normalized_likelihood": truth["choice"]["normalized_likelihood"]
        }
        figures["learning_curves"] = lambda: plot_learning_curves(history, references=references)
    if selections:
        figures["penalties"] = lambda: plot_selection(selections)
    # Figures make many objects. The collector would look through all of TensorFlow's each time.
    gc.freeze()
    try:
        for name, plot in figures.items():
            save_figures(Path(folder) / name, plot, formats=formats)
    finally:
        gc.unfreeze()

"""The figures of a run."""

import functools
from pathlib import Path

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
from keras_disrnn.experiments.settings import BATCH_SIZE
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
    save_figure,
)


def draw(
    model, sessions, folder, history=None, metrics=None, formats=("png", "pdf"), selections=None
):
    """Draws the figures of a fitted model; one that fails warns, and the others are drawn.

    Args:
        model: The fitted model.
        sessions: A `RunData`.
        folder: Where the figures go.
        history: What `train` returned, for the learning curves.
        metrics: What `compute_metrics` returned, for the true agent's score in them.
        formats: Endings of the files.
        selections: Stage to the table of penalties tried, where they were chosen.
    """
    sessions = sessions.for_model(model)
    train_part, held_out = sessions.train, sessions.held_out
    features = train_part.features[:BATCH_SIZE]
    dopamine = model.dopamine_readout is not None and held_out.dopamine_weight.any()
    # Computed where a figure asks for them, so that what fails there leaves the others.
    bottlenecks = functools.cache(lambda: compute_bottlenecks(model, train_part.observation_names))
    choice_rule = functools.cache(lambda: compute_choice_rule(model, features))
    update_rules = functools.cache(lambda: compute_update_rules(model, features))
    dopamine_rule = functools.cache(
        lambda: compute_dopamine_rule(model, features) if dopamine else None
    )
    figures = {
        "bottlenecks": lambda: plot_bottlenecks(bottlenecks()),
        "choice_rule": lambda: plot_choice_rule(choice_rule()),
        "update_rules": lambda: plot_update_rules(update_rules()),
        "session": lambda: plot_session(
            compute_session_trace(model, held_out, 0), latents=open_latents(model) or None
        ),
        "paper_model": lambda: plot_model(
            bottlenecks(),
            choice_rule=choice_rule(),
            update_rules=update_rules(),
            dopamine_rule=dopamine_rule(),
        ),
        "paper_structure": lambda: plot_structure(bottlenecks()),
    }
    if dopamine:
        figures["dopamine_rule"] = lambda: plot_dopamine_rule(dopamine_rule())
        figures["dopamine"] = lambda: plot_dopamine_scatter(
            compute_dopamine_predictions(model, held_out, batch_size=BATCH_SIZE)
        )
    if model.subjects:
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
    for name, plot in figures.items():
        for ending in formats:
            save_figure(Path(folder) / f"{name}.{ending}", plot)

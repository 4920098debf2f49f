"""Figures of the results of `keras_disrnn.analysis`.

Functions draw in the figure or axes that they are given, or in a new figure. They neither show it
nor change the global style.
"""

from keras_disrnn.plots.ablation import plot_ablation
from keras_disrnn.plots.behaviour import plot_behaviour
from keras_disrnn.plots.bottlenecks import plot_bottlenecks
from keras_disrnn.plots.comparison import plot_comparison
from keras_disrnn.plots.dopamine import plot_dopamine_scatter
from keras_disrnn.plots.embeddings import plot_embeddings
from keras_disrnn.plots.learning import plot_learning_curves
from keras_disrnn.plots.photometry import plot_event_average
from keras_disrnn.plots.publication import plot_model, plot_structure
from keras_disrnn.plots.recovery import plot_recovery, plot_recovery_by_sessions
from keras_disrnn.plots.rules import plot_choice_rule, plot_dopamine_rule, plot_update_rules
from keras_disrnn.plots.save import save_figure, save_formats
from keras_disrnn.plots.selection import plot_selection
from keras_disrnn.plots.session import plot_session
from keras_disrnn.plots.studies import plot_penalty_curves, plot_subject_scores

__all__ = [
    "plot_ablation",
    "plot_behaviour",
    "plot_bottlenecks",
    "plot_choice_rule",
    "plot_comparison",
    "plot_dopamine_rule",
    "plot_dopamine_scatter",
    "plot_embeddings",
    "plot_event_average",
    "plot_learning_curves",
    "plot_model",
    "plot_penalty_curves",
    "plot_recovery",
    "plot_recovery_by_sessions",
    "plot_selection",
    "plot_session",
    "plot_structure",
    "plot_subject_scores",
    "plot_update_rules",
    "save_figure",
    "save_formats",
]


def __dir__() -> list[str]:
    return sorted(__all__)

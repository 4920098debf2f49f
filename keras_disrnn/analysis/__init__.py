"""Analyses of fitted models, as plain tables and arrays. Nothing here trains a model.

Names load when they are first used, so that a part of the package does not import TensorFlow
unless it needs it.
"""

from typing import TYPE_CHECKING

from keras_disrnn.utils.lazy import load_lazily

if TYPE_CHECKING:
    from keras_disrnn.analysis.behaviour import (
        Behaviour,
        better_arms_of,
        compute_behaviour,
        compute_behaviour_distances,
    )
    from keras_disrnn.analysis.bottlenecks import (
        bottleneck_matrices,
        compute_bottlenecks,
        count_bottlenecks,
        embedding_names,
        latent_names,
        open_latents,
        participation_ratio,
        sorted_latents,
    )
    from keras_disrnn.analysis.comparison import (
        comparison_latex,
        comparison_markdown,
        compute_comparison,
        compute_fold_comparison,
    )
    from keras_disrnn.analysis.evaluation import (
        Evaluation,
        compute_dopamine_predictions,
        compute_evaluation,
        jackknife_se,
    )
    from keras_disrnn.analysis.formulas import Formulas, compute_formulas, compute_subject_rates
    from keras_disrnn.analysis.graph import compute_graph, describe_graph, same_graph
    from keras_disrnn.analysis.network_rules import (
        compute_choice_rule,
        compute_dopamine_rule,
        compute_update_rules,
        rule_tables,
    )
    from keras_disrnn.analysis.predictions import Predictions, true_predictions
    from keras_disrnn.analysis.rules import ChoiceRule, DopamineRule, UpdateRule
    from keras_disrnn.analysis.seeds import compute_seed_spread
    from keras_disrnn.analysis.studies import (
        compute_agreement,
        compute_graph_clusters,
        compute_study_table,
        compute_subject_scores,
    )
    from keras_disrnn.analysis.subjects import (
        compute_embedding_correlations,
        compute_embeddings,
        embedding_of,
        open_embeddings,
    )
    from keras_disrnn.analysis.traces import add_predictions, compute_session_trace

_HOMES = {
    "Behaviour": "behaviour",
    "ChoiceRule": "rules",
    "DopamineRule": "rules",
    "Evaluation": "evaluation",
    "Formulas": "formulas",
    "Predictions": "predictions",
    "UpdateRule": "rules",
    "add_predictions": "traces",
    "better_arms_of": "behaviour",
    "bottleneck_matrices": "bottlenecks",
    "comparison_latex": "comparison",
    "comparison_markdown": "comparison",
    "compute_agreement": "studies",
    "compute_behaviour": "behaviour",
    "compute_behaviour_distances": "behaviour",
    "compute_bottlenecks": "bottlenecks",
    "compute_choice_rule": "network_rules",
    "compute_comparison": "comparison",
    "compute_dopamine_predictions": "evaluation",
    "compute_dopamine_rule": "network_rules",
    "compute_embedding_correlations": "subjects",
    "compute_embeddings": "subjects",
    "compute_evaluation": "evaluation",
    "compute_fold_comparison": "comparison",
    "compute_formulas": "formulas",
    "compute_graph": "graph",
    "compute_graph_clusters": "studies",
    "compute_seed_spread": "seeds",
    "compute_session_trace": "traces",
    "compute_study_table": "studies",
    "compute_subject_rates": "formulas",
    "compute_subject_scores": "studies",
    "compute_update_rules": "network_rules",
    "count_bottlenecks": "bottlenecks",
    "describe_graph": "graph",
    "embedding_names": "bottlenecks",
    "embedding_of": "subjects",
    "jackknife_se": "evaluation",
    "latent_names": "bottlenecks",
    "open_embeddings": "subjects",
    "open_latents": "bottlenecks",
    "participation_ratio": "bottlenecks",
    "rule_tables": "network_rules",
    "same_graph": "graph",
    "sorted_latents": "bottlenecks",
    "true_predictions": "predictions",
}
"""Public names and the modules of this package that define them."""

__all__ = [
    "Behaviour",
    "ChoiceRule",
    "DopamineRule",
    "Evaluation",
    "Formulas",
    "Predictions",
    "UpdateRule",
    "add_predictions",
    "better_arms_of",
    "bottleneck_matrices",
    "comparison_latex",
    "comparison_markdown",
    "compute_agreement",
    "compute_behaviour",
    "compute_behaviour_distances",
    "compute_bottlenecks",
    "compute_choice_rule",
    "compute_comparison",
    "compute_dopamine_predictions",
    "compute_dopamine_rule",
    "compute_embedding_correlations",
    "compute_embeddings",
    "compute_evaluation",
    "compute_fold_comparison",
    "compute_formulas",
    "compute_graph",
    "compute_graph_clusters",
    "compute_seed_spread",
    "compute_session_trace",
    "compute_study_table",
    "compute_subject_rates",
    "compute_subject_scores",
    "compute_update_rules",
    "count_bottlenecks",
    "describe_graph",
    "embedding_names",
    "embedding_of",
    "jackknife_se",
    "latent_names",
    "open_embeddings",
    "open_latents",
    "participation_ratio",
    "rule_tables",
    "same_graph",
    "sorted_latents",
    "true_predictions",
]


if not TYPE_CHECKING:
    _modules = {name: f"{__name__}.{module}" for name, module in _HOMES.items()}
    __getattr__, __dir__ = load_lazily(__name__, names=_modules)

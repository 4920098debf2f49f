"""What a fitted model holds and predicts, as plain tables and arrays."""

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
    Predictions,
    compute_dopamine_predictions,
    compute_evaluation,
    jackknife_se,
    true_predictions,
)
from keras_disrnn.analysis.formulas import (
    Formulas,
    compute_formulas,
    compute_subject_rates,
    rule_tables,
)
from keras_disrnn.analysis.graph import compute_graph, describe_graph, same_graph
from keras_disrnn.analysis.rules import (
    ChoiceRule,
    DopamineRule,
    UpdateRule,
    compute_choice_rule,
    compute_dopamine_rule,
    compute_update_rules,
)
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


def __dir__() -> list[str]:
    return sorted(__all__)

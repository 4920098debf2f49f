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
    latent_names,
    open_latents,
    participation_ratio,
    sorted_latents,
)
from keras_disrnn.analysis.comparison import comparison_markdown, compute_comparison
from keras_disrnn.analysis.evaluation import (
    Evaluation,
    compute_dopamine_predictions,
    compute_evaluation,
    jackknife_se,
)
from keras_disrnn.analysis.formulas import Formulas, compute_formulas, rule_tables
from keras_disrnn.analysis.rules import (
    ChoiceRule,
    DopamineRule,
    UpdateRule,
    compute_choice_rule,
    compute_dopamine_rule,
    compute_update_rules,
)
from keras_disrnn.analysis.traces import add_predictions, compute_session_trace

__all__ = [
    "Behaviour",
    "ChoiceRule",
    "DopamineRule",
    "Evaluation",
    "Formulas",
    "UpdateRule",
    "add_predictions",
    "better_arms_of",
    "bottleneck_matrices",
    "comparison_markdown",
    "compute_behaviour",
    "compute_behaviour_distances",
    "compute_bottlenecks",
    "compute_choice_rule",
    "compute_comparison",
    "compute_dopamine_predictions",
    "compute_dopamine_rule",
    "compute_evaluation",
    "compute_formulas",
    "compute_session_trace",
    "compute_update_rules",
    "count_bottlenecks",
    "jackknife_se",
    "latent_names",
    "open_latents",
    "participation_ratio",
    "rule_tables",
    "sorted_latents",
]

"""Captions of the figures of a run."""

FIGURES = {
    "penalties": (
        "Choice of the penalty scale",
        "Cross-validated score at each penalty scale. Bars are standard errors of the "
        "difference to the best scale, paired by session; they decide the choice. The band is "
        "the standard error of the best score itself. Below, the edges and the openness of "
        "the fit to all training sessions. The ring marks the chosen scale.",
    ),
    "bottlenecks": (
        "Bottlenecks",
        "Dark means open: information flows. A model that found a small cognitive model has "
        "few open latents, each with few inputs. The last panel shows what the dopamine "
        "readout reads, if the model has one.",
    ),
    "choice_rule": (
        "Choice rule",
        "The choice readout as a function of the open latents.",
    ),
    "dopamine_rule": (
        "Dopamine rule",
        "The predicted dopamine as a function of the open latents, for each choice and reward.",
    ),
    "update_rules": (
        "Update rules",
        "The change of each open latent on a trial as a function of its value, for each "
        "choice and reward.",
    ),
    "subjects": (
        "Subjects",
        "The coordinates of each subject along the open dimensions of the embedding, ordered "
        "by the first dimension.",
    ),
    "session": (
        "A held-out session",
        "Choices and rewards, the predictions of the model, its latents, and the dopamine "
        "response.",
    ),
    "dopamine": (
        "Dopamine, held out",
        "Predicted and recorded responses.",
    ),
    "learning_curves": (
        "Learning curves",
        "Training and held-out sessions. The loss differs between stages.",
    ),
}
"""Name of a figure to its title and its caption."""

"""Captions of the figures."""

FIGURES = {
    "penalties": (
        "Choice of the penalties",
        "Cross-validated score of each multiple of the penalties. Bars: standard error of the "
        "difference to the best, paired by session, which the choice goes by; band: of the best "
        "score by itself. Below, what the fit to all training sessions leaves open. The ring is "
        "the choice.",
    ),
    "bottlenecks": (
        "Bottlenecks",
        "Dark is open: information flows. A model that found a small cognitive model has few open "
        "latents, each fed by few inputs. The last panel shows what the dopamine readout reads, "
        "where there is one.",
    ),
    "choice_rule": ("Choice rule", "What the choice readout makes of the open latents."),
    "dopamine_rule": (
        "Dopamine rule",
        "What the dopamine readout predicts from the open latents, for each choice and reward.",
    ),
    "update_rules": (
        "Update rules",
        "How each open latent changes on a trial, by its value, for each choice and reward.",
    ),
    "subjects": (
        "Subjects",
        "What tells the subjects apart: each one's place along the open dimensions of the "
        "embedding, in the order of the first.",
    ),
    "session": (
        "A held-out session",
        "Choices and rewards, the model's predictions, its latents, and the dopamine response.",
    ),
    "dopamine": ("Dopamine, held out", "Predicted against recorded responses."),
    "learning_curves": (
        "Learning curves",
        "Training and held-out sessions. A loss means something else in each stage.",
    ),
}

"""A model of its own for each subject."""

import pandas as pd


def fit_subjects(make_model, sessions, *arguments, **settings):
    """Fits one model to each subject's sessions.

    Args:
        make_model: Function without arguments that makes an unfitted baseline.
        sessions: `keras_disrnn.data.Sessions`.
        *arguments, **settings: Of the model's `fit_sessions`.

    Returns:
        Dict of subject to fitted model, which `compute_evaluation` takes as it takes a model.

    Raises:
        ValueError: If a subject's sessions cannot be fitted; the message names the subject.
    """
    models = {}
    for subject in dict.fromkeys(sessions.subjects):
        model = make_model()
        try:
            model.fit_sessions(sessions.of_subjects([subject]), *arguments, **settings)
        except ValueError as error:
            raise ValueError(f"subject {subject!r}: {error}") from error
        models[subject] = model
    return models


def subject_estimates(models):
    """The parameters of `fit_subjects`' cognitive models, as one table.

    Args:
        models: Dict of subject to a `CognitiveModel` that was fitted.

    Returns:
        A `pandas.DataFrame`: the `estimates` of each `Fit` below a column `subject`.
    """
    tables = [model.last_fit.estimates.assign(subject=subject) for subject, model in models.items()]
    table = pd.concat(tables, ignore_index=True)
    return table[["subject", *table.columns.drop("subject")]]

"""How well a model predicts choices and dopamine, with errors over sessions."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import pandas as pd


class Evaluation(NamedTuple):
    """Scores of a model on a data set.

    Attributes:
        per_session: `pandas.DataFrame`, one row a session.
        summary: Dictionary of pooled scores under `"choice"` and, where the model predicts
            dopamine, `"dopamine"`.
    """

    per_session: pd.DataFrame
    summary: dict


class Predictions(NamedTuple):
    """What some model said of a data set, to be scored in place of a model.

    Attributes:
        choice: Logits `[S, R, arms]` of the choice after each row.
        dopamine: `[S, R, K]`, the response to the trial that each row describes, or `None`.
        parameter_count: How many numbers were fitted for it.
    """

    choice: np.ndarray
    dopamine: np.ndarray | None = None
    parameter_count: int = 0


class SessionTotals(NamedTuple):
    """The sums of each session that every score is made of, in place of a model or predictions.

    Attributes:
        choice: `[S, 2]`, log p(choice) and the number of choices.
        dopamine: `[S, K, 4]`, number, squared errors, values and squared values, the values about
            each signal's mean over all sessions; or `None`.
        parameter_count: How many numbers were fitted.
    """

    choice: np.ndarray
    dopamine: np.ndarray | None = None
    parameter_count: int = 0


def true_predictions(sessions, chosen_probability):
    """What the agent that played sessions would have predicted of them: the best that can be.

    Args:
        sessions: `keras_disrnn.data.Sessions` of an agent whose responses have no noise.
        chosen_probability: `[S, T]`, its probability of each choice that it made, in (0, 1). What
            is left is dealt evenly to the other arms, which no score asks about.

    Returns:
        The `Predictions`: its probabilities, and the responses themselves.
    """
    count, rows = sessions.choice.shape
    chosen = np.arange(sessions.num_arms) == sessions.choice[:, :-1, None]
    p = np.asarray(chosen_probability, np.float64)[..., None]
    logits = np.zeros((count, rows, sessions.num_arms))
    logits[:, :-1] = np.log(np.where(chosen, p, (1 - p) / (sessions.num_arms - 1)))
    return Predictions(logits, sessions.dopamine)


def compute_evaluation(model, sessions, *, batch_size=None, reference=None):
    """Pooled and per-session scores of a model.

    Scores are pooled over all targets with weight > 0, not averaged over sessions:

    - normalized likelihood: exp(mean log p(choice)); 1/arms is chance, higher is better
      (Miller et al. 2023).
    - MSE: mean squared error of the dopamine prediction; R^2 = 1 - SSE / SST, with SST about the
      mean of all recorded dopamine of the signal.

    Every standard error is a jackknife over sessions: each score is computed again with one session
    left out, and the error is sqrt((S - 1) / S * sum of squared deviations from their mean).
    Sessions without a target of the kind do not count, and with fewer than two that do the error is
    NaN. A score of no targets is NaN.

    Args:
        model: A Keras model from features to `{"choice": [S, R, arms], "dopamine": [S, R, K]}`,
            such as `DisRNNModel` or a baseline; `"dopamine"` may be absent. Or a dict of subject to
            such a model, each for the sessions of its subject. Or the `Predictions` themselves.
        sessions: `keras_disrnn.data.Sessions` with S sessions of up to T trials (T + 1 rows).
        batch_size: Sessions a batch; `None` for all at once.
        reference: Probabilities of another model for the same trials, such as the true agent's:
            `[S, T]` of the choice that was made or `[S, T, arms]` of every arm.

    Returns:
        An `Evaluation`. `per_session` has the columns `session`, `subject`, `n_choices`,
        `log_likelihood`, `normalized_likelihood`, with a reference `reference_log_likelihood`, and
        with dopamine (of the model and in the sessions) `n_dopamine`, `sse`, `mse`, for several
        signals also `n_dopamine_NAME` and `sse_NAME` of each. `summary["choice"]` has
        `normalized_likelihood`,
        `normalized_likelihood_se`, `n` (choices) and `sessions` and, with a reference,
        `reference_normalized_likelihood`, `difference` (model minus reference) and its
        `difference_se`, paired by session. `summary["dopamine"]` has `mse`, `mse_se`, `r2`,
        `r2_se`, `n`, `sessions`; for several signals these are the means over the signals that were
        recorded (and the total `n`), and `signals` maps each name to its own scores.

    Raises:
        ValueError: If `reference` has the wrong shape, or is not in (0, 1] where a choice counts;
            or if `model` is a dict that lacks a subject.
    """
    outputs = _predict(model, sessions, batch_size)
    counted = sessions.choice_weight > 0
    log_likelihood = _log_likelihood(outputs["choice"], sessions.choice, counted)
    choice_totals = [log_likelihood, counted.sum(axis=1)]
    columns = {
        "session": list(sessions.ids),
        "subject": list(sessions.subjects),
        "n_choices": counted.sum(axis=1),
        "log_likelihood": log_likelihood,
        "normalized_likelihood": ratio_likelihood(log_likelihood, counted.sum(axis=1)),
    }
    if reference is not None:
        reference_log = _reference_log_likelihood(reference, sessions, counted)
        columns["reference_log_likelihood"] = reference_log
        choice_totals.append(reference_log)
    summary = {"choice": _choice_summary(np.stack(choice_totals, axis=-1))}
    if "dopamine" in outputs and sessions.num_signals:
        totals = _dopamine_totals(outputs["dopamine"], sessions)
        n, sse = totals[..., 0], totals[..., 1]
        columns["n_dopamine"] = n.sum(axis=1).astype(int)
        columns["sse"] = sse.sum(axis=1)
        columns["mse"] = _divide(sse.sum(axis=1), n.sum(axis=1))
        if n.shape[1] > 1:
            for signal, name in enumerate(sessions.signal_names):
                columns[f"n_dopamine_{name}"] = n[:, signal].astype(int)
                columns[f"sse_{name}"] = sse[:, signal]
        summary["dopamine"] = _dopamine_summary(totals, sessions.signal_names)
    return Evaluation(pd.DataFrame(columns), summary)


def compute_dopamine_predictions(model, sessions, *, batch_size=None):
    """Every recorded dopamine value beside its prediction.

    Args:
        model: A Keras model with a `"dopamine"` output `[S, R, K]`, or a dict of subject to model.
        sessions: `keras_disrnn.data.Sessions` with K signals.
        batch_size: Sessions a batch; `None` for all at once.

    Returns:
        A `pandas.DataFrame` with one row a dopamine target of weight > 0 and the columns `session`,
        `trial` (from 0), `signal`, `recorded` and `predicted`, by signal, session and trial.

    Raises:
        ValueError: If the model has no dopamine output.
    """
    outputs = _predict(model, sessions, batch_size)
    if "dopamine" not in outputs:
        raise ValueError("model: expected a model with a dopamine output, got one without")
    tables = []
    for signal, name in enumerate(sessions.signal_names):
        session, row = np.nonzero(sessions.dopamine_weight[..., signal] > 0)
        tables.append(
            pd.DataFrame(
                {
                    "session": np.asarray(sessions.ids, dtype=object)[session],
                    # Row k holds the dopamine of trial k - 1.
                    "trial": row - 1,
                    "signal": name,
                    "recorded": sessions.dopamine[session, row, signal].astype(np.float64),
                    "predicted": outputs["dopamine"][session, row, signal].astype(np.float64),
                }
            )
        )
    return pd.concat(tables, ignore_index=True)


def session_totals(model, sessions, *, batch_size=None):
    """The sums of each session that every score is made of.

    Args:
        model, sessions, batch_size: As for `compute_evaluation`; `model` may also be the
            `SessionTotals` themselves.

    Returns:
        `choice` and `dopamine` of `SessionTotals`; the latter is `None` without a dopamine output.
    """
    if isinstance(model, SessionTotals):
        return model.choice, model.dopamine
    outputs = _predict(model, sessions, batch_size)
    counted = sessions.choice_weight > 0
    log_likelihood = _log_likelihood(outputs["choice"], sessions.choice, counted)
    dopamine = None
    if "dopamine" in outputs and sessions.num_signals:
        dopamine = _dopamine_totals(outputs["dopamine"], sessions)
    return np.stack([log_likelihood, counted.sum(axis=1)], axis=-1), dopamine


def stored_totals(per_session, sessions, parameter_count=0):
    """The `SessionTotals` of a model that was scored before, from its table of sessions.

    Args:
        per_session: The table of `Evaluation`, or several of them (such as those of a model of each
            subject) one below the other.
        sessions: The `keras_disrnn.data.Sessions` that were scored, in any order.
        parameter_count: How many numbers were fitted.

    Raises:
        ValueError: If a session is not in the table.
    """
    rows = per_session.set_index("session")
    for name in sessions.ids:
        if name not in rows.index:
            raise ValueError(f"per_session: expected a row of session {name!r}, got none")
    rows = rows.loc[list(sessions.ids)]
    dopamine = None
    if sessions.num_signals and "sse" in rows and rows["sse"].notna().all():
        names = ["sse"]
        if sessions.num_signals > 1:
            names = [f"sse_{name}" for name in sessions.signal_names]
        # All but the errors are the recording's own.
        dopamine = _dopamine_totals(sessions.dopamine, sessions)
        dopamine[..., 1] = rows[names].to_numpy()
    choice = rows[["log_likelihood", "n_choices"]].to_numpy(np.float64)
    return SessionTotals(choice, dopamine, parameter_count)


def jackknife_se(estimate, totals):
    """Jackknife standard error, over sessions, of a score of pooled sums.

    Args:
        estimate: Function from sums `[..., columns]` to the score `[...]`.
        totals: `[sessions, ..., columns]` sums of each session.

    Returns:
        The standard error as a float; NaN for fewer than two sessions.
    """
    count = len(totals)
    if count < 2:
        return float("nan")
    left_out = estimate(totals.sum(axis=0) - totals)
    return float(np.sqrt((count - 1) / count * np.sum((left_out - left_out.mean()) ** 2)))


def _predict(model, sessions, batch_size):
    """Outputs of a model, or of each session's subject's model, for all sessions."""
    if isinstance(model, Predictions):
        outputs = {"choice": model.choice, "dopamine": model.dopamine}
        return {name: values for name, values in outputs.items() if values is not None}
    if not isinstance(model, Mapping):
        return model.predict(sessions.for_model(model).dataset(batch_size), verbose=0)
    missing = [subject for subject in sessions.subjects if subject not in model]
    if missing:
        raise ValueError(
            f"model: expected a model of every subject of the sessions, got none of {missing[0]!r};"
            f" there are models of {', '.join(map(repr, model))}"
        )
    subjects = np.asarray(sessions.subjects, dtype=object)
    outputs = {}
    for subject in dict.fromkeys(sessions.subjects):
        where = np.flatnonzero(subjects == subject)
        own = sessions.subset(where).for_model(model[subject])
        part = model[subject].predict(own.dataset(batch_size), verbose=0)
        for name, values in part.items():
            every = outputs.setdefault(name, np.empty((len(subjects), *values.shape[1:])))
            every[where] = values
    return outputs


def _divide(numerator, denominator):
    """Quotient, NaN where the denominator is 0."""
    numerator, denominator = np.broadcast_arrays(
        np.asarray(numerator, np.float64), np.asarray(denominator, np.float64)
    )
    quotient = np.full(numerator.shape, np.nan)
    np.divide(numerator, denominator, out=quotient, where=denominator > 0)
    return quotient


def ratio_likelihood(log_likelihood, n):
    """Normalized likelihood of sums of log p and numbers of choices."""
    return np.exp(_divide(log_likelihood, n))


def _log_likelihood(logits, choice, counted):
    """Sum of log p(choice) of each session over its counted rows, in float64."""
    logits = np.asarray(logits, np.float64)
    top = logits.max(axis=-1, keepdims=True)
    log_p = logits - top - np.log(np.exp(logits - top).sum(axis=-1, keepdims=True))
    chosen = np.take_along_axis(log_p, choice[..., None].astype(np.int64), axis=-1)[..., 0]
    return np.where(counted, chosen, 0.0).sum(axis=1)


def _reference_log_likelihood(reference, sessions, counted):
    reference = np.asarray(reference, np.float64)
    count, rows = counted.shape
    trials = rows - 1
    expected = {(count, trials), (count, trials, sessions.num_arms)}
    if reference.shape not in expected:
        raise ValueError(
            f"reference: expected shape [sessions, trials] {(count, trials)} or [sessions, trials, "
            f"arms] {(count, trials, sessions.num_arms)}, got {reference.shape}"
        )
    # Choice targets stand in rows 0 to T - 1; row T has none.
    counted = counted[:, :-1]
    if reference.ndim == 3:
        choice = sessions.choice[:, :-1, None].astype(np.int64)
        reference = np.take_along_axis(reference, choice, axis=-1)[..., 0]
    valid = (reference > 0) & (reference <= 1)
    if not valid[counted].all():
        raise ValueError(
            "reference: expected probabilities in (0, 1] of every choice that counts, got "
            f"{reference[counted & ~valid][0]}"
        )
    return np.log(np.where(counted, reference, 1.0)).sum(axis=1)


def _choice_summary(totals):
    """Scores of `[S, 2 or 3]` sums of log p, number of choices and reference log p."""
    totals = totals[totals[:, 1] > 0]
    pooled = totals.sum(axis=0)

    def likelihood(sums, column=0):
        return ratio_likelihood(sums[..., column], sums[..., 1])

    summary = {
        "normalized_likelihood": float(likelihood(pooled)),
        "normalized_likelihood_se": jackknife_se(likelihood, totals),
        "n": int(pooled[1]),
        "sessions": len(totals),
    }
    if totals.shape[1] == 3:

        def difference(sums):
            return likelihood(sums) - likelihood(sums, 2)

        summary["reference_normalized_likelihood"] = float(likelihood(pooled, 2))
        summary["difference"] = float(difference(pooled))
        summary["difference_se"] = jackknife_se(difference, totals)
    return summary


def _dopamine_totals(prediction, sessions):
    """Sums `[S, K, 4]`: number, squared errors, values and squared values of each session.

    Values are taken about each signal's mean over all sessions, so that their squares lose no
    digits.
    """
    counted = sessions.dopamine_weight > 0
    recorded = np.asarray(sessions.dopamine, np.float64)
    error = np.where(counted, np.asarray(prediction, np.float64) - recorded, 0.0)
    n = counted.sum(axis=1)
    mean = np.where(counted, recorded, 0.0).sum(axis=(0, 1)) / np.maximum(n.sum(axis=0), 1)
    centred = np.where(counted, recorded - mean, 0.0)
    return np.stack(
        [n, (error**2).sum(axis=1), centred.sum(axis=1), (centred**2).sum(axis=1)], axis=-1
    )


def mean_squared_error(sums):
    """MSE of the dopamine sums `[..., 4]` of `session_totals`."""
    return _divide(sums[..., 1], sums[..., 0])


def mean_r2(sums):
    """R^2 of the dopamine sums `[..., 4]` of `session_totals`."""
    scatter = sums[..., 3] - np.where(sums[..., 0] > 0, _divide(sums[..., 2] ** 2, sums[..., 0]), 0)
    return 1.0 - _divide(sums[..., 1], scatter)


def _dopamine_summary(totals, names):
    """Scores of the sums `[S, K, 4]` of `_dopamine_totals`."""
    if totals.shape[1] == 1:
        return _signal_summary(totals[:, 0])
    recorded = totals[..., 0].sum(axis=0) > 0
    some = totals[:, recorded] if recorded.any() else totals
    mean = _signal_summary(
        some[some[..., 0].sum(axis=1) > 0], combine=lambda scores: scores.mean(axis=-1)
    )
    return {
        **mean,
        "signals": {name: _signal_summary(totals[:, signal]) for signal, name in enumerate(names)},
    }


def _signal_summary(totals, combine=lambda scores: scores):
    """Scores of `[S, 4]` sums, or of `[S, K, 4]` where `combine` joins the K scores."""
    totals = totals[totals[..., 0].reshape(len(totals), -1).sum(axis=1) > 0]
    pooled = totals.sum(axis=0)
    return {
        "mse": float(combine(mean_squared_error(pooled))),
        "mse_se": jackknife_se(lambda sums: combine(mean_squared_error(sums)), totals),
        "r2": float(combine(mean_r2(pooled))),
        "r2_se": jackknife_se(lambda sums: combine(mean_r2(sums)), totals),
        "n": int(pooled[..., 0].sum()),
        "sessions": len(totals),
    }

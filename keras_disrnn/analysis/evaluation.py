"""Scores the predictions of choices and dopamine, with standard errors over sessions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from keras_disrnn.analysis.arrays import divide, log_softmax
from keras_disrnn.analysis.predictions import SessionTotals, predict_parts, predict_sessions
from keras_disrnn.utils.memory import parts_of
from keras_disrnn.utils.tables import format_error, summarized

if TYPE_CHECKING:
    from keras_disrnn.data import Sessions


@summarized
class Evaluation(NamedTuple):
    """Scores of a model on a data set.

    Attributes:
        per_session: `pandas.DataFrame` with one row for each session.
        summary: Dict of pooled scores under `"choice"` and, if the model predicts dopamine,
            `"dopamine"`.

    Example:

    >>> import pandas as pd
    >>> from keras_disrnn.analysis import Evaluation
    >>> scores = {"normalized_likelihood": 0.6, "normalized_likelihood_se": 0.01}
    >>> Evaluation(pd.DataFrame({"session": ["a", "b"]}), {"choice": scores})
    Evaluation(sessions=2, choice normalized_likelihood=0.6000 ± 0.0100)
    """

    per_session: pd.DataFrame
    summary: dict[str, Any]

    def _contents(self) -> dict[str, object]:
        shown: dict[str, object] = {"sessions": len(self.per_session)}
        for output, scores in self.summary.items():
            for name in ("normalized_likelihood", "difference", "mse", "r2"):
                if name in scores:
                    shown[f"{output} {name}"] = format_error(scores[name], scores.get(f"{name}_se"))
        return shown


def compute_evaluation(
    model: Any,
    sessions: Sessions,
    *,
    batch_size: int | None = None,
    reference: ArrayLike | None = None,
) -> Evaluation:
    """Computes the scores of a model, pooled and for each session.

    Pooled scores are over all targets with a weight above 0. They are not averages over sessions.

    - Normalized likelihood: exp(mean log p(choice)). Chance is 1 / arms, and higher is better
      (Miller et al. 2023).
    - MSE: mean squared error of the predicted dopamine.
    - R² = 1 - SSE / SST. SST is about the mean of all recorded dopamine of the signal.

    Standard errors are jackknife errors over sessions. Each score is computed again without one
    session, and the error is sqrt((S - 1) / S * sum of squared deviations from their mean).
    Sessions without a target of the kind do not count. The error is NaN for fewer than two
    sessions, and a score without targets is NaN. A readout that was never trained
    (`model.untrained`) has no scores.

    Args:
        model: A Keras model from features to `{"choice": [S, T, arms], "dopamine": [S, T, K]}`,
            such as a `DisRNNModel` or a baseline. `"dopamine"` is optional. Or a mapping of subject
            to such a model. Or `Predictions`.
        sessions: S sessions of T time steps (at most T - 1 trials).
        batch_size: Sessions in a batch; `None` for all in one.
        reference: Probabilities of another model for the same trials, such as those of the true
            agent: `[S, trials]` of the choice that was made, or `[S, trials, arms]`.

    Returns:
        The pooled scores are in `summary`:

        - `summary["choice"]` has `normalized_likelihood`, `normalized_likelihood_se`, `n` (choices)
          and `sessions`. With a reference it also has `reference_normalized_likelihood`,
          `difference` (model minus reference) and `difference_se`, which is paired by session.
        - `summary["dopamine"]` has `mse`, `mse_se`, `r2`, `r2_se`, `n` and `sessions`. With several
          signals, scores are means over the recorded signals, `n` is the total, and `signals` maps
          each name to its own scores.

        `per_session` has the columns `session`, `subject`, `n_choices`, `log_likelihood` and
        `normalized_likelihood`; with a reference, `reference_log_likelihood`; with dopamine,
        `n_dopamine`, `sse` and `mse`; and with several signals, `n_dopamine_NAME` and `sse_NAME`.

    Raises:
        ValueError: If `reference` has the wrong shape, or is outside (0, 1] for a choice that
            counts, if `model` is a mapping that lacks a subject, or if a weight is not finite.

    Example:

    >>> import keras_disrnn
    >>> import numpy as np
    >>> from keras_disrnn.analysis import Predictions, compute_evaluation
    >>> sessions = keras_disrnn.data.Sessions.from_trials([[0, 1], [1, 1]], [[1, 0], [0, 1]])
    >>> compute_evaluation(Predictions(np.zeros((2, 3, 2))), sessions)
    Evaluation(sessions=2, choice normalized_likelihood=0.5000 ± 0.0000)
    """
    names, choice, totals = _totals(model, sessions, batch_size)
    choice_totals = [choice[:, 0], choice[:, 1]]
    columns = {
        "session": list(sessions.ids),
        "subject": list(sessions.subjects),
        "n_choices": choice[:, 1].astype(int),
        "log_likelihood": choice[:, 0],
        "normalized_likelihood": ratio_likelihood(choice[:, 0], choice[:, 1]),
    }
    if reference is not None:
        counted = sessions.choice_weight > 0
        reference_log = _reference_log_likelihood(reference, sessions, counted)
        columns["reference_log_likelihood"] = reference_log
        choice_totals.append(reference_log)
    summary = {}
    if "choice" in names:
        summary["choice"] = _choice_summary(np.stack(choice_totals, axis=-1))
    if totals is not None:
        n, sse = totals[..., 0], totals[..., 1]
        columns["n_dopamine"] = n.sum(axis=1).astype(int)
        columns["sse"] = sse.sum(axis=1)
        columns["mse"] = divide(sse.sum(axis=1), n.sum(axis=1))
        if n.shape[1] > 1:
            for signal, name in enumerate(sessions.signal_names):
                columns[f"n_dopamine_{name}"] = n[:, signal].astype(int)
                columns[f"sse_{name}"] = sse[:, signal]
        summary["dopamine"] = _dopamine_summary(totals, sessions.signal_names)
    return Evaluation(pd.DataFrame(columns), summary)


def compute_dopamine_predictions(
    model: Any, sessions: Sessions, *, batch_size: int | None = None
) -> pd.DataFrame:
    """Lists every recorded dopamine response with its prediction.

    Args:
        model: A Keras model with an output `"dopamine"` `[S, T, K]`, or a mapping of subject to
            such a model.
        sessions: S sessions with K signals.
        batch_size: Sessions in a batch; `None` for all in one.

    Returns:
        A table with one row for each response with a weight above 0, ordered by signal, session and
        trial. Its columns are `session`, `trial` (from 0), `signal`, `recorded` and `predicted`.

    Raises:
        ValueError: If the model has no dopamine output.

    Example:

    >>> import keras_disrnn
    >>> import numpy as np
    >>> from keras_disrnn.analysis import Predictions, compute_dopamine_predictions
    >>> sessions = keras_disrnn.data.Sessions.from_trials([[0]], [[1]], dopamine=[[0.5]])
    >>> predictions = Predictions(np.zeros((1, 2, 2)), np.ones((1, 2, 1)))
    >>> print(compute_dopamine_predictions(predictions, sessions).to_string(index=False))
    session  trial   signal  recorded  predicted
          0      0 dopamine       0.5        1.0
    """
    outputs = predict_sessions(model, sessions, batch_size)
    if "dopamine" not in outputs:
        raise ValueError("model: expected a model with a dopamine output, got one without")
    tables = []
    for signal, name in enumerate(sessions.signal_names):
        session, step = np.nonzero(sessions.dopamine_weight[..., signal] > 0)
        tables.append(
            pd.DataFrame(
                {
                    "session": np.asarray(sessions.ids, dtype=object)[session],
                    # Time step k describes trial k - 1.
                    "trial": step - 1,
                    "signal": name,
                    "recorded": sessions.dopamine[session, step, signal].astype(np.float64),
                    "predicted": outputs["dopamine"][session, step, signal].astype(np.float64),
                }
            )
        )
    return pd.concat(tables, ignore_index=True)


def session_totals(
    model: Any, sessions: Sessions, *, batch_size: int | None = None
) -> tuple[np.ndarray, np.ndarray | None]:
    """Computes the sums of each session that all scores are computed from.

    Args:
        model: See `compute_evaluation`; or `SessionTotals`, which are returned as they are.
        sessions: See `compute_evaluation`.
        batch_size: See `compute_evaluation`.

    Returns:
        `choice` and `dopamine` of `SessionTotals`. The latter is `None` without a dopamine output.
    """
    if isinstance(model, SessionTotals):
        return model.choice, model.dopamine
    _, choice, dopamine = _totals(model, sessions, batch_size)
    return choice, dopamine


def _totals(
    model: Any, sessions: Sessions, batch_size: int | None
) -> tuple[set[str], np.ndarray, np.ndarray | None]:
    """Computes the totals of `session_totals`, and the names of the outputs of the model."""
    names: set[str] = set()
    choice = np.zeros((len(sessions), 2))
    means = _mean_responses(sessions)
    dopamine = np.zeros((len(sessions), sessions.num_signals, 4))
    for where, outputs in predict_parts(model, sessions, batch_size):
        names |= outputs.keys()
        counted = sessions.choice_weight[where] > 0
        choice[where, 0] = _log_likelihood(outputs.get("choice"), sessions.choice[where], counted)
        choice[where, 1] = counted.sum(axis=1)
        if "dopamine" in outputs and sessions.num_signals:
            dopamine[where] = _dopamine_totals(outputs["dopamine"], sessions, where, means)
    return names, choice, dopamine if "dopamine" in names and sessions.num_signals else None


def stored_totals(
    per_session: pd.DataFrame, sessions: Sessions, *, parameter_count: int = 0
) -> SessionTotals:
    """Recovers the sums of a model from the scores of its sessions.

    Args:
        per_session: The table of an `Evaluation`, or several such tables concatenated, such as
            those of the models of each subject.
        sessions: The sessions that were scored, in any order.
        parameter_count: Number of fitted parameters.

    Returns:
        The sums of each session, in the order of `sessions`.

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
        # Only the squared errors depend on the model; the other sums are those of the recording.
        whole = slice(None)
        means = _mean_responses(sessions)
        dopamine = _dopamine_totals(sessions.dopamine, sessions, whole, means)
        dopamine[..., 1] = rows[names].to_numpy()
    choice = rows[["log_likelihood", "n_choices"]].to_numpy(np.float64)
    return SessionTotals(choice, dopamine, parameter_count)


def jackknife_se(estimate: Callable[[np.ndarray], np.ndarray], totals: np.ndarray) -> float:
    """Computes the jackknife standard error, over sessions, of a score of pooled sums.

    Args:
        estimate: Function from sums `[..., columns]` to the score `[...]`.
        totals: `[sessions, ..., columns]` sums of each session.

    Returns:
        The standard error; NaN for fewer than two sessions.

    Example:

    >>> import numpy as np
    >>> from keras_disrnn.analysis import jackknife_se
    >>> values = np.array([[1.0, 1.0], [3.0, 1.0]])  # Sums and counts.
    >>> jackknife_se(lambda sums: sums[..., 0] / sums[..., 1], values)
    1.0
    """
    count = len(totals)
    if count < 2:
        return float("nan")
    without = estimate(totals.sum(axis=0) - totals)
    return float(np.sqrt((count - 1) / count * np.sum((without - without.mean()) ** 2)))


def ratio_likelihood(log_likelihood: ArrayLike, n: ArrayLike) -> np.ndarray:
    """Computes the normalized likelihood from sums of log p and numbers of choices."""
    return np.exp(divide(log_likelihood, n))


def _log_likelihood(
    logits: ArrayLike | None, choice: np.ndarray, counted: np.ndarray
) -> np.ndarray:
    """Sums log p(choice) of each session over its counted time steps; NaN without logits."""
    if logits is None:
        return np.full(len(choice), np.nan)
    log_p = log_softmax(logits)
    chosen = np.take_along_axis(log_p, choice[..., None].astype(np.int64), axis=-1)[..., 0]
    return np.where(counted, chosen, 0.0).sum(axis=1)


def _reference_log_likelihood(
    reference: ArrayLike, sessions: Sessions, counted: np.ndarray
) -> np.ndarray:
    """Sums the log probabilities of a reference over the counted choices of each session."""
    reference = np.asarray(reference, np.float64)
    count, steps = counted.shape
    trials = steps - 1
    expected = {(count, trials), (count, trials, sessions.num_arms)}
    if reference.shape not in expected:
        raise ValueError(
            f"reference: expected shape [sessions, trials] {(count, trials)} or [sessions, trials, "
            f"arms] {(count, trials, sessions.num_arms)}, got {reference.shape}"
        )
    # The last time step has no choice target.
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


def _choice_summary(totals: np.ndarray) -> dict[str, Any]:
    """Computes scores from `[S, 2 or 3]` sums: log p, number of choices and reference log p."""
    totals = totals[totals[:, 1] > 0]
    pooled = totals.sum(axis=0)

    def likelihood(sums: np.ndarray, column: int = 0) -> np.ndarray:
        return ratio_likelihood(sums[..., column], sums[..., 1])

    summary = {
        "normalized_likelihood": float(likelihood(pooled)),
        "normalized_likelihood_se": jackknife_se(likelihood, totals),
        "n": int(pooled[1]),
        "sessions": len(totals),
    }
    if totals.shape[1] == 3:

        def difference(sums: np.ndarray) -> np.ndarray:
            return likelihood(sums) - likelihood(sums, 2)

        summary["reference_normalized_likelihood"] = float(likelihood(pooled, 2))
        summary["difference"] = float(difference(pooled))
        summary["difference_se"] = jackknife_se(difference, totals)
    return summary


def _mean_responses(sessions: Sessions) -> np.ndarray:
    """Computes the mean `[K]` of the recorded responses of each signal; 0 if there are none."""
    sums, n = np.zeros(sessions.num_signals), np.zeros(sessions.num_signals)
    for part in parts_of(len(sessions), 8 * sessions.dopamine[0].size):
        counted = sessions.dopamine_weight[part] > 0
        recorded = sessions.dopamine[part].astype(np.float64)
        sums += np.where(counted, recorded, 0.0).sum(axis=(0, 1))
        n += counted.sum(axis=(0, 1))
    return sums / np.maximum(n, 1)


def _dopamine_totals(
    prediction: np.ndarray, sessions: Sessions, where: slice, means: np.ndarray
) -> np.ndarray:
    """Computes `SessionTotals.dopamine` of some sessions.

    Responses are taken relative to their mean, so that their squares lose no digits.

    Args:
        prediction: `[sessions, T, K]`, of these sessions.
        sessions: All sessions.
        where: Which ones these are.
        means: The mean response of each signal, over all sessions.
    """
    counted = sessions.dopamine_weight[where] > 0
    recorded = np.asarray(sessions.dopamine[where], np.float64)
    error = np.where(counted, np.asarray(prediction, np.float64) - recorded, 0.0)
    centred = np.where(counted, recorded - means, 0.0)
    return np.stack(
        [
            counted.sum(axis=1),
            (error**2).sum(axis=1),
            centred.sum(axis=1),
            (centred**2).sum(axis=1),
        ],
        axis=-1,
    )


def mean_squared_error(sums: np.ndarray) -> np.ndarray:
    """Computes the MSE from the dopamine sums `[..., 4]` of `session_totals`."""
    return divide(sums[..., 1], sums[..., 0])


def mean_r2(sums: np.ndarray) -> np.ndarray:
    """Computes R² from the dopamine sums `[..., 4]` of `session_totals`."""
    scatter = sums[..., 3] - np.where(sums[..., 0] > 0, divide(sums[..., 2] ** 2, sums[..., 0]), 0)
    return 1.0 - divide(sums[..., 1], scatter)


def _dopamine_summary(totals: np.ndarray, names: Sequence[str]) -> dict[str, Any]:
    """Computes scores from the sums `[S, K, 4]` of `_dopamine_totals`."""
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


def _signal_summary(
    totals: np.ndarray, combine: Callable[[np.ndarray], np.ndarray] = lambda scores: scores
) -> dict[str, Any]:
    """Computes scores from `[S, 4]` sums, or from `[S, K, 4]` if `combine` joins the K scores."""
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

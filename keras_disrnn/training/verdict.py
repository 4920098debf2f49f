"""What is wrong with a fit that ended without an error."""

from __future__ import annotations

from collections.abc import Mapping

import keras
import numpy as np
import pandas as pd

from keras_disrnn.data import Sessions
from keras_disrnn.models.disrnn_model import DisRNNModel
from keras_disrnn.models.penalties import PENALTIES
from keras_disrnn.training.courses import COURSES
from keras_disrnn.training.plan import LEAST_EPOCHS
from keras_disrnn.utils.thresholds import OPEN_BELOW

CHANCE_MARGIN = 1e-3
"""A normalized likelihood that is higher by less than this is at chance."""

UNSETTLED_LOSS = 10 * COURSES["reference"].settle_loss
"""The smallest change of the loss over the last epochs that counts as not settled ..."""

UNSETTLED_SHARE = 2e-3
"""... if it is also this share of the loss, and twice its own standard error."""


class FitWarning(UserWarning):
    """A fit ended, but its result should not be read as a finding."""


def chance_likelihood(train: Sessions, sessions: Sessions) -> float:
    """Compute the normalized likelihood of a prediction that ignores the past.

    It is the higher one of equal probabilities and of how often the training sessions chose each
    arm.

    Args:
        train: The training sessions.
        sessions: The sessions to predict, with the same arms.

    Returns:
        A number from 0 to 1; NaN if there is no choice to predict.

    Example:
        >>> from keras_disrnn.data import Sessions
        >>> from keras_disrnn.training.verdict import chance_likelihood
        >>> sessions = Sessions.from_trials([[0, 1, 1, 1, 1, 1, 1, 1]], [[1] * 8])
        >>> round(chance_likelihood(sessions, sessions), 3)
        0.681
    """
    chosen = train.choice[train.choice_weight > 0]
    predicted = sessions.choice[sessions.choice_weight > 0]
    if not len(predicted):
        return float("nan")
    # Half a choice more of each arm, so that an arm which was never chosen is not impossible.
    counts = np.bincount(chosen, minlength=train.num_arms) + 0.5
    rates = counts / counts.sum()
    return max(1 / len(rates), float(np.exp(np.log(rates[predicted]).mean())))


def judge_fit(
    model: DisRNNModel,
    *,
    likelihoods: Mapping[str, tuple[float, float]],
    history: pd.DataFrame | None = None,
) -> list[str]:
    """Find what is wrong with a fit: at chance, not settled, or with every bottleneck open.

    - A likelihood is at chance if it is less than `CHANCE_MARGIN` above it.
    - A stage with penalties has not settled if its loss still changes over its last `LEAST_EPOCHS`
      epochs: by more than `UNSETTLED_LOSS`, `UNSETTLED_SHARE` of the loss and twice the standard
      error of the change. A shorter stage is not judged.
    - If any penalty is above 0, a bottleneck should have closed.

    Args:
        model: The fitted model.
        likelihoods: Name of a part of the data to the model's normalized likelihood and to that of
            chance (see `chance_likelihood`).
        history: What `train` returned, or `None`.

    Returns:
        Sentences; none for a good fit.

    Example:
        >>> import keras_disrnn
        >>> from keras_disrnn.training.verdict import judge_fit
        >>> model = keras_disrnn.DisRNNModel(num_latents=1, num_signals=0, seed=0)
        >>> for sentence in judge_fit(model, likelihoods={"held-out": (0.5, 0.5)}):
        ...     print(sentence.split(";")[0])
        held-out likelihood: expected above chance (0.5000), got 0.5000
        bottlenecks: expected some that are closed, got 5 that are all open
    """
    found = [
        f"{part} likelihood: expected above chance ({chance:.4f}), got {likelihood:.4f}; look at "
        "the units of the observations, at the penalties and at the learning curves, and do not "
        "read the latents as a finding"
        for part, (likelihood, chance) in likelihoods.items()
        if likelihood < chance + CHANCE_MARGIN
    ]
    if history is not None and len(history):
        found += [
            f"{stage} loss: expected a loss that has settled, got one that still "
            f"{'falls' if change > 0 else 'rises'}, by {abs(change):.4g} over the last {steps} "
            f"steps; give more {stage}_steps{'' if change > 0 else ' or a smaller learning_rate'}"
            for stage, rows in history.groupby("stage", sort=False)
            if stage != "warmup" and (change := _change(rows)) is not None
            for steps in [LEAST_EPOCHS * int(rows["step"].iloc[0])]
        ]
    sigmas = _trained_sigmas(model)
    penalised = any(getattr(model, n) > 0 for n in model.penalty_names if PENALTIES[n].stage)
    if penalised and sigmas.size and (sigmas < OPEN_BELOW).all():
        found.append(
            f"bottlenecks: expected some that are closed, got {sigmas.size} that are all open; "
            "train longer or raise the penalties, and do not read the graph as a finding"
        )
    return found


def judge_training(
    model: DisRNNModel, history: pd.DataFrame, train: Sessions, held_out: Sessions | None
) -> list[str]:
    """Find what is wrong with a fit, from the history of its training (see `judge_fit`).

    Args:
        model: The fitted model.
        history: What `train` returned.
        train: The training sessions.
        held_out: The held-out sessions, or `None`.

    Returns:
        Sentences; none for a good fit.
    """
    likelihoods = {}
    for part, prefix, sessions in (("training", "", train), ("held-out", "val_", held_out)):
        name = f"{prefix}choice_normalized_likelihood"
        if sessions is not None and name in history and history[name].notna().any():
            chance = chance_likelihood(train, sessions)
            likelihoods[part] = float(history[name].dropna().iloc[-1]), chance
    return judge_fit(model, likelihoods=likelihoods, history=history)


def _change(rows: pd.DataFrame) -> float | None:
    """By how much the loss of a stage fell over its last epochs, if it has not settled."""
    if len(rows) < LEAST_EPOCHS:
        return None
    losses = rows["loss"].to_numpy()[-LEAST_EPOCHS:]
    first, last = np.split(losses, 2)
    change = float(first.mean() - last.mean())
    error = float(np.sqrt((first.var(ddof=1) + last.var(ddof=1)) / len(first)))
    least = max(UNSETTLED_LOSS, UNSETTLED_SHARE * abs(float(losses.mean())), 2 * error)
    return change if abs(change) > least else None


def _trained_sigmas(model: DisRNNModel) -> np.ndarray:
    parts = [part for name, part in model.parts.items() if name not in model.untrained]
    sigmas = [
        np.abs(keras.ops.convert_to_numpy(weight)).ravel()
        for part in parts
        for weight in part.weights
        if weight.name == "raw_sigma"
    ]
    return np.concatenate(sigmas) if sigmas else np.empty(0)

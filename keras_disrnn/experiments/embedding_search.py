"""The search for the embedding of a new subject."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import keras
import numpy as np
import scipy.optimize
import tensorflow as tf

from keras_disrnn.data import Sessions
from keras_disrnn.models.baselines.fitting import NOISE_FLOOR
from keras_disrnn.models.disrnn_model import DisRNNModel
from keras_disrnn.objectives.losses import log_likelihood

MOST_STARTS = 32
"""Old subjects whose embeddings a search tries first. Of more, it tries some that cover them."""

Losses: TypeAlias = tuple[Callable[..., Any], Callable[..., Any]]


def make_losses(model: DisRNNModel, targets: str) -> Losses:
    """Return the loss of one subject's sessions, and its gradient, as functions of the sessions.

    Args:
        model: The model with the new subjects.
        targets: As for `keras_disrnn.experiments.adaptation.adapt`.

    Returns:
        Two functions, traced once for all subjects. The first gives the loss, the mean surprise of
        choices and the MSE of each signal. The other gives the loss and the gradient of the
        embeddings, `(subjects, units)`.
    """
    assert model.subject_embedding is not None
    kernel = model.subject_embedding.kernel.value

    @tf.function(reduce_retracing=True)
    def measure(
        features: Any,
        choice: Any,
        weight: Any,
        count: Any,
        responses: Any,
        response_weight: Any,
        recorded: Any,
        responses_count: Any,
        floor: Any,
    ) -> tuple[Any, Any, Any]:
        outputs = model(features)
        log_p = log_likelihood(choice, outputs["choice"])
        surprise = -tf.reduce_sum(tf.cast(weight, log_p.dtype) * log_p) / count
        loss, mse = surprise, tf.zeros(0)
        if targets == "joint":
            error = tf.gather(outputs["dopamine"], recorded, axis=-1) - responses
            mse = tf.reduce_sum(response_weight * error**2, axis=(0, 1)) / responses_count
            loss += tf.reduce_sum(0.5 * responses_count * tf.math.log(mse + floor)) / count
        return loss, surprise, mse

    @tf.function(reduce_retracing=True)
    def differentiate(*data: Any) -> tuple[Any, Any]:
        with tf.GradientTape() as tape:
            tape.watch(kernel)
            loss, _, _ = measure(*data)
        return loss, tape.gradient(loss, kernel)

    return measure, differentiate


def _spread_points(points: np.ndarray) -> np.ndarray:
    """Return all points, or at most `MOST_STARTS` of them, far from each other.

    Args:
        points: `(count, dimensions)`.
    """
    if len(points) <= MOST_STARTS:
        return points
    scaled = (points - points.mean(axis=0)) / np.maximum(np.ptp(points, axis=0), 1e-12)
    picked = [int(np.argmin((scaled**2).sum(axis=1)))]
    distance = np.full(len(points), np.inf)
    while len(picked) < MOST_STARTS:
        distance = np.minimum(distance, ((scaled - scaled[picked[-1]]) ** 2).sum(axis=1))
        picked.append(int(np.argmax(distance)))
    return points[picked]


def fit_embedding(
    model: DisRNNModel,
    sessions: Sessions,
    name: str,
    table: np.ndarray,
    searched: list[int],
    dimensions: Sequence[str],
    targets: str,
    losses: Losses,
) -> dict[str, Any]:
    """Find the embedding of one subject, and leave it in the model.

    Args:
        model: The model with the new subjects.
        sessions: The sessions of the subject.
        name: Its name.
        table: `(subjects, units)`, the embeddings of the old subjects.
        searched: Indices of the dimensions to search.
        dimensions: Names of all dimensions.
        targets: As for `keras_disrnn.experiments.adaptation.adapt`.
        losses: What `make_losses` returned.

    Returns:
        The subject's row of `Adaptation.subjects`, without its name.
    """
    sessions = sessions.for_model(model)
    index = model.subjects.index(name)
    embedding = model.subject_embedding
    assert embedding is not None
    kernel = embedding.kernel
    bias = keras.ops.convert_to_numpy(embedding.bias)
    count = float(sessions.choice_weight.sum())
    # The noise of a signal that was not recorded in this subject is unknown.
    recorded = np.flatnonzero(sessions.dopamine_weight.any(axis=(0, 1)))
    responses, response_weight = (
        array[..., recorded] for array in (sessions.dopamine, sessions.dopamine_weight)
    )
    responses_count = response_weight.sum(axis=(0, 1))
    floor = [
        NOISE_FLOOR * np.var(responses[..., k][response_weight[..., k] > 0])
        for k in range(len(recorded))
    ]
    data = tuple(
        map(
            tf.constant,
            (
                *(sessions.features, sessions.choice, sessions.choice_weight, np.float32(count)),
                *(responses, response_weight, recorded),
                *(responses_count.astype(np.float32), np.asarray(floor, np.float32)),
            ),
        )
    )
    measure, differentiate = (functools.partial(function, *data) for function in losses)

    def place(embedding: np.ndarray) -> None:
        value = keras.ops.convert_to_numpy(kernel).copy()
        value[index] = embedding - bias
        kernel.assign(value)

    mean = table.mean(axis=0)

    def loss_at(point: np.ndarray) -> tuple[float, np.ndarray]:
        embedding = mean.copy()
        embedding[searched] = point
        place(embedding)
        loss, gradient = differentiate()
        return float(loss), np.asarray(gradient, np.float64)[index, searched]

    def measure_at(point: np.ndarray) -> float:
        embedding = mean.copy()
        embedding[searched] = point
        place(embedding)
        return float(measure()[0])

    found, at_limit = mean, False
    if searched:
        first = measure_at(mean[searched])
        candidates = [mean[searched], *_spread_points(table[:, searched])]
        start = min(candidates, key=measure_at)
        low, high = table[:, searched].min(axis=0), table[:, searched].max(axis=0)
        reach = (high - low) / 2
        bounds = np.stack([low - reach, high + reach], axis=1)
        result = scipy.optimize.minimize(loss_at, start, jac=True, method="L-BFGS-B", bounds=bounds)
        # Single precision may end the search early. The best point seen so far still counts.
        if np.isfinite(result.fun) and result.fun <= first:
            found = mean.copy()
            found[searched] = result.x
            at_limit = bool(np.isclose(result.x[:, None], bounds, rtol=0, atol=1e-6).any())
    scores = []
    for embedding in (mean, found):
        place(embedding)
        _, surprise, mse = measure()
        scores.append((float(np.exp(-surprise)), float(np.mean(mse)) if len(mse) else np.nan))
    (likelihood_before, mse_before), (likelihood, mse) = scores
    row = {
        **dict(zip(dimensions, found.tolist(), strict=True)),
        "n_choices": int(count),
        "normalized_likelihood_before": likelihood_before,
        "normalized_likelihood": likelihood,
    }
    if targets == "joint":
        row |= {"n_responses": int(responses_count.sum()), "mse_before": mse_before, "mse": mse}
    return row | {"at_limit": at_limit}

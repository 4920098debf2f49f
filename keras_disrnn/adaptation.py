"""New subjects for a fitted model: their embeddings are fitted, and nothing else."""

from typing import NamedTuple

import keras
import numpy as np
import pandas as pd
import scipy.optimize
import tensorflow as tf

from keras_disrnn.analysis.bottlenecks import embedding_names
from keras_disrnn.analysis.subjects import compute_embeddings, open_embeddings
from keras_disrnn.losses import log_likelihood
from keras_disrnn.model import DisRNNModel


class Adaptation(NamedTuple):
    """A model with new subjects, and what was found of them.

    Attributes:
        model: A `DisRNNModel` of the old subjects and, after them, the new ones.
        before: The same with the new subjects at the mean embedding of the old ones.
        subjects: `pandas.DataFrame`, one row a new subject: `subject`; its embedding, `subject 1`,
            ...; `n_choices` that it was fitted to; `normalized_likelihood_before` and
            `normalized_likelihood` of them, at the mean embedding and at its own; and `at_limit`,
            whether a coordinate has reached the end of the range searched.
    """

    model: DisRNNModel
    before: DisRNNModel
    subjects: pd.DataFrame


def adapt(model, sessions):
    """Fits the embeddings of subjects that a model has not seen, with everything else frozen.

    Each new subject's embedding is the one of greatest likelihood of its choices under the
    noiseless model, found by L-BFGS-B on exact gradients from the mean embedding of the old
    subjects, or from one of theirs where that begins better. Only the open dimensions are searched,
    over the range of the old subjects and half of it more on both sides: the networks have seen
    nothing further away. In closed ones it has the mean.

    Args:
        model: A trained `DisRNNModel` with subjects. It is not changed.
        sessions: Training `Sessions` of new subjects; those of old ones are passed over.

    Returns:
        An `Adaptation`. Old subjects have the embeddings and predictions that they had.

    Raises:
        ValueError: If the model has no subjects, the sessions are not of its kind, no subject is
            new, or a new one has no free choice.
    """
    old = compute_embeddings(model)
    names = [name for name in dict.fromkeys(sessions.subjects) if name not in model.subject_names]
    if not names:
        raise ValueError(
            "sessions: expected a subject that the model has not seen, got only "
            f"{', '.join(map(repr, dict.fromkeys(sessions.subjects)))}"
        )
    sessions = sessions.with_subjects(())
    for kind, want in (("observations", model.row_observations), ("arms", model.arms)):
        got = getattr(sessions, kind)
        if want != got:
            raise ValueError(f"{kind}: the model was made for {want}, the sessions have {got}")
    dimensions = embedding_names(model.subject_units)
    table = old[list(dimensions)].to_numpy()
    free = [dimensions.index(name) for name in open_embeddings(model)]
    before = add_subjects(model, names)
    adapted = add_subjects(model, names)
    rows = []
    for name in names:
        own = sessions.subset(np.array([subject == name for subject in sessions.subjects]))
        if not own.choice_weight.any():
            raise ValueError(f"sessions: expected a free choice of subject {name!r}, got none")
        rows.append({"subject": name, **_fit(adapted, own, name, table, free, dimensions)})
    return Adaptation(adapted, before, pd.DataFrame(rows))


def add_subjects(model, names):
    """A copy of a model with further subjects, at the mean embedding of those that it has.

    Args:
        model: A built `DisRNNModel` with subjects.
        names: Names of the new ones.

    Returns:
        A built `DisRNNModel`.
    """
    config = {**model.get_config(), "subjects": [*model.subject_names, *names]}
    larger = type(model).from_config(config)
    larger.build((None, None, model.observations))
    embedding = model.subject_embedding
    for variable, own in zip(larger.variables, model.variables, strict=True):
        value = keras.ops.convert_to_numpy(own)
        if own is embedding.kernel:
            mean = value.mean(axis=0, keepdims=True)
            value = np.concatenate([value, np.repeat(mean, len(names), axis=0)])
        variable.assign(value)
    return larger


def _fit(model, sessions, name, table, free, dimensions):
    """Finds one subject's embedding and leaves it in the model.

    Args:
        model: The model that has it.
        sessions: Its sessions.
        name: Its name.
        table: `(subjects, units)`, the embeddings of the old subjects.
        free: The dimensions to search.
        dimensions: Their names.
    """
    sessions = sessions.for_model(model)
    index = model.subject_names.index(name)
    kernel = model.subject_embedding.kernel
    bias = keras.ops.convert_to_numpy(model.subject_embedding.bias)
    count = float(sessions.choice_weight.sum())
    features, choice, weight = (
        tf.constant(array) for array in (sessions.features, sessions.choice, sessions.choice_weight)
    )

    @tf.function
    def differentiate():
        with tf.GradientTape() as tape:
            tape.watch(kernel.value)
            log_p = log_likelihood(choice, model(features)["choice"])
            loss = -tf.reduce_sum(tf.cast(weight, log_p.dtype) * log_p) / count
        return loss, tape.gradient(loss, kernel.value)

    def place(embedding):
        value = keras.ops.convert_to_numpy(kernel).copy()
        value[index] = embedding - bias
        kernel.assign(value)

    mean = table.mean(axis=0)

    def loss_at(point):
        embedding = mean.copy()
        embedding[free] = point
        place(embedding)
        loss, gradient = differentiate()
        return float(loss), np.asarray(gradient, np.float64)[index, free]

    start, first = mean[free], loss_at(mean[free])[0]
    found, least, at_limit = mean, first, False
    if free:
        candidates = [start, *table[:, free]]
        start = min(candidates, key=lambda point: loss_at(point)[0])
        low, high = table[:, free].min(axis=0), table[:, free].max(axis=0)
        reach = (high - low) / 2
        bounds = np.stack([low - reach, high + reach], axis=1)
        result = scipy.optimize.minimize(loss_at, start, jac=True, method="L-BFGS-B", bounds=bounds)
        # Where single precision ends the search early, the best point is still the best one seen.
        if np.isfinite(result.fun) and result.fun <= first:
            found, least = mean.copy(), float(result.fun)
            found[free] = result.x
            at_limit = bool(np.isclose(result.x[:, None], bounds, rtol=0, atol=1e-6).any())
    place(found)
    return {
        **dict(zip(dimensions, found.tolist(), strict=True)),
        "n_choices": int(count),
        "normalized_likelihood_before": float(np.exp(-first)),
        "normalized_likelihood": float(np.exp(-least)),
        "at_limit": at_limit,
    }

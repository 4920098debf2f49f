"""Predictions, and sums of scores, that can be scored in place of a Keras model."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from keras_disrnn.models.finite import check_weights
from keras_disrnn.utils.ids import id_texts
from keras_disrnn.utils.tables import summarized

if TYPE_CHECKING:
    from keras_disrnn.data import Sessions

_STEPS_AT_ONCE = 2**20
"""Time steps whose predictions are held at the same time."""


@summarized
class Predictions(NamedTuple):
    """Predictions of a data set, to be scored in place of a Keras model.

    Attributes:
        choice: Logits `[S, T, arms]` of the choice that follows each time step.
        dopamine: `[S, T, K]` response to the trial that each time step describes, or `None`.
        parameter_count: Number of fitted parameters.

    Example:

    >>> import numpy as np
    >>> from keras_disrnn.analysis import Predictions, compute_evaluation
    >>> from keras_disrnn.data import Sessions
    >>> sessions = Sessions.from_trials([[0, 1]], [[1, 0]])
    >>> chance = Predictions(np.zeros((1, 3, 2)))
    >>> compute_evaluation(chance, sessions).summary["choice"]["normalized_likelihood"]
    0.5
    """

    choice: np.ndarray
    dopamine: np.ndarray | None = None
    parameter_count: int = 0

    def _contents(self) -> dict[str, object]:
        shown: dict[str, object] = {"choice": list(np.shape(self.choice))}
        if self.dopamine is not None:
            shown["dopamine"] = list(np.shape(self.dopamine))
        return {**shown, "parameter_count": self.parameter_count}


class SessionTotals(NamedTuple):
    """The sums of each session that all scores are computed from, in place of a Keras model.

    Attributes:
        choice: `[S, 2]` sum of log p(choice), and number of choices.
        dopamine: `[S, K, 4]` number of responses, squared errors, responses and squared responses,
            or `None`. Responses are taken relative to the mean of each signal over all sessions.
        parameter_count: Number of fitted parameters.

    Example:

    >>> import numpy as np
    >>> from keras_disrnn.analysis.predictions import SessionTotals
    >>> SessionTotals(choice=np.array([[-1.4, 2.0]])).dopamine is None
    True
    """

    choice: np.ndarray
    dopamine: np.ndarray | None = None
    parameter_count: int = 0


def without_untrained(model: Any, outputs: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the outputs of a model without those of readouts that were never trained.

    Args:
        model: A Keras model.
        outputs: Name of an output to its values.
    """
    untrained = getattr(model, "untrained_outputs", ())
    return {name: values for name, values in outputs.items() if name not in untrained}


def true_predictions(sessions: Sessions, chosen_probability: ArrayLike) -> Predictions:
    """Returns the predictions of the agent that generated the sessions, the best possible ones.

    Args:
        sessions: Sessions of an agent whose dopamine responses have no noise.
        chosen_probability: `[sessions, trials]` probability that the agent gave to each of its
            choices, in (0, 1). The other arms share the rest equally, which affects no score.

    Returns:
        The probabilities as logits, and the recorded responses themselves.

    Example:

    >>> import keras_disrnn
    >>> from keras_disrnn.analysis import true_predictions
    >>> sessions = keras_disrnn.data.Sessions.from_trials([[0, 1]], [[1, 0]])
    >>> true_predictions(sessions, [[0.6, 0.7]]).choice.shape
    (1, 3, 2)
    """
    count, steps = sessions.choice.shape
    chosen = np.arange(sessions.num_arms) == sessions.choice[:, :-1, None]
    p = np.asarray(chosen_probability, np.float64)[..., None]
    logits = np.zeros((count, steps, sessions.num_arms))
    logits[:, :-1] = np.log(np.where(chosen, p, (1 - p) / (sessions.num_arms - 1)))
    return Predictions(logits, sessions.dopamine)


def predict_parts(
    model: Any, sessions: Sessions, batch_size: int | None
) -> Iterator[tuple[slice, dict[str, np.ndarray]]]:
    """Predicts as `predict_sessions`, but some sessions at a time, so that memory is limited.

    Args:
        model: See `compute_evaluation`.
        sessions: See `compute_evaluation`.
        batch_size: Sessions in a batch; `None` for all in one.

    Yields:
        The slice of the sessions, and the name of each output to its values.
    """
    if isinstance(model, Predictions | Mapping) or batch_size is None:
        yield slice(None), predict_sessions(model, sessions, batch_size)
        return
    check_weights(model)
    read = sessions.for_model(model)
    count, steps = read.choice.shape
    batches = -(-count // batch_size)
    at_once = max(1, _STEPS_AT_ONCE // (batch_size * steps))
    for first in range(0, batches, at_once):
        taken = min(at_once, batches - first)
        data = read.dataset(batch_size, start_step=first, steps=taken)
        where = slice(first * batch_size, (first + taken) * batch_size)
        yield where, without_untrained(model, model.predict(data, verbose=0))


def predict_sessions(
    model: Any, sessions: Sessions, batch_size: int | None
) -> dict[str, np.ndarray]:
    """Predicts all sessions with one model, or each session with the model of its subject.

    Args:
        model: See `compute_evaluation`.
        sessions: See `compute_evaluation`.
        batch_size: Sessions in a batch; `None` for all in one.

    Returns:
        The name of each output to its values.
    """
    if isinstance(model, Predictions):
        given = {"choice": model.choice, "dopamine": model.dopamine}
        return {name: values for name, values in given.items() if values is not None}
    if not isinstance(model, Mapping):
        check_weights(model)
        read = sessions.for_model(model)
        return without_untrained(model, model.predict(read.dataset(batch_size), verbose=0))
    model = dict(zip(id_texts("model", model), model.values(), strict=True))
    missing = [subject for subject in sessions.subjects if subject not in model]
    if missing:
        raise ValueError(
            f"model: expected a model of every subject of the sessions, got none of {missing[0]!r};"
            f" there are models of {', '.join(map(repr, model))}"
        )
    subjects = np.asarray(sessions.subjects, dtype=object)
    outputs: dict[str, np.ndarray] = {}
    for subject in dict.fromkeys(sessions.subjects):
        where = np.flatnonzero(subjects == subject)
        check_weights(model[subject])
        own = sessions.subset(where).for_model(model[subject])
        part = model[subject].predict(own.dataset(batch_size), verbose=0)
        for name, values in without_untrained(model[subject], part).items():
            all_values = outputs.setdefault(name, np.empty((len(subjects), *values.shape[1:])))
            all_values[where] = values
    return outputs

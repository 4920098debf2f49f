"""Predictions, and sums of scores, that can be scored in place of a Keras model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from keras_disrnn.utils.tables import summarized

if TYPE_CHECKING:
    from keras_disrnn.data import Sessions


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

"""The penalties of `DisRNNModel`: one table that all other modules read."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, NamedTuple

if TYPE_CHECKING:
    from keras_disrnn.models.penalised import PenalisedModel


class Penalty(NamedTuple):
    """One penalty weight of `DisRNNModel`.

    Attributes:
        name: The argument of `DisRNNModel`, and the attribute of the model.
        default: Its default value.
        stage: The stage whose selection scales this weight; `None` if no selection scales it.
        groups: The groups of costs that the weight multiplies, each with the name of the part of
            the model that it regularises.
        reference: Its name in the configurations of the authors' package `disentangled-rnns`;
            `None` if they have no such penalty.
        of_subjects: Whether only models of several subjects have it.
    """

    name: str
    default: float
    stage: Literal["choice", "dopamine"] | None
    groups: dict[str, str]
    reference: str | None
    of_subjects: bool = False


_TABLE = (
    Penalty("latent_penalty", 3e-3, "choice", {"latent": "core"}, "latent_penalty"),
    Penalty("update_obs_penalty", 1e-3, "choice", {"update_obs": "core"}, "update_net_obs_penalty"),
    Penalty(
        "update_latent_penalty", 1e-3, "choice", {"update_latent": "core"},
        "update_net_latent_penalty",
    ),
    Penalty(
        "choice_penalty", 1e-3, "choice", {"choice": "choice_readout"},
        "choice_net_latent_penalty",
    ),
    Penalty(
        "dopamine_penalty", 1e-3, "dopamine", {"dopamine": "dopamine_readout"},
        "neural_activity_net_latent_penalty",
    ),
    Penalty("l2_scale", 1e-5, None, {"l2": "core", "dopamine_l2": "dopamine_readout"}, "l2_scale"),
    Penalty(
        "subject_penalty", 3e-4, "choice", {"subject": "subject_embedding"},
        "subj_penalty", of_subjects=True,
    ),
    Penalty(
        "update_subject_penalty", 3e-4, "choice", {"update_subject": "core"},
        "update_net_subj_penalty", of_subjects=True,
    ),
    Penalty(
        "choice_subject_penalty", 3e-4, "choice", {"choice_subject": "choice_readout"},
        "choice_net_subj_penalty", of_subjects=True,
    ),
    Penalty(
        "dopamine_subject_penalty", 3e-4, "dopamine", {"dopamine_subject": "dopamine_readout"},
        None, of_subjects=True,
    ),
)  # fmt: skip

PENALTIES: dict[str, Penalty] = {penalty.name: penalty for penalty in _TABLE}
"""Every penalty by name."""

DEFAULTS: dict[str, float] = {penalty.name: penalty.default for penalty in _TABLE}
"""The default weight of every penalty."""


class PenaltyWeight:
    """A penalty weight as an attribute of the model.

    Reading it gives a number. The compiled training step reads the variable behind it, so a new
    value takes effect without another trace.
    """

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    def __get__(self, model: PenalisedModel | None, owner: type | None = None) -> Any:
        return self if model is None else float(model._penalties[self._name].numpy())

    def __set__(self, model: PenalisedModel, value: float) -> None:
        model._penalties[self._name].assign(check_penalty(self._name, value))


def check_penalty(name: str, value: float) -> float:
    """Check a penalty weight.

    Args:
        name: Name of the penalty, for the error message.
        value: Its weight.

    Returns:
        The weight as a `float`.

    Raises:
        ValueError: If the weight is negative or not finite.

    Example:
        >>> from keras_disrnn.models.penalties import check_penalty
        >>> check_penalty("latent_penalty", 1)
        1.0
    """
    value = float(value)
    if not 0.0 <= value < float("inf"):
        raise ValueError(
            f"{name}: expected a number of at least 0, got {value:g}"
            + (" (did you write 1-3 for 1e-3?)" if value < 0 else "")
        )
    return value

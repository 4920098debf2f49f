"""The penalties of a model: one table that model, settings, selection, study and interop read."""

from typing import Literal, NamedTuple


class Penalty(NamedTuple):
    """One penalty weight of `DisRNNModel`.

    Attributes:
        name: The argument of `DisRNNModel`, and the attribute of the model.
        default: Its default.
        stage: The stage whose selection scales it; `None` if no selection scales it.
        groups: The groups of costs that it multiplies, each with the name of the part of the model
            whose training it belongs to.
        reference: Its name in the configurations of the authors' package `disentangled-rnns`;
            `None` if they have no such penalty.
        of_subjects: Whether only models of several subjects have it.
    """

    name: str
    default: float
    stage: Literal["choice", "dopamine"] | None
    groups: tuple[tuple[str, str], ...]
    reference: str | None
    of_subjects: bool = False


PENALTIES = {
    penalty.name: penalty
    for penalty in (
        Penalty("latent_penalty", 3e-3, "choice", (("latent", "core"),), "latent_penalty"),
        Penalty(
            "update_obs_penalty",
            1e-3,
            "choice",
            (("update_obs", "core"),),
            "update_net_obs_penalty",
        ),
        Penalty(
            "update_latent_penalty",
            1e-3,
            "choice",
            (("update_latent", "core"),),
            "update_net_latent_penalty",
        ),
        Penalty(
            "choice_penalty",
            1e-3,
            "choice",
            (("choice", "choice_readout"),),
            "choice_net_latent_penalty",
        ),
        Penalty(
            "dopamine_penalty",
            1e-3,
            "dopamine",
            (("dopamine", "dopamine_readout"),),
            "neural_activity_net_latent_penalty",
        ),
        Penalty(
            "l2_scale",
            1e-5,
            None,
            (("l2", "core"), ("dopamine_l2", "dopamine_readout")),
            "l2_scale",
        ),
        Penalty(
            "subject_penalty",
            3e-4,
            "choice",
            (("subject", "subject_embedding"),),
            "subj_penalty",
            of_subjects=True,
        ),
        Penalty(
            "update_subject_penalty",
            3e-4,
            "choice",
            (("update_subject", "core"),),
            "update_net_subj_penalty",
            of_subjects=True,
        ),
        Penalty(
            "choice_subject_penalty",
            3e-4,
            "choice",
            (("choice_subject", "choice_readout"),),
            "choice_net_subj_penalty",
            of_subjects=True,
        ),
        Penalty(
            "dopamine_subject_penalty",
            3e-4,
            "dopamine",
            (("dopamine_subject", "dopamine_readout"),),
            None,
            of_subjects=True,
        ),
    )
}
"""Every penalty by name."""


class PenaltyWeight:
    """A penalty weight as an attribute of the model.

    Reading it gives a number. The traced step reads the variable behind it, so that a new value
    takes effect without tracing the step again.
    """

    def __set_name__(self, owner, name):
        self._name = name

    def __get__(self, model, owner=None):
        return self if model is None else float(model._penalties[self._name].numpy())

    def __set__(self, model, value):
        model._penalties[self._name].assign(check_penalty(self._name, value))


def check_penalty(name, value):
    """Returns `value` as a float.

    Raises:
        ValueError: If it cannot be a penalty weight.
    """
    value = float(value)
    if not 0.0 <= value < float("inf"):
        raise ValueError(
            f"{name}: expected a number of at least 0, got {value:g}"
            + (" (did you write 1-3 for 1e-3?)" if value < 0 else "")
        )
    return value

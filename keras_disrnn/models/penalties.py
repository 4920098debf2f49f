"""The penalties of a model."""

PENALTIES = (
    "latent_penalty",
    "update_obs_penalty",
    "update_latent_penalty",
    "choice_penalty",
    "dopamine_penalty",
    "l2_scale",
)


SUBJECT_PENALTIES = (
    "subject_penalty",
    "update_subject_penalty",
    "choice_subject_penalty",
    "dopamine_subject_penalty",
)
"""Those that only a model of several subjects has."""


class Penalty:
    """A price as an attribute of the model: a number to read, a variable to the traced step."""

    def __set_name__(self, owner, name):
        self._name = name

    def __get__(self, model, owner=None):
        return self if model is None else float(model._penalties[self._name].numpy())

    def __set__(self, model, value):
        model._penalties[self._name].assign(check_penalty(self._name, value))


def check_penalty(name, value):
    """`value` as a float; raises ValueError where it cannot be a penalty."""
    value = float(value)
    if not 0.0 <= value < float("inf"):
        raise ValueError(
            f"{name}: expected a number of at least 0, got {value:g}"
            + (" (did you write 1-3 for 1e-3?)" if value < 0 else "")
        )
    return value

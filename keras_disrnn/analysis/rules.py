"""The rules that the networks of a fitted model compute, as arrays and tables.

`keras_disrnn.analysis.network_rules` computes them from a model.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from keras_disrnn.analysis.arrays import softmax
from keras_disrnn.utils.tables import summarized


@summarized
@dataclass(frozen=True, repr=False)
class ChoiceRule:
    """The choice logits as a function of the most open latents.

    Attributes:
        latents: Names of the latents that vary: none, one or two, the most open first.
        values: For each of `latents`, the 1-D array of its values.
        logits: `[*points, arms]`, with one axis of points for each of `latents`.
        open_latents: Names of all open latents, the most open first.
        fixed: Name of every other latent, and of every dimension of the embedding, to the value
            that it is fixed at.

    Example:

    >>> import numpy as np
    >>> from keras_disrnn.analysis import ChoiceRule
    >>> rule = ChoiceRule(("z1",), (np.array([-1.0, 1.0]),), np.eye(2), ("z1",), {"z2": 0.0})
    >>> rule
    ChoiceRule(latents=z1, points=2, arms=2, open_latents=z1)
    >>> rule.contrast.tolist()
    [-1.0, 1.0]
    """

    latents: tuple[str, ...]
    values: tuple[np.ndarray, ...]
    logits: np.ndarray
    open_latents: tuple[str, ...]
    fixed: dict[str, float]

    @property
    def contrast(self) -> np.ndarray:
        """The logits without the constant that softmax ignores.

        For two arms: logit of arm 1 minus logit of arm 0, `[*points]`. For more arms: logits minus
        their mean over arms, `[*points, arms]`.
        """
        return contrast(self.logits)

    @property
    def probability(self) -> np.ndarray:
        """Choice probabilities, `[*points, arms]`."""
        return softmax(self.logits)

    def to_frame(self) -> pd.DataFrame:
        """Returns a table with one row for each point.

        Its columns are the latents that vary, `logit_0`, ... and `choice_probability_0`, ...
        """
        arms = self.logits.shape[-1]
        columns = _points(self.latents, self.values)
        for name, values in (("logit", self.logits), ("choice_probability", self.probability)):
            flat = values.reshape(-1, arms)
            columns |= {f"{name}_{arm}": flat[:, arm] for arm in range(arms)}
        return pd.DataFrame(columns)

    def _contents(self) -> Mapping[str, object]:
        return {
            **_axes(self),
            "arms": self.logits.shape[-1],
            "open_latents": _listed(self.open_latents),
        }


@summarized
@dataclass(frozen=True, repr=False)
class DopamineRule:
    """The predicted dopamine as a function of the most open latents, by choice and reward.

    Attributes:
        latents: Names of the latents that vary: none, one or two, the most open first.
        values: For each of `latents`, the 1-D array of its values.
        choices: `[C]` choice of each combination of choice and reward.
        rewards: `[C]` reward of each combination.
        prediction: `[C, *points, signals]`.
        open_latents: Names of all open latents, the most open first.
        open_observations: Those of `"choice"` and `"reward"` that the readout's bottlenecks pass.
        fixed: Name of every other latent, and of every dimension of the embedding, to the value
            that it is fixed at.
        timing: `"pre"` or `"post"`: the readout reads the latents before or after the update.
        signal_names: Names of the signals.

    Example:

    >>> import numpy as np
    >>> from keras_disrnn.analysis import DopamineRule
    >>> rule = DopamineRule(
    ...     latents=(), values=(), choices=np.array([0, 0]), rewards=np.array([0.0, 1.0]),
    ...     prediction=np.array([[-0.5], [0.5]]), open_latents=(), open_observations=("reward",),
    ...     fixed={"z1": 0.0}, timing="pre", signal_names=("dopamine",),
    ... )
    >>> rule.to_frame()[["reward", "dopamine"]].to_numpy().tolist()
    [[0.0, -0.5], [1.0, 0.5]]
    """

    latents: tuple[str, ...]
    values: tuple[np.ndarray, ...]
    choices: np.ndarray
    rewards: np.ndarray
    prediction: np.ndarray
    open_latents: tuple[str, ...]
    open_observations: tuple[str, ...]
    fixed: dict[str, float]
    timing: str
    signal_names: tuple[str, ...]

    def to_frame(self) -> pd.DataFrame:
        """Returns a table with one row for each combination and point.

        Its columns are `choice`, `reward`, the latents that vary, and each signal.
        """
        flat = self.prediction.reshape(len(self.choices), -1, len(self.signal_names))
        count = flat.shape[1]
        columns = _combination_columns(self.choices, self.rewards, count)
        for name, values in _points(self.latents, self.values).items():
            columns[name] = np.tile(values, len(self.choices))
        columns |= {name: flat[..., i].reshape(-1) for i, name in enumerate(self.signal_names)}
        return pd.DataFrame(columns)

    def _contents(self) -> Mapping[str, object]:
        return {
            **_axes(self),
            "combinations": len(self.choices),
            "signals": _listed(self.signal_names),
            "open_latents": _listed(self.open_latents),
            "open_observations": _listed(self.open_observations),
            "timing": self.timing,
        }


@summarized
@dataclass(frozen=True, repr=False)
class UpdateRule:
    """The change of one latent over one trial, by choice and reward.

    Attributes:
        latent: Name of the latent.
        values: `[P]` values of the latent before the trial.
        choices: `[C]` choice of each combination of choice and reward.
        rewards: `[C]` reward of each combination.
        change: `[C, P]` value after the trial minus value before it, with all other latents fixed.
        open_observations: Names of the observations that the update network can read.
        others: Name, `[V]` values, and `[V, C, P]` changes at each value, of every other open input
            of the update network. The dimensions of the embedding come first, then the latents,
            both with the most open first.
        fixed: Name of every other latent, and of every dimension of the embedding, to the value
            that it is fixed at in `change`.

    Example:

    >>> import numpy as np
    >>> from keras_disrnn.analysis import UpdateRule
    >>> rule = UpdateRule(
    ...     latent="z1", values=np.array([0.0, 1.0]), choices=np.array([0]),
    ...     rewards=np.array([1.0]), change=np.array([[0.5, 0.0]]),
    ...     open_observations=("reward",), others=(), fixed={},
    ... )
    >>> rule.to_frame()["change"].tolist()
    [0.5, 0.0]
    """

    latent: str
    values: np.ndarray
    choices: np.ndarray
    rewards: np.ndarray
    change: np.ndarray
    open_observations: tuple[str, ...]
    others: tuple[tuple[str, np.ndarray, np.ndarray], ...]
    fixed: dict[str, float]

    def to_frame(self) -> pd.DataFrame:
        """Returns a table with one row for each combination and value.

        Its columns are `latent`, `choice`, `reward`, `value`, `change`, `other` and `other_value`.
        The rows of `change` come first; their `other` is `None` and their `other_value` NaN. Then
        come the rows in which another input varies.
        """
        count = self.change.shape[1]
        tables: list[tuple[str | None, float, np.ndarray]] = [(None, np.nan, self.change)]
        for name, values, changes in self.others:
            tables += [(name, value, change) for value, change in zip(values, changes, strict=True)]
        return pd.concat(
            [
                pd.DataFrame(
                    {
                        "latent": self.latent,
                        **_combination_columns(self.choices, self.rewards, count),
                        "value": np.tile(self.values, len(self.choices)),
                        "change": change.reshape(-1),
                        "other": pd.Series([name] * change.size, dtype=object),
                        "other_value": value,
                    }
                )
                for name, value, change in tables
            ],
            ignore_index=True,
        )

    def _contents(self) -> Mapping[str, object]:
        return {
            "latent": self.latent,
            "points": len(self.values),
            "combinations": len(self.choices),
            "open_observations": _listed(self.open_observations),
            "others": _listed([name for name, _, _ in self.others]),
        }


def contrast(logits: np.ndarray) -> np.ndarray:
    """Logits without the constant that softmax ignores; see `ChoiceRule.contrast`."""
    if logits.shape[-1] == 2:
        return logits[..., 1] - logits[..., 0]
    return logits - logits.mean(axis=-1, keepdims=True)


def _points(latents: Sequence[str], values: Sequence[np.ndarray]) -> dict[str, np.ndarray]:
    """The points of a rule, as a column for each latent that varies."""
    axes = np.meshgrid(*values, indexing="ij")
    return {name: axis.reshape(-1) for name, axis in zip(latents, axes, strict=True)}


def _combination_columns(
    choices: np.ndarray, rewards: np.ndarray, count: int
) -> dict[str, np.ndarray]:
    """The columns `choice` and `reward`, with `count` rows for each combination."""
    return {
        "choice": np.repeat(choices, count).astype(int),
        "reward": np.repeat(rewards, count),
    }


def _axes(rule: ChoiceRule | DopamineRule) -> dict[str, object]:
    """The latents that vary, and their numbers of points, to show."""
    points = " x ".join(str(len(values)) for values in rule.values)
    return {"latents": _listed(rule.latents), "points": points or 1}


def _listed(names: Sequence[str]) -> str:
    return " ".join(names) or "none"

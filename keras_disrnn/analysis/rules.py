"""What the networks of a fitted model compute: choice, dopamine and update rules.

Each rule is the noiseless network, called at chosen values of its open inputs. An input is open
where its sigma is below 0.5 (Miller et al. 2023). Latents that are not varied are held at their
learned initial value, a state that every session of the model goes through, unless `reference` says
otherwise. In a model of several subjects the embedding is held at its mean over subjects, unless
`subject` says otherwise.
"""

from dataclasses import dataclass

import keras
import numpy as np
import pandas as pd

from keras_disrnn.analysis.bottlenecks import (
    check_built,
    embedding_names,
    latent_names,
    observation_names_of,
)
from keras_disrnn.analysis.subjects import embedding_of, embedding_ranges
from keras_disrnn.models.latents import predict_latents
from keras_disrnn.objectives.metrics import OPEN_BELOW

RANGE_PERCENTILES = (0.5, 99.5)
"""The part of a latent's values in given data that a rule is computed over."""


@dataclass(frozen=True)
class ChoiceRule:
    """The choice logits against the most open latents.

    Attributes:
        latents: Names of the latents that are varied: none, one or two, the most open first.
        values: For each of `latents` the 1-D array of its values.
        logits: Array `[*points, arms]`, one axis of points for each of `latents`.
        open_latents: Names of all open latents, the most open first.
        held: Dictionary from the name of every other latent, and of every dimension of the
            embedding, to the value it is held at.
    """

    latents: tuple[str, ...]
    values: tuple[np.ndarray, ...]
    logits: np.ndarray
    open_latents: tuple[str, ...]
    held: dict[str, float]

    @property
    def contrast(self):
        """The logits without what softmax ignores.

        Two arms: logit of arm 1 minus logit of arm 0, `[*points]`. More: logits minus their mean
        over arms, `[*points, arms]`.
        """
        if self.logits.shape[-1] == 2:
            return self.logits[..., 1] - self.logits[..., 0]
        return self.logits - self.logits.mean(axis=-1, keepdims=True)

    @property
    def probability(self):
        """Softmax of the logits, `[*points, arms]`."""
        exponential = np.exp(self.logits - self.logits.max(axis=-1, keepdims=True))
        return exponential / exponential.sum(axis=-1, keepdims=True)

    def to_frame(self):
        """One row a point: the latents varied, `logit_0`, ... and `choice_probability_0`, ..."""
        arms = self.logits.shape[-1]
        columns = _points(self.latents, self.values)
        for name, values in (("logit", self.logits), ("choice_probability", self.probability)):
            flat = values.reshape(-1, arms)
            columns |= {f"{name}_{arm}": flat[:, arm] for arm in range(arms)}
        return pd.DataFrame(columns)


@dataclass(frozen=True)
class DopamineRule:
    """The dopamine prediction against the most open latents, for each choice and reward.

    Attributes:
        latents: Names of the latents that are varied: none, one or two, the most open first.
        values: For each of `latents` the 1-D array of its values.
        choices: Array `[C]`, the choice of each combination.
        rewards: Array `[C]`, the reward of each combination.
        prediction: Array `[C, *points, signals]`.
        open_latents: Names of all open latents, the most open first.
        open_observations: Which of `"choice"` and `"reward"` the readout's bottlenecks let through.
        held: Dictionary from the name of every other latent, and of every dimension of the
            embedding, to the value it is held at.
        reads: `"pre"` or `"post"`: latents before or after the update by the trial.
        signals: Names of the signals.
    """

    latents: tuple[str, ...]
    values: tuple[np.ndarray, ...]
    choices: np.ndarray
    rewards: np.ndarray
    prediction: np.ndarray
    open_latents: tuple[str, ...]
    open_observations: tuple[str, ...]
    held: dict[str, float]
    reads: str
    signals: tuple[str, ...]

    def to_frame(self):
        """One row a combination and point: `choice`, `reward`, the latents, each signal."""
        flat = self.prediction.reshape(len(self.choices), -1, len(self.signals))
        count = flat.shape[1]
        columns = {
            "choice": np.repeat(self.choices, count).astype(int),
            "reward": np.repeat(self.rewards, count),
        }
        for name, values in _points(self.latents, self.values).items():
            columns[name] = np.tile(values, len(self.choices))
        columns |= {name: flat[..., i].reshape(-1) for i, name in enumerate(self.signals)}
        return pd.DataFrame(columns)


@dataclass(frozen=True)
class UpdateRule:
    """How one latent changes over one trial, for each choice and reward.

    Attributes:
        latent: Name of the latent.
        values: Array `[P]` of its values before the trial.
        choices: Array `[C]`, the choice of each combination.
        rewards: Array `[C]`, the reward of each combination.
        change: Array `[C, P]`, value after the trial minus value before it, every other latent
            held.
        open_observations: Names of the observations that this latent's update network can read.
        others: For every open dimension of the subjects' embedding, and then every open other
            latent, that this network can read, the most open first: its name, array `[V]` of its
            values and the changes `[V, C, P]` at each of them.
        held: Dictionary from the name of every other latent, and of every dimension of the
            embedding, to the value it is held at in `change`.
    """

    latent: str
    values: np.ndarray
    choices: np.ndarray
    rewards: np.ndarray
    change: np.ndarray
    open_observations: tuple[str, ...]
    others: tuple[tuple[str, np.ndarray, np.ndarray], ...]
    held: dict[str, float]

    def to_frame(self):
        """One row a combination and value: `latent`, `choice`, `reward`, `value`, `change`, `other`
        and `other_value`.

        `other` is `None`, and `other_value` NaN, in the rows of `change`; then come those where one
        other latent is varied.
        """
        shape = self.change.shape
        tables = [(None, np.nan, self.change)]
        for name, values, changes in self.others:
            tables += [(name, value, change) for value, change in zip(values, changes, strict=True)]
        return pd.concat(
            [
                pd.DataFrame(
                    {
                        "latent": self.latent,
                        "choice": np.repeat(self.choices, shape[1]).astype(int),
                        "reward": np.repeat(self.rewards, shape[1]),
                        "value": np.tile(self.values, shape[0]),
                        "change": change.reshape(-1),
                        "other": pd.Series([name] * change.size, dtype=object),
                        "other_value": value,
                    }
                )
                for name, value, change in tables
            ],
            ignore_index=True,
        )


def compute_choice_rule(
    model, features=None, *, points=101, threshold=OPEN_BELOW, reference=None, subject=None
):
    """Choice logits of a model against its open latents.

    A latent is open here where both its own bottleneck and the choice readout's bottleneck on it
    have a sigma below `threshold`. No open latent gives one constant, one a line, two or more a
    grid over the two that are most open to the choice readout.

    Args:
        model: A built `DisRNNModel` with L latents.
        features: `[sessions, rows, observations]` rows of sessions. With them each latent's range
            is the 0.5th to 99.5th percentile of its values there, without them it is
            [-max_latent_value, max_latent_value], which no latent can leave.
        points: Number of values along each axis.
        threshold: Sigma below which a bottleneck is open.
        reference: `[L]` values at which latents that are not varied are held; `None` for the
            model's learned initial latents.
        subject: Whose rule it is: a name, or an embedding; `None` for the mean of the subjects.

    Returns:
        A `ChoiceRule`.

    Raises:
        ValueError: If `points` is below 2, `reference` does not hold L values, or there is no such
            subject.
    """
    embedding = embedding_of(model, subject)
    initial = _reference(model, reference)
    names = latent_names(len(initial))
    sigma = _numpy(model.choice_readout.bottleneck.sigma)[: len(initial)]
    open_index = _open(sigma, threshold, _numpy(model.core.cell.latent_bottleneck.sigma))
    shown = open_index[:2]
    ranges = _ranges(model, features, points)
    grid = _grid(initial, shown, ranges)
    states = with_embedding(grid.reshape(-1, len(initial)), embedding)
    logits = _numpy(model.choice_readout(_tensor(states)))
    return ChoiceRule(
        latents=tuple(names[index] for index in shown),
        values=tuple(ranges[index] for index in shown),
        logits=logits.reshape(*grid.shape[:-1], -1),
        open_latents=tuple(names[index] for index in open_index),
        held=_held(names, initial, shown, embedding),
    )


def compute_dopamine_rule(
    model,
    features=None,
    *,
    rewards=(0.0, 1.0),
    points=101,
    threshold=OPEN_BELOW,
    reference=None,
    signal_names=None,
    subject=None,
):
    """Dopamine prediction of a model against its open latents, for each choice and reward.

    A latent is open here where the dopamine readout's bottleneck on it has a sigma below
    `threshold`. The latent's own bottleneck has no say: the readout is trained on a frozen core,
    which runs without noise, so that it may read a latent that the choice stage has closed.

    Args:
        model: A built `DisRNNModel` with a dopamine readout, L latents and K signals.
        features: `[sessions, rows, observations]`, see `compute_choice_rule`.
        rewards: The values of reward that are combined with every choice.
        points: Number of values along each axis.
        threshold: Sigma below which a bottleneck is open.
        reference: `[L]` values of latents that are not varied; `None` for the initial latents.
        signal_names: K names; `None` for `"dopamine"`, or `"dopamine_1"`, ... where K > 1.
        subject: As for `compute_choice_rule`.

    Returns:
        A `DopamineRule`; its combinations go through the rewards within each choice.

    Raises:
        ValueError: If the model has no dopamine readout, `points` is below 2, `reference` does not
            hold L values or `signal_names` K names.
    """
    if model.dopamine_readout is None:
        raise ValueError(
            "model: expected a model with a dopamine readout (signals >= 1), got one without"
        )
    initial = _reference(model, reference)
    embedding = embedding_of(model, subject)
    names = latent_names(len(initial))
    latents = len(initial)
    sigma = _numpy(model.dopamine_readout.bottleneck.sigma)
    open_index = _open(sigma[:latents], threshold)
    shown = open_index[:2]
    ranges = _ranges(model, features, points)
    grid = _grid(initial, shown, ranges)
    choices, reward_values = _combinations(model.num_arms, rewards)
    inputs = np.empty((len(choices), *grid.shape[:-1], latents + 2 + len(embedding)))
    inputs[..., :latents] = grid
    combination_axis = (-1,) + (1,) * len(shown)
    inputs[..., latents] = choices.reshape(combination_axis)
    inputs[..., latents + 1] = reward_values.reshape(combination_axis)
    inputs[..., latents + 2 :] = embedding
    prediction = _numpy(model.dopamine_readout(_tensor(inputs.reshape(-1, inputs.shape[-1]))))
    signals = _signal_names(prediction.shape[-1], signal_names)
    return DopamineRule(
        latents=tuple(names[index] for index in shown),
        values=tuple(ranges[index] for index in shown),
        choices=choices,
        rewards=reward_values,
        prediction=prediction.reshape(*inputs.shape[:-1], len(signals)),
        open_latents=tuple(names[index] for index in open_index),
        open_observations=tuple(
            name
            for name, value in zip(("choice", "reward"), sigma[latents : latents + 2], strict=True)
            if value < threshold
        ),
        held=_held(names, initial, shown, embedding),
        reads=model.dopamine_readout.timing,
        signals=signals,
    )


def compute_update_rules(
    model,
    features=None,
    *,
    rewards=(0.0, 1.0),
    points=101,
    other_points=3,
    threshold=OPEN_BELOW,
    reference=None,
    extra_observations=None,
    observation_names=None,
    subject=None,
):
    """How each open latent changes over a trial, for each choice and reward.

    Every combination of choice and reward is given; `open_observations` of each rule says which of
    them that latent's update network can read. Another latent counts as an open input where both
    its own bottleneck and this network's bottleneck on it have a sigma below `threshold`.

    Args:
        model: A built `DisRNNModel` with O observations and L latents.
        features: `[sessions, rows, observations]`, see `compute_choice_rule`.
        rewards: The values of reward that are combined with every choice.
        points: Number of values of the latent itself.
        other_points: Number of values, over its range, of every open other latent and of every open
            dimension of the embedding (over the range of the subjects).
        threshold: Sigma below which a bottleneck is open.
        reference: `[L]` values of latents that are not varied; `None` for the initial latents.
        extra_observations: `[O - 2]` values of the observations after choice and reward (`[O - 3]`
            with subjects); `None` for 0.
        observation_names: O names, or `None` for `"choice"`, `"reward"`, `"observation_1"`, ...
        subject: As for `compute_choice_rule`.

    Returns:
        Tuple of `UpdateRule`, one for each latent with an open bottleneck of its own, by index.

    Raises:
        ValueError: If `points` or `other_points` is below 2, or `reference`, `extra_observations`
            or `observation_names` has the wrong length.
    """
    if other_points < 2:
        raise ValueError(f"other_points: expected at least 2, got {other_points}")
    cell = model.core.cell
    initial = _reference(model, reference)
    names = latent_names(len(initial))
    observations = observation_names_of(model, observation_names)
    extra = _extra_observations(extra_observations, len(observations) - 2)
    embedding = embedding_of(model, subject)
    dimensions = embedding_names(len(embedding))
    obs_sigma = _numpy(cell.update_obs_bottleneck.sigma)
    subject_sigma = obs_sigma[:, len(observations) :]
    own_sigma = None
    if model.subjects:
        own_sigma = _numpy(model.subject_embedding.bottleneck.sigma)
    input_sigma = _numpy(cell.update_latent_bottleneck.sigma)
    latent_sigma = _numpy(cell.latent_bottleneck.sigma)
    ranges = _ranges(model, features, points)
    subject_ranges = embedding_ranges(model, other_points)
    choices, reward_values = _combinations(model.num_arms, rewards)

    def change(index, latents, embeddings=embedding):
        """Changes `[N, C, P]` of one latent, from `[N, P, L]` latents before the trial and `[E]` or
        `[N, E]` embeddings."""
        count, steps = latents.shape[:2]
        shape = (count, len(choices), steps)
        before = np.broadcast_to(latents[:, None], (*shape, len(initial)))
        rows = np.empty((*shape, 2 + len(extra) + len(embedding)))
        rows[..., 0] = choices[:, None]
        rows[..., 1] = reward_values[:, None]
        rows[..., 2 : 2 + len(extra)] = extra
        rows[..., 2 + len(extra) :] = np.atleast_2d(embeddings)[:, None, None]
        after = _numpy(
            cell.update(
                _tensor(rows.reshape(-1, rows.shape[-1])),
                _tensor(before.reshape(-1, len(initial))),
            )
        )
        return after[:, index].reshape(shape) - before[..., index]

    rules = []
    for index in np.flatnonzero(latent_sigma < threshold):
        latents = _grid(initial, [index], ranges)
        others = []
        varied = np.repeat(latents[None], other_points, axis=0)
        for other in _open(subject_sigma[index], threshold, own_sigma):
            embeddings = np.repeat(embedding[None], other_points, axis=0)
            embeddings[:, other] = subject_ranges[other]
            changes = change(index, varied, embeddings)
            others.append((dimensions[other], subject_ranges[other], changes))
        for other in _open(input_sigma[index], threshold, latent_sigma):
            if other == index:
                continue
            other_values = np.linspace(ranges[other][0], ranges[other][-1], other_points)
            varied = np.repeat(latents[None], other_points, axis=0)
            varied[..., other] = other_values[:, None]
            others.append((names[other], other_values, change(index, varied)))
        rules.append(
            UpdateRule(
                latent=names[index],
                values=ranges[index],
                choices=choices,
                rewards=reward_values,
                change=change(index, latents[None])[0],
                open_observations=tuple(
                    name
                    for name, value in zip(observations, obs_sigma[index], strict=False)
                    if value < threshold
                ),
                others=tuple(others),
                held=_held(names, initial, [index], embedding),
            )
        )
    return tuple(rules)


def _numpy(tensor):
    return np.asarray(keras.ops.convert_to_numpy(tensor), np.float64)


def _tensor(array):
    return keras.ops.convert_to_tensor(np.asarray(array, np.float32))


def _reference(model, reference):
    check_built(model)
    initial = _numpy(model.initial_latents)
    if reference is None:
        return initial
    given = np.asarray(reference, np.float64)
    if given.shape != initial.shape:
        raise ValueError(
            f"reference: expected {len(initial)} values, one for each latent, got shape "
            f"{given.shape}"
        )
    return given


def _extra_observations(values, count):
    if values is None:
        return np.zeros(count)
    given = np.asarray(values, np.float64)
    if given.shape != (count,):
        raise ValueError(
            f"extra_observations: expected {count} values, one for each observation after choice "
            f"and reward, got shape {given.shape}"
        )
    return given


def _signal_names(count, names):
    if names is None:
        return ("dopamine",) if count == 1 else tuple(f"dopamine_{i + 1}" for i in range(count))
    if len(names) != count:
        raise ValueError(
            f"signal_names: expected {count} names, one for each signal of the model, "
            f"got {len(names)}: {tuple(names)}"
        )
    return tuple(names)


def _open(sigma, threshold, also=None):
    """Indices below the threshold in `sigma` (and in `also`), by rising `sigma`."""
    is_open = sigma < threshold
    if also is not None:
        is_open &= also < threshold
    return [int(index) for index in np.argsort(sigma, kind="stable") if is_open[index]]


def _ranges(model, features, points):
    """`[L, points]` values of each latent."""
    if points < 2:
        raise ValueError(f"points: expected at least 2, got {points}")
    initial = _numpy(model.initial_latents)
    if features is None:
        high = np.full(initial.shape, model.core.cell.max_latent_value)
        low = -high
    else:
        features = np.asarray(features, np.float32)
        real = ~np.isnan(features).all(axis=-1)
        latents = predict_latents(model, features)[real].astype(np.float64)
        low, high = np.percentile(latents, RANGE_PERCENTILES, axis=0)
        # A latent that never moves still needs an axis of some width.
        still = high - low < 1e-6
        low, high = np.where(still, low - 0.1, low), np.where(still, high + 0.1, high)
    return np.linspace(low, high, points, axis=-1)


def _grid(initial, shown, ranges):
    """`[*points, L]`: the latents `shown` over their values, all others at `initial`."""
    axes = np.meshgrid(*(ranges[index] for index in shown), indexing="ij")
    shape = axes[0].shape if axes else ()
    grid = np.broadcast_to(initial, (*shape, len(initial))).copy()
    for index, axis in zip(shown, axes, strict=True):
        grid[..., index] = axis
    return grid


def _points(latents, values):
    """The grid of a rule, a column for each latent that is varied."""
    axes = np.meshgrid(*values, indexing="ij")
    return {name: axis.reshape(-1) for name, axis in zip(latents, axes, strict=True)}


def _held(names, initial, shown, embedding):
    held = {name: float(initial[i]) for i, name in enumerate(names) if i not in shown}
    return held | dict(zip(embedding_names(len(embedding)), embedding.tolist(), strict=True))


def with_embedding(states, embedding):
    """Latents `[N, L]` with the embedding beside each."""
    return np.concatenate([states, np.broadcast_to(embedding, (len(states), len(embedding)))], 1)


def _combinations(arms, rewards):
    rewards = np.asarray(rewards, np.float64).reshape(-1)
    return np.repeat(np.arange(arms, dtype=np.float64), len(rewards)), np.tile(rewards, arms)

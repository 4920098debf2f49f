"""Computes the choice, dopamine and update rules of a fitted model.

Each rule is a network without noise, evaluated at chosen values of its open inputs. An input is
open if its sigma is below 0.5 (Miller et al. 2023). Latents that do not vary are fixed at their
learned initial value, unless `reference` gives other values. In a model of several subjects, the
embedding is fixed at its mean over subjects, unless `subject` selects another one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from keras_disrnn.analysis.arrays import to_numpy, to_tensor
from keras_disrnn.analysis.bottlenecks import (
    check_built,
    embedding_names,
    latent_names,
    observation_names_of,
)
from keras_disrnn.analysis.rules import ChoiceRule, DopamineRule, UpdateRule
from keras_disrnn.analysis.subjects import embedding_of, embedding_ranges
from keras_disrnn.models.latents import predict_latents
from keras_disrnn.utils.thresholds import OPEN_BELOW

if TYPE_CHECKING:
    from keras_disrnn.models.disrnn_model import DisRNNModel

RANGE_PERCENTILES = (0.5, 99.5)
"""The percentiles of a latent's values in the given features between which a rule is computed."""


def compute_choice_rule(
    model: DisRNNModel,
    features: ArrayLike | None = None,
    *,
    points: int = 101,
    threshold: float = OPEN_BELOW,
    reference: ArrayLike | None = None,
    subject: str | ArrayLike | None = None,
) -> ChoiceRule:
    """Computes the choice logits of a model as a function of its open latents.

    A latent is open here if its own bottleneck and the choice readout's bottleneck on it both have
    a sigma below `threshold`. Without an open latent, the rule is one constant. With one, it is a
    line. With two or more, it is a grid over the two that are most open to the choice readout.

    Args:
        model: A built `DisRNNModel` with L latents.
        features: `[sessions, time steps, observations]`. The range of each latent is then the 0.5th
            to 99.5th percentile of its values there. Without features, the range is
            [-max_latent_value, max_latent_value], which no latent can leave.
        points: Number of values along each axis.
        threshold: A bottleneck is open if its sigma is below this.
        reference: `[L]` values at which latents that do not vary are fixed; `None` for the learned
            initial latents.
        subject: The subject of the rule, as a name or an embedding; `None` for the mean embedding.

    Returns:
        The rule.

    Raises:
        ValueError: If `points` is below 2, `reference` does not have L values, or the subject is
            unknown.

    Example:

    >>> import keras_disrnn
    >>> from keras_disrnn.analysis import compute_choice_rule
    >>> model = keras_disrnn.DisRNNModel(num_latents=1, seed=0)
    >>> compute_choice_rule(model, points=11)
    ChoiceRule(latents=z1, points=11, arms=2, open_latents=z1)
    """
    grid = _Grid(model, features, points, reference, subject)
    sigma = to_numpy(model.choice_readout.bottleneck.sigma)[: len(grid.names)]
    open_index = _open(sigma, threshold, to_numpy(model.core.cell.latent_bottleneck.sigma))
    varied = open_index[:2]
    latents = grid.states(varied)
    logits = choice_logits(model, latents.reshape(-1, len(grid.names)), grid.embedding)
    return ChoiceRule(
        latents=tuple(grid.names[index] for index in varied),
        values=tuple(grid.ranges[index] for index in varied),
        logits=logits.reshape(*latents.shape[:-1], -1),
        open_latents=tuple(grid.names[index] for index in open_index),
        fixed=grid.fixed(varied),
    )


def compute_dopamine_rule(
    model: DisRNNModel,
    features: ArrayLike | None = None,
    *,
    rewards: ArrayLike = (0.0, 1.0),
    points: int = 101,
    threshold: float = OPEN_BELOW,
    reference: ArrayLike | None = None,
    signal_names: Sequence[str] | None = None,
    subject: str | ArrayLike | None = None,
) -> DopamineRule:
    """Computes the predicted dopamine as a function of the open latents, by choice and reward.

    A latent is open here if the dopamine readout's bottleneck on it has a sigma below `threshold`.
    The latent's own bottleneck does not matter. The readout is trained on a frozen core without
    noise, so it may read a latent that the choice stage has closed.

    Args:
        model: A built `DisRNNModel` with a dopamine readout, L latents and K signals.
        features: See `compute_choice_rule`.
        rewards: The values of reward that are combined with every choice.
        points: Number of values along each axis.
        threshold: A bottleneck is open if its sigma is below this.
        reference: See `compute_choice_rule`.
        signal_names: K names; `None` for `"dopamine"`, or `"dopamine_1"`, ... if K > 1.
        subject: See `compute_choice_rule`.

    Returns:
        The rule. Its combinations are ordered by choice, then by reward.

    Raises:
        ValueError: If the model has no dopamine readout, `points` is below 2, `reference` does not
            have L values, or `signal_names` does not have K names.

    Example:

    >>> import keras_disrnn
    >>> from keras_disrnn.analysis import compute_dopamine_rule
    >>> model = keras_disrnn.DisRNNModel(num_latents=1, seed=0)
    >>> compute_dopamine_rule(model, points=11).prediction.shape
    (4, 11, 1)
    """
    readout = model.dopamine_readout
    if readout is None:
        raise ValueError(
            "model: expected a model with a dopamine readout, got one without; set num_signals to "
            "at least 1"
        )
    grid = _Grid(model, features, points, reference, subject)
    latents = len(grid.names)
    sigma = to_numpy(readout.bottleneck.sigma)
    open_index = _open(sigma[:latents], threshold)
    varied = open_index[:2]
    states = grid.states(varied)
    choices, reward_values = _combinations(model.num_arms, rewards)
    inputs = np.empty((len(choices), *states.shape[:-1], latents + 2 + len(grid.embedding)))
    inputs[..., :latents] = states
    combination_axis = (-1,) + (1,) * len(varied)
    inputs[..., latents] = choices.reshape(combination_axis)
    inputs[..., latents + 1] = reward_values.reshape(combination_axis)
    inputs[..., latents + 2 :] = grid.embedding
    prediction = to_numpy(readout(to_tensor(inputs.reshape(-1, inputs.shape[-1]))))
    signals = signal_names_of(prediction.shape[-1], signal_names)
    observed = zip(("choice", "reward"), sigma[latents : latents + 2], strict=True)
    return DopamineRule(
        latents=tuple(grid.names[index] for index in varied),
        values=tuple(grid.ranges[index] for index in varied),
        choices=choices,
        rewards=reward_values,
        prediction=prediction.reshape(*inputs.shape[:-1], len(signals)),
        open_latents=tuple(grid.names[index] for index in open_index),
        open_observations=tuple(name for name, value in observed if value < threshold),
        fixed=grid.fixed(varied),
        timing=readout.timing,
        signal_names=signals,
    )


def compute_update_rules(
    model: DisRNNModel,
    features: ArrayLike | None = None,
    *,
    rewards: ArrayLike = (0.0, 1.0),
    points: int = 101,
    other_points: int = 3,
    threshold: float = OPEN_BELOW,
    reference: ArrayLike | None = None,
    extra_observations: ArrayLike | None = None,
    observation_names: Sequence[str] | None = None,
    subject: str | ArrayLike | None = None,
) -> tuple[UpdateRule, ...]:
    """Computes the change of each open latent over a trial, by choice and reward.

    Rules have all combinations of choice and reward, even if the update network can read only one
    of them (see `open_observations`). Another latent is an open input if its own bottleneck and
    this network's bottleneck on it both have a sigma below `threshold`.

    Args:
        model: A built `DisRNNModel` with O observations and L latents.
        features: See `compute_choice_rule`.
        rewards: The values of reward that are combined with every choice.
        points: Number of values of the latent itself.
        other_points: Number of values of every other open latent, over its range, and of every open
            dimension of the embedding, over the range of the subjects.
        threshold: A bottleneck is open if its sigma is below this.
        reference: See `compute_choice_rule`.
        extra_observations: `[O - 2]` values of the observations after choice and reward (`[O - 3]`
            with subjects); `None` for 0.
        observation_names: O names, or `None` for `"choice"`, `"reward"`, `"observation_1"`, ...
        subject: See `compute_choice_rule`.

    Returns:
        One rule for each latent whose own bottleneck is open, in the order of their index.

    Raises:
        ValueError: If `points` or `other_points` is below 2, or `reference`, `extra_observations`
            or `observation_names` has the wrong length.

    Example:

    >>> import keras_disrnn
    >>> from keras_disrnn.analysis import compute_update_rules
    >>> model = keras_disrnn.DisRNNModel(num_latents=1, seed=0)
    >>> compute_update_rules(model, points=11)[0].change.shape
    (4, 11)
    """
    if other_points < 2:
        raise ValueError(f"other_points: expected at least 2, got {other_points}")
    grid = _Grid(model, features, points, reference, subject)
    cell = model.core.cell
    observations = observation_names_of(model, observation_names)
    extra = _given(
        extra_observations,
        np.zeros(len(observations) - 2),
        "extra_observations",
        "observation after choice and reward",
    )
    dimensions = embedding_names(len(grid.embedding))
    obs_sigma = to_numpy(cell.update_obs_bottleneck.sigma)
    subject_sigma = obs_sigma[:, len(observations) :]
    own_sigma = (
        to_numpy(model.subject_embedding.bottleneck.sigma) if model.subject_embedding else None
    )
    input_sigma = to_numpy(cell.update_latent_bottleneck.sigma)
    latent_sigma = to_numpy(cell.latent_bottleneck.sigma)
    subject_ranges = embedding_ranges(model, other_points)
    choices, reward_values = _combinations(model.num_arms, rewards)

    asked: list[tuple[int, np.ndarray, np.ndarray]] = []

    def ask(index: int, latents: np.ndarray, embeddings: np.ndarray = grid.embedding) -> int:
        """Asks for the changes of a latent, from latents `[N, P, L]` before the trial."""
        asked.append((index, latents, embeddings))
        return len(asked) - 1

    rules = []
    for index in np.flatnonzero(latent_sigma < threshold).tolist():
        latents = grid.states([index])
        repeated = np.repeat(latents[None], other_points, axis=0)
        others = []
        for other in _open(subject_sigma[index], threshold, own_sigma):
            embeddings = np.repeat(grid.embedding[None], other_points, axis=0)
            embeddings[:, other] = subject_ranges[other]
            number = ask(index, repeated, embeddings)
            others.append((dimensions[other], subject_ranges[other], number))
        for other in _open(input_sigma[index], threshold, latent_sigma):
            if other == index:
                continue
            low, high = grid.ranges[other][[0, -1]]
            other_values = np.linspace(low, high, other_points)
            varied = repeated.copy()
            varied[..., other] = other_values[:, None]
            others.append((grid.names[other], other_values, ask(index, varied)))
        rules.append((index, ask(index, latents[None]), others))
    trials = np.column_stack([choices, reward_values, np.tile(extra, (len(choices), 1))])
    changes = _changes(model, trials, asked)
    can_read = obs_sigma[:, : len(observations)] < threshold
    return tuple(
        UpdateRule(
            latent=grid.names[index],
            values=grid.ranges[index],
            choices=choices,
            rewards=reward_values,
            change=changes[alone][0],
            open_observations=tuple(
                name for name, is_open in zip(observations, can_read[index], strict=True) if is_open
            ),
            others=tuple((name, values, changes[number]) for name, values, number in others),
            fixed=grid.fixed([index]),
        )
        for index, alone, others in rules
    )


def _changes(
    model: DisRNNModel, trials: np.ndarray, asked: Sequence[tuple[int, np.ndarray, np.ndarray]]
) -> list[np.ndarray]:
    """Changes `[N, C, P]` of a latent over each of C trials, for each that is asked.

    All pass through the cell at once, because each call of a layer takes longer than its numbers.
    """
    steps, states = [], []
    for _, latents, embeddings in asked:
        shape = (len(latents), len(trials), latents.shape[1])
        step = np.empty((*shape, trials.shape[1] + embeddings.shape[-1]))
        step[..., : trials.shape[1]] = trials[:, None]
        step[..., trials.shape[1] :] = np.atleast_2d(embeddings)[:, None, None]
        steps.append(step.reshape(-1, step.shape[-1]))
        state = np.broadcast_to(latents[:, None], (*shape, latents.shape[-1]))
        states.append(state.reshape(-1, latents.shape[-1]))
    if not asked:
        return []
    before = np.concatenate(states)
    after = to_numpy(model.core.cell.update(to_tensor(np.concatenate(steps)), to_tensor(before)))
    moved = np.split(after - before, np.cumsum([len(state) for state in states])[:-1])
    return [
        change[:, index].reshape(len(latents), len(trials), latents.shape[1])
        for (index, latents, _), change in zip(asked, moved, strict=True)
    ]


def rule_tables(
    model: DisRNNModel, features: Any = None, **settings: Any
) -> dict[str, pd.DataFrame]:
    """Tabulates the update, choice and dopamine rules of a model, for any plotting program.

    Args:
        model: A built `DisRNNModel`.
        features: See `compute_choice_rule`.
        **settings: `points`, `threshold` and `reference` of `compute_update_rules`,
            `compute_choice_rule` and `compute_dopamine_rule`.

    Returns:
        A dict of `"update"`, `"choice"` and, if the model predicts dopamine, `"dopamine"` to the
        table of the rules' `to_frame`.

    Example:

    >>> import keras_disrnn
    >>> from keras_disrnn.analysis import rule_tables
    >>> model = keras_disrnn.DisRNNModel(num_latents=1, num_signals=0, seed=0)
    >>> {name: len(table) for name, table in rule_tables(model, points=5).items()}
    {'update': 20, 'choice': 5}
    """
    frames = [rule.to_frame() for rule in compute_update_rules(model, features, **settings)]
    tables = {
        "update": pd.concat(frames, ignore_index=True) if frames else pd.DataFrame(),
        "choice": compute_choice_rule(model, features, **settings).to_frame(),
    }
    if model.dopamine_readout is not None and "dopamine_readout" not in model.untrained:
        tables["dopamine"] = compute_dopamine_rule(model, features, **settings).to_frame()
    return tables


class _Grid:
    """The values of latents and embedding at which the rules of a model are computed.

    Attributes:
        names: Names of the L latents.
        initial: `[L]` values of latents that do not vary.
        embedding: `[E]` embedding of the subject.
        ranges: `[L, points]` values of each latent when it varies.
    """

    def __init__(
        self,
        model: DisRNNModel,
        features: ArrayLike | None,
        points: int,
        reference: ArrayLike | None,
        subject: str | ArrayLike | None,
    ) -> None:
        check_built(model)
        self.initial = _given(reference, to_numpy(model.initial_latents), "reference", "latent")
        self.embedding = embedding_of(model, subject)
        self.names = latent_names(len(self.initial))
        self.ranges = _ranges(model, features, points)

    def states(self, varied: Sequence[int]) -> np.ndarray:
        """Latents `[*points, L]`, with the latents `varied` over their values."""
        axes = np.meshgrid(*(self.ranges[index] for index in varied), indexing="ij")
        shape = axes[0].shape if axes else ()
        states = np.broadcast_to(self.initial, (*shape, len(self.initial))).copy()
        for index, axis in zip(varied, axes, strict=True):
            states[..., index] = axis
        return states

    def fixed(self, varied: Sequence[int]) -> dict[str, float]:
        """The values of everything but the latents `varied`."""
        named = zip(self.names, self.initial.tolist(), strict=True)
        fixed = {name: value for i, (name, value) in enumerate(named) if i not in varied}
        dimensions = embedding_names(len(self.embedding))
        return fixed | dict(zip(dimensions, self.embedding.tolist(), strict=True))


def _given(values: ArrayLike | None, default: np.ndarray, name: str, what: str) -> np.ndarray:
    """The given values, or the default ones, which have the same shape."""
    given = default if values is None else np.asarray(values, np.float64)
    if given.shape != default.shape:
        raise ValueError(
            f"{name}: expected {len(default)} values, one for each {what}, got shape {given.shape}"
        )
    return given


def signal_names_of(count: int, names: Sequence[str] | None = None) -> tuple[str, ...]:
    """Returns the names of a model's dopamine signals, `"dopamine"` or `"dopamine_1"`, ..."""
    if names is None:
        return ("dopamine",) if count == 1 else tuple(f"dopamine_{i + 1}" for i in range(count))
    if len(names) != count:
        raise ValueError(
            f"signal_names: expected {count} names, one for each signal of the model, "
            f"got {len(names)}: {tuple(names)}"
        )
    return tuple(names)


def _open(sigma: np.ndarray, threshold: float, also: np.ndarray | None = None) -> list[int]:
    """Indices where `sigma` (and `also`) is below the threshold, ordered by `sigma`."""
    is_open = sigma < threshold
    if also is not None:
        is_open &= also < threshold
    return [int(index) for index in np.argsort(sigma, kind="stable") if is_open[index]]


def _ranges(model: DisRNNModel, features: ArrayLike | None, points: int) -> np.ndarray:
    """`[L, points]` values of each latent."""
    if points < 2:
        raise ValueError(f"points: expected at least 2, got {points}")
    initial = to_numpy(model.initial_latents)
    if features is None:
        high = np.full(initial.shape, model.core.cell.max_latent_value)
        low = -high
    else:
        features = np.asarray(features, np.float32)
        real = ~np.isnan(features).all(axis=-1)
        latents = predict_latents(model, features)[real].astype(np.float64)
        low, high = np.percentile(latents, RANGE_PERCENTILES, axis=0)
        # A latent that never changes still needs an axis of some width.
        constant = high - low < 1e-6
        low, high = np.where(constant, low - 0.1, low), np.where(constant, high + 0.1, high)
    return np.linspace(low, high, points, axis=-1)


def choice_logits(model: DisRNNModel, states: np.ndarray, embedding: np.ndarray) -> np.ndarray:
    """Computes the logits `[N, arms]` of the choice from latents `[N, L]` and an embedding."""
    return to_numpy(model.choice_readout(to_tensor(with_embedding(states, embedding))))


def with_embedding(states: np.ndarray, embedding: np.ndarray) -> np.ndarray:
    """Appends the embedding `[E]` to each of the states `[N, L]`."""
    return np.concatenate([states, np.broadcast_to(embedding, (len(states), len(embedding)))], 1)


def _combinations(arms: int, rewards: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    """Choice and reward of each combination."""
    rewards = np.asarray(rewards, np.float64).reshape(-1)
    return np.repeat(np.arange(arms, dtype=np.float64), len(rewards)), np.tile(rewards, arms)

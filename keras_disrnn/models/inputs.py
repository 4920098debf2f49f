"""What the parts of a `DisRNNModel` read of its features, with or without subjects."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import tensorflow as tf
from keras import ops

from keras_disrnn.layers.implementation import runs_natively
from keras_disrnn.layers.readouts import CHOICE_AND_REWARD
from keras_disrnn.layers.time_steps import find_real_time_steps, remove_padding
from keras_disrnn.utils.types import Tensor

if TYPE_CHECKING:
    from keras_disrnn.models.baselines.base import Baseline
    from keras_disrnn.models.baselines.gru import GRU
    from keras_disrnn.models.disrnn_model import DisRNNModel


class Reads(NamedTuple):
    """What each part reads. All tensors have the axes sessions and time steps.

    Attributes:
        core: Features for the core.
        choice: Features for the choice readout.
        dopamine: Features for the dopamine readout.
        observed: The mask; false for padding and missed trials.
        real: The same mask if padding was replaced by zeros. `None` if the parts read the padding,
            and find it themselves.
        embedding: The embedding, with zeros where masked; `None` without subjects.
        cost: The cost of the embedding's own bottleneck; `None` without subjects.
    """

    core: Tensor
    choice: Tensor
    dopamine: Tensor
    observed: Tensor
    real: Tensor | None
    embedding: Tensor | None = None
    cost: Tensor | None = None


def read_features(
    model: DisRNNModel, features: Tensor, training: bool = False, switch: Tensor | None = None
) -> Reads:
    """Prepare what the core and the readouts read.

    Args:
        model: The model.
        features: `(sessions, time steps, observations)`.
        training: Whether to add noise to the embedding.
        switch: A boolean tensor; false turns the noise off.
    """
    if model.subject_embedding is None:
        readouts = (model.choice_readout, model.dopamine_readout)
        if all(runs_natively(part) for part in (model.core, *readouts) if part is not None):
            # The library passes over padding, and TensorFlow takes longer to replace it.
            return Reads(features, features, features, find_real_time_steps(features), None)
        seen, observed = remove_padding(features)
        return Reads(seen, seen, seen, observed, observed)
    seen, observed = remove_padding(features[..., : model.num_trial_observations])
    index = features[..., -1]
    check_subject_index(model, index)
    embedding, cost = model.subject_embedding.read_sessions(
        index, observed, training=training, switch=switch
    )
    embedding = ops.cast(embedding, seen.dtype)
    # A missed trial has a prediction too, so the readouts read the subject in every time step.
    dopamine = ops.concatenate([seen[..., :CHOICE_AND_REWARD], embedding], axis=-1)
    masked = ops.where(observed[..., None], embedding, ops.zeros_like(embedding))
    core = ops.concatenate([seen, masked], axis=-1)
    return Reads(core, embedding, dopamine, observed, observed, masked, cost)


def separate_subject_costs(model: DisRNNModel, costs: dict[str, Tensor], reads: Reads) -> None:
    """Move the embedding's share of each network's cost to a separate group, in place.

    The share does not depend on the latents, so it can be computed here.

    Args:
        model: The model.
        costs: Group of costs to its cost at each time step.
        reads: What the parts read.
    """
    if reads.embedding is None:
        return
    costs["subject"] = reads.cost
    latents = model.num_latents
    reads_subject = [
        (
            "update_subject",
            "update_obs",
            model.core.cell.update_obs_bottleneck,
            model.num_trial_observations,
        ),
        ("choice_subject", "choice", model.choice_readout.bottleneck, latents),
    ]
    if model.dopamine_readout is not None:
        bottleneck = model.dopamine_readout.bottleneck
        reads_subject.append(
            ("dopamine_subject", "dopamine", bottleneck, latents + CHOICE_AND_REWARD)
        )
    for group, whole, bottleneck, first in reads_subject:
        if whole not in costs:
            continue
        share = bottleneck.kl(reads.embedding, slice(first, first + model.subject_units))
        costs[group] = ops.where(reads.observed, share, 0.0)
        costs[whole] = costs[whole] - costs[group]


def check_observations(model: DisRNNModel | Baseline, shape: Sequence[int | None]) -> None:
    """Raise a ValueError if features have another shape than the model reads."""
    if len(shape) != 3 or shape[-1] not in (None, model.num_observations):
        index = "; the last is the subject's index, see Sessions.for_model"
        raise ValueError(
            "features: expected a shape of (sessions, time steps, observations) with "
            f"{model.num_observations} observations, the number this model was made for, "
            f"got {tuple(shape)}{index if getattr(model, 'subjects', ()) else ''}"
        )


def check_subject_index(model: DisRNNModel | GRU, index: Tensor) -> None:
    """Refuse a wrong index of a subject in eager execution. Within a graph it gives NaN.

    Raises:
        ValueError: If a value of `index`, of any shape, is not that of a subject and not NaN.
    """
    if not tf.executing_eagerly() or not isinstance(index, tf.Tensor):
        return
    index = index.numpy().astype(np.float64)
    known = (index >= 0) & (index < model.num_subjects) & (index == np.floor(index))
    wrong = ~known & ~np.isnan(index)
    if wrong.any():
        raise ValueError(
            "features: expected the index of one of this model's subjects, a whole number from "
            f"0 to {model.num_subjects - 1}, as the last observation, got {index[wrong][0]:g}"
        )

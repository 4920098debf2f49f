"""Settings of an experiment: data, model, training."""

import contextlib
import dataclasses
import json
from typing import Literal

import tensorflow as tf

from keras_disrnn import bandit
from keras_disrnn.data import (
    Columns,
)
from keras_disrnn.models.penalties import PENALTIES, check_penalty
from keras_disrnn.utils.checks import check_integer

AGENTS = (
    bandit.QLearning,
    bandit.ForgettingQLearning,
    bandit.DifferentialForgettingQLearning,
    bandit.RewardSeeking,
    bandit.LeakyActorCritic,
)
"""The agents that can play the synthetic data."""


@dataclasses.dataclass(frozen=True)
class SyntheticData:
    """Sessions of an agent at a drifting two-armed bandit.

    Args:
        num_sessions: Training sessions.
        num_held_out_sessions: Further sessions, to score the model on.
        num_trials: Trials in a session.
        agent: Who plays (see `keras_disrnn.bandit`).
        parameters: The agent's parameters by name; one that is not given has its default.
        drift: Standard deviation of the change of p(reward) from trial to trial.

    Raises:
        ValueError: If the agent or a parameter is not as `keras_disrnn.bandit` knows it.
    """

    num_sessions: int = 300
    num_held_out_sessions: int = 300
    num_trials: int = 200
    agent: Literal[
        "q_learning",
        "forgetting_q_learning",
        "differential_forgetting_q_learning",
        "reward_seeking",
        "leaky_actor_critic",
    ] = "q_learning"
    parameters: dict[str, float] = dataclasses.field(default_factory=dict)
    drift: float = 0.1

    def __post_init__(self):
        self.make_agent()

    def make_agent(self):
        """The agent, of `keras_disrnn.bandit`."""
        kinds = {kind.name: kind for kind in AGENTS}
        if self.agent not in kinds:
            raise ValueError(f"agent: expected one of {', '.join(kinds)}, got {self.agent!r}")
        kind = kinds[self.agent]
        known = [field.name for field in dataclasses.fields(kind)]
        for name in self.parameters:
            if name not in known:
                raise ValueError(
                    f"parameters: expected names of {', '.join(known)}, those of {self.agent}, "
                    f"got {name!r}"
                )
        return kind(**self.parameters)


@dataclasses.dataclass(frozen=True)
class TableData:
    """A table with one row a trial, and which of its sessions are held out.

    Args:
        table: CSV (also .csv.gz), TSV or Parquet file.
        columns: Which column holds what.
        num_arms: Number of arms; by default one more than the largest choice, at least 2.
        reward_kind: Whether rewards are 0 or 1 ("binary") or any number ("real").
        held_out_every: Every n-th session of each subject is held out.
        held_out_offset: The first of them, counted from 0.
        held_out_sessions: Ids of the sessions to hold out, in place of every n-th.
        held_out_subjects: Subjects to hold out, in place of every n-th session.
        subjects: Subjects to take, of both parts; by default all.
    """

    table: str
    columns: Columns = dataclasses.field(default_factory=Columns)
    num_arms: int | None = None
    reward_kind: Literal["binary", "real"] = "binary"
    held_out_every: int = 3
    held_out_offset: int = 2
    held_out_sessions: list[str] = dataclasses.field(default_factory=list)
    held_out_subjects: list[str] = dataclasses.field(default_factory=list)
    subjects: list[str] = dataclasses.field(default_factory=list)


@dataclasses.dataclass(frozen=True)
class ModelSettings:
    """The model's shape and its penalties (see `DisRNNModel`).

    Args:
        num_latents: Number of latents.
        update_units: Width of each update network.
        num_update_layers: Hidden layers of each update network.
        choice_units: Width of the choice readout.
        num_choice_layers: Hidden layers of the choice readout.
        dopamine_units: Width of the dopamine readout.
        num_dopamine_layers: Hidden layers of the dopamine readout.
        activation: Name of a Keras activation.
        max_latent_value: Bound of the latents' targets.
        dopamine_timing: Whether the dopamine readout reads the latents before the trial's
            outcome ("pre") or after the update by it ("post").
        latent_penalty: Price of a nat through the latent bottlenecks.
        update_obs_penalty: Price of a nat from the observations to the update networks.
        update_latent_penalty: Price of a nat from the latents to the update networks.
        choice_penalty: Price of a nat into the choice readout.
        dopamine_penalty: Price of a nat into the dopamine readout.
        l2_scale: Price of squared hidden weights.
        subject_units: Dimensions of an embedding of the table's subjects; 0 for a model that takes
            all sessions for one subject's.
        subject_penalty: Price of a nat through the bottleneck of the embedding itself.
        update_subject_penalty: Price of a nat from the embedding to the update networks.
        choice_subject_penalty: Price of a nat from the embedding into the choice readout.
        dopamine_subject_penalty: Price of a nat from the embedding into the dopamine readout.
    """

    num_latents: int = 5
    update_units: int = 8
    num_update_layers: int = 4
    choice_units: int = 4
    num_choice_layers: int = 2
    dopamine_units: int = 8
    num_dopamine_layers: int = 2
    activation: str = "leaky_relu"
    max_latent_value: float = 2.0
    dopamine_timing: Literal["pre", "post"] = "pre"
    latent_penalty: float = 3e-3
    update_obs_penalty: float = 1e-3
    update_latent_penalty: float = 1e-3
    choice_penalty: float = 1e-3
    dopamine_penalty: float = 1e-3
    l2_scale: float = 1e-5
    subject_units: int = 0
    subject_penalty: float = 3e-4
    update_subject_penalty: float = 3e-4
    choice_subject_penalty: float = 3e-4
    dopamine_subject_penalty: float = 3e-4

    def __post_init__(self):
        for name in PENALTIES:
            check_penalty(name, getattr(self, name))
        check_integer("subject_units", self.subject_units, 0)


@dataclasses.dataclass(frozen=True)
class TrainingSettings:
    """The stages of training (see `train`).

    Args:
        warmup_steps: Steps without noise and penalties.
        stage1_steps: Steps of the core and the choice readout.
        stage2_steps: Steps of the dopamine readout on the frozen core; left out where the data
            have no dopamine.
        joint_steps: Steps of everything together; 0 for none.
        steps_per_epoch: Steps between two validations and checkpoints.
        batch_size: Sessions in a step; by default all.
        buckets: Classes of session length that batches are drawn within, to have little padding.
        learning_rate: Of Adam.
        choice_weight: Weight of choice against dopamine in the joint stage.
        settle_steps: End a stage with penalties once neither the loss nor a bottleneck has changed
            over so many steps; 0 to take every step. By default 500 steps, or a little more where
            `steps_per_epoch` does not divide them.
        tensorboard: A folder for TensorBoard's logs.
        strategy: "mirrored" shares each batch out to all GPUs of this machine
            (`tf.distribute.MirroredStrategy`); by default there is one replica.
    """

    warmup_steps: int = 1000
    stage1_steps: int = 3000
    stage2_steps: int = 3000
    joint_steps: int = 0
    steps_per_epoch: int = 100
    batch_size: int | None = None
    buckets: int = 1
    learning_rate: float = 1e-3
    choice_weight: float = 0.5
    settle_steps: int | None = None
    tensorboard: str | None = None
    strategy: Literal["mirrored"] | None = None

    def arguments(self):
        """The settings that are arguments of `train`.

        The strategy is left out, since the model is made under it, and so is the folder of
        TensorBoard, since its callback is handed to `train`.
        """
        found = dataclasses.asdict(self)
        del found["strategy"], found["tensorboard"]
        return found

    def scope(self):
        """The scope to make the model in."""
        if self.strategy is None:
            return contextlib.nullcontext()
        return tf.distribute.MirroredStrategy().scope()


SYNTHETIC_COLUMNS = Columns(dopamine="dopamine", trial="trial")
"""The columns of `SimulatedSessions.to_table()`."""


def plain_config(settings):
    """A dict of settings, of which some are dataclasses, in the types of YAML and JSON."""
    return json.loads(
        json.dumps(
            {
                name: _as_dict(value) if dataclasses.is_dataclass(value) else value
                for name, value in settings.items()
            }
        )
    )


def _as_dict(settings):
    found = dataclasses.asdict(settings)
    if isinstance(settings, ModelSettings) and not settings.subject_units:
        # As before there were any, so that a folder of then is taken for what it is.
        for name in ("subject_units", *PENALTIES):
            if name == "subject_units" or PENALTIES[name].of_subjects:
                del found[name]
    if isinstance(settings, TrainingSettings) and settings.strategy is None:
        del found["strategy"]
    return found


BATCH_SIZE = 256
"""Sessions at a time where nothing is trained."""

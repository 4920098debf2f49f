"""Settings of an experiment: data, model, training.

Settings are frozen dataclasses, because the command line makes a flag of each field and a help text
of its description. Those of the model and of training are made from the arguments of
`keras_disrnn.DisRNNModel` and `keras_disrnn.train`.

The command line imports this module to print a help text or to refuse a word. So it imports neither
TensorFlow nor pandas.
"""

from __future__ import annotations

import contextlib
import dataclasses
import inspect
import json
import re
import types
import typing
from collections.abc import Callable, Collection
from typing import Any, Literal

import docstring_parser

from keras_disrnn.data.batches import check_batches
from keras_disrnn.data.columns import Columns
from keras_disrnn.models.penalties import PENALTIES, check_penalty
from keras_disrnn.models.shape import check_shape
from keras_disrnn.training.courses import get_course
from keras_disrnn.training.plan import STAGES, check_choice_weight, check_steps
from keras_disrnn.utils.checks import check_integer, check_number
from keras_disrnn.utils.files import absolute_path
from keras_disrnn.utils.signatures import read_function, resolve_annotation

AGENTS = (
    "QLearning",
    "ForgettingQLearning",
    "DifferentialForgettingQLearning",
    "RewardSeeking",
    "LeakyActorCritic",
    "DualRateQLearning",
    "ChoiceKernelQLearning",
    "FastSlowQLearning",
    "BiasedForgettingQLearning",
    "BayesianBelief",
    "RecursiveLogistic",
    "CompareToThreshold",
    "WinStayLoseShift",
)
"""The classes of `keras_disrnn.bandit` that can generate the synthetic data."""


@dataclasses.dataclass(frozen=True)
class SyntheticData:
    """Sessions of an agent at a drifting two-armed bandit.

    Args:
        num_sessions: Number of training sessions.
        num_held_out_sessions: Number of further sessions to score the model on.
        num_trials: Number of trials in a session.
        agent: The agent that plays (see `keras_disrnn.bandit`).
        parameters: Parameters of the agent by name. The others have their defaults.
        drift: Standard deviation of the change of the reward probabilities from trial to trial.

    Raises:
        ValueError: If a number is out of range, or the agent or a parameter does not exist.

    Example:

    >>> from keras_disrnn.experiments.settings import SyntheticData
    >>> SyntheticData(num_sessions=10, num_trials=50).num_held_out_sessions
    300
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
        "dual_rate_q_learning",
        "choice_kernel_q_learning",
        "fast_slow_q_learning",
        "biased_forgetting_q_learning",
        "bayesian_belief",
        "recursive_logistic",
        "compare_to_threshold",
        "win_stay_lose_shift",
    ] = "q_learning"
    parameters: dict[str, float] = dataclasses.field(default_factory=dict)
    drift: float = 0.1

    def __post_init__(self) -> None:
        for name in ("num_sessions", "num_held_out_sessions", "num_trials"):
            check_integer(name, getattr(self, name))
        check_number("drift", self.drift, 0)
        # The default agent is known, and agents need NumPy, which a help text does not.
        if self.parameters or self.agent != type(self).agent:
            self.make_agent()

    def make_agent(self) -> Any:
        """Return the agent."""
        from keras_disrnn import bandit

        kinds = {kind.name: kind for kind in (getattr(bandit, name) for name in AGENTS)}
        if self.agent not in kinds:
            raise ValueError(f"agent: expected one of {', '.join(kinds)}, got {self.agent!r}")
        kind = kinds[self.agent]
        known = [field.name for field in dataclasses.fields(kind)]
        for name in self.parameters:
            if name not in known:
                raise ValueError(
                    f"parameters: expected {', '.join(known)} (those of {self.agent}), got {name!r}"
                )
        return kind(**self.parameters)


@dataclasses.dataclass(frozen=True)
class TableData:
    """A table with one row per trial, and the sessions of it that are held out.

    Args:
        table: CSV (also .csv.gz), TSV or Parquet file. The path is stored as an absolute one.
        columns: Names of the columns.
        num_arms: Number of arms. By default it is one more than the largest choice, at least 2.
        reward_kind: "binary" if rewards are 0 or 1, "real" if they are any numbers.
        held_out_every: Hold out every n-th session of each subject.
        held_out_offset: Index of the first held-out session of each subject, counted from 0.
        held_out_sessions: Ids of the sessions to hold out, instead of every n-th.
        held_out_subjects: Subjects to hold out, instead of every n-th session.
        subjects: Subjects to use, in both parts. By default all.

    Example:

    >>> from keras_disrnn.experiments.settings import TableData
    >>> TableData("trials.csv", held_out_every=5).reward_kind
    'binary'
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

    def __post_init__(self) -> None:
        if self.table:
            object.__setattr__(self, "table", absolute_path(self.table))
        for name in ("held_out_sessions", "held_out_subjects", "subjects"):
            if getattr(self, name):
                # Only tables need NumPy and pandas.
                from keras_disrnn.utils.ids import id_texts

                object.__setattr__(self, name, id_texts(name, getattr(self, name)))


def _fields_of(target: Callable[..., Any], leave_out: Collection[str]) -> Any:
    """Make a dataclass whose fields are the plain arguments of a function.

    A field has the name, the default and the type of its argument. Arguments without a default, and
    those that are not a number, string or boolean, are left out.

    Args:
        target: The function, as `read_function` returns it.
        leave_out: Further arguments to leave out.

    Returns:
        A frozen dataclass to inherit from.
    """
    fields: list[tuple[str, Any, Any]] = []
    for name, parameter in inspect.signature(target).parameters.items():
        plain = parameter.default is None or isinstance(parameter.default, int | float | str)
        if not plain or name in leave_out:
            continue
        if kind := _plain_type(parameter, target):
            fields.append((name, kind, dataclasses.field(default=parameter.default)))
    made = dataclasses.make_dataclass("_Fields", fields, frozen=True)
    made.__module__ = __name__
    return made


def _plain_type(parameter: inspect.Parameter, function: Callable[..., Any]) -> Any:
    """Return the numbers, strings and booleans that an argument takes, or `None`."""
    annotation = parameter.annotation
    if annotation is parameter.empty:
        annotation = int | None if parameter.default is None else type(parameter.default)
    if isinstance(annotation, str):
        annotation = resolve_annotation(annotation, function)
    union = typing.get_origin(annotation) in (typing.Union, types.UnionType)
    members = typing.get_args(annotation) if union else (annotation,)
    plain = [
        member
        for member in members
        if member in (bool, int, float, str) or typing.get_origin(member) is Literal
    ]
    if not plain:
        return None
    if type(None) in members:
        plain.append(type(None))
    return typing.Union[tuple(plain)]  # noqa: UP007 - of a computed number of types


def _documented_like(target: Callable[..., Any]) -> Callable[[type], type]:
    """Return a decorator that completes the docstring of a dataclass made by `_fields_of`."""
    # Arguments that share a description may be named on more than one line.
    text = re.sub(r",\n +", ", ", target.__doc__ or "")
    described = {
        name: " ".join((parameter.description or "").split())
        for parameter in docstring_parser.parse(text).params
        for name in parameter.arg_name.split(", ")
    }

    def complete(cls: Any) -> Any:
        summary, _, own = (cls.__doc__ or "").partition("    Args:\n")
        lines = [
            f"        {field.name}: {described.get(field.name, '')}\n"
            for field in dataclasses.fields(cls.__base__)
        ]
        cls.__doc__ = f"{summary.rstrip()}\n\n    Args:\n{''.join(lines)}{own}"
        return cls

    return complete


_MODEL = read_function("keras_disrnn.models.disrnn_model", "DisRNNModel")
_ModelFields: Any = _fields_of(
    _MODEL,
    leave_out=(
        "num_observations",
        "num_arms",
        "num_signals",
        "reference",
        "seed",
        "implementation",
    ),
)


@_documented_like(_MODEL)
@dataclasses.dataclass(frozen=True)
class ModelSettings(_ModelFields):
    """Shape and penalties of the model.

    The fields are the arguments of `keras_disrnn.DisRNNModel` that the data do not determine. With
    `subject_units` above 0, the model has an embedding of each subject of the table.

    Example:

    >>> from keras_disrnn.experiments.settings import ModelSettings
    >>> ModelSettings(num_latents=3).latent_penalty
    0.003
    """

    def __post_init__(self) -> None:
        for name in PENALTIES:
            check_penalty(name, getattr(self, name))
        check_integer("subject_units", self.subject_units, 0)
        check_shape(vars(self))


_TRAIN = read_function("keras_disrnn.training.fit", "train")
_TrainingFields: Any = _fields_of(_TRAIN, leave_out=("held_out", "seed", "checkpoint", "verbose"))


@_documented_like(_TRAIN)
@dataclasses.dataclass(frozen=True)
class TrainingSettings(_TrainingFields):
    """Stages of training.

    Most fields are arguments of `keras_disrnn.train`.

    Args:
        tensorboard: Folder for the logs of TensorBoard.
        strategy: "mirrored" distributes each batch over all GPUs of this machine
            (`tf.distribute.MirroredStrategy`). By default there is one replica.

    Example:

    >>> from keras_disrnn.experiments.settings import TrainingSettings
    >>> TrainingSettings(stage2_steps=0).arguments()["stage2_steps"]
    0
    """

    tensorboard: str | None = None
    strategy: Literal["mirrored"] | None = None

    def __post_init__(self) -> None:
        chosen = self._complete()
        check_integer("decay_steps", chosen["decay_steps"], 0)
        check_steps(
            {stage: chosen[f"{stage}_steps"] for stage in STAGES},
            steps_per_epoch=chosen["steps_per_epoch"],
            learning_rate=chosen["learning_rate"],
            settle_steps=chosen["settle_steps"],
        )
        check_batches(self.batch_size, self.buckets)
        check_choice_weight(self.choice_weight)

    def _complete(self) -> dict[str, Any]:
        names = ["steps_per_epoch", "learning_rate", "decay_steps", "settle_steps"]
        names += [f"{stage}_steps" for stage in STAGES]
        return get_course(self.course).complete(**{name: getattr(self, name) for name in names})

    def completed(self) -> TrainingSettings:
        """Return the settings with the numbers of the course, where none are given.

        Example:

        >>> from keras_disrnn.experiments.settings import TrainingSettings
        >>> TrainingSettings(course="standard").completed().stage1_steps
        1500
        """
        return dataclasses.replace(self, **self._complete())

    def arguments(self) -> dict[str, Any]:
        """Return the settings that are arguments of `train`."""
        return {
            field.name: getattr(self, field.name) for field in dataclasses.fields(_TrainingFields)
        }

    def scope(self) -> contextlib.AbstractContextManager[Any]:
        """Return the scope to make the model in."""
        if self.strategy is None:
            return contextlib.nullcontext()
        import tensorflow as tf

        return tf.distribute.MirroredStrategy().scope()


SYNTHETIC_COLUMNS = Columns(dopamine="dopamine", trial="trial")
"""The columns of `SimulatedSessions.to_table()`."""


def plain_config(settings: dict[str, Any]) -> dict[str, Any]:
    """Convert settings to the types of YAML and JSON.

    Args:
        settings: Name to a plain value or to a dataclass.

    Returns:
        A dict of dicts, lists and scalars.

    Example:

    >>> from keras_disrnn.experiments.settings import TableData, plain_config
    >>> plain_config({"data": TableData("/mice/trials.csv"), "seed": 1})["data"]["table"]
    '/mice/trials.csv'
    """
    return json.loads(
        json.dumps(
            {
                name: _as_dict(value) if dataclasses.is_dataclass(value) else value
                for name, value in settings.items()
            }
        )
    )


def _as_dict(settings: Any) -> dict[str, Any]:
    if isinstance(settings, TrainingSettings):
        # A result has the numbers themselves, because a course may change.
        settings = settings.completed()
    found = dataclasses.asdict(settings)
    unused: list[str] = []
    # Leave settings out while they are unused, so that run folders written before these features
    # existed still compare equal.
    if isinstance(settings, ModelSettings) and not settings.subject_units:
        unused = ["subject_units", *(name for name in PENALTIES if PENALTIES[name].of_subjects)]
    if isinstance(settings, TrainingSettings):
        unused = [name for name in ("strategy", "optimizer") if found.get(name, 0) is None]
    return {name: value for name, value in found.items() if name not in unused}


BATCH_SIZE = 256
"""Sessions in a batch if nothing is trained."""

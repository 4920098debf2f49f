"""Courses of training: what `train` takes for each argument that is not given.

The command line reads the courses, so this module does not import TensorFlow.
"""

from __future__ import annotations

import dataclasses
import math
from typing import TYPE_CHECKING, Any, Literal

from keras_disrnn.training.optimizers import LEARNING_RATE
from keras_disrnn.training.plan import LEAST_EPOCHS
from keras_disrnn.utils.checks import check_integer

if TYPE_CHECKING:
    from keras_disrnn.data import Sessions

SMALLEST_BATCH = 16
"""The fewest sessions in a batch of a course that counts trials."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Course:
    """Steps, batches and learning rate of training.

    Args:
        warmup_steps: Gradient steps of the warm-up.
        stage1_steps: The most gradient steps of stage 1.
        stage2_steps: The most gradient steps of stage 2.
        joint_steps: The most gradient steps of the joint stage.
        steps_per_epoch: Steps between two rows of the history.
        learning_rate: Learning rate of the optimizer.
        decay_steps: Steps at the end of each stage with penalties, in which the learning rate falls
            to almost zero.
        settle_steps: Window of steps that shows whether a stage has settled.
        settle_loss: Largest decrease of the loss within the window that counts as settled.
        settle_sigma: Largest change of a noise level within the window that counts as settled.
        batch_trials: Trials in a batch, from which the number of sessions follows. `None` takes
            all sessions at every step.

    Example:
        >>> from keras_disrnn.training.courses import COURSES
        >>> COURSES["standard"].batch_size(300, 200.0)
        64
    """

    warmup_steps: int
    stage1_steps: int
    stage2_steps: int
    joint_steps: int = 0
    steps_per_epoch: int
    learning_rate: float
    decay_steps: int
    settle_steps: int
    settle_loss: float
    settle_sigma: float
    batch_trials: int | None

    def batch_size(self, num_sessions: int, num_trials: float) -> int | None:
        """Return the number of sessions in a batch, or `None` for all of them.

        Args:
            num_sessions: Number of training sessions.
            num_trials: Mean number of trials in a session.
        """
        if self.batch_trials is None:
            return None
        size = max(SMALLEST_BATCH, round(self.batch_trials / max(num_trials, 1.0)))
        return None if size >= num_sessions else size

    def settle_window(self, steps_per_epoch: int) -> int:
        """Return the smallest window of at least `settle_steps` and `LEAST_EPOCHS` epochs.

        Args:
            steps_per_epoch: Steps of an epoch.
        """
        return steps_per_epoch * max(LEAST_EPOCHS, math.ceil(self.settle_steps / steps_per_epoch))

    def complete(self, **given: Any) -> dict[str, Any]:
        """Return arguments of `train`, with the course's value for each one that is `None`.

        Args:
            **given: The arguments by name, those of this class.

        Raises:
            ValueError: If `steps_per_epoch` is not a whole number above 0.
        """
        found = {k: getattr(self, k) if value is None else value for k, value in given.items()}
        if given.get("settle_steps", 0) is None:
            check_integer("steps_per_epoch", found["steps_per_epoch"])
            found["settle_steps"] = self.settle_window(found["steps_per_epoch"])
        return found


COURSES: dict[str, Course] = {
    "reference": Course(
        warmup_steps=1000,
        stage1_steps=3000,
        stage2_steps=3000,
        steps_per_epoch=100,
        learning_rate=LEARNING_RATE,
        decay_steps=0,
        settle_steps=500,
        settle_loss=1e-4,
        settle_sigma=0.02,
        batch_trials=None,
    ),
    "standard": Course(
        warmup_steps=200,
        stage1_steps=1500,
        stage2_steps=1000,
        steps_per_epoch=50,
        learning_rate=5e-3,
        decay_steps=200,
        settle_steps=200,
        settle_loss=5e-4,
        settle_sigma=0.1,
        batch_trials=12_800,
    ),
}
"""The courses by name. "reference" is that of the authors' example, with a second stage as in the
paper. "standard" takes mini-batches, a larger rate that decays, and ends when it has settled."""


def get_course(name: str) -> Course:
    """Return a course.

    Args:
        name: A name of `COURSES`.

    Raises:
        ValueError: If there is no such course.

    Example:
        >>> from keras_disrnn.training.courses import get_course
        >>> get_course("standard").learning_rate
        0.005
    """
    if name not in COURSES:
        raise ValueError(f"course: expected one of {tuple(COURSES)}, got {name!r}")
    return COURSES[name]


def choose_batch_size(
    sessions: Sessions, batch_size: int | Literal["all"] | None, *, course: str
) -> int | None:
    """Return the number of sessions in a batch, or `None` for all of them.

    Args:
        sessions: The training sessions.
        batch_size: A number, "all", or `None` for that of the course.
        course: A name of `COURSES`.

    Raises:
        ValueError: If there is no such course.

    Example:
        >>> from keras_disrnn.data import Sessions
        >>> from keras_disrnn.training.courses import choose_batch_size
        >>> sessions = Sessions.from_trials(choice=[[0, 1]] * 20_000, reward=[[1, 0]] * 20_000)
        >>> choose_batch_size(sessions, None, course="standard")
        6400
    """
    if batch_size is None:
        mean = float(sessions.trials_per_session.mean())
        return get_course(course).batch_size(sessions.num_sessions, mean)
    return None if batch_size == "all" else batch_size

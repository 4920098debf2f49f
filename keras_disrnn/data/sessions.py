"""`Sessions`: behavioural sessions in memory, as the time steps that a DisRNN reads."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from keras_disrnn.data.arrays import trials_from_arrays
from keras_disrnn.data.batches import make_batches
from keras_disrnn.data.display import describe, describe_in_html
from keras_disrnn.data.dropped import Dropped
from keras_disrnn.data.duplicates import warn_of_duplicates
from keras_disrnn.data.invariants import check_indices, check_sessions, check_shapes, count_trials
from keras_disrnn.data.trials import (
    SUBJECT,
    Trials,
    add_subject,
    subject_index,
)
from keras_disrnn.utils.checks import suggest
from keras_disrnn.utils.ids import id_text, id_texts
from keras_disrnn.utils.memory import take_aligned

if TYPE_CHECKING:
    import tensorflow as tf

    from keras_disrnn.data.rows import TableSource


@dataclasses.dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class Sessions:
    """A data set of S sessions, padded to R time steps each.

    A session of T trials has T + 1 time steps. Time step 0 holds zeros, because nothing has
    happened yet. Time step k >= 1 holds what trial k - 1 showed: its choice, its reward and any
    extra observations. The choice target of time step k is the choice of trial k (time steps 0 to
    T - 1). The dopamine target of time step k is the response of trial k - 1, the trial that the
    time step describes (time steps 1 to T). So every choice and every response is a target once.

    Weights, not values, say which targets count. A choice target has weight 0 on padding, on time
    step T, on forced trials and on missed trials. (The choice of a forced trial is still an input.)
    A dopamine target has weight 0 on padding, on time step 0, on missed trials and if the recording
    has no value.

    The model skips a time step that is NaN in every feature: its latents stay as they are, and it
    adds nothing to the loss. Padding consists of such time steps. The time step after a missed
    trial is skipped too, because that trial had neither an action nor an outcome.

    Make one with `Sessions.from_trials`, `sessions_from_table` or `sessions_from_tfds`.

    `len(sessions)` is S. `sessions[3]`, `sessions["m1-01"]`, `sessions[2:5]` and an array of
    integers or booleans pick sessions. A `for` loop iterates over single sessions. Each part is a
    `Sessions`.

    Args:
        features: float32 `(S, R, O)`, the inputs. NaN in all O features on skipped time steps.
        choice: int32 `(S, R)`, the arm chosen, from 0; 0 where the weight is 0.
        choice_weight: float32 `(S, R)`, 1 where the choice counts, else 0.
        dopamine: float32 `(S, R, K)`, in the units of the recording; 0 where the weight is 0.
        dopamine_weight: float32 `(S, R, K)`, 1 where the response counts, else 0.
        subjects: The subject of each session, S names.
        ids: The id of each session, S unique names.
        num_arms: Number of arms, at least 2.
        observation_names: Names of the O features; the first two are "choice" and "reward".
        signal_names: Names of the K dopamine signals; empty for behaviour alone.
        trials_per_session: int `(S,)`, T of each session, with missed and forced trials. If None,
            it is counted from the padding, which cannot show missed trials at the end.
        rows: For each session, int `(T,)`, the positions (as in `DataFrame.iloc`) of its trials in
            the table that it was read from; None without a table. With them,
            `add_predictions` writes a model's predictions beside the trials of the table.
        latents: float32 `(S, R, L)`, the latents of a model after each time step, to train a
            readout without running the core; None otherwise.
        dropped: The sessions that `drop_sessions` left out, for `summary`.
        subject_names: The names that the last feature, "subject", is an index into. Empty without
            that feature (see `with_subjects`).
        source: What that table is recognised by, if it comes in another order; None without one.

    Raises:
        ValueError: If a shape, dtype, name or value breaks the description above.

    Example:
        >>> import keras_disrnn
        >>> sessions = keras_disrnn.data.Sessions.from_trials(
        ...     choice=[[0, 1, 1], [1]], reward=[[1, 0, 1], [0]], ids=["m1-01", "m1-02"]
        ... )
        >>> len(sessions), sessions["m1-02"].num_trials
        (2, 1)
        >>> sessions
        <Sessions: 1 subject, 2 sessions, 4 trials (4 free choices, 0 forced, 0 missed)>
    """

    features: np.ndarray
    choice: np.ndarray
    choice_weight: np.ndarray
    dopamine: np.ndarray
    dopamine_weight: np.ndarray
    subjects: tuple[str, ...]
    ids: tuple[str, ...]
    num_arms: int
    observation_names: tuple[str, ...] = ("choice", "reward")
    signal_names: tuple[str, ...] = ()
    trials_per_session: np.ndarray = None  # type: ignore[assignment]
    rows: tuple[np.ndarray, ...] | None = None
    latents: np.ndarray | None = None
    dropped: tuple[Dropped, ...] = ()
    subject_names: tuple[str, ...] = ()
    source: TableSource | None = None

    def __post_init__(self) -> None:
        check_shapes(self)
        if self.trials_per_session is None:
            # A frozen dataclass sets a default that depends on other fields in this way.
            object.__setattr__(self, "trials_per_session", count_trials(self))
        check_sessions(self)

    @classmethod
    def from_trials(
        cls,
        choice: Sequence[Any],
        reward: Sequence[Any],
        *,
        dopamine: Sequence[Any] | None = None,
        forced: Sequence[Any] | None = None,
        missed: Sequence[Any] | None = None,
        observations: Sequence[Any] | None = None,
        subjects: Sequence[Any] | None = None,
        ids: Sequence[Any] | None = None,
        num_arms: int | None = None,
        reward_kind: str = "binary",
        observation_names: Sequence[str] | None = None,
        signal_names: Sequence[str] | None = None,
    ) -> Sessions:
        """Lay out trials, given session by session, as time steps.

        Each argument is a sequence with one array per session. The arrays of one session have the
        same length T; sessions may differ in length. If all sessions have the same length, an array
        `(sessions, trials)` works, too.

        Args:
            choice: Arm chosen, whole numbers from 0, `(T,)`; NaN on a missed trial.
            reward: Reward, `(T,)`; not read on missed trials.
            dopamine: Response, `(T,)` or `(T, signals)`, in any unit; NaN where missing.
            forced: True where the choice was instructed, `(T,)`: an input, but not a target.
            missed: True where no choice was made, `(T,)`. A NaN choice counts as missed, too, but
                only if this is given.
            observations: Further inputs of each trial, `(T,)` or `(T, extra)`, finite.
            subjects: Subject of each session; one unnamed subject if None. It is taken as text.
            ids: Unique session ids, taken as text; "0", "1" and so on if None.
            num_arms: Number of arms; one more than the largest choice, at least 2, if None.
            reward_kind: "binary" (rewards are 0 or 1) or "real" (amounts up to 10,000).
            observation_names: Names of the extra observations; "observation_1" and so on if None.
            signal_names: Names of the signals; "dopamine", or "dopamine_1" and so on, if None.

        Returns:
            The sessions, in the order given.

        Raises:
            ValueError: If lengths disagree, or a value is not as described. The message names the
                session and the trial (counted from 0).

        Example:
            >>> import keras_disrnn
            >>> sessions = keras_disrnn.data.Sessions.from_trials(
            ...     choice=[[0, 1, 1], [1]], reward=[[1, 0, 1], [0]]
            ... )
            >>> sessions.features.shape
            (2, 4, 2)
        """
        count = len(choice)
        if count == 0:
            raise ValueError("choice: expected at least one session, got none")
        ids = [str(i) for i in range(count)] if ids is None else id_texts("ids", ids)
        subjects = ["unnamed"] * count if subjects is None else id_texts("subjects", subjects)
        by_trial: dict[str, Any] = {
            "reward": reward,
            "dopamine": dopamine,
            "forced": forced,
            "missed": missed,
            "observations": observations,
        }
        for name, value in {**by_trial, "subjects": subjects, "ids": ids}.items():
            if value is not None and len(value) != count:
                raise ValueError(
                    f"{name}: expected one entry per session, {count} as in choice, got "
                    f"{len(value)}"
                )
        trials = trials_from_arrays(
            choice,
            ids=ids,
            observation_names=observation_names,
            signal_names=signal_names,
            **by_trial,
        )
        return assemble(trials, subjects=subjects, num_arms=num_arms, reward_kind=reward_kind)

    # === Sizes ===

    def __len__(self) -> int:
        return self.num_sessions

    @property
    def num_sessions(self) -> int:
        """Number of sessions, S."""
        return self.features.shape[0]

    @property
    def num_trials(self) -> int:
        """Number of trials in all sessions, with forced and missed ones."""
        return int(self.trials_per_session.sum())

    @property
    def num_observations(self) -> int:
        """Number of features of a time step, O: choice, reward and extra observations."""
        return self.features.shape[2]

    @property
    def num_signals(self) -> int:
        """Number of dopamine signals, K."""
        return self.dopamine.shape[2]

    @property
    def row_mask(self) -> np.ndarray:
        """Time steps that the model reads, bool `(S, R)`: False where it skips them."""
        return ~np.isnan(self.features).all(-1)

    def __repr__(self) -> str:
        return describe(self)

    def _repr_html_(self) -> str:
        return describe_in_html(self)

    # === Parts ===

    def __getitem__(
        self, key: int | str | slice | Sequence[int] | Sequence[bool] | np.ndarray
    ) -> Sessions:
        if isinstance(key, str):
            if key not in self.ids:
                raise KeyError(
                    f"sessions: expected the id of a session, got {key!r}{suggest(key, self.ids)}"
                )
            key = self.ids.index(key)
        if not isinstance(key, slice) and np.ndim(key) == 0:
            if isinstance(key, bool) or not isinstance(key, int | np.integer):
                raise TypeError(
                    "sessions: expected a position, an id, a slice or an array as the index, got "
                    f"{key!r}"
                )
            if not -len(self) <= key < len(self):
                raise IndexError(f"sessions: expected a position below {len(self)}, got {key}")
            return self.subset([key])
        return self.subset(key)  # type: ignore[arg-type]

    def __contains__(self, session: object) -> bool:
        """Return whether there is a session of this id."""
        return id_text(session) in self.ids

    def subset(self, indices: slice | Sequence[int] | Sequence[bool] | np.ndarray) -> Sessions:
        """Pick whole sessions.

        The number of time steps does not change, so all parts of a data set have the same shape.

        Args:
            indices: Integer positions, a slice, or a boolean mask of length S.

        Returns:
            Those sessions, in the order of `indices`.

        Raises:
            ValueError: If `indices` is empty, out of range or names a session twice.
        """
        picked = check_indices(indices, self.num_sessions)
        return dataclasses.replace(
            self,
            features=take_aligned(self.features, picked),
            choice=take_aligned(self.choice, picked),
            choice_weight=take_aligned(self.choice_weight, picked),
            dopamine=take_aligned(self.dopamine, picked),
            dopamine_weight=take_aligned(self.dopamine_weight, picked),
            subjects=tuple(self.subjects[i] for i in picked),
            ids=tuple(self.ids[i] for i in picked),
            trials_per_session=self.trials_per_session[picked],
            rows=None if self.rows is None else tuple(self.rows[i] for i in picked),
            latents=None if self.latents is None else take_aligned(self.latents, picked),
        )

    def of_subjects(self, names: Collection[Any]) -> Sessions:
        """Pick every session of some subjects.

        Args:
            names: The names of the subjects. Names without sessions are ignored.

        Returns:
            Those sessions.

        Raises:
            ValueError: If no session belongs to any of them.
        """
        wanted = id_texts("names", names)
        return self.subset([name in wanted for name in self.subjects])

    # === Subjects ===

    def with_subjects(self, names: Sequence[str]) -> Sessions:
        """Add the subject's index to each time step, for a model of several subjects.

        Args:
            names: Names of all subjects, in the order of their index. An empty sequence removes
                the index.

        Returns:
            The sessions with the last feature "subject": the index in `names` of each session's
            subject, NaN on skipped time steps. An index that was there before is replaced.

        Raises:
            ValueError: If a session's subject is not among the names.
        """
        names = tuple(id_texts("names", names))
        if names == self.subject_names:
            return self
        own = self.num_observations - bool(self.subject_names)
        features, observation_names = self.features[..., :own], self.observation_names[:own]
        if names:
            features = add_subject(features, subject_index(self.subjects, self.ids, names))
            observation_names = (*observation_names, SUBJECT)
        return dataclasses.replace(
            self, features=features, observation_names=observation_names, subject_names=names
        )

    def for_model(self, model: Any) -> Sessions:
        """Return the sessions as a model reads them, with the subject's index if it needs that.

        Args:
            model: A `DisRNNModel`, or any other model.

        Returns:
            The sessions.

        Raises:
            ValueError: If the model has subjects and a session's subject is not among them.
        """
        return self.with_subjects(getattr(model, "subjects", ()))

    # === Batches ===

    def dataset(
        self,
        batch_size: int | Literal["all"] | None = None,
        *,
        shuffle: bool = False,
        seed: int = 0,
        start_step: int = 0,
        steps: int | None = None,
        buckets: int = 1,
    ) -> tf.data.Dataset:
        """Make batches for `fit`, `evaluate` and `predict`.

        The batch of step k depends only on k (and on `seed` if shuffled). So batches that start at
        step k continue exactly where others stopped.

        One pass over the sessions (an epoch) takes ceil(S / batch_size) batches and holds every
        session once. The last batch of a pass is smaller if `batch_size` does not divide S. If
        shuffled, each pass has its own order. If all sessions fit into one batch (`batch_size` is
        None or at least S), every step returns the same tensors, neither copied nor shuffled.

        With `buckets` above 1, sessions of similar length share a batch, which ends with the
        longest session of its bucket, so there is less padding. A pass still has as many batches
        and holds every session once. The order of sessions changes: use it with `fit`, not with
        `predict`.

        Args:
            batch_size: Sessions in a batch; None or "all" for all of them in one.
            shuffle: Whether each pass has its own random order.
            seed: Seed of the orders.
            start_step: Step to start at.
            steps: Number of batches from `start_step` on, over as many passes as needed. One pass
                if None.
            buckets: Number of classes of session length. Ignored if all sessions are in one batch.

        Returns:
            A `tf.data.Dataset` of known cardinality, of `(x, y, sample_weight)`. x is float32
            `(batch, R, O)`. y and sample_weight are dicts with "choice", int32 and float32
            `(batch, R)`, and, if there are signals, "dopamine", float32 `(batch, R, K)`. If the
            sessions have latents, x is a dict of "features" and "latents", float32 `(batch, R, L)`.

        Raises:
            ValueError: If an argument is not an integer in its range.
        """
        return make_batches(
            self,
            batch_size=batch_size,
            seed=seed,
            shuffle=shuffle,
            start_step=start_step,
            steps=steps,
            buckets=buckets,
        )


def assemble(
    trials: Trials,
    *,
    subjects: Sequence[str],
    num_arms: int | None,
    reward_kind: str,
    rows: tuple[np.ndarray, ...] | None = None,
    source: TableSource | None = None,
) -> Sessions:
    """Check trials and lay them out into sessions.

    Args:
        trials: The trials of all sessions.
        subjects: The subject of each session.
        num_arms: Number of arms, or None to count them.
        reward_kind: "binary" or "real".
        rows: See `Sessions`.
        source: See `Sessions`.

    Returns:
        The sessions.

    Raises:
        ValueError: If a value is not as described.
    """
    trials.check(num_arms=num_arms, reward_kind=reward_kind)
    trials.check_whole(count_arms=num_arms is None)
    layout: dict[str, Any] = trials.lay_out()
    sessions = Sessions(
        **layout,
        subjects=tuple(subjects),
        ids=tuple(trials.ids),
        num_arms=trials.count_arms() if num_arms is None else num_arms,
        observation_names=("choice", "reward", *trials.observation_names),
        signal_names=tuple(trials.signal_names),
        trials_per_session=np.asarray(trials.lengths, np.int64),
        rows=rows,
        source=source,
    )
    warn_of_duplicates(sessions, stacklevel=4)
    return sessions

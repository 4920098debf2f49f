"""`Sessions`: behavioural sessions in memory, as the rows a DisRNN reads."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
import tensorflow as tf

from keras_disrnn.utils.checks import check_integer, suggest

REWARD_KINDS = ("binary", "real")
SUBJECT = "subject"
"""Name of the observation that is the subject's index."""
LARGEST_RESPONSE = 1e4
"""No dopamine response in dF/F, percent or standard deviations is as large."""


class Dropped(NamedTuple):
    """A session that was left out.

    Args:
        subject: Its subject.
        session: Its id.
        trials: How many trials it had.
        reason: Why.
    """

    subject: str
    session: str
    trials: int
    reason: str


@dataclasses.dataclass(frozen=True, eq=False)
class Sessions:
    """A data set of S sessions, padded to R rows each.

    A session of T trials has T + 1 rows. Row 0 holds zeros: nothing has happened yet. Row
    k >= 1 holds what trial k - 1 showed: its choice, its reward, any extra observations. The
    choice target of row k is the choice of trial k (rows 0 to T - 1), and the dopamine target of
    row k is the response of trial k - 1, the trial that the row describes (rows 1 to T). So no
    trial's choice and no trial's dopamine is lost.

    Weights, not values, say which targets count. A choice target has weight 0 on padding, on row
    T, on forced trials (the choice was instructed: it is still an input) and on missed trials. A
    dopamine target has weight 0 on padding, on row 0, on missed trials and where the recording
    has no value.

    A row that is NaN in every feature is one that the model passes over: its latents hold and it
    costs nothing. Padding is such rows, and so is the row that follows a missed trial: without a
    choice there was no action and no outcome, so there is nothing to feed to a model whose inputs
    are the two.

    Build one with `Sessions.from_trials`, `sessions_from_table` or `sessions_from_tfds`.

    Args:
        features: float32 `(S, R, O)`, the inputs; NaN in all O features on padding and missed rows.
        choice: int32 `(S, R)`, the arm chosen, from 0; 0 where the weight is 0.
        choice_weight: float32 `(S, R)`, 1 where the choice counts, else 0.
        dopamine: float32 `(S, R, K)`, in the units of the recording; 0 where the weight is 0.
        dopamine_weight: float32 `(S, R, K)`, 1 where the response counts, else 0.
        subjects: The subject of each session, S names.
        ids: The id of each session, S unique names.
        num_arms: Number of arms, at least 2.
        observation_names: Names of the O features; the first two are "choice" and "reward".
        signal_names: Names of the K dopamine signals; empty for behaviour alone.
        trials_per_session: int `(S,)`, T of each session, missed and forced trials included. When
            None it is read off the padding, which cannot see missed trials that end a session.
        rows: For each session, the positions (as in `DataFrame.iloc`) of its trials in the table
            it was read from, int `(T,)`; None when it came from elsewhere. With it, whatever a
            model says about a trial can be put beside that trial in the table.
        latents: float32 `(S, R, L)`, a model's latents after each row, for training a readout of
            them without running the core again; None otherwise.
        dropped: The sessions that `drop_sessions` left out, for `summary` to tell.
        subject_names: The names that the last feature, "subject", is an index into; empty where
            there is no such feature (see `with_subjects`).

    Raises:
        ValueError: If a shape, dtype, name or value breaks the description above.
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
    trials_per_session: np.ndarray | None = None
    rows: tuple[np.ndarray, ...] | None = None
    latents: np.ndarray | None = None
    dropped: tuple[Dropped, ...] = ()
    subject_names: tuple[str, ...] = ()

    def __post_init__(self):
        self._check_shapes()
        self._check_names()
        self._check_values()
        self._check_trials()
        self._check_subjects()

    def _check_shapes(self):
        features = np.asarray(self.features)
        if features.ndim != 3 or features.shape[0] < 1 or features.shape[1] < 2:
            raise ValueError(
                "features must have shape (sessions, rows, observations) with at least one session "
                f"and two rows (one trial), got shape {features.shape}"
            )
        sessions, rows, observations = features.shape
        signals = len(self.signal_names)
        expected = {
            "features": (np.float32, (sessions, rows, observations)),
            "choice": (np.int32, (sessions, rows)),
            "choice_weight": (np.float32, (sessions, rows)),
            "dopamine": (np.float32, (sessions, rows, signals)),
            "dopamine_weight": (np.float32, (sessions, rows, signals)),
        }
        for name, (dtype, shape) in expected.items():
            array = getattr(self, name)
            got_dtype, got_shape = getattr(array, "dtype", type(array).__name__), np.shape(array)
            if not isinstance(array, np.ndarray) or got_dtype != dtype or got_shape != shape:
                raise ValueError(
                    f"{name} must be a NumPy array of {np.dtype(dtype).name} with shape {shape} "
                    f"for {sessions} sessions, {rows} rows, {observations} observations and "
                    f"{signals} signals, got {got_dtype} with shape {got_shape}"
                )
        if self.latents is not None and np.shape(self.latents)[:-1] != (sessions, rows):
            raise ValueError(
                f"latents must have shape ({sessions}, {rows}, latents), got shape "
                f"{np.shape(self.latents)}"
            )

    def _check_names(self):
        sessions, _, observations = self.features.shape
        for name, length in (("subjects", sessions), ("ids", sessions)):
            _check_strings(name, getattr(self, name), length)
        _check_strings("observation_names", self.observation_names, observations)
        _check_strings("signal_names", self.signal_names, len(self.signal_names))
        if tuple(self.observation_names[:2]) != ("choice", "reward"):
            raise ValueError(
                "observation_names must start with 'choice', 'reward', "
                f"got {self.observation_names!r}"
            )
        for name in ("observation_names", "signal_names"):
            twice = _first_repeated(getattr(self, name))
            if twice is not None:
                raise ValueError(f"{name} must be unique, got {twice!r} more than once")
        twice = _first_repeated(self.ids)
        if twice is not None:
            owners = [s for s, i in zip(self.subjects, self.ids, strict=True) if i == twice]
            raise ValueError(
                f"session ids must be unique, also across subjects, got {twice!r} {len(owners)} "
                f"times (subjects {', '.join(map(repr, dict.fromkeys(owners)))})"
            )

    def _check_values(self):
        check_integer("num_arms", self.num_arms, 2)
        blank = np.isnan(self.features)
        partial = blank.any(-1) & ~blank.all(-1)
        if partial.any():
            session, row = np.argwhere(partial)[0]
            raise ValueError(
                "a row of features must be NaN in every observation (padding, missed trial) or in "
                f"none, got {self.features[session, row]} in row {row} of session "
                f"{self.ids[session]!r}"
            )
        if np.isinf(self.features).any():
            session, row, column = np.argwhere(np.isinf(self.features))[0]
            raise ValueError(
                f"features must not be infinite, got {self.features[session, row, column]} for "
                f"{self.observation_names[column]!r} in row {row} of session {self.ids[session]!r}"
            )
        outside = (self.choice < 0) | (self.choice >= self.num_arms)
        if outside.any():
            session, row = np.argwhere(outside)[0]
            raise ValueError(
                f"choice must be from 0 to {self.num_arms - 1} ({self.num_arms} arms), got "
                f"{self.choice[session, row]} in row {row} of session {self.ids[session]!r}"
            )
        for name in ("dopamine", "choice_weight", "dopamine_weight"):
            array = getattr(self, name)
            weight = name.endswith("weight")
            bad = ~np.isfinite(array) | ((array < 0) if weight else False)
            if bad.any():
                at = tuple(np.argwhere(bad)[0])
                raise ValueError(
                    f"{name} must be finite{' and not negative' if weight else ''} "
                    f"(a missing target is 0 with weight 0), got {array[at]} in row {at[1]} of "
                    f"session {self.ids[at[0]]!r}"
                )

    def _check_trials(self):
        mask = self.row_mask
        sessions, rows = mask.shape
        if self.trials_per_session is None:
            last = rows - 1 - np.argmax(mask[:, ::-1], axis=1)
            # A frozen dataclass fills in a default that depends on other fields in this way.
            object.__setattr__(self, "trials_per_session", np.where(mask.any(1), last, 0))
        trials = self.trials_per_session
        if not isinstance(trials, np.ndarray) or trials.dtype.kind not in "iu":
            raise ValueError(f"trials_per_session must be an array of integers, got {trials!r}")
        if trials.shape != (sessions,) or trials.min() < 1 or trials.max() > rows - 1:
            raise ValueError(
                f"trials_per_session must hold {sessions} counts from 1 to {rows - 1} "
                f"(one less than the rows), got {trials}"
            )
        after_last = np.arange(rows) > trials[:, None]
        without_choice = np.arange(rows) >= trials[:, None]
        for name, bad in (
            ("features", mask & after_last),
            ("choice_weight", (self.choice_weight > 0) & without_choice),
            ("dopamine_weight", (self.dopamine_weight > 0).any(-1) & after_last),
        ):
            if bad.any():
                session, row = np.argwhere(bad)[0]
                raise ValueError(
                    f"{name} must be {'NaN' if name == 'features' else '0'} past the last trial, "
                    f"got {getattr(self, name)[session, row]} in row {row} of session "
                    f"{self.ids[session]!r}, which has {trials[session]} trials"
                )
        if self.rows is not None and [len(r) for r in self.rows] != trials.tolist():
            raise ValueError(
                "rows must hold one table position for each trial of each session, "
                f"{trials.tolist()} of them, got {[len(r) for r in self.rows]}"
            )

    def _check_subjects(self):
        if not self.subject_names:
            return
        _check_strings("subject_names", self.subject_names, len(self.subject_names))
        if self.observation_names[-1] != SUBJECT:
            raise ValueError(
                f"observation_names must end with {SUBJECT!r} where there are subject_names, got "
                f"{self.observation_names!r}"
            )
        index = self._subject_index(self.subject_names)[:, None]
        wrong = self.row_mask & (self.features[..., -1] != index)
        if wrong.any():
            session, row = np.argwhere(wrong)[0]
            raise ValueError(
                f"the feature {SUBJECT!r} must be {index[session, 0]} for subject "
                f"{self.subjects[session]!r}, got {self.features[session, row, -1]:g} in row {row} "
                f"of session {self.ids[session]!r}"
            )

    def _subject_index(self, names: Sequence[str]) -> np.ndarray:
        """Position in `names` of each session's subject, int `(S,)`."""
        place = {name: index for index, name in enumerate(names)}
        for subject, session in zip(self.subjects, self.ids, strict=True):
            if subject not in place:
                listed = ", ".join(map(repr, names[:10])) + (", ..." if len(names) > 10 else "")
                raise ValueError(
                    f"subject {subject!r} (session {session!r}) is none of the {len(names)} that "
                    f"the model was made for: {listed}{suggest(subject, names)}; leave its "
                    "sessions out, or adapt the model to it (keras-disrnn adapt)"
                )
        return np.array([place[subject] for subject in self.subjects])

    def with_subjects(self, names: Sequence[str]) -> Sessions:
        """Has each row tell its subject, for a model of several subjects.

        Args:
            names: Names of all subjects, in the order of their index; none to take the index away.

        Returns:
            The sessions with the feature "subject" as the last one, the index in `names` of each
            session's subject, NaN on padding and missed rows; instead of the one there was, if any.

        Raises:
            ValueError: If a session's subject is not among the names; the message names it.
        """
        names = tuple(names)
        if names == self.subject_names:
            return self
        own = self.num_observations - bool(self.subject_names)
        features, observation_names = self.features[..., :own], self.observation_names[:own]
        if names:
            index = self._subject_index(names).astype(np.float32)
            column = np.where(self.row_mask, index[:, None], np.float32(np.nan))
            features = np.concatenate([features, column[..., None]], axis=-1)
            observation_names = (*observation_names, SUBJECT)
        return dataclasses.replace(
            self, features=features, observation_names=observation_names, subject_names=names
        )

    def for_model(self, model) -> Sessions:
        """The sessions as a model reads them: with the subject's index where it has subjects.

        Args:
            model: A `DisRNNModel`, or any other.

        Raises:
            ValueError: If the model has subjects and a session's is not among them.
        """
        return self.with_subjects(getattr(model, "subjects", ()))

    @classmethod
    def from_trials(
        cls,
        choice: Sequence,
        reward: Sequence,
        *,
        dopamine: Sequence | None = None,
        forced: Sequence | None = None,
        missed: Sequence | None = None,
        observations: Sequence | None = None,
        subjects: Sequence[str] | None = None,
        ids: Sequence[str] | None = None,
        num_arms: int | None = None,
        reward_kind: str = "binary",
        observation_names: Sequence[str] | None = None,
        signal_names: Sequence[str] | None = None,
    ) -> Sessions:
        """Lays out trials, given session by session, as rows.

        Each argument is a sequence with one array a session; the arrays of one session have the
        same length T, sessions may differ in length. A 2-D array `(sessions, trials)` will do for
        sessions of one length.

        Args:
            choice: Arm chosen, whole numbers from 0, `(T,)`; NaN for a missed trial.
            reward: Reward, `(T,)`; not read on missed trials.
            dopamine: Response, `(T,)` or `(T, signals)`, any unit; NaN where missing.
            forced: True where the choice was instructed, `(T,)`: an input, but not a target.
            missed: True where no choice was made, `(T,)`. A NaN choice counts as missed too, but
                only when this is given.
            observations: Further inputs of each trial, `(T,)` or `(T, extra)`, finite.
            subjects: Subject of each session; one unnamed subject when None.
            ids: Unique session ids; "0", "1" and so on when None.
            arms: Number of arms; when None, one more than the largest choice, at least 2.
            reward_kind: "binary" (rewards are 0 or 1) or "real" (any finite reward).
            observation_names: Names of the extra observations; "observation_1" and so on when None.
            signal_names: Names of the signals; "dopamine", or "dopamine_1" and so on, when None.

        Returns:
            The sessions, in the order given.

        Raises:
            ValueError: If lengths disagree, or a value is not as described; the message names
                session and trial (counted from 0).

        Example:
            >>> sessions = Sessions.from_trials(choice=[[0, 1, 1], [1]], reward=[[1, 0, 1], [0]])
            >>> sessions.features.shape
            (2, 4, 2)
        """
        count = len(choice)
        if count == 0:
            raise ValueError("choice must hold at least one session, got none")
        ids = [str(i) for i in range(count)] if ids is None else list(ids)
        subjects = ["unnamed"] * count if subjects is None else list(subjects)
        given = {
            "reward": reward,
            "dopamine": dopamine,
            "forced": forced,
            "missed": missed,
            "observations": observations,
            "subjects": subjects,
            "ids": ids,
        }
        for name, value in given.items():
            if value is not None and len(value) != count:
                raise ValueError(
                    f"{name} must have one entry a session, {count} as in choice, got {len(value)}"
                )

        choice_flat, lengths = _concatenate("choice", choice, ids)
        flat = {
            name: None if given[name] is None else _concatenate(name, given[name], ids, lengths)[0]
            for name in ("reward", "dopamine", "forced", "missed", "observations")
        }
        for name in ("forced", "missed"):
            wrong = np.empty(0) if flat[name] is None else ~np.isin(flat[name][:, 0], (0, 1))
            if wrong.any():
                first = int(np.flatnonzero(wrong)[0])
                owner = int(np.searchsorted(np.cumsum(lengths), first, side="right"))
                raise ValueError(
                    f"{name} must be True or False, got {flat[name][first, 0]} in session "
                    f"{ids[owner]!r}"
                )
        extra, signals = flat["observations"], flat["dopamine"]
        if observation_names is None:
            observation_names = _numbered("observation", 0 if extra is None else extra.shape[1])
        if signal_names is None:
            number = 0 if signals is None else signals.shape[1]
            signal_names = ("dopamine",) if number == 1 else _numbered("dopamine", number)
        for name, names, values in (
            ("observation_names", observation_names, extra),
            ("signal_names", signal_names, signals),
        ):
            width = 0 if values is None else values.shape[1]
            if len(names) != width:
                raise ValueError(f"{name} must have {width} entries, got {tuple(names)!r}")
        return assemble(
            choice=choice_flat[:, 0],
            reward=flat["reward"][:, 0],
            dopamine=signals,
            forced=None if forced is None else flat["forced"][:, 0].astype(bool),
            missed=None if missed is None else flat["missed"][:, 0].astype(bool),
            observations=extra,
            lengths=lengths,
            subjects=subjects,
            ids=ids,
            num_arms=num_arms,
            reward_kind=reward_kind,
            observation_names=observation_names,
            signal_names=signal_names,
            origin=Origin(),
        )

    # === Sizes ===

    @property
    def n_sessions(self) -> int:
        """Number of sessions, S."""
        return self.features.shape[0]

    @property
    def n_trials(self) -> int:
        """Number of trials over all sessions, forced and missed ones included."""
        return int(self.trials_per_session.sum())

    @property
    def num_observations(self) -> int:
        """Number of features of a row, O: choice, reward and extra observations."""
        return self.features.shape[2]

    @property
    def num_signals(self) -> int:
        """Number of dopamine signals, K."""
        return self.dopamine.shape[2]

    @property
    def row_mask(self) -> np.ndarray:
        """Rows that the model reads, bool `(S, R)`: False on padding and after missed trials."""
        return ~np.isnan(self.features).all(-1)

    # === Parts and batches ===

    def subset(self, indices) -> Sessions:
        """Picks whole sessions.

        The number of rows stays as it is, so that parts of one data set keep one shape.

        Args:
            indices: Integer positions, a slice, or a boolean mask of length S.

        Returns:
            Those sessions, in the order of `indices`.

        Raises:
            ValueError: If `indices` is empty, out of range or names a session twice.
        """
        try:
            if not isinstance(indices, slice):
                indices = np.asarray(indices)
                indices = indices.astype(int) if indices.size == 0 else indices
            picked = np.arange(self.n_sessions)[indices]
        except IndexError as error:
            raise ValueError(
                f"indices must pick from {self.n_sessions} sessions: {error}"
            ) from error
        if picked.ndim != 1 or picked.size == 0:
            raise ValueError(f"indices must pick at least one session, as a list, got {indices!r}")
        return dataclasses.replace(
            self,
            features=self.features[picked],
            choice=self.choice[picked],
            choice_weight=self.choice_weight[picked],
            dopamine=self.dopamine[picked],
            dopamine_weight=self.dopamine_weight[picked],
            subjects=tuple(self.subjects[i] for i in picked),
            ids=tuple(self.ids[i] for i in picked),
            trials_per_session=self.trials_per_session[picked],
            rows=None if self.rows is None else tuple(self.rows[i] for i in picked),
            latents=None if self.latents is None else self.latents[picked],
        )

    def of_subjects(self, names: Collection[str]) -> Sessions:
        """Picks every session of some subjects.

        Args:
            names: The subjects' names; those without sessions are passed over.

        Raises:
            ValueError: If no session is of any of them.
        """
        return self.subset([name in names for name in self.subjects])

    def dataset(
        self,
        batch_size: int | None = None,
        *,
        shuffle: bool = False,
        seed: int = 0,
        start_step: int = 0,
        steps: int | None = None,
        buckets: int = 1,
    ) -> tf.data.Dataset:
        """Streams batches for `fit`, `evaluate` and `predict`.

        The batch of step k is a pure function of k (and, when shuffled, of `seed`), so a stream
        that starts at step k goes on exactly where one that stopped there would have.

        One pass over the sessions (an epoch, in the order of a permutation drawn for that epoch
        alone when shuffled) takes ceil(S / batch_size) batches. When `batch_size` does not divide
        S the last batch of each pass is smaller: every session comes once a pass. All sessions in
        one batch (`batch_size` None, or at least S) is the same tensors at every step, uncopied and
        never permuted.

        With `buckets` above 1 sessions of like length share a batch, whose rows end with its
        bucket's longest session, so that less padding is computed. A pass has as many batches as
        without, and every session once; the smaller batch, if any, is one of the longest sessions.
        Shuffled, each bucket is permuted anew for every pass, and so are the batches. The sessions
        then come in another order than they have here: made for `fit`, not for `predict`.

        Args:
            batch_size: Sessions in a batch; None for all of them in one.
            shuffle: Whether to permute the sessions anew for every pass.
            seed: Seed of the permutations.
            start_step: Step to start at.
            steps: Number of batches, from `start_step` on; passes follow one another as needed.
                None for as many as one pass has.
            buckets: Classes of session length, each with a number of rows of its own; without
                effect where all sessions are in one batch.

        Returns:
            A `tf.data.Dataset` of known cardinality, of `(x, y, sample_weight)`: x float32
            `(batch, R, O)`; y and sample_weight dicts with "choice", int32 and float32
            `(batch, R)`, and, when there are signals, "dopamine", float32 `(batch, R, K)`. With
            latents, x is a dict of "features" and "latents", float32 `(batch, R, L)`.

        Raises:
            ValueError: If an argument is not an integer in its range.
        """
        if batch_size is not None:
            check_integer("batch_size", batch_size, 1)
        if steps is not None:
            check_integer("steps", steps, 1)
        check_integer("start_step", start_step, 0)
        check_integer("seed", seed, None)
        check_integer("buckets", buckets, 1)
        sessions = self.n_sessions
        size = sessions if batch_size is None else min(batch_size, sessions)
        per_pass = -(-sessions // size)
        steps = per_pass if steps is None else steps

        target, weight = {"choice": self.choice}, {"choice": self.choice_weight}
        if self.num_signals:
            target["dopamine"], weight["dopamine"] = self.dopamine, self.dopamine_weight
        inputs = self.features
        if self.latents is not None:
            inputs = {"features": self.features, "latents": self.latents}
        # tf.data runs on the host, where the arrays may then be read in place.
        with tf.device("CPU:0"):
            everything = tf.nest.map_structure(tf.convert_to_tensor, (inputs, target, weight))
            if per_pass == 1:
                return tf.data.Dataset.from_tensors(everything).repeat(steps)
            steps_range = tf.data.Dataset.range(start_step, start_step + steps)
            if buckets > 1:
                batch = self._bucketed(everything, size, buckets, seed if shuffle else None)
                return steps_range.map(batch).prefetch(2)

            def batch(step):
                order = tf.range(sessions)
                if shuffle:
                    order = tf.random.experimental.stateless_shuffle(
                        order,
                        seed=tf.stack([tf.constant(seed, tf.int64), step // per_pass]),
                        alg="philox",  # the same permutations whatever the devices
                    )
                first = (step % per_pass) * size
                picked = order[first : first + size]
                if sessions % size == 0:
                    picked = tf.ensure_shape(picked, [size])
                return tf.nest.map_structure(lambda tensor: tf.gather(tensor, picked), everything)

            return steps_range.map(batch).prefetch(2)

    def _bucketed(self, everything, size: int, buckets: int, seed: int | None) -> Callable:
        """The function from a step to its batch of sessions of like length."""
        by_length = np.argsort(self.trials_per_session, kind="stable")
        per_pass = -(-self.n_sessions // size)
        groups = np.array_split(np.arange(per_pass), min(buckets, per_pass))
        ends = np.minimum([(group[-1] + 1) * size for group in groups], self.n_sessions)
        # The lengths rise, so the last session of a bucket is its longest.
        rows = tf.constant(self.trials_per_session[by_length[ends - 1]] + 1, tf.int64)
        firsts = tf.constant([group[0] * size for group in groups], tf.int64)
        ends = tf.constant(ends, tf.int64)
        bucket_of = tf.constant(np.repeat(np.arange(len(groups)), list(map(len, groups))), tf.int64)
        by_length = tf.constant(by_length, tf.int64)

        def shuffled(values, one_pass, part):
            if seed is None:
                return values
            number = one_pass * (len(groups) + 1) + part
            return tf.random.experimental.stateless_shuffle(
                values, seed=tf.stack([tf.constant(seed, tf.int64), number]), alg="philox"
            )

        def batch(step):
            one_pass = step // per_pass
            order = shuffled(tf.range(per_pass, dtype=tf.int64), one_pass, 0)
            index = order[step % per_pass]
            bucket = bucket_of[index]
            first = firsts[bucket]
            inside = shuffled(by_length[first : ends[bucket]], one_pass, bucket + 1)
            picked = inside[index * size - first :][:size]
            return tf.nest.map_structure(
                lambda tensor: tf.gather(tensor, picked)[:, : rows[bucket]], everything
            )

        return batch


@dataclasses.dataclass(frozen=True)
class Origin:
    """Where trials came from, so that an error can point at them in the user's own terms.

    Args:
        source: The file, or "" when there is none to name.
        columns: Column of the user's table for each role that has one name; empty when there is
            no table.
    """

    source: str = ""
    columns: Mapping[str, str] = dataclasses.field(default_factory=dict)

    def label(self, role: str, name: str | None = None) -> str:
        """Names a role, or one of several in it, by the column in the user's table if any."""
        if self.columns:
            return f"column {self.columns.get(role, name)!r} ({role})"
        return role if name is None else f"{role} {name!r}"

    def error(self, message: str) -> ValueError:
        """Puts the source before a message."""
        return ValueError(f"{self.source}: {message}" if self.source else message)


def assemble(
    *,
    choice: np.ndarray,
    reward: np.ndarray,
    dopamine: np.ndarray | None,
    forced: np.ndarray | None,
    missed: np.ndarray | None,
    observations: np.ndarray | None,
    lengths: np.ndarray,
    subjects: Sequence[str],
    ids: Sequence[str],
    num_arms: int | None,
    reward_kind: str,
    observation_names: Sequence[str],
    signal_names: Sequence[str],
    origin: Origin,
    rows: tuple[np.ndarray, ...] | None = None,
) -> Sessions:
    """Checks N trials laid end to end, session after session, and shifts them into rows.

    The only place where trial k - 1 becomes the features of row k. See `Sessions.from_trials` for
    the meaning of the arguments; here they are flat.

    Args:
        choice: float64 `(N,)`, NaN where there is none.
        reward: float64 `(N,)`.
        dopamine: float64 `(N, K)`, or None.
        forced: bool `(N,)`, or None.
        missed: bool `(N,)`, or None.
        observations: float64 `(N, extra)`, or None.
        lengths: int `(S,)`, trials of each session, each at least 1; they sum to N.
        subjects: S subjects.
        ids: S session ids.
        num_arms: Number of arms, or None to infer it.
        reward_kind: "binary" or "real".
        observation_names: Names of the extra observations.
        signal_names: Names of the K signals.
        origin: Names the trials in errors.
        rows: See `Sessions`.

    Returns:
        The sessions.

    Raises:
        ValueError: If a value is not as described.
    """
    if reward_kind not in REWARD_KINDS:
        raise ValueError(f"reward_kind must be one of {REWARD_KINDS}, got {reward_kind!r}")
    if num_arms is not None:
        check_integer("num_arms", num_arms, 2)
    trials = len(choice)
    dopamine = np.empty((trials, 0)) if dopamine is None else dopamine
    observations = np.empty((trials, 0)) if observations is None else observations
    forced = np.zeros(trials, bool) if forced is None else forced
    starts = np.cumsum(lengths) - lengths
    session = np.repeat(np.arange(len(lengths)), lengths)
    trial = np.arange(trials) - starts[session]

    def where(position: int) -> str:
        if origin.columns:
            return f"row {position} (session {ids[session[position]]!r})"
        return f"trial {trial[position]} of session {ids[session[position]]!r}"

    def refuse(label: str, values: np.ndarray, bad: np.ndarray, expected: str, hint: str = ""):
        if bad.any():
            first = int(np.flatnonzero(bad)[0])
            more = int(bad.sum()) - 1
            raise origin.error(
                f"{label} must be {expected}, got {values[first]:g} in {where(first)}"
                + (f" and in {more} more" if more else "")
                + (f"; {hint}" if hint else "")
            )

    if missed is None:
        way = "name a column for missed" if origin.columns else "pass missed"
        refuse(
            origin.label("choice"),
            choice,
            np.isnan(choice),
            "present in every trial",
            f"if no choice was made there, {way} (True where the trial was missed)",
        )
        missed = np.zeros(trials, bool)
    missed = missed | np.isnan(choice)
    made = ~missed
    empty = np.bincount(session, weights=made, minlength=len(lengths)) == 0
    if empty.any():
        first = int(np.flatnonzero(empty)[0])
        raise origin.error(
            f"every session needs a trial with a choice, got session {ids[first]!r} with "
            f"{lengths[first]} trials, all missed; leave it out"
        )
    _check_choices(choice, made, num_arms, origin, refuse)
    if num_arms is None:
        num_arms = max(2, int(choice[made].max()) + 1)

    with np.errstate(over="ignore"):  # a reward too large for float32 is refused as infinite
        observed = np.column_stack([choice, reward, observations]).astype(np.float32)
        response = dopamine.astype(np.float32)
    binary = reward_kind == "binary"
    refuse(
        origin.label("reward"),
        reward,
        made & ~np.isfinite(observed[:, 1]),
        "finite",
        "a trial without an outcome can be marked as missed",
    )
    refuse(
        origin.label("reward"),
        reward,
        made & ~np.isin(reward, (0, 1)) & binary,
        "0 or 1 with reward_kind='binary'",
        "pass reward_kind='real' for rewards that are amounts",
    )
    for column, name in enumerate(observation_names):
        bad = made & ~np.isfinite(observed[:, 2 + column])
        label = origin.label("observation", name)
        refuse(label, observations[:, column], bad, "finite", "a missed trial needs none")
    counted = made[:, None] & ~np.isnan(response)
    for column, name in enumerate(signal_names):
        label = origin.label("dopamine", name)
        bad = made & np.isinf(response[:, column])
        refuse(label, dopamine[:, column], bad, "finite, or NaN where missing")
        bad = made & (np.abs(response[:, column]) > LARGEST_RESPONSE)
        expected = f"from {-LARGEST_RESPONSE:g} to {LARGEST_RESPONSE:g}"
        hint = "that cannot be dF/F or a z-score: convert it to one, or empty the cell"
        refuse(label, dopamine[:, column], bad, expected, hint)
        if not counted[:, column].any():
            raise origin.error(
                f"{label} must have a value in some trial, got NaN in all "
                f"{int(made.sum())}; leave it out if dopamine was not recorded"
            )
    free = made & ~forced
    if not free.any():
        raise origin.error(
            f"some trial must have a free choice to learn from, got {trials} trials of which "
            f"{int((made & forced).sum())} are forced and {int(missed.sum())} missed"
        )

    shape = (len(lengths), int(lengths.max()) + 1)
    features = np.full((*shape, observed.shape[1]), np.nan, np.float32)
    features[:, 0] = 0
    features[session[made], trial[made] + 1] = observed[made]
    choice_target = np.zeros(shape, np.int32)
    choice_target[session, trial] = np.where(free, choice, 0)
    choice_weight = np.zeros(shape, np.float32)
    choice_weight[session, trial] = free
    dopamine_target = np.zeros((*shape, response.shape[1]), np.float32)
    dopamine_target[session, trial + 1] = np.where(counted, response, 0)
    dopamine_weight = np.zeros_like(dopamine_target)
    dopamine_weight[session, trial + 1] = counted
    return Sessions(
        features=features,
        choice=choice_target,
        choice_weight=choice_weight,
        dopamine=dopamine_target,
        dopamine_weight=dopamine_weight,
        subjects=tuple(subjects),
        ids=tuple(ids),
        num_arms=num_arms,
        observation_names=("choice", "reward", *observation_names),
        signal_names=tuple(signal_names),
        trials_per_session=np.asarray(lengths, np.int64),
        rows=rows,
    )


def _check_choices(
    choice: np.ndarray, made: np.ndarray, num_arms: int | None, origin: Origin, refuse: Callable
):
    """Refuses choices that are not arms counted from 0."""
    label = origin.label("choice")
    whole = (choice == np.rint(choice)) & (choice >= 0) & (choice < np.iinfo(np.int32).max)
    if num_arms is not None:
        expected = f"a whole number from 0 to {num_arms - 1} (num_arms={num_arms})"
        refuse(label, choice, made & ~(whole & (choice < num_arms)), expected)
        return
    refuse(label, choice, made & ~whole, "a whole number, counting the arms from 0")
    codes = np.unique(choice[made]).astype(int)
    # Choices coded 1 and 2 would otherwise pass as three arms, the first never chosen.
    if codes[-1] > 1 and len(codes) <= codes[-1]:
        raise origin.error(
            f"{label} must count the arms from 0 without gaps, got only "
            f"{', '.join(map(str, codes[:6]))}{' and more' if len(codes) > 6 else ''}; recode it, "
            f"or pass num_arms={codes[-1] + 1} if the other arms were there but never chosen"
        )


def summary(sessions: Sessions) -> pd.DataFrame:
    """Counts what a data set holds, to be looked at before a fit.

    Args:
        sessions: The data set.

    Returns:
        One row a subject, and a last row "(all)", with the columns `sessions`, `trials`, `forced`,
        `missed` (counts; missed trials are not counted as forced), `reward_rate` (mean reward of
        the trials not missed), `choice_0`, `choice_1` and so on (fraction of the free choices), and
        for each signal its mean and standard deviation, in its own unit, and the number of trials,
        not missed, without a value: `<signal>_mean`, `<signal>_sd`, `<signal>_missing`, and its
        smallest and largest value, `<signal>_min` and `<signal>_max`. Where sessions were dropped
        by `drop_sessions` there are also `dropped_sessions`, `dropped_trials` and `dropped_why`;
        the other columns do not count them.
    """
    rows = sessions.features.shape[1]
    session, trial = np.nonzero(np.arange(rows) < sessions.trials_per_session[:, None])
    described = sessions.features[session, trial + 1]  # row k + 1 tells of trial k
    made = ~np.isnan(described[:, 0])
    free = sessions.choice_weight[session, trial] > 0
    table = pd.DataFrame(
        {
            "subject": np.asarray(sessions.subjects, object)[session],
            "trials": 1,
            "forced": (made & ~free).astype(int),
            "missed": (~made).astype(int),
            "reward_rate": described[:, 1].astype(float),
        }
    )
    sums, means = ["trials", "forced", "missed"], ["reward_rate"]
    for arm in range(sessions.num_arms):
        table[f"choice_{arm}"] = np.where(free, described[:, 0] == arm, np.nan)
        means.append(f"choice_{arm}")
    for index, name in enumerate(sessions.signal_names):
        present = sessions.dopamine_weight[session, trial + 1, index] > 0
        values = sessions.dopamine[session, trial + 1, index].astype(float)
        for part in ("mean", "sd", "min", "max"):
            table[f"{name}_{part}"] = np.where(present, values, np.nan)
        table[f"{name}_missing"] = (made & ~present).astype(int)
    statistic = {**dict.fromkeys(sums, "sum"), **dict.fromkeys(means, "mean")}
    for name in sessions.signal_names:
        statistic |= {f"{name}_mean": "mean", f"{name}_sd": "std", f"{name}_missing": "sum"}
        statistic |= {f"{name}_min": "min", f"{name}_max": "max"}
    by_subject = table.groupby("subject", sort=False).agg(statistic)
    counts = pd.Series(sessions.subjects).value_counts()
    by_subject.insert(0, "sessions", counts.reindex(by_subject.index))
    everyone = table.assign(subject="(all)").groupby("subject").agg(statistic)
    everyone.insert(0, "sessions", sessions.n_sessions)
    told = pd.concat([by_subject, everyone])
    return _with_dropped(told, sessions.dropped) if sessions.dropped else told


def _with_dropped(told: pd.DataFrame, dropped: tuple[Dropped, ...]) -> pd.DataFrame:
    """Adds the sessions left out, and subjects that have no others, to a summary."""
    subjects = [name for name in told.index if name != "(all)"]
    subjects += [one.subject for one in dropped if one.subject not in subjects]
    told = told.reindex([*dict.fromkeys(subjects), "(all)"])
    counts = [name for name in told if name in ("sessions", "trials", "forced", "missed")]
    counts += [name for name in told if name.endswith("_missing")]
    told[counts] = told[counts].fillna(0).astype(int)
    for name in told.index:
        own = [one for one in dropped if name in ("(all)", one.subject)]
        told.loc[name, "dropped_sessions"] = len(own)
        told.loc[name, "dropped_trials"] = sum(one.trials for one in own)
        told.loc[name, "dropped_why"] = "; ".join(f"{one.session}: {one.reason}" for one in own)
    numbers = ["dropped_sessions", "dropped_trials"]
    return told.astype(dict.fromkeys(numbers, int))


def drop_sessions(sessions: Sessions, reasons: Mapping[str, str]) -> Sessions:
    """Leaves sessions out, and remembers which and why for `summary`.

    Args:
        sessions: The data set.
        reasons: The reason for each session to leave out, by id, such as `find_artefacts` gives.

    Returns:
        The other sessions, in their order.

    Raises:
        ValueError: If there is no session of such an id, a reason is empty, or none would be left.
    """
    for name, reason in reasons.items():
        if name not in sessions.ids:
            raise ValueError(
                f"reasons must name sessions of the data, got {name!r}"
                f"{suggest(str(name), sessions.ids)}"
            )
        if not isinstance(reason, str) or not reason.strip():
            raise ValueError(f"session {name!r} needs a reason to be dropped, got {reason!r}")
    kept = np.array([name not in reasons for name in sessions.ids])
    if not kept.any():
        raise ValueError(f"some session must be left, got reasons to drop all {len(kept)}")
    dropped = tuple(
        Dropped(subject, name, int(trials), reasons[name])
        for subject, name, trials in zip(
            sessions.subjects, sessions.ids, sessions.trials_per_session, strict=True
        )
        if name in reasons
    )
    return dataclasses.replace(sessions.subset(kept), dropped=sessions.dropped + dropped)


def _concatenate(
    name: str, arrays: Sequence, ids: Sequence[str], lengths: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Joins one array a session into float64 `(N, columns)`, and tells their lengths."""
    columns = []
    for index, array in enumerate(arrays):
        try:
            array = np.asarray(array, np.float64)
        except (TypeError, ValueError):
            raise ValueError(
                f"{name} must be numbers, got {array!r} in session {ids[index]!r}"
            ) from None
        two_dimensional = array.ndim == 2 and name in ("dopamine", "observations")
        if array.ndim != 1 and not two_dimensional:
            raise ValueError(
                f"{name} must have shape (trials,) in each session, got shape {array.shape} in "
                f"session {ids[index]!r}"
            )
        expected = max(len(array), 1) if lengths is None else lengths[index]
        if len(array) != expected:
            raise ValueError(
                f"{name} must have {expected} trials in session {ids[index]!r}"
                f"{', as choice has' if lengths is not None else ' at least'}, got {len(array)}"
            )
        columns.append(array if array.ndim == 2 else array[:, None])
    widths = {array.shape[1] for array in columns}
    if len(widths) > 1:
        raise ValueError(f"{name} must have as many columns in every session, got {sorted(widths)}")
    return np.concatenate(columns), np.array([len(array) for array in columns])


def _numbered(name: str, count: int) -> tuple[str, ...]:
    return tuple(f"{name}_{number}" for number in range(1, count + 1))


def _first_repeated(names: Sequence[str]) -> str | None:
    seen = set()
    for name in names:
        if name in seen:
            return name
        seen.add(name)
    return None


def _check_strings(name: str, value, length: int):
    if (
        not isinstance(value, tuple)
        or len(value) != length
        or not all(isinstance(v, str) for v in value)
    ):
        raise ValueError(f"{name} must be a tuple of {length} strings, got {value!r}")

"""Checks of trials, and their layout into time steps.

This is the only place where trial k - 1 becomes the input of time step k. `Sessions` (in memory)
and `stream_from_tfds` (batch by batch) both use it, so both refuse the same input.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from keras_disrnn.utils.checks import check_integer, suggest

REWARD_KINDS = ("binary", "real")
SUBJECT = "subject"
"""Name of the observation that holds the index of the subject."""
LARGEST_RESPONSE = 1e4
"""Larger than any dopamine response in dF/F, percent or standard deviations."""


@dataclasses.dataclass(frozen=True)
class Origin:
    """The source of trials, so that an error can name them in the user's own words.

    Args:
        source: The file, or "" if there is none to name.
        columns: The column of the user's table for each role that has one column. Empty if there
            is no table.
    """

    source: str = ""
    columns: Mapping[str, str] = dataclasses.field(default_factory=dict)

    def label(self, role: str, name: str | None = None) -> str:
        """Return how an error calls a role, or one of the columns that share a role."""
        if self.columns:
            return f"column {self.columns.get(role, name)!r} ({role})"
        return role if name is None else f"{role} {name!r}"

    def error(self, message: str) -> ValueError:
        """Make an error whose message starts with the source."""
        return ValueError(f"{self.source}: {message}" if self.source else message)


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class Trials:
    """The trials of S sessions in N rows, one session after another.

    Args:
        choice: float64 `(N,)`, the arm chosen; NaN where there is none.
        reward: float64 `(N,)`; not read on missed trials.
        lengths: int `(S,)`, the trials of each session; they sum to N.
        ids: The ids of the S sessions.
        dopamine: float64 `(N, K)`, NaN where missing.
        observations: float64 `(N, extra)`, further inputs.
        forced: bool `(N,)`, or None if no choice was forced.
        missed: bool `(N,)`, or None. If given, a NaN choice counts as missed, too.
        signal_names: Names of the K signals.
        observation_names: Names of the extra observations.
        origin: Names the trials in errors.
    """

    choice: np.ndarray
    reward: np.ndarray
    lengths: np.ndarray
    ids: Sequence[str]
    dopamine: np.ndarray
    observations: np.ndarray
    forced: np.ndarray | None = None
    missed: np.ndarray | None = None
    signal_names: Sequence[str] = ()
    observation_names: Sequence[str] = ()
    origin: Origin = Origin()
    _session: np.ndarray = dataclasses.field(init=False)
    _trial: np.ndarray = dataclasses.field(init=False)
    _made: np.ndarray = dataclasses.field(init=False)
    _free: np.ndarray = dataclasses.field(init=False)
    _observed: np.ndarray = dataclasses.field(init=False)
    _response: np.ndarray = dataclasses.field(init=False)
    _recorded: np.ndarray = dataclasses.field(init=False)

    def __post_init__(self) -> None:
        count = len(self.choice)
        session = np.repeat(np.arange(len(self.lengths)), self.lengths)
        trial = np.arange(count) - (np.cumsum(self.lengths) - self.lengths)[session]
        absent = np.isnan(self.choice)
        missed = absent if self.missed is None else self.missed | absent
        forced = np.zeros(count, bool) if self.forced is None else self.forced
        with np.errstate(over="ignore"):  # A value too large for float32 becomes infinite.
            observed = np.column_stack([self.choice, self.reward, self.observations])
            observed, response = observed.astype(np.float32), self.dopamine.astype(np.float32)
        derived = {
            "_session": session,
            "_trial": trial,
            "_made": ~missed,
            "_free": ~missed & ~forced,
            "_observed": observed,
            "_response": response,
            "_recorded": ~missed[:, None] & ~np.isnan(response),
        }
        for name, value in derived.items():
            object.__setattr__(self, name, value)

    # === Checks ===

    def check(self, *, num_arms: int | None, reward_kind: str) -> None:
        """Check every trial and every session.

        Args:
            num_arms: Number of arms, or None if it is not known.
            reward_kind: "binary" or "real".

        Raises:
            ValueError: If a value is not as described; the message names the session and the trial.
        """
        check_reward_kind(reward_kind)
        if num_arms is not None:
            check_integer("num_arms", num_arms, 2)
        label, made = self.origin.label, self._made
        if self.missed is None:
            way = "name a column for missed" if self.origin.columns else "pass missed"
            hint = f"if no choice was made, {way} (True where the trial was missed)"
            self._refuse(label("choice"), self.choice, ~made, "a value in every trial", hint)
        empty = np.bincount(self._session, weights=made, minlength=len(self.lengths)) == 0
        if empty.any():
            first = int(np.flatnonzero(empty)[0])
            raise self.origin.error(
                f"{label('choice')}: expected a choice in every session, got session "
                f"{self.ids[first]!r} with {self.lengths[first]} trials, all missed; leave it out"
            )
        self._check_choices(num_arms)
        reward = (label("reward"), self.reward)
        hint = "a trial without an outcome can be marked as missed"
        self._refuse(*reward, made & ~np.isfinite(self._observed[:, 1]), "a finite number", hint)
        if reward_kind == "binary":
            wrong = made & ~np.isin(self.reward, (0, 1))
            hint = "pass reward_kind='real' if rewards are amounts"
            self._refuse(*reward, wrong, "0 or 1 (reward_kind='binary')", hint)
        for column, name in enumerate(self.observation_names):
            values = (label("observation", name), self.observations[:, column])
            wrong = made & ~np.isfinite(self._observed[:, 2 + column])
            self._refuse(*values, wrong, "a finite number", "only a missed trial needs none")
        for column, name in enumerate(self.signal_names):
            values = (label("dopamine", name), self.dopamine[:, column])
            response = self._response[:, column]
            expected = "a finite number, or NaN where it is missing"
            self._refuse(*values, made & np.isinf(response), expected)
            expected = f"a number from {-LARGEST_RESPONSE:g} to {LARGEST_RESPONSE:g}"
            hint = "this is neither dF/F nor a z-score: convert it, or leave the cell empty"
            self._refuse(*values, made & (np.abs(response) > LARGEST_RESPONSE), expected, hint)

    def check_whole(self) -> None:
        """Check what only a whole data set must have, not each part of it.

        Raises:
            ValueError: If there is no free choice, or a signal has no value.
        """
        made = self._made
        for column, name in enumerate(self.signal_names):
            if not self._recorded[:, column].any():
                raise self.origin.error(
                    f"{self.origin.label('dopamine', name)}: expected a value in some trial, got "
                    f"NaN in all {int(made.sum())}; leave it out if dopamine was not recorded"
                )
        if not self._free.any():
            raise self.origin.error(
                f"{self.origin.label('choice')}: expected a free choice in some trial, got "
                f"{len(made)} trials, of which {int((made & ~self._free).sum())} are forced and "
                f"{int((~made).sum())} missed"
            )

    def _check_choices(self, num_arms: int | None) -> None:
        label, choice, made = self.origin.label("choice"), self.choice, self._made
        whole = (choice == np.rint(choice)) & (choice >= 0) & (choice < np.iinfo(np.int32).max)
        if num_arms is not None:
            expected = f"a whole number from 0 to {num_arms - 1} (num_arms={num_arms})"
            self._refuse(label, choice, made & ~(whole & (choice < num_arms)), expected)
            return
        self._refuse(label, choice, made & ~whole, "a whole number (arms count from 0)")
        codes = np.unique(choice[made]).astype(int)
        # Otherwise choices coded 1 and 2 would pass as three arms, with the first one never chosen.
        if codes[-1] > 1 and len(codes) <= codes[-1]:
            raise self.origin.error(
                f"{label}: expected arms that count from 0 without gaps, got only "
                f"{', '.join(map(str, codes[:6]))}{' and more' if len(codes) > 6 else ''}; recode "
                f"it, or pass num_arms={codes[-1] + 1} if the other arms were never chosen"
            )

    def _refuse(
        self, label: str, values: np.ndarray, bad: np.ndarray, expected: str, hint: str = ""
    ) -> None:
        if not bad.any():
            return
        first, more = int(np.flatnonzero(bad)[0]), int(bad.sum()) - 1
        session = self.ids[self._session[first]]
        where = f"trial {self._trial[first]} of session {session!r}"
        if self.origin.columns:
            where = f"row {first} (session {session!r})"
        raise self.origin.error(
            f"{label}: expected {expected}, got {values[first]:g} in {where}"
            + (f" and in {more} more" if more else "")
            + (f"; {hint}" if hint else "")
        )

    # === Layout ===

    def count_arms(self) -> int:
        """Return the number of arms that the choices show, at least 2."""
        return max(2, int(self.choice[self._made].max()) + 1)

    def lay_out(self, num_trials: int | None = None) -> dict[str, np.ndarray]:
        """Lay the trials out into R time steps, as `Sessions` describes.

        Args:
            num_trials: R - 1, the trials that every session is padded to. Those of the longest
                session if None.

        Returns:
            The arrays `features`, `choice`, `choice_weight`, `dopamine` and `dopamine_weight` of
            `Sessions`.

        Raises:
            ValueError: If a session is longer than `num_trials`.
        """
        longest = int(np.argmax(self.lengths))
        num_trials = int(self.lengths[longest]) if num_trials is None else num_trials
        if self.lengths[longest] > num_trials:
            raise ValueError(
                f"num_trials: expected at least the trials of every session, got {num_trials}, but "
                f"session {self.ids[longest]!r} has {self.lengths[longest]}"
            )
        session, trial, made = self._session, self._trial, self._made
        shape = (len(self.lengths), num_trials + 1)
        features = np.full((*shape, self._observed.shape[1]), np.nan, np.float32)
        features[:, 0] = 0
        features[session[made], trial[made] + 1] = self._observed[made]
        choice = np.zeros(shape, np.int32)
        choice[session, trial] = np.where(self._free, self.choice, 0)
        choice_weight = np.zeros(shape, np.float32)
        choice_weight[session, trial] = self._free
        dopamine = np.zeros((*shape, self._response.shape[1]), np.float32)
        dopamine[session, trial + 1] = np.where(self._recorded, self._response, 0)
        dopamine_weight = np.zeros_like(dopamine)
        dopamine_weight[session, trial + 1] = self._recorded
        return {
            "features": features,
            "choice": choice,
            "choice_weight": choice_weight,
            "dopamine": dopamine,
            "dopamine_weight": dopamine_weight,
        }


def check_reward_kind(reward_kind: str) -> None:
    """Raise ValueError unless `reward_kind` is "binary" or "real"."""
    if reward_kind not in REWARD_KINDS:
        raise ValueError(f"reward_kind: expected one of {REWARD_KINDS}, got {reward_kind!r}")


def trials_from_arrays(
    choice: Sequence[Any],
    reward: Sequence[Any],
    *,
    ids: Sequence[str],
    dopamine: Sequence[Any] | None = None,
    forced: Sequence[Any] | None = None,
    missed: Sequence[Any] | None = None,
    observations: Sequence[Any] | None = None,
    observation_names: Sequence[str] | None = None,
    signal_names: Sequence[str] | None = None,
) -> Trials:
    """Join arrays that are given session by session.

    Args:
        choice: One array per session; see `Sessions.from_trials` for this and the others.
        reward: One array per session.
        ids: One id per session.
        dopamine: One array per session, or None.
        forced: One array per session, or None.
        missed: One array per session, or None.
        observations: One array per session, or None.
        observation_names: Names of the extra observations, or None.
        signal_names: Names of the signals, or None.

    Returns:
        The trials.

    Raises:
        ValueError: If the lengths disagree, or a value is not a number.
    """
    joined, lengths = _join("choice", choice, ids)
    flat = {"choice": joined}
    for name, arrays in (
        ("reward", reward),
        ("dopamine", dopamine),
        ("forced", forced),
        ("missed", missed),
        ("observations", observations),
    ):
        if arrays is not None:
            flat[name], _ = _join(name, arrays, ids, lengths)
    nothing = np.empty((len(joined), 0))
    responses, extra = flat.get("dopamine", nothing), flat.get("observations", nothing)
    if signal_names is None:
        signal_names = _number("dopamine", responses.shape[1], single="dopamine")
    if observation_names is None:
        observation_names = _number("observation", extra.shape[1], single="observation_1")
    for name, names, values in (
        ("observation_names", observation_names, extra),
        ("signal_names", signal_names, responses),
    ):
        if len(names) != values.shape[1]:
            raise ValueError(f"{name}: expected {values.shape[1]} names, got {tuple(names)!r}")
    return Trials(
        choice=flat["choice"][:, 0],
        reward=flat["reward"][:, 0],
        lengths=lengths,
        ids=ids,
        dopamine=responses,
        observations=extra,
        forced=flat["forced"][:, 0].astype(bool) if "forced" in flat else None,
        missed=flat["missed"][:, 0].astype(bool) if "missed" in flat else None,
        signal_names=signal_names,
        observation_names=observation_names,
    )


_NO_NUMBERS = (complex, np.complexfloating, np.timedelta64, np.datetime64)
"""What NumPy converts to a number without the imaginary part or the unit."""


def _join(
    name: str, arrays: Sequence[Any], ids: Sequence[str], lengths: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Join one array per session into float64 `(N, columns)`; return it and the lengths."""
    parts = []
    for index, array in enumerate(arrays):
        where = f"in session {ids[index]!r}"
        try:
            given = np.asarray(array)
            values = given.ravel() if given.dtype.kind == "O" else given.ravel()[:1]
            if any(isinstance(value, _NO_NUMBERS) for value in values):
                raise TypeError
            array = np.asarray(array, np.float64)
        except (TypeError, ValueError, OverflowError):
            raise ValueError(f"{name}: expected numbers, got {array!r} {where}") from None
        if array.ndim != 1 and not (array.ndim == 2 and name in ("dopamine", "observations")):
            raise ValueError(
                f"{name}: expected shape (trials,) in each session, got {array.shape} {where}"
            )
        if lengths is None and not len(array):
            raise ValueError(f"{name}: expected at least 1 trial, got none {where}")
        if lengths is not None and len(array) != lengths[index]:
            raise ValueError(
                f"{name}: expected {lengths[index]} trials, as in choice, got {len(array)} {where}"
            )
        if name in ("forced", "missed") and not np.isin(array, (0, 1)).all():
            wrong = array[~np.isin(array, (0, 1))][0]
            raise ValueError(f"{name}: expected True or False, got {wrong} {where}")
        parts.append(array if array.ndim == 2 else array[:, None])
    widths = sorted({part.shape[1] for part in parts})
    if len(widths) > 1:
        raise ValueError(f"{name}: expected as many columns in every session, got {widths}")
    return np.concatenate(parts), np.array([len(part) for part in parts])


def _number(name: str, count: int, *, single: str) -> tuple[str, ...]:
    """Return names for `count` columns."""
    return (single,) if count == 1 else tuple(f"{name}_{i}" for i in range(1, count + 1))


def subject_index(subjects: Sequence[str], ids: Sequence[str], names: Sequence[str]) -> np.ndarray:
    """Find each session's subject in a list of names.

    Args:
        subjects: The subject of each session.
        ids: The id of each session.
        names: The names to find the subjects in.

    Returns:
        The positions, int `(S,)`.

    Raises:
        ValueError: If a subject is not among the names.
    """
    place = {name: index for index, name in enumerate(names)}
    for subject, session in zip(subjects, ids, strict=True):
        if subject not in place:
            listed = ", ".join(map(repr, names[:10])) + (", ..." if len(names) > 10 else "")
            raise ValueError(
                f"subject: expected one of the model's {len(names)} ({listed}), got subject "
                f"{subject!r} in session {session!r}{suggest(subject, names)}; leave its sessions "
                "out, or adapt the model to it (keras-disrnn adapt)"
            )
    return np.array([place[subject] for subject in subjects])


def add_subject(features: np.ndarray, index: np.ndarray) -> np.ndarray:
    """Append the index of each session's subject as the last feature.

    Args:
        features: float32 `(S, R, O)`.
        index: `(S,)`, the index of each session's subject.

    Returns:
        float32 `(S, R, O + 1)`, NaN on skipped time steps.
    """
    column = np.where(np.isnan(features[..., :1]), np.nan, index[:, None, None])
    return np.concatenate([features, column.astype(np.float32)], axis=-1)

"""Checks of trials, and their layout into time steps.

This is the only place where trial k - 1 becomes the input of time step k. `Sessions` (in memory)
and `stream_from_tfds` (batch by batch) both use it, so both refuse the same input.
"""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from keras_disrnn.data.plausibility import find_codes, find_doubts
from keras_disrnn.utils.checks import check_integer, suggest
from keras_disrnn.utils.memory import empty_aligned, full_aligned

REWARD_KINDS = ("binary", "real")
SUBJECT = "subject"
"""Name of the observation that holds the index of the subject."""
LARGEST_RESPONSE = 1e4
"""Larger than any dopamine response in dF/F, percent or standard deviations."""
LARGEST_REWARD = 1e4
"""Larger than any reward that a network can read."""
_MOST_COUNTED = 2**16


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
    _made: np.ndarray = dataclasses.field(init=False)
    _free: np.ndarray = dataclasses.field(init=False)
    _response: np.ndarray = dataclasses.field(init=False)
    _recorded: np.ndarray = dataclasses.field(init=False)

    def __post_init__(self) -> None:
        absent = np.isnan(self.choice)
        missed = absent if self.missed is None else self.missed | absent
        response = _to_single(self.dopamine)
        derived = {
            "_made": ~missed,
            "_free": ~missed if self.forced is None else ~missed & ~self.forced,
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
        empty = ~np.logical_or.reduceat(made, np.cumsum(self.lengths) - self.lengths)
        if empty.any():
            first = int(np.flatnonzero(empty)[0])
            raise self.origin.error(
                f"{label('choice')}: expected a choice in every session, got session "
                f"{self.ids[first]!r} with {self.lengths[first]} trials, all missed; leave it out"
            )
        self._check_choices(num_arms)
        reward = (label("reward"), self.reward)
        hint = "a trial without an outcome can be marked as missed"
        self._refuse(*reward, made & ~np.isfinite(_to_single(self.reward)), "a finite number", hint)
        for role, column_name, measured in self._measured():
            self._refuse_codes(role, column_name, measured)
        if reward_kind == "binary":
            wrong = made & ~np.isin(self.reward, (0, 1))
            hint = "pass reward_kind='real' if rewards are amounts"
            self._refuse(*reward, wrong, "0 or 1 (reward_kind='binary')", hint)
        large = made & (np.abs(self.reward) > LARGEST_REWARD)
        expected = f"a number from {-LARGEST_REWARD:g} to {LARGEST_REWARD:g}"
        self._refuse(*reward, large, expected, "divide all rewards by the usual one")
        for column, name in enumerate(self.observation_names):
            values = (label("observation", name), self.observations[:, column])
            wrong = made & ~np.isfinite(_to_single(values[1]))
            self._refuse(*values, wrong, "a finite number", "only a missed trial needs none")
        for column, name in enumerate(self.signal_names):
            values = (label("dopamine", name), self.dopamine[:, column])
            response = self._response[:, column]
            expected = "a finite number, or NaN where it is missing"
            self._refuse(*values, made & np.isinf(response), expected)
            expected = f"a number from {-LARGEST_RESPONSE:g} to {LARGEST_RESPONSE:g}"
            hint = "this is neither dF/F nor a z-score: convert it, or leave the cell empty"
            self._refuse(*values, made & (np.abs(response) > LARGEST_RESPONSE), expected, hint)

    def check_whole(self, *, count_arms: bool) -> None:
        """Check what only a whole data set must have, not each part of it, and warn of doubts.

        Args:
            count_arms: Whether the arms were counted, so that more than two are worth a warning.

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
        self.warn(said=set(), whole=True, count_arms=count_arms)

    def warn(self, *, said: set[str], whole: bool, count_arms: bool = False) -> None:
        """Warn, by name, of values that are read but may not be meant.

        Args:
            said: Keys of what was said before and is not said again. This call adds its own.
            whole: Whether these are all trials, not a part of them.
            count_arms: Whether more than two arms are worth a warning.
        """
        doubts = [self._doubt_arms()] if count_arms and self.count_arms() > 2 else []
        for role, name, values in self._measured():
            label = self.origin.label(role, name)
            doubts += find_doubts(role, label, values, self._name_places, whole=whole)
        for key, message in doubts:
            if key not in said:
                said.add(key)
                warnings.warn(str(self.origin.error(message)), stacklevel=5)

    def _doubt_arms(self) -> tuple[str, str]:
        arms, counts = _count_codes(self.choice[self._made].astype(np.int32))
        each = [f"{arm} in {n} trials" for arm, n in zip(arms[:6], counts, strict=False)]
        return (
            "arms",
            f"{self.origin.label('choice')}: expected 2 arms, got {self.count_arms()} "
            f"({', '.join(each)}{' and more' if len(arms) > 6 else ''}); if one of them means that "
            f"no choice was made, mark these trials as missed; else pass num_arms="
            f"{self.count_arms()}",
        )

    def _measured(self) -> Iterator[tuple[str, str | None, np.ndarray]]:
        """Yield role, name and values of each column, NaN where nothing is read."""
        yield "reward", None, np.where(self._made, self.reward, np.nan)
        for role, names, values in (
            ("observation", self.observation_names, self.observations),
            ("dopamine", self.signal_names, self.dopamine),
        ):
            for column, name in enumerate(names):
                yield role, name, np.where(self._made, values[:, column], np.nan)

    def _refuse_codes(self, role: str, name: str | None, values: np.ndarray) -> None:
        hint = "it looks like the code of a missing value: "
        hint += "leave it empty (NaN)" if role == "dopamine" else "mark the trial as missed"
        # A reward may be 99.
        codes = find_codes(values, positive=role != "reward")
        self._refuse(self.origin.label(role, name), values, codes, "a measured value", hint)

    def _check_choices(self, num_arms: int | None) -> None:
        label, choice, made = self.origin.label("choice"), self.choice, self._made
        whole = (choice == np.rint(choice)) & (choice >= 0) & (choice < np.iinfo(np.int32).max)
        if num_arms is not None:
            expected = f"a whole number from 0 to {num_arms - 1} (num_arms={num_arms})"
            self._refuse(label, choice, made & ~(whole & (choice < num_arms)), expected)
            return
        hint = "if no choice was made, mark the trial as missed" if (choice[made] < 0).any() else ""
        self._refuse(label, choice, made & ~whole, "a whole number (arms count from 0)", hint)
        codes = _count_codes(choice[made].astype(np.int32))[0]
        # Otherwise choices coded 1 and 2 would pass as three arms, with the first one never chosen.
        if codes[-1] > 1 and len(codes) <= codes[-1]:
            raise self.origin.error(
                f"{label}: expected arms that count from 0 without gaps, got only "
                f"{', '.join(map(str, codes[:6]))}{' and more' if len(codes) > 6 else ''}; recode "
                "it; mark trials without a choice as missed; pass "
                f"num_arms={codes[-1] + 1} if the other arms were never chosen"
            )

    def _refuse(
        self, label: str, values: np.ndarray, bad: np.ndarray, expected: str, hint: str = ""
    ) -> None:
        if not bad.any():
            return
        places = self._name_places(values, bad)
        raise self.origin.error(
            f"{label}: expected {expected}, got {places}" + (f"; {hint}" if hint else "")
        )

    def _name_places(self, values: np.ndarray, there: np.ndarray) -> str:
        """Name the first of some values with its trial, and count the others."""
        first, more = int(np.flatnonzero(there)[0]), int(there.sum()) - 1
        ends = np.cumsum(self.lengths)
        index = int(np.searchsorted(ends, first, side="right"))
        session = self.ids[index]
        where = f"trial {first - (ends[index] - self.lengths[index])} of session {session!r}"
        if self.origin.columns:
            where = f"row {first} (session {session!r})"
        return f"{values[first]:g} in {where}" + (f" and in {more} more" if more else "")

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
        made, shape = self._made, (len(self.lengths), num_trials + 1)
        # The trials of all sessions in a row are the places of this mask in a row.
        there = np.arange(num_trials) < np.asarray(self.lengths)[:, None]
        observed = [self.choice, self.reward, *self.observations.T]
        features = full_aligned((*shape, len(observed)), np.nan, np.float32)
        features[:, 0] = 0
        for column, values in enumerate(observed):
            features[:, 1:, column][there] = np.where(made, _to_single(values), np.float32(np.nan))
        choice = full_aligned(shape, 0, np.int32)
        choice[:, :-1][there] = np.where(self._free, self.choice, 0)
        choice_weight = full_aligned(shape, 0, np.float32)
        choice_weight[:, :-1][there] = self._free
        dopamine = full_aligned((*shape, self._response.shape[1]), 0, np.float32)
        dopamine_weight = full_aligned(dopamine.shape, 0, np.float32)
        for column in range(dopamine.shape[2]):
            recorded = self._recorded[:, column]
            values = np.where(recorded, self._response[:, column], np.float32(0))
            dopamine[:, 1:, column][there] = values
            dopamine_weight[:, 1:, column][there] = recorded
        return {
            "features": features,
            "choice": choice,
            "choice_weight": choice_weight,
            "dopamine": dopamine,
            "dopamine_weight": dopamine_weight,
        }


def _to_single(values: np.ndarray) -> np.ndarray:
    with np.errstate(over="ignore"):  # A value too large for float32 becomes infinite.
        return values.astype(np.float32)


def _count_codes(codes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the different whole numbers of at least 0, in order, and how often there is each."""
    if codes.max() > _MOST_COUNTED:
        return np.unique(codes, return_counts=True)
    counts = np.bincount(codes)  # Much faster than sorting.
    found = np.flatnonzero(counts)
    return found, counts[found]


def check_reward_kind(reward_kind: str) -> None:
    """Raise ValueError unless `reward_kind` is "binary" or "real"."""
    if reward_kind not in REWARD_KINDS:
        raise ValueError(f"reward_kind: expected one of {REWARD_KINDS}, got {reward_kind!r}")


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
    with_subject = empty_aligned((*features.shape[:2], features.shape[2] + 1), np.float32)
    with_subject[..., :-1] = features
    with_subject[..., -1] = np.asarray(index, np.float32)[:, None]
    with_subject[..., -1][np.isnan(features[..., 0])] = np.nan
    return with_subject

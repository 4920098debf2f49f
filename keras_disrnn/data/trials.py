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

REWARD_KINDS = ("binary", "real")
SUBJECT = "subject"
"""Name of the observation that holds the index of the subject."""
LARGEST_RESPONSE = 1e4
"""Larger than any dopamine response in dF/F, percent or standard deviations."""
LARGEST_REWARD = 1e4
"""Larger than any reward that a network can read."""


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
        arms, counts = np.unique(self.choice[self._made].astype(int), return_counts=True)
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
        codes = np.unique(choice[made]).astype(int)
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
        session = self.ids[self._session[first]]
        where = f"trial {self._trial[first]} of session {session!r}"
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

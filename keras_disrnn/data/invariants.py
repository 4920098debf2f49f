"""The checks that every `Sessions` passes when it is made."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from keras_disrnn.data.trials import SUBJECT, subject_index
from keras_disrnn.utils.checks import check_integer
from keras_disrnn.utils.ids import alike

if TYPE_CHECKING:
    from keras_disrnn.data.sessions import Sessions


def check_sessions(sessions: Sessions) -> None:
    """Check the names and the values of a data set whose shapes are right.

    Args:
        sessions: The data set.

    Raises:
        ValueError: If a name or value breaks the description of `Sessions`.
    """
    _check_names(sessions)
    _check_values(sessions)
    _check_trials(sessions)
    _check_subjects(sessions)


def count_trials(sessions: Sessions) -> np.ndarray:
    """Count the trials of each session from its padding, int `(S,)`.

    Missed trials at the end of a session look like padding, so they are not counted.
    """
    mask = sessions.row_mask
    last = mask.shape[1] - 1 - np.argmax(mask[:, ::-1], axis=1)
    return np.where(mask.any(1), last, 0)


def check_shapes(sessions: Sessions) -> None:
    """Check the shapes and dtypes of a data set.

    Args:
        sessions: The data set.

    Raises:
        ValueError: If one breaks the description of `Sessions`.
    """
    shape = np.shape(sessions.features)
    if len(shape) != 3 or shape[0] < 1 or shape[1] < 2:
        raise ValueError(
            "features: expected shape (sessions, time steps, observations) with at least one "
            f"session and two time steps (one trial), got {shape}"
        )
    count, steps, observations = shape
    signals = len(sessions.signal_names)
    described = (
        f"{count} sessions, {steps} time steps, {observations} observations and {signals} signals"
    )
    for name, dtype, wanted in (
        ("features", np.float32, shape),
        ("choice", np.int32, shape[:2]),
        ("choice_weight", np.float32, shape[:2]),
        ("dopamine", np.float32, (count, steps, signals)),
        ("dopamine_weight", np.float32, (count, steps, signals)),
    ):
        array = getattr(sessions, name)
        got_dtype, got_shape = getattr(array, "dtype", type(array).__name__), np.shape(array)
        if not isinstance(array, np.ndarray) or got_dtype != dtype or got_shape != wanted:
            raise ValueError(
                f"{name}: expected a NumPy array of {np.dtype(dtype).name} with shape {wanted} "
                f"({described}), got {got_dtype} with shape {got_shape}"
            )
        _refuse_mask(name, array)
    if sessions.latents is None:
        return
    _refuse_mask("latents", sessions.latents)
    got_dtype = getattr(sessions.latents, "dtype", type(sessions.latents).__name__)
    got_shape = np.shape(sessions.latents)
    if len(got_shape) != 3 or got_shape[:2] != (count, steps) or got_dtype != np.float32:
        raise ValueError(
            f"latents: expected a NumPy array of float32 with shape ({count}, {steps}, latents), "
            f"got {got_dtype} with shape {got_shape}"
        )


def _refuse_mask(name: str, array: Any) -> None:
    # Its mask would be lost on the way to TensorFlow.
    if isinstance(array, np.ma.MaskedArray):
        raise ValueError(
            f"{name}: expected a plain NumPy array, got a masked one; Sessions.from_trials reads "
            "masked values as missing"
        )


def _check_names(sessions: Sessions) -> None:
    count, _, observations = sessions.features.shape
    for name, length in (
        ("subjects", count),
        ("ids", count),
        ("observation_names", observations),
        ("signal_names", len(sessions.signal_names)),
    ):
        _check_strings(name, getattr(sessions, name), length)
    if tuple(sessions.observation_names[:2]) != ("choice", "reward"):
        raise ValueError(
            "observation_names: expected names that start with 'choice', 'reward', "
            f"got {sessions.observation_names!r}"
        )
    for name in ("observation_names", "signal_names"):
        twice = _first_repeated(getattr(sessions, name))
        if twice is not None:
            raise ValueError(f"{name}: expected unique names, got {twice!r} more than once")
    for name in ("ids", "subjects"):
        check_ids(name, getattr(sessions, name))
    twice = _first_repeated(sessions.ids)
    if twice is not None:
        owners = [s for s, i in zip(sessions.subjects, sessions.ids, strict=True) if i == twice]
        raise ValueError(
            f"ids: expected unique session ids, also across subjects, got {twice!r} {len(owners)} "
            f"times (subjects {', '.join(map(repr, dict.fromkeys(owners)))})"
        )


def check_ids(name: str, ids: Sequence[str]) -> None:
    """Raise ValueError if an id is blank, or two ids look alike.

    Args:
        name: The argument's name, for errors.
        ids: The ids.
    """
    blank = next((each for each in ids if not each.strip()), None)
    if blank is not None:
        raise ValueError(f"{name}: expected an id for every session, got {blank!r}")
    pair = alike(ids)
    if pair is not None:
        raise ValueError(
            f"{name}: expected ids that differ in more than white space, got {pair[0]!r} and "
            f"{pair[1]!r}; write them alike"
        )


def _check_values(sessions: Sessions) -> None:
    check_integer("num_arms", sessions.num_arms, 2)
    features, ids = sessions.features, sessions.ids
    blank = np.isnan(features)
    partial = blank.any(-1) & ~blank.all(-1)
    if partial.any():
        session, step = np.argwhere(partial)[0]
        raise ValueError(
            "features: expected NaN in every observation of a time step (padding, missed trial) or "
            f"in none, got {features[session, step]} in time step {step} of session "
            f"{ids[session]!r}"
        )
    if np.isinf(features).any():
        session, step, column = np.argwhere(np.isinf(features))[0]
        raise ValueError(
            f"features: expected finite numbers, got {features[session, step, column]} for "
            f"{sessions.observation_names[column]!r} in time step {step} of session "
            f"{ids[session]!r}"
        )
    outside = (sessions.choice < 0) | (sessions.choice >= sessions.num_arms)
    if outside.any():
        session, step = np.argwhere(outside)[0]
        raise ValueError(
            f"choice: expected numbers from 0 to {sessions.num_arms - 1} ({sessions.num_arms} "
            f"arms), got {sessions.choice[session, step]} in time step {step} of session "
            f"{ids[session]!r}"
        )
    for name in ("dopamine", "choice_weight", "dopamine_weight"):
        array = getattr(sessions, name)
        weight = name.endswith("weight")
        bad = ~np.isfinite(array) | ((array < 0) if weight else False)
        if bad.any():
            at = tuple(np.argwhere(bad)[0])
            raise ValueError(
                f"{name}: expected finite numbers{' of at least 0' if weight else ''} (a missing "
                f"target is 0 with weight 0), got {array[at]} in time step {at[1]} of session "
                f"{ids[at[0]]!r}"
            )


def _check_trials(sessions: Sessions) -> None:
    mask, trials = sessions.row_mask, sessions.trials_per_session
    count, steps = mask.shape
    if not isinstance(trials, np.ndarray) or trials.dtype.kind not in "iu":
        raise ValueError(f"trials_per_session: expected an array of integers, got {trials!r}")
    if trials.shape != (count,) or trials.min() < 1 or trials.max() > steps - 1:
        raise ValueError(
            f"trials_per_session: expected {count} counts from 1 to {steps - 1} (one less than the "
            f"time steps), got {trials}"
        )
    after_last = np.arange(steps) > trials[:, None]
    without_choice = np.arange(steps) >= trials[:, None]
    for name, bad in (
        ("features", mask & after_last),
        ("choice_weight", (sessions.choice_weight > 0) & without_choice),
        ("dopamine_weight", (sessions.dopamine_weight > 0).any(-1) & after_last),
    ):
        if bad.any():
            session, step = np.argwhere(bad)[0]
            raise ValueError(
                f"{name}: expected {'NaN' if name == 'features' else '0'} past the last trial, got "
                f"{getattr(sessions, name)[session, step]} in time step {step} of session "
                f"{sessions.ids[session]!r}, which has {trials[session]} trials"
            )
    if sessions.rows is not None and [len(r) for r in sessions.rows] != trials.tolist():
        raise ValueError(
            f"rows: expected one table position for each trial of each session, {trials.tolist()}, "
            f"got {[len(r) for r in sessions.rows]}"
        )


def _check_subjects(sessions: Sessions) -> None:
    names = sessions.subject_names
    if not names:
        return
    _check_strings("subject_names", names, len(names))
    if sessions.observation_names[-1] != SUBJECT:
        raise ValueError(
            f"observation_names: expected {SUBJECT!r} as the last, because there are "
            f"subject_names, got {sessions.observation_names!r}"
        )
    index = subject_index(sessions.subjects, sessions.ids, names)[:, None]
    wrong = sessions.row_mask & (sessions.features[..., -1] != index)
    if wrong.any():
        session, step = np.argwhere(wrong)[0]
        raise ValueError(
            f"features: expected {index[session, 0]} for {SUBJECT!r} (subject "
            f"{sessions.subjects[session]!r}), got {sessions.features[session, step, -1]:g} in "
            f"time step {step} of session {sessions.ids[session]!r}"
        )


def _first_repeated(names: Sequence[str]) -> str | None:
    seen = set()
    for name in names:
        if name in seen:
            return name
        seen.add(name)
    return None


def _check_strings(name: str, value: Any, length: int) -> None:
    if (
        not isinstance(value, tuple)
        or len(value) != length
        or not all(isinstance(v, str) for v in value)
    ):
        raise ValueError(f"{name}: expected a tuple of {length} strings, got {value!r}")


def check_indices(
    indices: slice | Sequence[int] | Sequence[bool] | np.ndarray, count: int
) -> np.ndarray:
    """Return the positions that `Sessions.subset` picks, or raise a ValueError.

    Args:
        indices: Integer positions, a slice, or a boolean mask.
        count: Number of sessions.

    Returns:
        Integer positions, 0 or more.
    """
    try:
        if not isinstance(indices, slice):
            indices = np.asarray(indices)
            indices = indices.astype(int) if indices.size == 0 else indices
        picked = np.arange(count)[indices]
    except IndexError as error:
        raise ValueError(
            f"indices: expected positions in {count} sessions, got {indices!r} ({error})"
        ) from error
    if picked.ndim != 1 or picked.size == 0:
        raise ValueError(f"indices: expected a list of at least one session, got {indices!r}")
    return picked

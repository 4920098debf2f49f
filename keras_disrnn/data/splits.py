"""Splits of `Sessions` into a part to fit and a held-out part. No session is ever divided."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from keras_disrnn.data.duplicates import warn_of_shared
from keras_disrnn.data.rows import find_rows
from keras_disrnn.data.sessions import Sessions
from keras_disrnn.utils.checks import check_integer, suggest
from keras_disrnn.utils.ids import factorize_ids, id_texts


class Split(NamedTuple):
    """A data set in two parts.

    Args:
        train: The sessions to fit.
        held_out: The sessions to evaluate on.

    Example:
        >>> from keras_disrnn.data import Sessions, Split
        >>> sessions = Sessions.from_trials([[0, 1], [1]], [[1, 0], [0]])
        >>> train, held_out = Split(sessions[[0]], sessions[[1]])
        >>> held_out.num_trials
        1
    """

    train: Sessions
    held_out: Sessions


def split_by_session(
    sessions: Sessions,
    held_out_every: int = 2,
    *,
    offset: int = 1,
    within_subject: bool = False,
) -> Split:
    """Hold out every n-th session.

    Args:
        sessions: The data set.
        held_out_every: n, at least 2.
        offset: The first session held out, counted from 0, below n.
        within_subject: Whether to count the sessions of each subject separately, so that every
            subject with enough sessions is in both parts.

    Returns:
        The two parts, each in the order of `sessions`.

    Raises:
        ValueError: If a number is out of range, or a part would be empty.

    Example:
        >>> import keras_disrnn
        >>> sessions = keras_disrnn.data.Sessions.from_trials([[0, 1], [1, 1]], [[1, 0], [0, 1]])
        >>> train, held_out = keras_disrnn.data.split_by_session(sessions)
        >>> train.ids, held_out.ids
        (('0',), ('1',))
    """
    check_integer("held_out_every", held_out_every, 2)
    check_integer("offset", offset, 0)
    if offset >= held_out_every:
        raise ValueError(
            f"offset: expected a number below held_out_every ({held_out_every}), got {offset}"
        )
    position = np.arange(sessions.num_sessions)
    if within_subject:
        subjects = pd.Series(sessions.subjects)
        position = subjects.groupby(subjects).cumcount().to_numpy()
    what = f"held_out_every={held_out_every} and offset={offset}"
    return _split(sessions, position % held_out_every == offset, what)


def split_by_id(sessions: Sessions, held_out: Collection[Any]) -> Split:
    """Hold out sessions by id.

    Args:
        sessions: The data set.
        held_out: Ids of the sessions to hold out. Numbers and dates are taken as text.

    Returns:
        The two parts, each in the order of `sessions`.

    Raises:
        ValueError: If there is no session of such an id, or a part would be empty.

    Example:
        >>> import keras_disrnn
        >>> sessions = keras_disrnn.data.Sessions.from_trials(
        ...     [[0, 1], [1, 1]], [[1, 0], [0, 1]], ids=["a", "b"], subjects=["m1", "m2"]
        ... )
        >>> keras_disrnn.data.split_by_id(sessions, ["b"]).train.ids
        ('a',)
    """
    return _split_by_name(sessions, "session", sessions.ids, held_out)


def split_by_subject(sessions: Sessions, held_out: Collection[Any]) -> Split:
    """Hold out every session of some subjects.

    Args:
        sessions: The data set.
        held_out: The subjects to hold out. Numbers and dates are taken as text.

    Returns:
        The two parts, each in the order of `sessions`.

    Raises:
        ValueError: If there is no such subject, or a part would be empty.

    Example:
        >>> import keras_disrnn
        >>> sessions = keras_disrnn.data.Sessions.from_trials(
        ...     [[0, 1], [1, 1]], [[1, 0], [0, 1]], ids=["a", "b"], subjects=["m1", "m2"]
        ... )
        >>> keras_disrnn.data.split_by_subject(sessions, ["m2"]).held_out.ids
        ('b',)
    """
    return _split_by_name(sessions, "subject", sessions.subjects, held_out)


def split_by_column(sessions: Sessions, column: pd.Series, held_out: Collection[Any]) -> Split:
    """Hold out sessions by a column of the table they were read from, such as the day.

    Args:
        sessions: A data set made by `sessions_from_table`.
        column: The column, with one value for each row of that table, in its order.
        held_out: Sessions with one of these values are held out.

    Returns:
        The two parts, each in the order of `sessions`.

    Raises:
        ValueError: If the sessions are not from a table of that length and index, the column
            changes within a session or lacks one of the values, or a part would be empty.

    Example:
        >>> import keras_disrnn
        >>> import pandas as pd
        >>> table = pd.DataFrame({"subject": "m1", "session": ["a", "b"], "choice": [0, 1],
        ...                       "reward": [1, 0], "day": [1, 2]})
        >>> sessions = keras_disrnn.data.sessions_from_table(table)
        >>> keras_disrnn.data.split_by_column(sessions, table["day"], [2]).held_out.ids
        ('b',)
    """
    if not isinstance(column, pd.Series):
        raise ValueError(
            f"column: expected a column of the table, a pandas.Series, got {type(column).__name__}"
        )
    name = column.name
    found = find_rows(f"column {name!r}", column, sessions)
    try:
        codes, values = factorize_ids(column)
    except ValueError as error:
        raise ValueError(f"column {name!r}: {error}") from None
    firsts = []
    for rows, session in zip(found, sessions.ids, strict=True):
        inside = np.unique(codes[rows])
        if len(inside) > 1 or inside[0] < 0:
            got = ["an empty cell" if code < 0 else values[code] for code in inside]
            raise ValueError(
                f"column {name!r}: expected one value within a session, got "
                f"{' and '.join(map(str, got[:4]))} in session {session!r}"
            )
        firsts.append(values[inside[0]])
    return _split_by_name(sessions, f"value of column {name!r}", firsts, held_out)


def k_fold(
    sessions: Sessions, folds: int = 5, *, seed: int = 0, whole_subjects: bool = False
) -> Iterator[Split]:
    """Split `folds` times, so that every session is held out once.

    Sessions are assigned to folds at random, those of each subject evenly.

    Args:
        sessions: The data set.
        folds: Number of splits, at least 2.
        seed: Seed of the assignment.
        whole_subjects: Whether to assign subjects instead of sessions, so that no subject is in
            both parts of a split.

    Returns:
        The splits, made one at a time; each part is in the order of `sessions`.

    Raises:
        ValueError: If a number is out of range, or there are fewer sessions (or subjects) than
            folds.

    Example:
        >>> import keras_disrnn
        >>> sessions = keras_disrnn.data.Sessions.from_trials([[0, 1], [1, 1]], [[1, 0], [0, 1]])
        >>> sorted(split.held_out.ids for split in keras_disrnn.data.k_fold(sessions, 2))
        [('0',), ('1',)]
    """
    check_integer("folds", folds, 2)
    check_integer("seed", seed, 0)
    names = sessions.subjects if whole_subjects else sessions.ids
    units = list(dict.fromkeys(names))
    if len(units) < folds:
        kind = "subjects" if whole_subjects else "sessions"
        raise ValueError(f"folds: expected at most the number of {kind}, {len(units)}, got {folds}")
    order = np.random.default_rng(seed).permutation(len(units))
    if not whole_subjects:
        owners = pd.factorize(np.asarray(sessions.subjects, object))[0]
        order = order[np.argsort(owners[order], kind="stable")]
    fold_of = dict(zip([units[i] for i in order], np.arange(len(units)) % folds, strict=True))
    fold = np.array([fold_of[name] for name in names])
    return (_split(sessions, fold == number, f"folds={folds}") for number in range(folds))


def leave_one_subject_out(sessions: Sessions) -> Iterator[Split]:
    """Split once for each subject: all its sessions are held out. Subjects keep their order.

    Args:
        sessions: The data set.

    Returns:
        The splits, made one at a time; `held_out.subjects[0]` is the subject left out.

    Raises:
        ValueError: If there is only one subject.

    Example:
        >>> import keras_disrnn
        >>> sessions = keras_disrnn.data.Sessions.from_trials(
        ...     [[0, 1], [1, 1]], [[1, 0], [0, 1]], ids=["a", "b"], subjects=["m1", "m2"]
        ... )
        >>> for train, held_out in keras_disrnn.data.leave_one_subject_out(sessions):
        ...     print(held_out.subjects[0])
        m1
        m2
    """
    subjects = list(dict.fromkeys(sessions.subjects))
    if len(subjects) < 2:
        raise ValueError(
            f"sessions: expected at least 2 subjects, got only {subjects[0]!r}; use k_fold to hold "
            "out sessions"
        )
    return (split_by_subject(sessions, [subject]) for subject in subjects)


def spread_sessions(sessions: Sessions, most_trials: int) -> Sessions:
    """Pick evenly spaced sessions if there are too many.

    Args:
        sessions: The data set.
        most_trials: The largest number of trials to keep, if sessions have about the same length.

    Returns:
        All sessions if they have at most that many trials. Otherwise those sessions, at least one.

    Example:
        >>> from keras_disrnn.data import Sessions
        >>> from keras_disrnn.data.splits import spread_sessions
        >>> sessions = Sessions.from_trials([[0, 1]] * 5, [[1, 0]] * 5)
        >>> spread_sessions(sessions, 6).ids
        ('0', '2', '4')
    """
    if sessions.num_trials <= most_trials:
        return sessions
    count = max(1, most_trials * len(sessions) // sessions.num_trials)
    return sessions.subset(np.linspace(0, len(sessions) - 1, count).round().astype(int))


def _split_by_name(
    sessions: Sessions, kind: str, names: Collection[str], held_out: Collection[Any]
) -> Split:
    held_out = id_texts("held_out", held_out)
    there = set(names)
    for name in held_out:
        if name not in there:
            known = list(dict.fromkeys(names))
            listed = ", ".join(map(repr, known[:10])) + (", ..." if len(known) > 10 else "")
            raise ValueError(
                f"held_out: expected a {kind} in the data ({listed}), got {name!r}"
                f"{suggest(name, known)}"
            )
    mask = np.isin(np.asarray(names, object), np.asarray(held_out, object))
    return _split(sessions, mask, f"held_out={held_out!r}")


def _split(sessions: Sessions, held_out: np.ndarray, what: str) -> Split:
    for empty, part in ((not held_out.any(), "held-out"), (held_out.all(), "training")):
        if empty:
            raise ValueError(
                f"split: expected a session in both parts, got none in the {part} part of "
                f"{len(held_out)} sessions with {what}"
            )
    split = Split(sessions.subset(~held_out), sessions.subset(held_out))
    warn_of_shared(*split, stacklevel=4)
    return split

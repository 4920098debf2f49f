"""What a data set holds: a summary by subject, and sessions that are left out."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pandas as pd

from keras_disrnn.data.dropped import Dropped
from keras_disrnn.data.sessions import Sessions
from keras_disrnn.utils.checks import suggest
from keras_disrnn.utils.ids import id_texts

_OF_A_SIGNAL = {"mean": "mean", "sd": "std", "missing": "sum", "min": "min", "max": "max"}
_COUNT = " count"
_TRIALS_IN_PART = 2**19


def summary(sessions: Sessions) -> pd.DataFrame:
    """Count what a data set holds, to look at before a fit.

    Args:
        sessions: The data set.

    Returns:
        One row per subject and a last row "(all)". `sessions`, `trials`, `forced` and `missed` are
        counts. (A missed trial does not count as forced.) `reward_rate` is the mean reward of the
        trials that were not missed. `choice_0`, `choice_1` and so on are fractions of the free
        choices. For each extra observation and each signal there are `<name>_mean`, `<name>_sd`,
        `<name>_min` and `<name>_max`, in its own unit. `<signal>_missing` is the number of trials
        that have a choice but no value of the signal. The columns of an observation that is called
        as a signal start with `observation_<name>`. If sessions were left out by `drop_sessions`,
        there are also `dropped_sessions`, `dropped_trials` and `dropped_why`; the other columns do
        not count them.

    Example:
        >>> import keras_disrnn
        >>> sessions = keras_disrnn.data.Sessions.from_trials([[0, 1, 1]], [[1, 0, 1]])
        >>> int(keras_disrnn.data.summary(sessions).loc["(all)", "trials"])
        3
    """
    place = {name: index for index, name in enumerate(dict.fromkeys(sessions.subjects))}
    order = np.argsort([place[name] for name in sessions.subjects], kind="stable")
    parts = []
    # A table of all trials of a cohort would need more memory than the cohort.
    for part in _parts_by_subject(sessions, order):
        table, statistic = _tabulate(sessions, part)
        groups = table.groupby("subject", sort=False)
        parts.append(groups.agg(statistic).join(groups.count().add_suffix(_COUNT)))
    by_subject = pd.concat(parts)
    everyone = _pool(by_subject, statistic)
    by_subject = by_subject[list(statistic)]
    counts = pd.Series(sessions.subjects).value_counts()
    by_subject.insert(0, "sessions", counts.reindex(by_subject.index))
    everyone.insert(0, "sessions", len(sessions))
    counted = pd.concat([by_subject, everyone])
    counted.index.name = "subject"
    return _with_dropped(counted, sessions.dropped) if sessions.dropped else counted


def _parts_by_subject(sessions: Sessions, order: np.ndarray) -> Iterator[np.ndarray]:
    """Yield the positions of sessions, whole subjects at a time.

    Args:
        sessions: The data set.
        order: Positions of all sessions, with those of a subject together.
    """
    trials, start = 0, 0
    for index, session in enumerate(order):
        new = index > 0 and sessions.subjects[session] != sessions.subjects[order[index - 1]]
        if new and trials >= _TRIALS_IN_PART:
            yield order[start:index]
            trials, start = 0, index
        trials += int(sessions.trials_per_session[session])
    yield order[start:]


def _tabulate(sessions: Sessions, part: np.ndarray) -> tuple[pd.DataFrame, dict[str, str]]:
    """Return a table of the trials of some sessions, and the statistic of each of its columns."""
    longest = int(sessions.trials_per_session[part].max())
    within, trial = np.nonzero(np.arange(longest) < sessions.trials_per_session[part][:, None])
    session = part[within]
    described = sessions.features[session, trial + 1]  # Time step k + 1 describes trial k.
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
    statistic = {"trials": "sum", "forced": "sum", "missed": "sum", "reward_rate": "mean"}
    for arm in range(sessions.num_arms):
        table[f"choice_{arm}"] = np.where(free, described[:, 0] == arm, np.nan)
        statistic[f"choice_{arm}"] = "mean"
    own = sessions.num_observations - bool(sessions.subject_names)
    for index in range(2, own):
        name = sessions.observation_names[index]
        name = f"observation_{name}" if name in sessions.signal_names else name
        for kind, function in _OF_A_SIGNAL.items():
            if kind != "missing":  # Only a missed trial has no observation.
                table[f"{name}_{kind}"] = described[:, index].astype(float)
                statistic[f"{name}_{kind}"] = function
    for index, name in enumerate(sessions.signal_names):
        present = sessions.dopamine_weight[session, trial + 1, index] > 0
        values = sessions.dopamine[session, trial + 1, index].astype(float)
        missing = (made & ~present).astype(int)
        for kind, function in _OF_A_SIGNAL.items():
            column = missing if kind == "missing" else np.where(present, values, np.nan)
            table[f"{name}_{kind}"], statistic[f"{name}_{kind}"] = column, function
    return table, statistic


def _pool(by_subject: pd.DataFrame, statistic: Mapping[str, str]) -> pd.DataFrame:
    """Compute the statistics of all trials from those of the subjects, with their counts."""
    pooled: dict[str, Any] = {}
    for name, function in statistic.items():
        values, counts = by_subject[name], by_subject[f"{name}{_COUNT}"]
        if function != "std":
            means = (values * counts).sum() / counts.sum() if counts.sum() else np.nan
            pooled[name] = means if function == "mean" else values.agg(function)
            continue
        means = by_subject[f"{name.removesuffix('_sd')}_mean"]
        squares = values.fillna(0.0) ** 2 * (counts - 1).clip(lower=0)
        total = (means * counts).sum() / max(counts.sum(), 1)
        scatter = squares.sum() + (counts * (means - total) ** 2).sum()
        pooled[name] = np.sqrt(scatter / (counts.sum() - 1)) if counts.sum() > 1 else np.nan
    return pd.DataFrame(pooled, index=["(all)"])


def _with_dropped(counted: pd.DataFrame, dropped: tuple[Dropped, ...]) -> pd.DataFrame:
    """Add the sessions left out, and subjects that have no others, to a summary."""
    subjects = [name for name in counted.index if name != "(all)"]
    subjects += [one.subject for one in dropped if one.subject not in subjects]
    counted = counted.reindex([*dict.fromkeys(subjects), "(all)"])
    counts = [name for name in counted if name in ("sessions", "trials", "forced", "missed")]
    counts += [name for name in counted if name.endswith("_missing")]
    counted[counts] = counted[counts].fillna(0).astype(int)
    for name in counted.index:
        own = [one for one in dropped if name in ("(all)", one.subject)]
        counted.loc[name, "dropped_sessions"] = len(own)
        counted.loc[name, "dropped_trials"] = sum(one.trials for one in own)
        counted.loc[name, "dropped_why"] = "; ".join(f"{one.session}: {one.reason}" for one in own)
    return counted.astype({"dropped_sessions": int, "dropped_trials": int})


def drop_sessions(sessions: Sessions, reasons: Mapping[Any, str]) -> Sessions:
    """Leave sessions out, and record them and the reasons for `summary`.

    Args:
        sessions: The data set.
        reasons: The reason for each session to leave out, by id, such as `find_artefacts` returns.

    Returns:
        The other sessions, in their order.

    Raises:
        ValueError: If there is no session of such an id, a reason is empty, or none would be left.

    Example:
        >>> import keras_disrnn
        >>> sessions = keras_disrnn.data.Sessions.from_trials([[0, 1], [1]], [[1, 0], [0]])
        >>> keras_disrnn.data.drop_sessions(sessions, {"1": "one trial only"}).ids
        ('0',)
    """
    reasons = dict(zip(id_texts("reasons", reasons), reasons.values(), strict=True))
    for name, reason in reasons.items():
        if name not in sessions.ids:
            raise ValueError(
                f"reasons: expected ids of sessions of the data, got {name!r}"
                f"{suggest(name, sessions.ids)}"
            )
        if not isinstance(reason, str) or not reason.strip():
            raise ValueError(f"reasons: expected a reason for session {name!r}, got {reason!r}")
    kept = np.array([name not in reasons for name in sessions.ids])
    if not kept.any():
        raise ValueError(f"reasons: expected to leave some session, got all {len(kept)} to drop")
    dropped = tuple(
        Dropped(subject, name, int(trials), reasons[name])
        for subject, name, trials in zip(
            sessions.subjects, sessions.ids, sessions.trials_per_session, strict=True
        )
        if name in reasons
    )
    return dataclasses.replace(sessions.subset(kept), dropped=sessions.dropped + dropped)

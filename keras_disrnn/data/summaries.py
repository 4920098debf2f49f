"""What a data set holds: a summary by subject, and sessions that are left out."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from keras_disrnn.data.dropped import Dropped
from keras_disrnn.data.sessions import Sessions
from keras_disrnn.utils.checks import suggest
from keras_disrnn.utils.ids import id_texts

_OF_A_SIGNAL = {"mean": "mean", "sd": "std", "missing": "sum", "min": "min", "max": "max"}


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
    steps = sessions.features.shape[1]
    session, trial = np.nonzero(np.arange(steps) < sessions.trials_per_session[:, None])
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
        for part, function in _OF_A_SIGNAL.items():
            if part != "missing":  # Only a missed trial has no observation.
                table[f"{name}_{part}"] = described[:, index].astype(float)
                statistic[f"{name}_{part}"] = function
    for index, name in enumerate(sessions.signal_names):
        present = sessions.dopamine_weight[session, trial + 1, index] > 0
        values = sessions.dopamine[session, trial + 1, index].astype(float)
        missing = (made & ~present).astype(int)
        for part, function in _OF_A_SIGNAL.items():
            column = missing if part == "missing" else np.where(present, values, np.nan)
            table[f"{name}_{part}"], statistic[f"{name}_{part}"] = column, function
    by_subject = table.groupby("subject", sort=False).agg(statistic)
    counts = pd.Series(sessions.subjects).value_counts()
    by_subject.insert(0, "sessions", counts.reindex(by_subject.index))
    everyone = table.assign(subject="(all)").groupby("subject").agg(statistic)
    everyone.insert(0, "sessions", len(sessions))
    counted = pd.concat([by_subject, everyone])
    return _with_dropped(counted, sessions.dropped) if sessions.dropped else counted


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

"""A record of a session that was left out."""

from __future__ import annotations

from typing import NamedTuple


class Dropped(NamedTuple):
    """A session that was left out.

    Args:
        subject: Its subject.
        session: Its id.
        trials: Its number of trials.
        reason: Why it was left out.

    Example:
        >>> import keras_disrnn
        >>> keras_disrnn.data.Dropped("m1", "day 1", trials=3, reason="too short").reason
        'too short'
    """

    subject: str
    session: str
    trials: int
    reason: str

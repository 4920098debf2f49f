"""Sessions that hold the same trials under two ids."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from keras_disrnn.utils.ids import look_of

if TYPE_CHECKING:
    from keras_disrnn.data.sessions import Sessions

FEW_TRIALS = 20
"""Fewer choices and rewards than these can be the same by chance."""
_FEW_RESPONSES = 3
_MOST_NAMED = 5
_FIRST_TRIALS = 64


def warn_of_duplicates(sessions: Sessions, stacklevel: int = 3) -> None:
    """Warn, by name, of sessions with the same trials.

    Args:
        sessions: The data set.
        stacklevel: Frames between the user's call and `warnings.warn`.
    """
    codes = _codes(sessions)
    _, which, counts = np.unique(codes, return_inverse=True, return_counts=True)
    digests = _digests(sessions, counts[which] > 1)
    first: dict[bytes, str] = {}
    pairs = []
    for name, digest in zip(sessions.ids, digests, strict=True):
        if digest is not None and first.setdefault(digest, name) != name:
            pairs.append(f"{first[digest]!r} and {name!r}")
    if pairs:
        warnings.warn(
            f"sessions: expected different trials in every session, got the same in {_list(pairs)};"
            " leave one out if it was copied",
            stacklevel=stacklevel,
        )


def warn_of_shared(train: Sessions, held_out: Sessions, stacklevel: int = 3) -> None:
    """Warn, by name, of held-out sessions whose trials are in the training part, too.

    Args:
        train: The training sessions.
        held_out: The held-out sessions.
        stacklevel: Frames between the user's call and `warnings.warn`.
    """
    codes, held_out_codes = _codes(train), _codes(held_out)
    train_digests = _digests(train, np.isin(codes, held_out_codes))
    held_out_digests = _digests(held_out, np.isin(held_out_codes, codes))
    known = {
        digest: name
        for name, digest in zip(train.ids, train_digests, strict=True)
        if digest is not None
    }
    pairs = [
        f"{known[digest]!r} (training) and {name!r} (held out)"
        for name, digest in zip(held_out.ids, held_out_digests, strict=True)
        if digest in known
    ]
    if pairs:
        warnings.warn(
            f"split: expected different trials in both parts, got the same in {_list(pairs)}; the "
            "held-out scores count trials that the model is trained on: leave one out",
            stacklevel=stacklevel,
        )


class SeenSessions:
    """The sessions of a stream so far, to refuse two sessions of one id and ids that look alike.

    A stream may repeat its sessions, so a session may come again, but not with other trials.
    """

    def __init__(self) -> None:
        self._of_look: dict[tuple[str, str], str] = {}
        self._digest_of: dict[str, bytes] = {}

    def check(
        self,
        ids: Sequence[str],
        subjects: Sequence[str],
        trials: Iterable[tuple[np.ndarray, np.ndarray]],
    ) -> None:
        """Check the sessions of a batch against all before.

        Args:
            ids: Their ids.
            subjects: Their subjects.
            trials: Their choices and rewards, each `(T,)`.

        Raises:
            ValueError: If an id had other trials, or looks like another one.
        """
        for name, subject, arrays in zip(ids, subjects, trials, strict=True):
            for role, text in (("ids", name), ("subjects", subject)):
                other = self._of_look.setdefault((role, look_of(text)), text)
                if other != text:
                    raise ValueError(
                        f"{role}: expected ids that differ in more than white space, got "
                        f"{other!r} and {text!r}; write them alike"
                    )
            digest = hashlib.blake2b(subject.encode(), digest_size=8)
            for array in arrays:
                digest.update(np.asarray(array, np.float64).tobytes() + b"|")
            if self._digest_of.setdefault(name, digest.digest()) != digest.digest():
                raise ValueError(
                    f"ids: expected unique session ids, also across subjects, got {name!r} with "
                    "other trials than before; give each session an id of its own"
                )


def _list(pairs: Sequence[str]) -> str:
    more = len(pairs) - _MOST_NAMED
    return ", ".join(pairs[:_MOST_NAMED]) + (f" and {more} more pairs" if more > 0 else "")


def _codes(sessions: Sessions) -> np.ndarray:
    """Return a number for each session, uint64 `(S,)`, which is the same if the trials are.

    The first trials give it. Few sessions share a number by chance, and only those that do need a
    digest of all their trials. A digest of each session takes seconds in a cohort.
    """
    last = 1 + min(_FIRST_TRIALS, int(sessions.trials_per_session.max()))
    there = np.arange(last - 1) < sessions.trials_per_session[:, None]
    own = sessions.num_observations - bool(sessions.subject_names)
    codes = np.zeros(len(sessions), np.uint64)
    factors = np.random.Generator(np.random.SFC64(0))
    for array, columns in ((sessions.features, own), (sessions.dopamine, sessions.num_signals)):
        for column in range(columns):
            bits = np.ascontiguousarray(array[:, 1:last, column]).view(np.uint32)
            factor = factors.integers(2**64, size=_FIRST_TRIALS, dtype=np.uint64)[: last - 1]
            codes += (np.where(there, bits, 0) * factor).sum(axis=1, dtype=np.uint64)
    return codes


def _digests(sessions: Sessions, wanted: np.ndarray) -> list[bytes | None]:
    """Return a digest of each session's trials.

    It is None for sessions that are not wanted or too short to be told apart.
    """
    own = sessions.num_observations - bool(sessions.subject_names)
    digests: list[bytes | None] = [None] * len(sessions)
    for index in np.flatnonzero(wanted):
        trials = sessions.trials_per_session[index]
        values = sessions.dopamine[index, 1 : trials + 1]
        responses = values[sessions.dopamine_weight[index, 1 : trials + 1] > 0]
        if trials < FEW_TRIALS and len(np.unique(responses)) < _FEW_RESPONSES:
            continue
        digest = hashlib.blake2b(digest_size=16)
        shown = sessions.features[index, 1 : trials + 1, :own]
        free = sessions.choice_weight[index, :trials]
        for array in (shown, free, values):
            digest.update(np.ascontiguousarray(array).tobytes())
        digests[index] = digest.digest()
    return digests

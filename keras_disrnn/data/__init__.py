"""Behavioural sessions: from tables and datasets to the batches of `fit`."""

from keras_disrnn.data.sessions import Sessions, summary
from keras_disrnn.data.splits import (
    Split,
    split_by_column,
    split_by_id,
    split_by_session,
    split_by_subject,
)
from keras_disrnn.data.table import Columns, read_table, sessions_from_table
from keras_disrnn.data.tfds import examples_from_sessions, sessions_from_tfds, stream_from_tfds

__all__ = [
    "Columns",
    "Sessions",
    "Split",
    "examples_from_sessions",
    "read_table",
    "sessions_from_table",
    "sessions_from_tfds",
    "split_by_column",
    "split_by_id",
    "split_by_session",
    "split_by_subject",
    "stream_from_tfds",
    "summary",
]

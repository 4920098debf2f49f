"""Behavioural sessions: from tables, events, recordings and datasets to the batches of `fit`.

Importing this package does not import TensorFlow.
"""

from keras_disrnn.data.dropped import Dropped
from keras_disrnn.data.events import (
    EventSettings,
    events_from_samples,
    trials_from_events,
    write_trials,
)
from keras_disrnn.data.files import read_table
from keras_disrnn.data.nwb import read_nwb
from keras_disrnn.data.photometry import (
    align,
    fit_control,
    photometry_responses,
    preprocess,
    response,
)
from keras_disrnn.data.recording import Photometry, Recording
from keras_disrnn.data.responses import find_artefacts, zscore
from keras_disrnn.data.sessions import Sessions
from keras_disrnn.data.splits import (
    Split,
    k_fold,
    leave_one_subject_out,
    split_by_column,
    split_by_id,
    split_by_session,
    split_by_subject,
)
from keras_disrnn.data.summary import drop_sessions, summary
from keras_disrnn.data.table import Columns, sessions_from_table
from keras_disrnn.data.tfds import examples_from_sessions, sessions_from_tfds, stream_from_tfds

__all__ = [
    "Columns",
    "Dropped",
    "EventSettings",
    "Photometry",
    "Recording",
    "Sessions",
    "Split",
    "align",
    "drop_sessions",
    "events_from_samples",
    "examples_from_sessions",
    "find_artefacts",
    "fit_control",
    "k_fold",
    "leave_one_subject_out",
    "photometry_responses",
    "preprocess",
    "read_nwb",
    "read_table",
    "response",
    "sessions_from_table",
    "sessions_from_tfds",
    "split_by_column",
    "split_by_id",
    "split_by_session",
    "split_by_subject",
    "stream_from_tfds",
    "summary",
    "trials_from_events",
    "write_trials",
    "zscore",
]


def __dir__() -> list[str]:
    return sorted(__all__)

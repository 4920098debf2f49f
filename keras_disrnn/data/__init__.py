"""Behavioural sessions: from tables and datasets to the batches of `fit`."""

from keras_disrnn.data.nwb import read_nwb
from keras_disrnn.data.parker import (
    Source1Columns,
    Source2Columns,
    read_source_data_1,
    read_source_data_2,
)
from keras_disrnn.data.photometry import (
    Photometry,
    Recording,
    align,
    find_artefacts,
    fit_control,
    photometry_responses,
    preprocess,
    response,
    zscore,
)
from keras_disrnn.data.sessions import Dropped, Sessions, drop_sessions, summary
from keras_disrnn.data.splits import (
    Split,
    k_fold,
    leave_one_subject_out,
    split_by_column,
    split_by_id,
    split_by_session,
    split_by_subject,
)
from keras_disrnn.data.table import Columns, read_table, sessions_from_table
from keras_disrnn.data.tfds import examples_from_sessions, sessions_from_tfds, stream_from_tfds

__all__ = [
    "Columns",
    "Dropped",
    "Photometry",
    "Recording",
    "Sessions",
    "Source1Columns",
    "Source2Columns",
    "Split",
    "align",
    "drop_sessions",
    "examples_from_sessions",
    "find_artefacts",
    "fit_control",
    "k_fold",
    "leave_one_subject_out",
    "photometry_responses",
    "preprocess",
    "read_nwb",
    "read_source_data_1",
    "read_source_data_2",
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
    "zscore",
]


def __dir__() -> list[str]:
    return sorted(__all__)

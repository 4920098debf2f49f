"""Behavioural sessions: from tables, events, recordings and datasets to the batches of `fit`.

Names load on first use. Importing this package does not import TensorFlow.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from keras_disrnn.utils.lazy import load_lazily

if TYPE_CHECKING:
    from keras_disrnn.data.columns import Columns, EventSettings
    from keras_disrnn.data.dropped import Dropped
    from keras_disrnn.data.events import events_from_samples, trials_from_events, write_trials
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
    from keras_disrnn.data.summaries import drop_sessions, summary
    from keras_disrnn.data.table import sessions_from_table
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

if not TYPE_CHECKING:
    __getattr__, __dir__ = load_lazily(
        __name__,
        names={
            "Columns": "keras_disrnn.data.columns",
            "Dropped": "keras_disrnn.data.dropped",
            "EventSettings": "keras_disrnn.data.columns",
            "Photometry": "keras_disrnn.data.recording",
            "Recording": "keras_disrnn.data.recording",
            "Sessions": "keras_disrnn.data.sessions",
            "Split": "keras_disrnn.data.splits",
            "align": "keras_disrnn.data.photometry",
            "drop_sessions": "keras_disrnn.data.summaries",
            "events_from_samples": "keras_disrnn.data.events",
            "examples_from_sessions": "keras_disrnn.data.tfds",
            "find_artefacts": "keras_disrnn.data.responses",
            "fit_control": "keras_disrnn.data.photometry",
            "k_fold": "keras_disrnn.data.splits",
            "leave_one_subject_out": "keras_disrnn.data.splits",
            "photometry_responses": "keras_disrnn.data.photometry",
            "preprocess": "keras_disrnn.data.photometry",
            "read_nwb": "keras_disrnn.data.nwb",
            "read_table": "keras_disrnn.data.files",
            "response": "keras_disrnn.data.photometry",
            "sessions_from_table": "keras_disrnn.data.table",
            "sessions_from_tfds": "keras_disrnn.data.tfds",
            "split_by_column": "keras_disrnn.data.splits",
            "split_by_id": "keras_disrnn.data.splits",
            "split_by_session": "keras_disrnn.data.splits",
            "split_by_subject": "keras_disrnn.data.splits",
            "stream_from_tfds": "keras_disrnn.data.tfds",
            "summary": "keras_disrnn.data.summaries",
            "trials_from_events": "keras_disrnn.data.events",
            "write_trials": "keras_disrnn.data.events",
            "zscore": "keras_disrnn.data.responses",
        },
    )

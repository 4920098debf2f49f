"""Columns of Arrow types, as Parquet files, DuckDB and Spark give them."""

import numpy as np
import pandas as pd
import pytest

from keras_disrnn.data import Columns, sessions_from_table

pa = pytest.importorskip("pyarrow", reason="pyarrow is not installed")


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        (["0", "1", "1"], "dictionary"),
        ([0, 1, 1], "dictionary"),
        ([0, 1, 1], pa.decimal128(38, 10)),
        ([0, 1, 1], pa.decimal256(70, 5)),
        ([0.0, 1.0, 1.0], pa.float16()),
        ([False, True, True], pa.bool_()),
        (["0", "1", "1"], pa.large_string()),
        (["0", "1", "1"], pa.string_view()),
        ([0, 1, 1], pa.uint64()),
    ],
)
def test_columns_of_arrow_are_read(values, kind):
    array = pa.array(values)
    array = pa.chunked_array(
        [array.dictionary_encode() if isinstance(kind, str) else array.cast(kind)]
    )
    column = pd.Series(pd.arrays.ArrowExtensionArray(array))
    table = pd.DataFrame({"subject": "m", "session": "a", "choice": [0, 1, 1], "reward": [1, 0, 1]})
    for role in ("choice", "reward"):
        sessions = sessions_from_table(table.assign(**{role: column}))
        np.testing.assert_array_equal(
            sessions.features[0, 1:, ["choice", "reward"].index(role)], [0, 1, 1]
        )
    flagged = sessions_from_table(table.assign(forced=column), Columns(forced="forced"))
    assert flagged.choice_weight[0].tolist() == [1, 0, 0, 0]
    names = sessions_from_table(table.assign(session=column)).ids
    assert names == (("False", "True") if kind == pa.bool_() else ("0", "1"))


@pytest.mark.parametrize("kind", [pa.list_(pa.int64()), pa.timestamp("us"), pa.null()])
def test_columns_of_arrow_that_mean_nothing_are_named(kind):
    values = {pa.null(): [None] * 3, pa.timestamp("us"): [0, 1, 2]}.get(kind, [[0], [1], [1]])
    array = pa.chunked_array([pa.array(values, kind)])
    column = pd.Series(pd.arrays.ArrowExtensionArray(array))
    table = pd.DataFrame({"subject": "m", "session": "a", "choice": [0, 1, 1], "reward": [1, 0, 1]})
    with pytest.raises(ValueError, match="column 'choice' .choice.: expected"):
        sessions_from_table(table.assign(choice=column))

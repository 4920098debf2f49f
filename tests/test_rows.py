"""Sessions and the table that they were read from: rows in another order are found or refused."""

import numpy as np
import pandas as pd
import pytest

from keras_disrnn.analysis import add_predictions, better_arms_of
from keras_disrnn.data import find_artefacts, sessions_from_table, split_by_column, zscore


def make_table():
    rng = np.random.default_rng(0)
    return pd.DataFrame(
        {
            "subject": "m",
            "session": np.repeat(list("abcd"), 6),
            "choice": rng.integers(0, 2, 24),
            "reward": rng.integers(0, 2, 24),
            "phase": np.repeat(["test", "train", "test", "train"], 6),
            "better": np.tile([0, 0, 0, 1, 1, 1], 4),
        }
    )


def outputs_of(sessions):
    """Return logits that name the session and the trial."""
    logits = np.zeros((*sessions.features.shape[:2], 2))
    logits[..., 1] = np.arange(len(sessions))[:, None] + 0.01 * np.arange(logits.shape[1])
    return {"choice": logits}


def labelled(table):
    return table.set_axis([f"row {row}" for row in range(len(table))])


def test_a_column_in_another_order_is_found_by_its_labels_or_refused():
    table = labelled(make_table())
    sessions = sessions_from_table(table)
    shuffled = table.sample(frac=1, random_state=0)
    for column in (table["phase"], shuffled["phase"], pd.concat([shuffled["phase"]])):
        assert split_by_column(sessions, column, ["test"]).held_out.ids == ("a", "c")
    part = sessions.subset([2, 1])
    kept = shuffled[shuffled["session"].isin(["b", "c"])]["phase"]
    assert split_by_column(part, kept, ["test"]).held_out.ids == ("c",)
    for column in (
        shuffled["phase"].reset_index(drop=True),
        kept,
        shuffled["phase"].set_axis([f"other {row}" for row in range(24)]),
        pd.concat([shuffled["phase"], shuffled["phase"]]),
    ):
        with pytest.raises(ValueError, match="column 'phase': expected a value for each row of"):
            split_by_column(sessions, column, ["test"])


def test_a_column_whose_index_only_numbers_the_rows_is_refused_in_another_order():
    table = make_table()
    for source in (table, table.sort_values("phase").reset_index(drop=True)):
        with pytest.raises(ValueError, match="expected .* in the order of that table, got other"):
            split_by_column(sessions_from_table(source), table.sort_values("phase")["phase"], ["x"])
    with pytest.raises(ValueError, match="column: expected a column of the table, .* got list"):
        split_by_column(sessions_from_table(table), list(table["phase"]), ["test"])


@pytest.mark.parametrize("label", [lambda table: table, labelled])
def test_predictions_and_better_arms_are_those_of_the_rows_in_any_order(label):
    table = label(make_table())
    sessions = sessions_from_table(table)
    outputs = outputs_of(sessions)
    expected = add_predictions(table, sessions, outputs)
    shuffled = table.sample(frac=1, random_state=0)
    pd.testing.assert_frame_equal(
        add_predictions(shuffled, sessions, outputs), expected.loc[shuffled.index]
    )
    arms = better_arms_of(shuffled, sessions, "better")
    assert [list(each) for each in arms] == [[0, 0, 0, 1, 1, 1]] * 4
    # The other way round, sessions of the sorted table with its own rows numbered anew.
    anew = table.sort_values(["phase", "session"]).reset_index(drop=True)
    later = sessions_from_table(anew)
    assert later.ids == ("a", "c", "b", "d")
    got = add_predictions(table.sort_values(["phase", "session"]), later, outputs)
    wanted = add_predictions(anew, later, outputs)
    np.testing.assert_array_equal(got["choice_probability_1"], wanted["choice_probability_1"])


def test_a_table_that_shows_other_trials_is_refused():
    table = make_table()
    sessions = sessions_from_table(table)
    outputs = outputs_of(sessions)
    moved = table.sort_values("phase").reset_index(drop=True)
    changed = table.assign(reward=1 - table["reward"])
    for wrong, message in (
        (moved, "session 'c' in row 6, expected session 'b'"),
        (changed, "reward . in row 0, expected . .trial 0 of session 'a'."),
    ):
        for call in (add_predictions, better_arms_of):
            with pytest.raises(ValueError, match=f"table: expected the table .* {message}"):
                call(wrong, sessions, outputs if call is add_predictions else "better")


def test_values_and_sessions_in_two_orders_are_refused():
    table = make_table().assign(value=np.arange(24.0))
    other = table.sort_values("phase")["session"]
    for call in (
        lambda: zscore(table["value"], other, training=["a"]),
        lambda: zscore(table["value"], table["session"], training=["a"], by=other),
        lambda: find_artefacts(table["value"], other),
    ):
        with pytest.raises(ValueError, match="expected the rows of the values, in their order"):
            call()

"""Predictions in a user's own table."""

import numpy as np
import pandas as pd
import pytest

from keras_disrnn.analysis import add_predictions, compute_session_trace
from keras_disrnn.data import Columns, Sessions, sessions_from_table, split_by_session
from keras_disrnn.models.disrnn_model import DisRNNModel

NAN = np.nan


@pytest.fixture
def table(rng):
    """Make three sessions of different lengths, with missed and forced trials and an odd index."""
    lengths = (5, 8, 3)
    total = sum(lengths)
    table = pd.DataFrame(
        {
            "note": [f"row {row}" for row in range(total)],
            "subject": np.repeat(["m1", "m1", "m2"], lengths),
            "session": np.repeat(["a", "b", "c"], lengths),
            "choice": rng.integers(0, 2, total).astype(float),
            "reward": rng.integers(0, 2, total).astype(float),
            "dlight": rng.normal(size=total),
            "forced": np.arange(total) % 5 == 1,
            "missed": np.arange(total) % 7 == 3,
        },
        index=np.arange(total) * 10 + 100,
    )
    table.loc[table["missed"], ["choice", "reward"]] = NAN
    table.loc[110, "dlight"] = NAN
    return table


COLUMNS = Columns(dopamine="dlight", forced="forced", missed="missed")


@pytest.fixture
def model():
    model = DisRNNModel(num_latents=3, num_signals=1, seed=1)
    return model


def test_predictions_are_next_to_their_trials(table, model):
    sessions = sessions_from_table(table, COLUMNS)
    result = add_predictions(table, sessions, model)
    pd.testing.assert_frame_equal(result[table.columns], table)
    for index, rows in enumerate(sessions.rows):
        trace, part = compute_session_trace(model, sessions, index), result.iloc[rows]
        for name in ("choice_probability_1", "z1", "z3", "predicted_dlight"):
            np.testing.assert_allclose(part[name], trace[name], rtol=1e-5, atol=1e-6)
    # The latents of trial t are those after time step t, which describes trial t - 1. The
    # prediction of its dopamine is at time step t + 1.
    latents = np.asarray(model.compute_latents(sessions.features))
    outputs = model.predict(sessions.dataset(), verbose=0)
    for index, rows in enumerate(sessions.rows):
        part, trials = result.iloc[rows], len(rows)
        np.testing.assert_allclose(part[["z1", "z2", "z3"]], latents[index, :trials], atol=1e-6)
        made = ~part["missed"].to_numpy()
        predicted = outputs["dopamine"][index, 1 : trials + 1, 0]
        np.testing.assert_allclose(part["predicted_dlight"][made], predicted[made], atol=1e-6)
    error = result["dlight"] - result["predicted_dlight"]
    np.testing.assert_allclose(result["error_dlight"], error, atol=1e-6)
    assert result["error_dlight"].isna().sum() == table["missed"].sum() + 1
    made = ~table["missed"]
    one = np.where(
        table["choice"] == 1, result["choice_probability_1"], result["choice_probability_0"]
    )
    np.testing.assert_array_equal(result["choice_likelihood"][made], one[made])
    assert result["choice_likelihood"][~made].isna().all()
    # Predictions of some sessions only fill their own rows.
    train, held_out = split_by_session(sessions, 2)
    part = add_predictions(table, held_out, model)
    inside = table["session"] == "b"
    columns = ["choice_probability_0", "z2", "error_dlight"]
    np.testing.assert_allclose(part[inside][columns], result[inside][columns], rtol=1e-5, atol=1e-6)
    assert part[~inside][columns].isna().all().all()
    both = add_predictions(table, train, model)
    assert (both["z1"].isna() == inside).all()


def test_outputs_can_replace_a_model(table, model):
    sessions = sessions_from_table(table, COLUMNS)
    outputs = model.predict(sessions.dataset(), verbose=0)
    result = add_predictions(table, sessions, outputs)
    assert "z1" not in result
    expected = add_predictions(table, sessions, model)
    np.testing.assert_allclose(result["predicted_dlight"], expected["predicted_dlight"], rtol=1e-5)
    trials = np.arange(9.0)[:, None]
    outputs = {"choice": np.stack([np.zeros((3, 9)), np.tile(trials.T, (3, 1))], -1)}
    result = add_predictions(table, sessions, outputs)
    # The logit of arm 1 is the number of the trial in its session.
    place = table.groupby("session").cumcount()
    np.testing.assert_allclose(result["choice_probability_1"], 1 / (1 + np.exp(-place)))
    assert "predicted_dlight" not in result


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t, s, m: (t[:7], s, m), "table: expected the table .* more than 15 rows, got 7"),
        (lambda t, s, m: ("a.csv", s, m), "table: expected the DataFrame .* got str"),
        (lambda t, s, m: (t.assign(z1=0), s, m), "expected no column 'z1', got one; rename it"),
        (
            lambda t, s, m: (t, Sessions.from_trials([[0, 1]], [[1, 0]]), m),
            "expected sessions read from a table",
        ),
        (lambda t, s, m: (t, s, {"dopamine": 0}), "expected an output 'choice', got dopamine"),
        (
            lambda t, s, m: (t, s, {"choice": np.zeros((3, 8, 2))}),
            r"output 'choice' of shape \(3, 9, 2\) .* got \(3, 8, 2\)",
        ),
    ],
)
def test_bad_tables_of_predictions_are_refused(table, model, change, message):
    with pytest.raises(ValueError, match=message):
        add_predictions(*change(table, sessions_from_table(table, COLUMNS), model))

"""Ids of subjects and sessions: one text for each, in every reader and every function."""

import datetime
import decimal
import uuid
import warnings

import numpy as np
import pandas as pd
import pytest
import tensorflow as tf

import keras_disrnn
from keras_disrnn.analysis.subjects import embedding_of
from keras_disrnn.bandit import ScheduledBandit
from keras_disrnn.data import (
    Columns,
    EventSettings,
    Recording,
    Sessions,
    drop_sessions,
    find_artefacts,
    photometry_responses,
    read_table,
    sessions_from_table,
    sessions_from_tfds,
    split_by_column,
    split_by_id,
    split_by_subject,
    stream_from_tfds,
    trials_from_events,
    zscore,
)
from keras_disrnn.experiments.flags import quote_names
from keras_disrnn.experiments.settings import TableData
from keras_disrnn.utils.ids import factorize_ids, id_text

DAYS = [datetime.datetime(2024, 1, 1), datetime.datetime(2024, 1, 2), datetime.datetime(2024, 1, 3)]

FORMS = {
    "text with zeros": (["007", "7", "NA"], ["007", "7", "NA"]),
    "integers": ([1, 2, 3], ["1", "2", "3"]),
    "small integers": (np.array([1, 2, 3], np.int8), ["1", "2", "3"]),
    "floats that are whole": ([1.0, 2.0, 3.0], ["1", "2", "3"]),
    "floats": ([1.5, 2.0, 3.25], ["1.5", "2", "3.25"]),
    "booleans": ([True, False, 2], ["True", "False", "2"]),
    "one and true": (pd.Series([1, True, 2], dtype=object), ["1", "True", "2"]),
    "dates of pandas": (pd.to_datetime(DAYS), ["2024-01-01", "2024-01-02", "2024-01-03"]),
    "dates of Python": ([day.date() for day in DAYS], ["2024-01-01", "2024-01-02", "2024-01-03"]),
    "instants": (
        pd.to_datetime(["2024-01-01 10:30", "2024-01-01 00:00", "2024-01-02 00:00"]),
        ["2024-01-01 10:30:00", "2024-01-01", "2024-01-02"],
    ),
    "instants of a zone": (
        pd.to_datetime(["2024-01-01", "2024-01-02", "2024-01-03"], utc=True),
        [f"2024-01-0{day} 00:00:00+00:00" for day in (1, 2, 3)],
    ),
    "decimals": ([decimal.Decimal("18.00"), decimal.Decimal("2.5"), 3], ["18", "2.5", "3"]),
    "bytes": ([b"a", b"b", b"c"], ["a", "b", "c"]),
    "categories": (pd.Categorical([3, 1, 2]), ["3", "1", "2"]),
    "nullable integers": (pd.array([1, 2, 3], dtype="Int64"), ["1", "2", "3"]),
    "nullable text": (pd.array(["a", "NA", "c"], dtype="string"), ["a", "NA", "c"]),
    "UUIDs": ([uuid.UUID(int=n) for n in (1, 2, 3)], [str(uuid.UUID(int=n)) for n in (1, 2, 3)]),
}


def table_of(ids, subjects="m"):
    """Make a table with sessions of two trials."""
    column = pd.Series(ids).repeat(2).reset_index(drop=True)
    return pd.DataFrame(
        {"subject": subjects, "session": column, "choice": [0, 1] * 3, "reward": [1, 0] * 3}
    )


@pytest.mark.parametrize("form", FORMS)
def test_every_function_takes_the_same_text_of_an_id(form):
    ids, texts = FORMS[form]
    table = table_of(ids)
    values = list(pd.Series(ids))
    assert [id_text(value) for value in values] == texts
    sessions = sessions_from_table(table)
    assert sessions.ids == tuple(texts)
    assert (sessions_from_table(table.assign(subject=table.session)).subjects) == tuple(texts)
    trials = {"choice": [[0, 1]] * 3, "reward": [[1, 0]] * 3}
    assert Sessions.from_trials(**trials, ids=values, subjects=values).ids == tuple(texts)
    examples = [
        {"subject": name, "session": name, "choice": [0, 1], "reward": [1, 0]} for name in values
    ]
    assert sessions_from_tfds(examples).subjects == tuple(texts)
    for wanted in (values[1], texts[1]):
        assert split_by_id(sessions, [wanted]).held_out.ids == (texts[1],)
        by_subject = sessions_from_table(table.assign(subject=table.session))
        assert split_by_subject(by_subject, [wanted]).held_out.subjects == (texts[1],)
        assert by_subject.of_subjects([wanted]).ids == (texts[1],)
        assert split_by_column(sessions, table.session, [wanted]).held_out.ids == (texts[1],)
        assert drop_sessions(sessions, {wanted: "noise"}).ids == (texts[0], texts[2])
        assert wanted in sessions
        zscore(np.arange(6), table.session, training=[wanted])
    recording = Recording(np.arange(0, 10, 0.1), np.ones(100))
    for keys in (texts, values)[: 1 + (len(set(values)) == 3)]:  # 1 and True are one key.
        recordings = dict.fromkeys(keys, recording)
        photometry_responses(table.assign(at=[3, 5] * 3), recordings, event="at")
    found = find_artefacts([np.nan] * 2 + [1, 2, 1, 2], table.session)
    assert list(found) == texts[:1]


def test_names_in_a_file_are_taken_as_they_are_written(tmp_path):
    for word in ("NA", "None", "null", "nan", "007", "1.0", "True", "2024-01-01 00:00:00", "1e3"):
        path = tmp_path / "a.csv"
        path.write_text(f"subject,session,choice,reward\n{word},{word},0,1\n{word},{word},1,NA\n")
        with pytest.raises(ValueError, match="'reward' .* a finite number, got nan in row 1"):
            sessions_from_table(path)
        path.write_text(f"subject,session,choice,reward\n{word},{word},0,1\n{word},{word},1,0\n")
        sessions = sessions_from_table(path)
        assert (sessions.ids, sessions.subjects) == ((word,), (word,))
    path.write_text("session,time,event\nNA,0,None\nNA,1,l\nNA,2,None\nNA,3,r\nNA,3,reward\n")
    settings = EventSettings(arms={"l": 0, "r": 1}, start="None", subject=None)
    assert trials_from_events(path, settings)["session"].tolist() == ["NA", "NA"]
    path.write_text("subject,session,x\n007,,1\n")
    table = read_table(path, text=["subject", "session"])
    assert table.loc[0, "subject"] == "007" and pd.isna(table.loc[0, "session"])


def test_an_id_that_pandas_has_lost_is_refused_with_the_remedy():
    for missing in (None, np.nan, pd.NA, pd.NaT):
        table = table_of(["a", missing, "c"])
        with pytest.raises(ValueError, match="got an empty cell in row 2; pandas reads NA, None"):
            sessions_from_table(table)
        for name in ("ids", "subjects"):
            with pytest.raises(ValueError, match=f"{name}: expected an id in every entry"):
                Sessions.from_trials([[0], [1]], [[1], [0]], **{name: ["a", missing]})


@pytest.mark.parametrize("value", [["m1"], ("m1",), {"m": 1}, np.zeros(2), object(), 1e20, b"\xff"])
def test_what_is_no_id_is_refused(value):
    with pytest.raises(ValueError, match="expected"):
        id_text(value)
    with pytest.raises(ValueError, match="in row 1"):
        factorize_ids(pd.Series(["a", value], dtype=object))
    with pytest.raises(ValueError, match="ids: expected .* in entry 1"):
        Sessions.from_trials([[0], [1]], [[1], [0]], ids=["a", value])


@pytest.mark.parametrize("pair", [("a", "a "), ("a b", "a  b"), ("a", "\ta"), ("a", "a\u200b")])
def test_ids_that_look_alike_are_refused_by_every_reader(tmp_path, pair):
    for role in ("subject", "session"):
        names = {"subject": ["m", "m"], "session": ["x", "y"], role: list(pair)}
        table = pd.DataFrame({**names, "choice": [0, 1], "reward": [1, 0]})
        table.to_csv(tmp_path / "a.csv", index=False)
        message = "expected ids that differ in more than white space, got"
        for source in (table, tmp_path / "a.csv"):
            with pytest.raises(ValueError, match=f"'{role}' .*{message} .* in row 0 and .* in row"):
                sessions_from_table(source)
        examples = [
            {"subject": s, "session": i, "choice": [0], "reward": [1]}
            for s, i in zip(names["subject"], names["session"], strict=True)
        ]
        with pytest.raises(ValueError, match=message):
            sessions_from_tfds(examples)
        with pytest.raises(ValueError, match=message):
            Sessions.from_trials(
                [[0], [1]], [[1], [0]], subjects=names["subject"], ids=names["session"]
            )


def test_one_id_of_two_types_is_refused_with_its_row():
    table = table_of(["1", "2", "3"])
    table["session"] = pd.Series([1, "1", 2, 2, 3, 3], dtype=object)
    with pytest.raises(ValueError, match="as int and, in row 1, as str; write them alike"):
        sessions_from_table(table)


def test_columns_may_have_numbers_as_names():
    table = table_of(["a", "b", "c"]).set_axis(range(4), axis=1)
    for names in (range(4), map(str, range(4))):
        roles = dict(zip(("subject", "session", "choice", "reward"), names, strict=True))
        assert sessions_from_table(table, Columns(**roles)).ids == ("a", "b", "c")
    assert Columns(dopamine=[4, "x"]).signal_names == ("4", "x")


def test_tensors_are_ids():
    assert id_text(tf.constant("m1")) == "m1"
    assert id_text(tf.constant(7)) == "7"


# === Two that become one ===


def sessions_of(trials, *, ids, dopamine=True, seed=0):
    """Make sessions of which the last two hold the same trials."""
    rng = np.random.default_rng(seed)
    choice, reward = rng.integers(0, 2, (2, len(ids) - 1, trials))
    response = rng.normal(size=(len(ids) - 1, trials))
    twice = [*range(len(ids) - 1), len(ids) - 2]
    return Sessions.from_trials(
        choice[twice], reward[twice], dopamine=response[twice] if dopamine else None, ids=ids
    )


@pytest.mark.parametrize(("trials", "dopamine"), [(3, True), (30, False)])
def test_sessions_with_the_same_trials_are_named(trials, dopamine):
    with pytest.warns(UserWarning, match="sessions: .* got the same in 'b' and 'c'; leave one out"):
        sessions = sessions_of(trials, ids=["a", "b", "c"], dopamine=dopamine)
    message = r"split: .* the same in 'b' .training. and 'c' .held out.; the held-out scores"
    with pytest.warns(UserWarning, match=message):
        split_by_id(sessions, ["c"])
    model = keras_disrnn.DisRNNModel(num_latents=1, num_signals=0, seed=0)
    with pytest.warns(UserWarning, match=message):
        keras_disrnn.train(
            model,
            sessions[[0, 1]],
            sessions[["a", "b", "c"].index("c")],
            warmup_steps=1,
            stage1_steps=0,
            stage2_steps=0,
            verbose=0,
        )


def test_different_and_short_sessions_are_not_taken_for_copies():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        sessions = sessions_of(5, ids=["a", "b", "c"], dopamine=False)
        split_by_id(sessions, ["c"])
        rng = np.random.default_rng(0)
        Sessions.from_trials(rng.integers(0, 2, (9, 30)), rng.integers(0, 2, (9, 30)))


def stream_of(examples, batch_size=1, **arguments):
    examples = list(examples)
    signature = {name: tf.TensorSpec((None,), tf.float32) for name in ("choice", "reward")}
    signature |= {name: tf.TensorSpec((), tf.string) for name in ("subject", "session")}
    split = tf.data.Dataset.from_generator(lambda: iter(examples), output_signature=signature)
    return stream_from_tfds(split, batch_size, **arguments)


def example(session="a", subject="m", choice=(0, 1), reward=(1, 0)):
    return {"subject": subject, "session": session, "choice": choice, "reward": reward}


@pytest.mark.parametrize("batch_size", [1, 2])
@pytest.mark.parametrize(
    ("examples", "message"),
    [
        ([example("a"), example("a ", choice=(1, 1))], "ids: .* in more than white space, got"),
        ([example("a"), example("b", "m ")], "subjects: .* in more than white space, got 'm"),
        ([example("a"), example("a", choice=(1, 1))], "ids: expected unique session ids, also .*"),
        ([example("a"), example("a", "m2")], "ids: expected unique session ids, also across .*"),
        ([example("a"), example(" ")], "session: expected an id in every entry, got"),
        ([example("a"), example("b", "")], "subject: expected an id in every entry, got"),
        ([example("a"), example("b", choice=(), reward=())], "choice: expected at least 1 trial"),
        ([example(b"\xff")], "session: expected UTF-8 text, got"),
    ],
)
def test_memory_and_stream_refuse_the_same_ids(examples, message, batch_size):
    with pytest.raises(ValueError, match=message):
        sessions_from_tfds(examples)
    with pytest.raises(tf.errors.InvalidArgumentError, match=message):
        list(stream_of(examples, batch_size))


def test_a_stream_may_repeat_its_sessions():
    examples = [example("a"), example("b", choice=(1, 1))] * 3
    batches = list(stream_of(examples, 4))
    assert [len(features) for features, _, _ in batches] == [4, 2]


# === Subjects and settings ===


def test_subjects_of_models_and_settings_are_text():
    model = keras_disrnn.DisRNNModel(
        num_observations=3, num_latents=1, num_signals=0, subjects=[18, "m1"], subject_units=1
    )
    assert model.subjects == ("18", "m1")
    for subject in (18, 18.0, "18", np.int64(18)):
        np.testing.assert_array_equal(embedding_of(model, subject), embedding_of(model, "18"))
    with pytest.raises(ValueError, match="expected one of the model's 2 subjects, .* got '19'"):
        embedding_of(model, 19)
    settings = TableData("a.csv", held_out_subjects=[18, "007"], held_out_sessions=[DAYS[0]])
    assert settings.held_out_subjects == ["18", "007"]
    assert settings.held_out_sessions == ["2024-01-01"]
    table = table_of([1.0, 2.0, 3.0]).assign(p=0.5, q=0.5)
    assert ScheduledBandit.from_table(table, ["p", "q"]).num_sessions == 3


def test_a_name_is_not_taken_for_a_part_of_another():
    sessions = Sessions.from_trials([[0], [1]], [[1], [0]], subjects=["m1", "m12"])
    assert sessions.of_subjects("m12").subjects == ("m12",)


@pytest.mark.parametrize("name", ["observation_names", "signal_names"])
def test_held_out_sessions_with_columns_in_another_order_are_refused(name):
    table = table_of(["a", "b", "c"]).assign(x=np.arange(6.0), y=1.0)
    role = {"observation_names": "observations", "signal_names": "dopamine"}[name]
    train, held_out = (
        sessions_from_table(table, Columns(**{role: order})) for order in (["x", "y"], ["y", "x"])
    )
    model = keras_disrnn.DisRNNModel(
        num_latents=1, num_signals=train.num_signals, num_observations=train.num_observations
    )
    with pytest.raises(ValueError, match=f"{name}: expected held-out sessions with those of the"):
        keras_disrnn.train(model, train, held_out, warmup_steps=1, stage1_steps=0, verbose=0)


# === Settings in a file ===


@pytest.mark.parametrize("name", ["007", "no", "null", "12:30", "1.50"])
def test_a_name_in_a_settings_file_that_yaml_would_change_is_refused(tmp_path, name):
    file = tmp_path / "settings.yaml"
    file.write_text(f"data: {{held_out_sessions: [{name}]}}")
    with pytest.raises(ValueError, match=f"settings.yaml: expected the names .*; write '{name}'"):
        quote_names(["--config", str(file)])


def test_other_values_in_a_settings_file_pass(tmp_path):
    file = tmp_path / "settings.yaml"
    file.write_text(
        "{seed: 007, data: {held_out_sessions: ['007', 7, m1, 2024-01-31], subjects: null}}"
    )
    assert quote_names(["--config", str(file)]) == ["--config", str(file)]

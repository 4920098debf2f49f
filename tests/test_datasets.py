"""The TFDS builder, as users of `tfds.load` see it."""

import dataclasses
import hashlib
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import tensorflow as tf
import tensorflow_datasets as tfds
import test_events

import keras_disrnn
import keras_disrnn.datasets
from keras_disrnn import bandit
from keras_disrnn.data import (
    Columns,
    EventSettings,
    Photometry,
    Sessions,
    examples_from_sessions,
    sessions_from_table,
    sessions_from_tfds,
    stream_from_tfds,
)
from keras_disrnn.datasets import Builder, Parker2016Config, SimulatedConfig, TrialsTableConfig

SIMULATED = [
    "q_learning",
    "forgetting_q_learning",
    "differential_forgetting_q_learning",
    "reward_seeking",
    "leaky_actor_critic",
    "multi_subject",
]
CONFIGS_MODULE = sys.modules[SimulatedConfig.__module__]
# Read shards in their order on the disk.
IN_ORDER = tfds.ReadConfig(interleave_cycle_length=1)


def small(name="small", **arguments):
    sizes = {
        "num_train_sessions": 30,
        "num_validation_sessions": 12,
        "num_test_sessions": 11,
        "num_trials": 20,
    }
    return SimulatedConfig(name=name, **{**sizes, **arguments})


def make_table(sessions=6, trials=15, seed=0):
    """Make a realistic table, with forced and missed trials and gaps in the signal."""
    played = bandit.simulate(
        bandit.QLearning(),
        bandit.DriftingBandit(),
        num_sessions=sessions,
        num_trials=trials,
        seed=seed,
    )
    table = played.to_table()[["subject", "session", "choice", "reward", "dopamine"]]
    table["subject"] = np.repeat([f"m{i // 3}" for i in range(sessions)], trials)
    table["forced"] = np.arange(len(table)) % 7 == 0
    table["missed"] = np.arange(len(table)) % 11 == 5
    table["second"] = table["dopamine"] * 2 + 1
    table["running"] = np.linspace(0, 1, len(table)).astype("float32")
    table.loc[3, "dopamine"] = np.nan
    return table


EVERYTHING = Columns(
    dopamine=("dopamine", "second"), forced="forced", missed="missed", observations=("running",)
)


# === TFDS' own checks: registration, card, tags, features, unique keys, no shared examples ===


class SimulatedConfigsTest(tfds.testing.DatasetBuilderTestCase):
    DATASET_CLASS = Builder
    BUILDER_CONFIG_NAMES_TO_TEST = SIMULATED
    SPLITS = {"train": 300, "validation": 100, "test": 300}
    # The data are simulated, but the test case requires a folder of examples.
    EXAMPLE_DIR = Path(__file__).parent


@pytest.mark.slow
class LargeConfigTest(tfds.testing.DatasetBuilderTestCase):
    DATASET_CLASS = Builder
    BUILDER_CONFIG_NAMES_TO_TEST = ["large"]
    SPLITS = {"train": 50_000, "validation": 500, "test": 500}
    EXAMPLE_DIR = Path(__file__).parent


class TrialsTableConfigTest(tfds.testing.DatasetBuilderTestCase):
    DATASET_CLASS = Builder
    BUILDER_CONFIG_NAMES_TO_TEST = [
        "trials_table",
        TrialsTableConfig(name="with_everything", columns=EVERYTHING),
    ]
    SPLITS = {"train": 6}

    @pytest.fixture(autouse=True, scope="class")
    @classmethod
    def folder_of_one_table(cls, tmp_path_factory):
        cls.EXAMPLE_DIR = tmp_path_factory.mktemp("manual")
        make_table().to_csv(cls.EXAMPLE_DIR / "trials.csv", index=False)


PARKER = Parker2016Config(
    name="parker2016_named",
    events=EventSettings(
        arms={"ipsi": 0, "contra": 1}, start="start", subject="site", session="day"
    ),
    file="named.csv",
)


class Parker2016ConfigTest(tfds.testing.DatasetBuilderTestCase):
    DATASET_CLASS = Builder
    BUILDER_CONFIG_NAMES_TO_TEST = [PARKER, "parker2016"]
    SPLITS = {"train": 2}

    @pytest.fixture(autouse=True, scope="class")
    @classmethod
    def folder_of_one_table(cls, tmp_path_factory):
        cls.EXAMPLE_DIR = tmp_path_factory.mktemp("manual")
        table = test_events.sample_table()
        names = {"ipsi_press": "ipsi", "contra_press": "contra", "trial_start": "start"}
        table = table.rename(columns={**names, "session": "day"})
        table.to_csv(cls.EXAMPLE_DIR / "named.csv", index=False)

    def _download_and_prepare_as_dataset(self, builder):
        if builder.builder_config.name == "parker2016":
            # The names of the default config are guesses: this file has them.
            (self.EXAMPLE_DIR / "named.csv").unlink()
            test_events.sample_table().to_csv(self.EXAMPLE_DIR / "guessed.csv", index=False)
        super()._download_and_prepare_as_dataset(builder)


# === Simulated ===


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("tfds")


def build(config, folder, **arguments):
    download = arguments.pop("download", {})
    builder = Builder(config=config, data_dir=folder, **arguments)
    builder.download_and_prepare(download_config=tfds.download.DownloadConfig(**download))
    return builder


def examples_of(builder, split="train"):
    return list(tfds.as_numpy(builder.as_dataset(split=split, read_config=IN_ORDER)))


@pytest.mark.parametrize("name", SIMULATED[:-1])
def test_examples_are_the_simulated_sessions(folder, name):
    splits = tfds.load(f"bandit_dopamine/{name}", data_dir=folder)
    assert list(splits) == ["train", "validation", "test"]
    agent = Builder.builder_configs[name].agent
    assert agent.name == name
    played = bandit.simulate(
        agent, bandit.DriftingBandit(), num_sessions=700, num_trials=200, seed=0
    )
    index = {name: i for i, name in enumerate(played.ids)}
    seen = []
    for split in splits.values():
        for example in tfds.as_numpy(split):
            session = example["session"].decode()
            seen.append(session)
            for field in dataclasses.fields(played):
                feature = "agent_variables" if field.name == "variables" else field.name
                if feature in example and feature != "subject":
                    expected = getattr(played, field.name)[index[session]]
                    np.testing.assert_array_equal(example[feature], expected)
            parameters = np.array(list(dataclasses.asdict(agent).values()), np.float32)
            np.testing.assert_array_equal(example["agent_parameters"], parameters)
    assert sorted(seen) == sorted(played.ids)


def test_subjects_differ_in_their_learning_rate_and_the_truth_is_recorded(folder):
    builder = tfds.builder("bandit_dopamine/multi_subject", data_dir=folder)
    builder.download_and_prepare()
    parameters = builder.info.metadata["parameters"]
    assert len({values["alpha"] for values in parameters.values()}) == 10
    for split, count in (("train", 30), ("validation", 10)):
        examples = examples_of(builder, split)
        subjects = [example["subject"].decode() for example in examples]
        assert {subject: subjects.count(subject) for subject in subjects} == dict.fromkeys(
            parameters, count
        )
        for example in examples:
            alpha, beta = example["agent_parameters"]
            truth = parameters[example["subject"].decode()]
            np.testing.assert_allclose([alpha, beta], [truth["alpha"], truth["beta"]])
            chosen = example["choice"][:-1, None] == np.arange(2)
            moved = np.diff(example["agent_variables"], axis=0)
            expected = np.where(chosen, alpha * example["dopamine"][:-1, None], 0)
            np.testing.assert_allclose(moved, expected, atol=1e-6)


def test_metadata_on_disk_hold_agent_parameters_and_seed(tmp_path):
    build(small(agent=bandit.LeakyActorCritic(0.2), seed=9), tmp_path)
    (path,) = tmp_path.glob("bandit_dopamine/small/*")
    metadata = tfds.builder_from_directory(path).info.metadata
    assert metadata["agent"] == "leaky_actor_critic"
    assert metadata["parameters"] == {
        "leaky_actor_critic": {"alpha_critic": 0.2, "learn": 1.0, "forget": 0.05}
    }
    assert metadata["variable_names"] == ["theta0", "theta1", "v"]
    assert metadata["environment_parameters"] == {"sigma": 0.1, "num_arms": 2}
    assert (metadata["seed"], metadata["num_trials"]) == (9, 20)


def test_data_of_another_config_of_the_same_name_are_refused(tmp_path):
    build(small(seed=1), tmp_path)
    assert Builder(config=small(seed=1), data_dir=tmp_path).info.splits["train"].num_examples == 30
    for change in ({"seed": 2}, {"num_train_sessions": 31}, {"agent": bandit.QLearning(0.4)}):
        with pytest.raises(ValueError, match=r"small.3.0.0: expected data made with .*delete"):
            Builder(config=small(**{"seed": 1, **change}), data_dir=tmp_path)


def test_settings_may_be_numpy_numbers(tmp_path):
    config = small(agent=bandit.QLearning(np.float32(0.5)), seed=np.int64(3))
    assert build(config, tmp_path).info.metadata["parameters"]["q_learning"]["alpha"] == 0.5


def test_shards_do_not_change_the_examples(tmp_path, monkeypatch):
    subjects = {"a": bandit.QLearning(0.1), "b": bandit.QLearning(0.8)}
    config = small(agent=subjects, num_train_sessions=700, num_trials=5)
    once = build(config, tmp_path / "once")
    # One group at a time, and several files.
    monkeypatch.setattr(CONFIGS_MODULE, "_TRIALS_AT_ONCE", 1)
    assert config.shards("train") == [
        ("a", 0, 256), ("a", 256, 94), ("b", 350, 162), ("b", 512, 188),
    ]  # fmt: skip
    cut = build(config, tmp_path / "cut", download={"num_shards": 3})
    assert cut.info.splits["train"].num_shards == 3
    for one, other in zip(examples_of(once), examples_of(cut), strict=True):
        for name, value in one.items():
            np.testing.assert_array_equal(value, other[name])


@pytest.mark.parametrize("split", ["train", "validation", "test"])
def test_shards_cover_each_split_once(split):
    config = small(
        agent={name: bandit.QLearning() for name in "abc"}, num_train_sessions=1000, num_trials=2000
    )
    played = [i for _, start, count in config.shards(split) for i in range(start, start + count)]
    first = {"train": 0, "validation": 1000, "test": 1012}[split]
    assert played == list(range(first, first + getattr(config, f"num_{split}_sessions")))


def test_examples_can_be_read_in_any_order(tmp_path):
    plain = {e["session"]: e for e in examples_of(build(small(), tmp_path / "plain"))}
    builder = build(small(), tmp_path / "random", file_format="array_record")
    source = builder.as_data_source(split="train")
    assert len(source) == 30
    for index in (29, 0, 17, 17):
        example = source[index]
        for name, value in plain[example["session"]].items():
            np.testing.assert_array_equal(example[name], value)
    assert len({source[index]["session"] for index in range(30)}) == 30


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"agent": {}}, "agents of one kind, got none"),
        (
            {"agent": {"a": bandit.QLearning(), "b": bandit.RewardSeeking()}},
            r"\['QLearning', 'RewardSeeking'\]",
        ),
        ({"num_train_sessions": 0}, "num_train_sessions"),
        ({"agent": {str(i): bandit.QLearning() for i in range(12)}}, "test_sessions.* 12 subjects"),
    ],
)
def test_bad_simulated_configs_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        small(**arguments)


def test_the_card_and_the_citation_are_installed(folder):
    info = tfds.builder("bandit_dopamine/q_learning", data_dir=folder).info
    assert "drifting two-armed bandit" in info.description
    for key in ("jain2025simultaneous", "miller2023cognitive", "ito2009validation"):
        assert key in info.citation
    assert info.release_notes.keys() == {"1.0.0", "2.0.0", "3.0.0"}
    assert keras_disrnn.datasets.Builder.name == "bandit_dopamine"


# === Apache Beam ===


def test_beam_makes_the_same_examples_in_the_same_order(tmp_path):
    pytest.importorskip("apache_beam", reason="needs the extra [beam]")
    from apache_beam.options.pipeline_options import PipelineOptions

    config = small(
        agent={"a": bandit.QLearning(0.1), "b": bandit.QLearning(0.8)}, num_train_sessions=1100
    )
    here = build(config, tmp_path / "here")
    options = PipelineOptions(
        ["--runner=DirectRunner", "--direct_num_workers=2", "--direct_running_mode=multi_threading"]
    )
    there = build(config, tmp_path / "there", download={"beam_options": options})
    for split in ("train", "validation", "test"):
        for one, other in zip(examples_of(here, split), examples_of(there, split), strict=True):
            assert one.keys() == other.keys()
            for name, value in one.items():
                np.testing.assert_array_equal(value, other[name])


def test_missing_beam_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "apache_beam", None)
    with pytest.raises(ImportError, match=r"keras-disrnn\[beam\]"):
        build(small(), tmp_path, download={"beam_options": object()})


# === Recorded tables ===


@pytest.mark.parametrize("ending", ["csv", "tsv", "csv.gz", "parquet"])
def test_a_table_comes_back_as_sessions_from_table_reads_it(tmp_path, ending):
    if ending == "parquet":
        pytest.importorskip("pyarrow")
    manual = tmp_path / "manual"
    manual.mkdir()
    path, table = manual / f"mine.{ending}", make_table()
    if ending == "parquet":
        table.to_parquet(path)
    else:
        table.to_csv(path, index=False, sep="\t" if ending == "tsv" else ",")
    (manual / "notes.txt").write_text("not a table")
    config = TrialsTableConfig(name="mine", columns=EVERYTHING)
    builder = build(config, tmp_path, download={"manual_dir": manual})
    assert builder.info.metadata["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    assert builder.info.metadata["file"] == path.name
    assert builder.info.metadata["signal_names"] == ["dopamine", "second"]
    expected = sessions_from_table(path, EVERYTHING)
    got = sessions_from_tfds(builder.as_dataset(split="train"))
    order = [expected.ids.index(name) for name in got.ids]
    assert_same_sessions(got, expected.subset(order))


def assert_same_sessions(got, expected):
    assert (got.ids, got.subjects, got.num_arms) == (
        expected.ids,
        expected.subjects,
        expected.num_arms,
    )
    for name in ("features", "choice", "choice_weight", "dopamine", "dopamine_weight"):
        np.testing.assert_array_equal(getattr(got, name), getattr(expected, name))
    np.testing.assert_array_equal(got.trials_per_session, expected.trials_per_session)


def test_held_out_sessions_of_each_subject_become_the_test_split(tmp_path):
    manual = tmp_path / "manual"
    manual.mkdir()
    make_table().to_csv(manual / "t.csv", index=False)
    config = TrialsTableConfig(
        name="held_out", columns=Columns(missed="missed"), file="t.csv", held_out_every=3
    )
    builder = build(config, tmp_path, download={"manual_dir": manual})
    assert sorted(e["session"] for e in examples_of(builder, "test")) == [b"0-000001", b"0-000004"]
    assert builder.info.splits["train"].num_examples == 4
    assert "dopamine" not in builder.info.features


@pytest.mark.parametrize(
    ("files", "arguments", "message"),
    [
        ({}, {}, "does not exist or is empty(.|\n)*one row per trial(.|\n)*'reward' .reward."),
        ({"notes.txt": "x"}, {}, "expected one table .*got none"),
        ({"a.csv": "x", "b.csv": "x"}, {}, "got a.csv, b.csv; name it with the config's file"),
        ({"a.csv": "x"}, {"file": "b.csv"}, "expected the file b.csv, got a.csv"),
        (
            {"a.csv": "subject,session,choice\nm,s,1\n"},
            {},
            "a.csv: Columns.reward: expected a column 'reward'",
        ),
        (
            {"a.csv": "subject,session,choice,reward\nm,s,1,1\nm,s,1,7\n"},
            {},
            "a.csv: column 'reward' .reward.: expected 0 or 1 .* row 1",
        ),
    ],
)
def test_bad_tables_are_named(tmp_path, files, arguments, message):
    manual = tmp_path / "manual"
    manual.mkdir()
    for name, text in files.items():
        (manual / name).write_text(text)
    config = TrialsTableConfig(name="bad", columns=Columns(), **arguments)
    with pytest.raises((ValueError, FileNotFoundError, AssertionError), match=message):
        build(config, tmp_path, download={"manual_dir": manual})


# === Parker et al. (2016) ===


def test_parker2016_reads_events_and_photometry(tmp_path):
    manual = tmp_path / "manual"
    manual.mkdir()
    samples = test_events.sample_table()
    # Sessions are numbered within sites.
    samples = pd.concat([samples, samples.assign(site=8)])
    samples.to_csv(manual / "original.csv", index=False)
    photometry = Photometry(window=(0.0, 1.0), baseline=(-0.5, -0.1), step=1 / 15)
    config = Parker2016Config(name="by_time", photometry=photometry, held_out_every=2)
    builder = build(config, tmp_path, download={"manual_dir": manual})
    examples = {e["session"].decode(): e for e in examples_of(builder)}
    assert examples.keys() == {"7 1", "8 1"}
    assert {e["session"] for e in examples_of(builder, "test")} == {b"7 2", b"8 2"}
    example = examples["7 1"]
    assert example["subject"] == b"7"
    assert example["choice"].tolist() == [0, 1, 0]
    assert example["reward"].tolist() == [1, 0, 0]
    assert example["missed"].tolist() == [False, False, True]
    np.testing.assert_allclose(example["dopamine"], [2, 0.5, np.nan], atol=1e-6)
    metadata = builder.info.metadata
    assert metadata["photometry"]["window"] == list(photometry.window)
    assert metadata["events"]["arms"] == {"ipsi_press": 0, "contra_press": 1}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "Source data 1(.|\n)*eLife 8:e42992(.|\n)*guesses(.|\n)*'ipsi_press'"),
        ("site,session,rewarded\na,1,0\n", "a.csv: .*expected a column 'signal'"),
        (
            "site,session,signal,trial_start,ipsi_press,contra_press,rewarded\na,1,0,0,0,0,0\n",
            "a.csv: .*expected a column 'reward'.*did you mean 'rewarded'",
        ),
    ],
)
def test_parker2016_names_what_is_missing(tmp_path, text, message):
    manual = tmp_path / "manual"
    manual.mkdir()
    if text is not None:
        (manual / "a.csv").write_text(text)
    with pytest.raises((ValueError, AssertionError), match=message):
        build(Parker2016Config(name="bad"), tmp_path, download={"manual_dir": manual})


# === Into sessions and batches ===


def test_a_split_becomes_sessions(folder):
    split = tfds.load("bandit_dopamine/q_learning", split="validation", data_dir=folder)
    sessions = sessions_from_tfds(split)
    assert sessions.num_sessions == 100
    assert sessions.features.shape == (100, 201, 2)
    example = next(e for e in tfds.as_numpy(split) if e["session"].decode() == sessions.ids[0])
    np.testing.assert_array_equal(sessions.features[0, 1:, 0], example["choice"])
    np.testing.assert_array_equal(sessions.dopamine[0, 1:, 0], example["dopamine"])


def ragged_sessions():
    table = make_table(8, 15)
    table = table[table.groupby("session").cumcount() < 5 + table["session"].str[-1].astype(int)]
    return sessions_from_table(table.reset_index(drop=True), EVERYTHING)


def dataset_of(examples):
    """Return a split as TFDS gives it."""
    examples = list(examples)
    signature = {}
    for name, value in examples[0].items():
        value = np.asarray(value)
        shape = (None, *value.shape[1:]) if value.ndim else ()
        signature[name] = tf.TensorSpec(shape, tf.as_dtype(value.dtype))
    return tf.data.Dataset.from_generator(lambda: iter(examples), output_signature=signature)


def test_sessions_survive_conversion_to_examples_and_back():
    sessions = ragged_sessions()
    assert len(set(sessions.trials_per_session)) == 8
    assert_same_sessions(sessions_from_tfds(examples_from_sessions(sessions)), sessions)


def assert_same_batches(streamed, in_memory):
    for got, expected in zip(streamed, in_memory, strict=True):
        tf.nest.assert_same_structure(got, expected)
        for a, b in zip(tf.nest.flatten(got), tf.nest.flatten(expected), strict=True):
            assert a.dtype == b.dtype
            np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("batch_size", [1, 3, 8])
def test_streamed_batches_are_those_in_memory(batch_size):
    sessions = ragged_sessions()
    split = dataset_of(examples_from_sessions(sessions))
    longest = int(sessions.trials_per_session.max())
    streamed = stream_from_tfds(split, batch_size, num_trials=longest)
    assert_same_batches(streamed, sessions.dataset(batch_size))
    assert streamed.element_spec[0].shape.as_list() == [None, longest + 1, 3]


def test_streamed_batches_of_a_simulated_split(folder):
    split = tfds.load("bandit_dopamine/q_learning", split="validation", data_dir=folder)
    streamed = stream_from_tfds(split, 30)
    assert_same_batches(streamed, sessions_from_tfds(split).dataset(30))
    assert int(streamed.cardinality()) == 4


def test_without_a_length_each_batch_is_as_long_as_its_longest_session():
    sessions = ragged_sessions()
    split = dataset_of(examples_from_sessions(sessions))
    rows = [x.shape[1] for x, _, _ in stream_from_tfds(split, 1)]
    assert rows == (sessions.trials_per_session + 1).tolist()


def test_behaviour_without_flags_is_streamed():
    examples = [
        {"subject": "m", "session": f"s{i}", "choice": np.array([0, 1, 2]), "reward": np.ones(3)}
        for i in range(2)
    ]
    streamed = stream_from_tfds(dataset_of(examples), 2, num_arms=3)
    assert_same_batches(streamed, sessions_from_tfds(examples).dataset(2))
    assert set(streamed.element_spec[1]) == {"choice"}


def test_a_stream_has_the_index_of_the_subject():
    sessions = ragged_sessions()
    names = (*dict.fromkeys(sessions.subjects), "another")[::-1]
    split = dataset_of(examples_from_sessions(sessions))
    longest = int(sessions.trials_per_session.max())
    streamed = stream_from_tfds(split, 2, num_trials=longest, subject_names=names)
    assert_same_batches(streamed, sessions.with_subjects(names).dataset(2))
    unknown = stream_from_tfds(split, 2, subject_names=names[:2])
    wrong = f"subject: expected one of the model's 2 .'another', '{names[1]}'., got subject"
    with pytest.raises(tf.errors.InvalidArgumentError, match=wrong):
        list(unknown)


def test_fit_runs_on_a_stream_and_learns_as_from_memory(folder):
    split = tfds.load("bandit_dopamine/q_learning", split="validation", data_dir=folder)
    in_memory = sessions_from_tfds(split)
    losses = []
    for batches in (stream_from_tfds(split.repeat(), 25), in_memory.dataset(25, steps=8)):
        model = keras_disrnn.DisRNNModel(num_latents=2, update_units=3, num_update_layers=1, seed=0)
        keras_disrnn.compile_stage(model, "warmup", learning_rate=1e-2)
        history = model.fit(batches, steps_per_epoch=4, epochs=2, shuffle=False, verbose=0)
        losses.append(history.history["loss"])
    np.testing.assert_allclose(losses[0], losses[1], rtol=1e-5)
    assert losses[0][1] < losses[0][0]


GOOD = {
    "subject": "m",
    "session": "the-session",
    "choice": np.array([0, 1]),
    "reward": np.array([1.0, 0.0]),
    "dopamine": np.array([0.5, np.nan]),
}


@pytest.mark.parametrize(
    ("change", "arguments", "message"),
    [
        (
            {"choice": np.array([0, 2])},
            {},
            "choice: expected a whole number from 0 to 1.*the-session",
        ),
        (
            {"choice": np.array([0, -1])},
            {},
            "choice: expected a whole number from 0 to 1.*the-session",
        ),
        ({"reward": np.array([1.0, 0.5])}, {}, "reward: expected 0 or 1.*the-session"),
        ({"reward": np.array([1.0, np.nan])}, {"reward_kind": "real"}, "finite.*the-session"),
        (
            {"dopamine": np.array([1.0, np.inf])},
            {},
            "dopamine 'dopamine': expected a finite.*the-session",
        ),
        (
            {"dopamine": np.array([1.0])},
            {},
            "dopamine: expected 2 trials, as in choice, got 1 .*the-session",
        ),
        (
            {"observations": np.array([1.0, np.nan])},
            {},
            "observation 'observation_1': expected .*the-session",
        ),
        ({}, {"num_trials": 1}, "num_trials: expected at least .*the-session"),
        ({"dopamine": np.array([1.0, 1e6])}, {}, "from -10000 to 10000.*the-session"),
        ({"missed": np.array([True, True])}, {}, "a choice in every session.*the-session"),
    ],
)
def test_bad_examples_in_a_stream_are_named(change, arguments, message):
    fine = {**GOOD, **({"observations": np.zeros(2)} if "observations" in change else {})}
    fine |= {"missed": np.zeros(2, bool)} if "missed" in change else {}
    fine = {**fine, "session": "fine"}
    if arguments.get("num_trials"):
        fine = {name: value[:1] if np.ndim(value) else value for name, value in fine.items()}
    split = dataset_of([fine, {**GOOD, **change}])
    with pytest.raises(tf.errors.InvalidArgumentError, match=message):
        list(stream_from_tfds(split, 2, **arguments))


@pytest.mark.parametrize(
    "change",
    [
        {"choice": np.array([0.0, 0.5])},
        {"reward": np.array([1.0, 0.5])},
        {"dopamine": np.array([1.0, 1e6])},
        {"dopamine": np.array([1.0])},
        {"observations": np.array([1.0, np.nan])},
        {"missed": np.array([True, True])},
    ],
)
def test_memory_and_stream_raise_the_same_error(change):
    example = {**GOOD, **change}
    with pytest.raises(ValueError) as in_memory:
        sessions_from_tfds([example], num_arms=2)
    with pytest.raises(tf.errors.InvalidArgumentError) as streamed:
        list(stream_from_tfds(dataset_of([example]), 1))
    assert f"ValueError: {in_memory.value}\n" in str(streamed.value)


@pytest.mark.parametrize(
    ("dataset", "arguments", "message"),
    [
        (lambda: {"train": dataset_of([GOOD])}, {}, "expected one split"),
        (lambda: dataset_of([GOOD]).map(lambda e: (e["choice"], e["reward"])), {}, "of dicts"),
        (lambda: dataset_of([GOOD]).batch(2), {}, "do not batch the dataset"),
        (lambda: dataset_of([{**GOOD, "Reward": GOOD["reward"]}]), {"num_arms": 1}, "num_arms"),
        (
            lambda: dataset_of([{("Rewards" if k == "reward" else k): v for k, v in GOOD.items()}]),
            {},
            "expected a feature 'reward'.*did you mean 'Rewards'",
        ),
        (lambda: dataset_of([GOOD]), {"reward_kind": "amount"}, "reward_kind"),
        (lambda: dataset_of([GOOD]), {"num_trials": 0}, "num_trials"),
        (lambda: dataset_of([GOOD]), {"batch_size": 0}, "batch_size"),
    ],
)
def test_bad_streams_are_refused_at_once(dataset, arguments, message):
    with pytest.raises(ValueError, match=message):
        stream_from_tfds(dataset(), **{"batch_size": 2, **arguments})


def test_sessions_are_what_examples_are_made_from():
    sessions = Sessions.from_trials([[0, 1, 1], [1]], [[1, 0, 1], [0]])
    first, second = examples_from_sessions(sessions)
    assert first["choice"].tolist() == [0, 1, 1]
    assert second["reward"].tolist() == [0]
    assert set(first) == {"subject", "session", "choice", "reward", "forced", "missed"}
    assert pd.Series(first["forced"]).sum() == 0

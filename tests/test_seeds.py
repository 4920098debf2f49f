"""Seeds: whole numbers of at least 0, checked under their name wherever one is taken."""

import numpy as np
import pytest

import keras_disrnn
from keras_disrnn import bandit, baselines, cli
from keras_disrnn.analysis.bootstrap import draw_sessions
from keras_disrnn.data import Sessions, k_fold
from keras_disrnn.experiments.behaviour import EnvironmentSettings, simulate_table
from keras_disrnn.experiments.recovery import recover
from keras_disrnn.experiments.selection import select
from keras_disrnn.experiments.selection_settings import SelectionSettings
from keras_disrnn.experiments.settings import ModelSettings, SyntheticData
from keras_disrnn.utils.seeds import derive_seeds

SESSIONS = Sessions.from_trials([[0, 1, 1], [1, 0, 1]], [[1, 0, 1], [0, 0, 1]])
LEARNER = baselines.QLearning(num_signals=0)


def make_model(seed=0):
    return keras_disrnn.DisRNNModel(num_latents=1, num_signals=0, seed=seed)


def play(seed):
    bandit.simulate(
        bandit.QLearning(), bandit.DriftingBandit(), num_sessions=1, num_trials=2, seed=seed
    )


def recover_seed(seed, folder):
    recover(
        folder / "out",
        [0, seed],
        data=SyntheticData(),
        model=ModelSettings(),
        selection=SelectionSettings(),
    )


TAKERS = {
    "simulate": lambda seed, _: play(seed),
    "batches": lambda seed, _: SESSIONS.dataset(seed=seed),
    "folds": lambda seed, _: list(k_fold(SESSIONS, 2, seed=seed)),
    "training": lambda seed, _: keras_disrnn.train(make_model(), SESSIONS, seed=seed, verbose=0),
    "selection": lambda seed, _: select(lambda _: make_model(), SESSIONS, seed=seed),
    "starts": lambda seed, _: baselines.QLearning(num_signals=0).fit_sessions(
        SESSIONS, "choice", seed=seed
    ),
    "bootstrap": lambda seed, _: draw_sessions(3, 2, seed),
    "derived": lambda seed, _: derive_seeds(seed, 2),
    "a GRU": lambda seed, _: baselines.GRU(seed=seed),
    "a model": lambda seed, _: make_model(seed),
    "a simulated table": lambda seed, folder: simulate_table(
        "m", folder / "out.csv", environment=EnvironmentSettings(), num_sessions=1, seed=seed
    ),
    "recovery": recover_seed,
}


@pytest.mark.parametrize("seed", [-1, 1.5, True, "1", np.float64(2)])
@pytest.mark.parametrize("taker", TAKERS)
def test_other_seeds_are_refused_by_name(tmp_path, taker, seed):
    message = "^seeds?: expected a whole number (of at least|from) 0.*, got "
    with pytest.raises(ValueError, match=message):
        TAKERS[taker](seed, tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_seed_that_tensorflow_cannot_hold_is_refused():
    with pytest.raises(ValueError, match=f"^seed: expected a whole number from 0 to {2**63 - 1}"):
        SESSIONS.dataset(1, shuffle=True, seed=2**63)


@pytest.mark.parametrize(
    "command",
    [
        ["demo", "--seed=-1"],
        ["compare", "--seed=-1"],
        ["recover", "--first_seed=-1"],
        ["simulate", "--model=.", "--seed=-1"],
    ],
)
def test_commands_refuse_a_seed_before_the_first_file(tmp_path, capsys, command):
    suffix = ".csv" if command[0] == "simulate" else ""
    assert cli.main([*command, f"--out={tmp_path}/out{suffix}"]) == 1
    error = capsys.readouterr().err
    name = command[-1].removeprefix("--").removesuffix("=-1")
    assert f"error: {name}: expected a whole number" in error and "got -1" in error
    assert not list(tmp_path.iterdir())


def test_the_builder_refuses_a_seed():
    pytest.importorskip("tensorflow_datasets")
    from keras_disrnn.datasets.bandit_dopamine.configs import SimulatedConfig

    with pytest.raises(ValueError, match="^seed: expected a whole number of at least 0, got -1"):
        SimulatedConfig(name="x", seed=-1)

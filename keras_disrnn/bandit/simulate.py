"""Plays agents in environments, many sessions at once, and keeps the truth beside the data."""

import dataclasses
import os
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pandas as pd

from keras_disrnn.bandit.agents import value_of_chosen
from keras_disrnn.bandit.checks import check_integer

# Sessions are played in blocks: with fewer trials in one, Python's overhead shows; with more, the
# block outgrows the processor's caches. It bounds the working memory, too.
_TRIALS_PER_BLOCK = 2**18
_LARGEST_WORD = 2**64 - 1
_CHOICE, _REWARD, _UNIFORMS = 0, 1, 2
_UNIFORM_STREAM, _NORMAL_STREAM = 0, 1


@dataclasses.dataclass(frozen=True, eq=False)
class SimulatedSessions:
    """Sessions that an agent played, S of T trials each, with everything that was true of them.

    All rows of a trial describe it as it was played: probabilities and variables are those that
    the choice was drawn from, before the agent learnt from the outcome.

    Attributes:
        choice: `(S, T)` int32, the chosen arm.
        reward: `(S, T)` float32, 0 or 1.
        dopamine: `(S, T)` float32, the agent's prediction error in units of reward.
        reward_probability: `(S, T, arms)` float32, the environment's probability of reward.
        choice_probability: `(S, T, arms)` float32, the agent's probability of each choice.
        variables: `(S, T, V)` float32, the agent's variables before the trial's update.
        variable_names: Names of the V variables.
        subject: Name of the agent.
        seed: The seed that the sessions were drawn with.
        first_session: Index of the first session among all that belong to the seed.
    """

    choice: np.ndarray
    reward: np.ndarray
    dopamine: np.ndarray
    reward_probability: np.ndarray
    choice_probability: np.ndarray
    variables: np.ndarray
    variable_names: tuple[str, ...]
    subject: str
    seed: int
    first_session: int

    @property
    def ids(self):
        """Names of the sessions, `"<seed>-<index>"`: unique for an agent and environment."""
        indices = range(self.first_session, self.first_session + len(self.choice))
        return tuple(f"{self.seed}-{index:06d}" for index in indices)

    @property
    def chosen_probability(self):
        """`(S, T)`, the agent's probability of the choice that it made.

        `exp(log(chosen_probability).mean())` is the normalized likelihood of the true agent, which
        no fitted model can be expected to exceed.
        """
        return np.take_along_axis(self.choice_probability, self.choice[..., None], axis=-1)[..., 0]

    def to_table(self):
        """One row a trial, sessions and trials in order.

        Returns:
            A `pandas.DataFrame` with columns `subject`, `session`, `trial` (from 0), `choice`,
            `reward`, `dopamine`; and, of the truth, `reward_probability_0`, ... and
            `choice_probability_0`, ... by arm, and one column for each agent variable.
        """
        sessions, trials = self.choice.shape
        columns = {
            "subject": np.full(sessions * trials, self.subject, dtype=object),
            "session": np.repeat(np.array(self.ids, dtype=object), trials),
            "trial": np.tile(np.arange(trials), sessions),
            "choice": self.choice.reshape(-1),
            "reward": self.reward.reshape(-1),
            "dopamine": self.dopamine.reshape(-1),
        }
        for name in ("reward_probability", "choice_probability"):
            values = getattr(self, name)
            for arm in range(values.shape[-1]):
                columns[f"{name}_{arm}"] = values[..., arm].reshape(-1)
        for index, name in enumerate(self.variable_names):
            columns[name] = self.variables[..., index].reshape(-1)
        return pd.DataFrame(columns)


def simulate(agent, environment, *, sessions, trials, seed, first_session=0):
    """Plays sessions of an agent in an environment.

    On each trial the agent draws a choice from its choice probabilities, the chosen arm pays 1
    with its reward probability and 0 otherwise, and agent and environment move on.

    Session i of the result depends on `(seed, first_session + i)` alone: each session has random
    streams of its own (counter-based Philox, keyed by seed and session index). Playing more
    sessions, or the same ones in shards, gives the same sessions; playing longer ones gives the
    same first trials. Draws come from `numpy.random.Generator`, whose streams may change between
    releases of NumPy.

    >>> simulated = simulate(QLearning(), DriftingBandit(), sessions=300, trials=200, seed=0)
    >>> simulated.dopamine.shape
    (300, 200)

    Args:
        agent: An `Agent`, such as `QLearning`.
        environment: An `Environment`, such as `DriftingBandit`.
        sessions: Number of sessions, at least 1.
        trials: Number of trials in each, at least 1.
        seed: Integer from 0 to 2^64 - 1.
        first_session: Index of the first session, at least 0; the last must not exceed 2^64 - 1.

    Returns:
        `SimulatedSessions`. All of it is computed in float64 and stored in float32.

    Raises:
        TypeError: If a number is no integer.
        ValueError: If a number is out of range, or the agent cannot play the environment's arms.
    """
    sessions = check_integer("sessions", sessions, 1)
    trials = check_integer("trials", trials, 1)
    seed = check_integer("seed", seed, 0, _LARGEST_WORD)
    first_session = check_integer("first_session", first_session, 0, _LARGEST_WORD - sessions + 1)
    arms = environment.arms
    names = agent.variable_names(arms)
    results = {
        "choice": np.empty((sessions, trials), np.int32),
        "reward": np.empty((sessions, trials), np.float32),
        "dopamine": np.empty((sessions, trials), np.float32),
        "reward_probability": np.empty((sessions, trials, arms), np.float32),
        "choice_probability": np.empty((sessions, trials, arms), np.float32),
        "variables": np.empty((sessions, trials, len(names)), np.float32),
    }
    block = min(sessions, max(1, _TRIALS_PER_BLOCK // trials))
    starts = range(0, sessions, block)
    workers = min(len(starts), os.cpu_count() or 1)

    def play_blocks(worker):
        draws = _Draws(environment, seed, block, trials)
        # One trial of all sessions is written at a time, so here sessions come last. Working
        # arrays serve every block: to have fresh memory for each costs more than filling it.
        records = {
            name: np.empty((trials, *values.shape[2:], block), values.dtype)
            for name, values in results.items()
        }
        for start in starts[worker::workers]:
            where = slice(start, min(start + block, sessions))
            count = where.stop - start
            record = {name: values[..., :count] for name, values in records.items()}
            _play(agent, environment, *draws.of_sessions(first_session + start, count), record)
            for name, values in record.items():
                results[name][where] = np.moveaxis(values, -1, 0)

    # NumPy lets go of the interpreter within its loops, and blocks know nothing of each other.
    with ThreadPoolExecutor(workers) as pool:
        list(pool.map(play_blocks, range(workers)))
    return SimulatedSessions(
        **results,
        variable_names=names,
        subject=agent.name,
        seed=seed,
        first_session=first_session,
    )


def _play(agent, environment, start_uniforms, uniforms, normals, record):
    """Plays the sessions of a block with the draws of `_Draws.of_sessions`, into `record`.

    Args:
        agent: An `Agent`.
        environment: An `Environment`.
        start_uniforms: `(start_uniforms, sessions)`.
        uniforms: `(trials, 2, sessions)`.
        normals: `(trials, trial_normals, sessions)`.
        record: For each array of `SimulatedSessions`, `(trials, ..., sessions)` to fill.
    """
    trials, sessions = record["choice"].shape
    state = agent.initial_state(sessions, environment.arms)
    world = environment.initial_state(start_uniforms)
    for trial in range(trials):
        choice_probability = agent.choice_probability(state)
        reward_probability = environment.reward_probability(world)
        record["variables"][trial] = state
        record["choice_probability"][trial] = choice_probability
        record["reward_probability"][trial] = reward_probability

        choice = _draw_choice(choice_probability, uniforms[trial, _CHOICE])
        rewarded = uniforms[trial, _REWARD] < value_of_chosen(reward_probability, choice)
        reward = rewarded.astype(np.float64)
        state, dopamine = agent.update(state, choice, reward)
        world = environment.advance(world, choice, reward, normals[trial])

        record["choice"][trial] = choice
        record["reward"][trial] = reward
        record["dopamine"][trial] = dopamine


def _draw_choice(probability, uniform):
    """The arm, int32 `(sessions,)`, into whose share of [0, 1) each uniform draw falls.

    The last arm takes what the others leave, so that rounding in the sum cannot lead past it.
    """
    choice = np.zeros(len(uniform), np.int32)
    reached = 0.0
    for share in probability[:-1]:
        reached = reached + share
        choice += uniform >= reached
    return choice


class _Draws:
    """The random numbers of sessions, a block at a time.

    A session has two Philox streams, keyed by seed and session index and told apart by the highest
    word of the counter: one of uniform draws and one of normal draws. Normals take a varying number
    of words, so in a common stream they would shift the uniforms of longer sessions.

    Args:
        environment: An `Environment`, which says how many numbers it needs.
        seed: First word of the key.
        block: The most sessions asked for at once.
        trials: Trials of a session.
    """

    def __init__(self, environment, seed, block, trials):
        self._at_start = environment.start_uniforms
        self._uniforms = np.empty((block, self._at_start + trials * _UNIFORMS))
        self._normals = np.empty((block, trials, environment.trial_normals))
        self._trial_uniforms = np.empty((trials, _UNIFORMS, block))
        self._trial_normals = np.empty((trials, environment.trial_normals, block))
        # One generator is set to each stream in turn: building one takes longer than drawing.
        self._philox = np.random.Philox(key=0)
        self._generator = np.random.Generator(self._philox)
        self._setting = self._philox.state
        self._setting["state"]["key"][0] = seed

    def of_sessions(self, first, count):
        """Draws of the sessions `first` to `first + count - 1`, valid until the next call.

        Returns:
            Uniforms `(start_uniforms, count)`, uniforms `(trials, 2, count)` and standard normals
            `(trials, trial_normals, count)`.
        """
        for row in range(count):
            self._setting["state"]["key"][1] = first + row
            self._set_stream(_UNIFORM_STREAM)
            self._generator.random(out=self._uniforms[row])
            self._set_stream(_NORMAL_STREAM)
            self._generator.standard_normal(out=self._normals[row])
        by_trial = self._uniforms[:count, self._at_start :].reshape(count, -1, _UNIFORMS)
        trial_uniforms = self._trial_uniforms[..., :count]
        trial_normals = self._trial_normals[..., :count]
        trial_uniforms[...] = np.moveaxis(by_trial, 0, -1)
        trial_normals[...] = np.moveaxis(self._normals[:count], 0, -1)
        return self._uniforms[:count, : self._at_start].T, trial_uniforms, trial_normals

    def _set_stream(self, stream):
        self._setting["state"]["counter"][3] = stream
        self._philox.state = self._setting

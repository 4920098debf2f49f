"""Plays agents in environments, many sessions at once, and keeps the truth beside the data."""

import dataclasses
import os
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pandas as pd

from keras_disrnn.bandit.environments import better_arms
from keras_disrnn.bandit.rules import is_chosen, value_of_chosen
from keras_disrnn.utils.checks import check_integer

# Sessions are played in blocks: with fewer trials in one, Python's overhead shows; with more, the
# block outgrows the processor's caches. It bounds the working memory, too.
_TRIALS_PER_BLOCK = 2**20
# Part of what a seed means: with another size every session changes.
SESSIONS_PER_GROUP = 256
# Rows a power of two apart share a few places in the processor's caches: turning them over, trials
# last to sessions last, is several times slower than with rows a little longer.
_PADDING = 16
_LARGEST_SEED = 2**64 - 1
_LARGEST_INDEX = 2**63 - 1
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
        lengths: `(S,)`, trials of each session. They are T but for schedules of several lengths,
            whose arrays hold trials past a session's end that do not belong to it.
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
    lengths: np.ndarray

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

    @property
    def better_arm(self):
        """`(S, T)`, the arm that is better on each trial; `None` where there are no blocks.

        A session that never left its first block has that one's better arm; there are no blocks
        where some session's probabilities drift, or none ever change (see `better_arms`).
        """
        ends = zip(self.reward_probability, self.lengths, strict=True)
        found = [better_arms(p[:length]) for p, length in ends]
        still = (np.ptp(self.reward_probability, axis=1) == 0).all(axis=-1)
        if all(better is None for better in found) or any(
            better is None and not constant for better, constant in zip(found, still, strict=True)
        ):
            return None
        return np.argmax(self.reward_probability, axis=-1)

    def to_table(self):
        """One row a trial, sessions and trials in order.

        Returns:
            A `pandas.DataFrame` with columns `subject`, `session`, `trial` (from 0), `choice`,
            `reward`, `dopamine` (absent where the agent has none); and, of the truth,
            `reward_probability_0`, ... and `choice_probability_0`, ... by arm, `better_arm` where
            there are blocks, and one column for each agent variable.
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
        if np.isnan(self.dopamine).all():
            del columns["dopamine"]
        for name in ("reward_probability", "choice_probability"):
            values = getattr(self, name)
            for arm in range(values.shape[-1]):
                columns[f"{name}_{arm}"] = values[..., arm].reshape(-1)
        better = self.better_arm
        if better is not None:
            columns["better_arm"] = better.reshape(-1)
        for index, name in enumerate(self.variable_names):
            columns[name] = self.variables[..., index].reshape(-1)
        table = pd.DataFrame(columns)
        if (self.lengths == trials).all():
            return table
        kept = (np.arange(trials) < self.lengths[:, None]).reshape(-1)
        return table[kept].reset_index(drop=True)


def simulate(agent, environment, *, num_sessions, num_trials=None, seed, first_session=0):
    """Plays sessions of an agent in an environment.

    On each trial the agent draws a choice from its choice probabilities, the chosen arm pays 1
    with its reward probability and 0 otherwise, and agent and environment move on.

    Session i of the result depends on `(seed, first_session + i)` alone: each group of 256 sessions
    has random streams of its own, seeded by the seed and the number of the group, and each session
    its fixed place in them. Playing more sessions, or the same ones in shards, gives the same
    sessions; playing longer ones gives the same first trials. A shard draws for every group that
    it touches, so shards that start and end at multiples of 256 waste nothing. Draws come from
    `numpy.random.Generator`, whose streams may change between releases of NumPy.

    >>> simulated = simulate(QLearning(), DriftingBandit(), num_sessions=300, num_trials=200, seed=0)
    >>> simulated.dopamine.shape
    (300, 200)

    Args:
        agent: An `Agent`, such as `QLearning`, or what `agent_from_model` makes of a model.
        environment: An `Environment`, such as `DriftingBandit`.
        num_sessions: Number of sessions, at least 1.
        num_trials: Number of trials in each, at least 1; `None` for the length of each schedule of a
            `ScheduledBandit`.
        seed: Integer from 0 to 2^64 - 1.
        first_session: Index of the first session, at least 0; the last must not exceed 2^63 - 1.

    Returns:
        `SimulatedSessions`. All of it is computed in float64 and stored in float32.

    Raises:
        ValueError: If a number is no integer or out of range, the agent cannot play the
            environment's arms, or the environment's sessions are shorter.
    """
    sessions = check_integer("num_sessions", num_sessions, 1)
    seed = check_integer("seed", seed, 0, _LARGEST_SEED)
    first_session = check_integer("first_session", first_session, 0, _LARGEST_INDEX - sessions + 1)
    indices = first_session + np.arange(sessions)
    trials, lengths = _lengths(environment, indices, num_trials)
    arms = environment.num_arms
    names = agent.variable_names(arms)
    results = {
        "choice": np.empty((sessions, trials), np.int32),
        "reward": np.empty((sessions, trials), np.float32),
        "dopamine": np.empty((sessions, trials), np.float32),
        "reward_probability": np.empty((sessions, trials, arms), np.float32),
        "choice_probability": np.empty((sessions, trials, arms), np.float32),
        "variables": np.empty((sessions, trials, len(names)), np.float32),
    }
    # The sessions asked for may start and end within a group.
    first_group = first_session // SESSIONS_PER_GROUP
    groups = (first_session + sessions - 1) // SESSIONS_PER_GROUP - first_group + 1
    block = min(groups, max(1, _TRIALS_PER_BLOCK // (trials * SESSIONS_PER_GROUP)))
    starts = range(0, groups, block)
    workers = min(len(starts), os.cpu_count() or 1)

    def play_blocks(worker):
        draws = _Draws(environment, seed, block, trials)
        # One trial of all sessions is written at a time, so here sessions come last. Working
        # arrays serve every block: to have fresh memory for each costs more than filling it.
        width = min(block * SESSIONS_PER_GROUP, sessions)
        records = {
            name: np.empty((trials, *values.shape[2:], width + _PADDING), values.dtype)
            for name, values in results.items()
        }
        for start in starts[worker::workers]:
            count = min(block, groups - start)
            offset = (first_group + start) * SESSIONS_PER_GROUP - first_session
            low, high = max(offset, 0), min(offset + count * SESSIONS_PER_GROUP, sessions)
            draws.start(first_group + start, count, slice(low - offset, high - offset))
            record = {name: values[..., : high - low] for name, values in records.items()}
            _play(agent, environment, draws, indices[low:high], record)
            for name, values in record.items():
                results[name][low:high] = np.moveaxis(values, -1, 0)

    # NumPy lets go of the interpreter within its loops, and blocks know nothing of each other.
    with ThreadPoolExecutor(workers) as pool:
        list(pool.map(play_blocks, range(workers)))
    return SimulatedSessions(
        **results,
        variable_names=names,
        subject=agent.name,
        seed=seed,
        first_session=first_session,
        lengths=lengths,
    )


def _lengths(environment, indices, trials):
    """The number of trials to play, and how many of them each session has, `(sessions,)`."""
    most = environment.trials(indices)
    if most is None:
        trials = check_integer("trials", trials, 1)
        return trials, np.full(len(indices), trials)
    if trials is None:
        return int(most.max()), most
    trials = check_integer("trials", trials, 1)
    if trials > most.max():
        raise ValueError(
            f"trials: expected at most {most.max()}, the longest of these sessions' schedules, got "
            f"{trials}"
        )
    return trials, np.minimum(most, trials)


def _play(agent, environment, draws, indices, record):
    """Plays the sessions that `draws` has been started for, into `record`.

    Args:
        agent: An `Agent`.
        environment: An `Environment`.
        draws: A `_Draws`.
        indices: `(sessions,)`, the index of each session among all of the seed.
        record: For each array of `SimulatedSessions`, `(trials, ..., sessions)` to fill.
    """
    trials, sessions = record["choice"].shape
    state = agent.initial_state(sessions, environment.num_arms)
    world = environment.initial_state(draws.start_uniforms, indices)
    for trial in range(trials):
        uniforms, normals = draws.of_next_trial()
        choice_probability = agent.choice_probability(state)
        reward_probability = environment.reward_probability(world)
        record["variables"][trial] = state
        record["choice_probability"][trial] = choice_probability
        record["reward_probability"][trial] = reward_probability

        choice = _draw_choice(choice_probability, uniforms[_CHOICE])
        chosen = is_chosen(choice, len(reward_probability))
        rewarded = uniforms[_REWARD] < value_of_chosen(reward_probability, chosen)
        reward = rewarded.astype(np.float64)
        state, dopamine = agent.update(state, choice, reward)
        world = environment.advance(world, choice, reward, normals)

        record["choice"][trial] = choice
        record["reward"][trial] = reward
        record["dopamine"][trial] = dopamine


def _draw_choice(probability, uniform):
    """The arm, int32 `(sessions,)`, into whose share of [0, 1) each uniform draw falls.

    The last arm takes what the others leave, so that rounding in the sum cannot lead past it.
    """
    reached = probability[0]
    choice = (uniform >= reached).astype(np.int32)
    for share in probability[1:-1]:
        reached = reached + share
        choice += uniform >= reached
    return choice


class _Draws:
    """The random numbers of sessions, a block at a time.

    Sessions draw from streams in groups of `SESSIONS_PER_GROUP`. A group has one stream of uniform
    and one of normal draws, both seeded by the seed and the number of the group; they are drawn
    trial by trial for the whole group, whichever of its sessions are wanted, so that a session
    finds the same numbers in the same places however it is asked for.

    Args:
        environment: An `Environment`, which says how many numbers it needs.
        seed: The seed.
        block: The most groups asked for at once.
        trials: Trials of a session.
    """

    def __init__(self, environment, seed, block, trials):
        self._seed = seed
        width = block * SESSIONS_PER_GROUP
        # Long sessions are drawn in parts, so that a few of them do not need a group's memory.
        self._part = min(trials, max(1, _TRIALS_PER_BLOCK // width))
        self._trials = trials
        self._starts = np.empty((environment.start_uniforms, width))
        self._uniforms = np.empty((self._part, _UNIFORMS, width))
        self._normals = np.empty((self._part, environment.trial_normals, width))

    def start(self, first, count, wanted):
        """Begins with the first trial of the groups `first` to `first + count - 1`.

        Args:
            first: The first group.
            count: How many groups.
            wanted: Which of their sessions the draws are wanted of, a slice.
        """
        self._generators = [
            [
                np.random.Generator(
                    np.random.SFC64(np.random.SeedSequence(self._seed, spawn_key=(group, stream)))
                )
                # Normals take a varying number of words: in a common stream they would shift the
                # uniforms of longer sessions.
                for stream in (_UNIFORM_STREAM, _NORMAL_STREAM)
            ]
            for group in range(first, first + count)
        ]
        self._wanted = wanted
        self._next = 0
        for where, (uniform, _) in self._by_group():
            self._starts[:, where] = uniform.random((len(self._starts), SESSIONS_PER_GROUP))

    @property
    def start_uniforms(self):
        """Uniforms that start the sessions, `(start_uniforms, sessions)`."""
        return self._starts[:, self._wanted]

    def of_next_trial(self):
        """Draws of one trial after the other, valid until the next call.

        Returns:
            Uniforms `(2, sessions)` and standard normals `(trial_normals, sessions)`.
        """
        row = self._next % self._part
        if row == 0:
            self._draw(min(self._part, self._trials - self._next))
        self._next += 1
        return self._uniforms[row, :, self._wanted], self._normals[row, :, self._wanted]

    def _draw(self, trials):
        shape = (trials, self._normals.shape[1], SESSIONS_PER_GROUP)
        for where, (uniform, normal) in self._by_group():
            self._uniforms[:trials, :, where] = uniform.random(
                (trials, _UNIFORMS, SESSIONS_PER_GROUP)
            )
            self._normals[:trials, :, where] = normal.standard_normal(shape)

    def _by_group(self):
        for index, generators in enumerate(self._generators):
            start = index * SESSIONS_PER_GROUP
            yield slice(start, start + SESSIONS_PER_GROUP), generators

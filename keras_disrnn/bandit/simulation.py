"""Plays agents in environments, many sessions at once."""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from keras_disrnn.bandit.agents import Agent
from keras_disrnn.bandit.environments import Environment
from keras_disrnn.bandit.rules import is_chosen, value_of_chosen
from keras_disrnn.bandit.sessions import SimulatedSessions
from keras_disrnn.utils.checks import check_integer

# Sessions are played in blocks. Smaller blocks show Python's overhead, and larger ones outgrow the
# processor's caches. The size also limits the working memory.
_TRIALS_PER_BLOCK = 2**20
SESSIONS_PER_GROUP = 256
"""Sessions with a common random stream. A seed means other sessions if this number changes."""
# Rows whose length is a power of two share few places in the processor's caches. Slightly longer
# rows make the transposition, from trials last to sessions last, several times faster.
_PADDING = 16
_LARGEST_SEED = 2**64 - 1
_LARGEST_INDEX = 2**63 - 1
_CHOICE, _REWARD, _UNIFORMS = 0, 1, 2
_UNIFORM_STREAM, _NORMAL_STREAM = 0, 1


def simulate(
    agent: Agent,
    environment: Environment,
    *,
    num_sessions: int,
    num_trials: int | None = None,
    seed: int,
    first_session: int = 0,
) -> SimulatedSessions:
    """Play sessions of an agent in an environment.

    On each trial the agent draws a choice from its choice probabilities. The chosen arm pays 1 with
    its reward probability and 0 otherwise. Then agent and environment are updated.

    Session i of the result depends only on `(seed, first_session + i)`. Each group of 256 sessions
    has its own random streams, seeded by the seed and the number of the group. Each session has a
    fixed place in them. More sessions, or the same sessions in several calls, contain the same
    sessions; longer sessions contain the same first trials. Each call draws for every group that it
    touches, so calls that start and end at multiples of 256 are the most efficient. The draws come
    from `numpy.random.Generator`, whose streams may change between releases of NumPy.

    Args:
        agent: An `Agent`, such as `QLearning`, or the agent of a model (`agent_from_model`).
        environment: An `Environment`, such as `DriftingBandit`.
        num_sessions: Number of sessions, at least 1.
        num_trials: Number of trials in each session, at least 1; `None` for the lengths of the
            schedules of a `ScheduledBandit`.
        seed: Integer from 0 to 2^64 - 1.
        first_session: Index of the first session, at least 0. The last index must not exceed
            2^63 - 1.

    Returns:
        `SimulatedSessions`. They are computed in float64 and stored in float32.

    Raises:
        ValueError: If a number is not an integer or out of range, the agent cannot play the
            environment's arms, or the environment's sessions are shorter.

    Example:

    >>> from keras_disrnn import bandit
    >>> played = bandit.simulate(
    ...     bandit.QLearning(), bandit.DriftingBandit(), num_sessions=300, num_trials=200, seed=0
    ... )
    >>> played.dopamine.shape
    (300, 200)
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
    # The sessions may start and end within a group.
    first_group = first_session // SESSIONS_PER_GROUP
    groups = (first_session + sessions - 1) // SESSIONS_PER_GROUP - first_group + 1
    block = min(groups, max(1, _TRIALS_PER_BLOCK // (trials * SESSIONS_PER_GROUP)))
    starts = range(0, groups, block)
    workers = min(len(starts), os.cpu_count() or 1)

    def play_blocks(worker: int) -> None:
        draws = _Draws(environment, seed, block, trials)
        # One trial of all sessions is written at a time, so sessions come last here. All blocks use
        # the same working arrays, because new memory for each would cost more than filling it.
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

    # Threads help because NumPy releases the interpreter lock, and blocks are independent.
    with ThreadPoolExecutor(workers) as pool:
        list(pool.map(play_blocks, range(workers)))
    return SimulatedSessions(
        **results,
        variable_names=names,
        subject=agent.name,
        seed=seed,
        indices=indices,
        lengths=lengths,
    )


def _lengths(
    environment: Environment, indices: np.ndarray, trials: int | None
) -> tuple[int, np.ndarray]:
    """Return the number of trials to play, and the number in each session, `(sessions,)`."""
    most = environment.num_trials(indices)
    if most is None:
        trials = check_integer("num_trials", trials, 1)
        return trials, np.full(len(indices), trials)
    if trials is None:
        return int(most.max()), most
    trials = check_integer("num_trials", trials, 1)
    if trials > most.max():
        raise ValueError(
            f"num_trials: expected at most {most.max()}, the longest schedule of these sessions, "
            f"got {trials}"
        )
    return trials, np.minimum(most, trials)


def _play(
    agent: Agent,
    environment: Environment,
    draws: _Draws,
    indices: np.ndarray,
    record: dict[str, np.ndarray],
) -> None:
    """Play the sessions that `draws` was started for, into `record`.

    Each array of `record` is one of `SimulatedSessions` as `(trials, ..., sessions)`.
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


def _draw_choice(probability: np.ndarray, uniform: np.ndarray) -> np.ndarray:
    """Return the arm, int32 `(sessions,)`, whose share of [0, 1) contains each uniform draw.

    The last arm has the rest of the interval, so that a rounded sum cannot exclude a draw.
    """
    reached = probability[0]
    choice = (uniform >= reached).astype(np.int32)
    for share in probability[1:-1]:
        reached = reached + share
        choice += uniform >= reached
    return choice


class _Draws:
    """The random numbers of sessions, one block at a time.

    Each group of `SESSIONS_PER_GROUP` sessions has one stream of uniform and one of normal draws,
    seeded by the seed and the number of the group. They are drawn trial by trial for the whole
    group, even if only some of its sessions are played. So a session always has the same numbers.

    Args:
        environment: The environment, which says how many numbers it needs.
        seed: The seed.
        block: Largest number of groups in a block.
        trials: Number of trials in a session.
    """

    def __init__(self, environment: Environment, seed: int, block: int, trials: int) -> None:
        self._seed = seed
        width = block * SESSIONS_PER_GROUP
        # Long sessions are drawn in parts, which limits the memory of a group.
        self._part = min(trials, max(1, _TRIALS_PER_BLOCK // width))
        self._trials = trials
        self._starts = np.empty((environment.start_uniforms, width))
        self._uniforms = np.empty((self._part, _UNIFORMS, width))
        self._normals = np.empty((self._part, environment.trial_normals, width))

    def start(self, first: int, count: int, wanted: slice) -> None:
        """Start at the first trial of `count` groups from `first`, of which `wanted` is played."""
        self._generators = [
            [
                np.random.Generator(
                    np.random.SFC64(np.random.SeedSequence(self._seed, spawn_key=(group, stream)))
                )
                # Normals consume a varying number of random words. In a common stream they would
                # shift the uniforms of longer sessions.
                for stream in (_UNIFORM_STREAM, _NORMAL_STREAM)
            ]
            for group in range(first, first + count)
        ]
        self._wanted = wanted
        self._next = 0
        for where, (uniform, _) in self._by_group():
            self._starts[:, where] = uniform.random((len(self._starts), SESSIONS_PER_GROUP))

    @property
    def start_uniforms(self) -> np.ndarray:
        """The uniform draws that start the sessions, `(start_uniforms, sessions)`."""
        return self._starts[:, self._wanted]

    def of_next_trial(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the draws of the next trial. They are valid until the next call.

        Returns:
            Uniforms `(2, sessions)` and standard normals `(trial_normals, sessions)`.
        """
        row = self._next % self._part
        if row == 0:
            self._draw(min(self._part, self._trials - self._next))
        self._next += 1
        return self._uniforms[row, :, self._wanted], self._normals[row, :, self._wanted]

    def _draw(self, trials: int) -> None:
        shape = (trials, self._normals.shape[1], SESSIONS_PER_GROUP)
        for where, (uniform, normal) in self._by_group():
            self._uniforms[:trials, :, where] = uniform.random(
                (trials, _UNIFORMS, SESSIONS_PER_GROUP)
            )
            self._normals[:trials, :, where] = normal.standard_normal(shape)

    def _by_group(self) -> Iterator[tuple[slice, list[np.random.Generator]]]:
        for index, generators in enumerate(self._generators):
            start = index * SESSIONS_PER_GROUP
            yield slice(start, start + SESSIONS_PER_GROUP), generators

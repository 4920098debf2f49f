"""What the command line plays and compares: fitted models as agents, beside the animals."""

import dataclasses
import os
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
import tensorflow as tf

from keras_disrnn.analysis import better_arms_of, compute_behaviour, compute_behaviour_distances
from keras_disrnn.bandit import (
    BlockBandit,
    DriftingBandit,
    ScheduledBandit,
    agent_from_model,
    simulate,
)
from keras_disrnn.data import Columns, read_table, sessions_from_table
from keras_disrnn.experiments.comparison import COGNITIVE
from keras_disrnn.io.keras_file import load_model
from keras_disrnn.plots import plot_behaviour, save_figure
from keras_disrnn.utils.files import write_text


@dataclasses.dataclass(frozen=True)
class EnvironmentSettings:
    """What the agent plays.

    Args:
        kind: Drifting probabilities, blocks that switch (see `BlockBandit`), or the schedule of a
            table.
        drift: Drifting: standard deviation of the change from trial to trial.
        high: Blocks: probability of reward of the better arm.
        low: Blocks: probability of reward of the others.
        rewards: Blocks: least number of rewards in a block.
        switch: Blocks: probability that each further reward ends the block.
        schedule: Schedule: the table, one row a trial.
        columns: Schedule: its columns of the arms' reward probabilities, by arm.
        session: Schedule: its column of session ids.
    """

    kind: Literal["drifting", "blocks", "schedule"] = "drifting"
    drift: float = 0.1
    high: float = 0.7
    low: float = 0.1
    rewards: int = 10
    switch: float = 0.4
    schedule: str | None = None
    columns: list[str] = dataclasses.field(default_factory=list)
    session: str = "session"


@dataclasses.dataclass(frozen=True)
class BehaviourSettings:
    """What is compared with the animals.

    Args:
        models: Models that play: name to a run folder, a `.keras` file or a SavedModel.
        cognitive: Baselines that are fitted to all choices of the table first, and play: of "Q",
            "FQ", "DFQ" and "actor-critic".
        better: Columns that tell the better arm of each trial: that arm's number, or the reward
            probability of each arm, by arm. With the probabilities models play the animals' own
            schedules.
        environment: What models play where the probabilities are not in the table.
        times: How many times as many sessions as the animals' the models play.
        lags: Trials back that the regression looks.
        replicates: Resamples of the bootstrap.
        figures: Endings of the figure's files.
    """

    models: dict[str, str] = dataclasses.field(default_factory=dict)
    cognitive: list[Literal["Q", "FQ", "DFQ", "actor-critic"]] = dataclasses.field(
        default_factory=list
    )
    better: list[str] = dataclasses.field(default_factory=list)
    environment: EnvironmentSettings = dataclasses.field(default_factory=EnvironmentSettings)
    times: int = 4
    lags: int = 5
    replicates: int = 1000
    figures: list[str] = dataclasses.field(default_factory=lambda: ["png", "pdf"])


def make_environment(settings):
    """The `Environment` of `EnvironmentSettings`.

    Raises:
        FileNotFoundError, ValueError: If a number or the schedule is not as described.
    """
    if settings.kind == "drifting":
        return DriftingBandit(settings.drift)
    if settings.kind == "blocks":
        return BlockBandit(
            settings.high, settings.low, rewards=settings.rewards, switch=settings.switch
        )
    if settings.schedule is None or not settings.columns:
        raise ValueError(
            "environment: expected a schedule and its columns of reward probabilities "
            "(--environment.schedule, --environment.columns) for a kind of 'schedule', got none"
        )
    table = read_table(settings.schedule, text=[settings.session])
    return ScheduledBandit.from_table(table, settings.columns, session=settings.session)


def load_agent(path, name=None, subject=None):
    """The agent of a model on the disk.

    Args:
        path: A run folder, a `.keras` file (a `DisRNNModel` or a baseline) or a SavedModel.
        name: The subject of its sessions; by default the file's or folder's name, or `subject`.
        subject: Of a model of several subjects, the one that plays.

    Returns:
        An `Agent`.

    Raises:
        FileNotFoundError: If there is no such model.
        ValueError: If it cannot be read or cannot play.
    """
    name = name or subject or Path(path).stem
    return agent_from_model(_load_any(path), name, subject=subject)


def _load_any(path):
    path = Path(path)
    if (path / "model.keras").exists():
        path = path / "model.keras"
    if path.is_file():
        return load_model(path, kind=None)
    if (path / "saved_model.pb").exists():
        return tf.saved_model.load(str(path))
    raise FileNotFoundError(
        f"{path}: expected a run folder, a .keras file or a SavedModel, but none is there"
    )


def simulate_table(model, out, environment, sessions, trials, seed, subject=None):
    """Plays a model and writes its sessions as a table.

    Args:
        model: As for `load_agent`.
        out: The new file, .csv, .csv.gz or .parquet.
        environment: `EnvironmentSettings`.
        sessions: Number of sessions.
        trials: Trials of each; `None` for 200, or for the schedule's own lengths.
        seed: Of choices, rewards and reward probabilities.
        subject: Of a model of several subjects, the one that plays.

    Returns:
        `SimulatedSessions`.

    Raises:
        FileExistsError: If the file exists.
        FileNotFoundError, ValueError: If the model, a setting or the ending is wrong.
    """
    out = Path(out)
    if out.exists():
        raise FileExistsError(f"{out}: exists already; choose a new file")
    if not out.name.endswith((".csv", ".csv.gz", ".parquet")):
        raise ValueError(f"{out}: expected a name that ends in .csv, .csv.gz or .parquet")
    world = make_environment(environment)
    if trials is None and environment.kind != "schedule":
        trials = 200
    agent = load_agent(model, subject=subject)
    played = simulate(agent, world, num_sessions=sessions, num_trials=trials, seed=seed)
    out.parent.mkdir(parents=True, exist_ok=True)
    partial = out.with_name(f".partial.{out.name}")
    try:
        table = played.to_table()
        if out.suffix == ".parquet":
            table.to_parquet(partial, index=False)
        else:
            table.to_csv(partial, index=False)
        os.replace(partial, out)
    finally:
        partial.unlink(missing_ok=True)
    return played


def compare_behaviour(out, data, settings, seed):
    """Holds the behaviour of models against that of the animals in a table, and writes it down.

    A model of several subjects plays as each of the table's subjects, as many times its sessions.

    Args:
        out: The new folder: `behaviour.csv` (the tables of `compute_behaviour`, with a column
            `who`), `distances.csv` (see `compute_behaviour_distances`) and the figure `behaviour`.
        data: `TableData`; all of its sessions are the animals'.
        settings: `BehaviourSettings`.
        seed: Of fits, simulations and resamples.

    Returns:
        Dict of `"animals"` and the models' names to `Behaviour`, and the table of distances.

    Raises:
        FileExistsError: If the folder exists.
        FileNotFoundError, ValueError: If the table, a model or a setting is wrong, or a model of
            several subjects knows none of that name.
    """
    out = Path(out)
    if out.exists():
        raise FileExistsError(f"{out}: exists already; choose a new folder")
    names = [data.columns.session] + ([data.columns.subject] if data.columns.subject else [])
    table = read_table(data.table, text=names)
    sessions = sessions_from_table(
        table, data.columns, num_arms=data.num_arms, reward_kind=data.reward_kind
    )
    better = better_arms_of(table, sessions, settings.better) if settings.better else None

    def world_of(rows, own):
        """What is played in place of these sessions, and the trials of each."""
        if len(settings.better) == sessions.num_arms:
            return ScheduledBandit.from_table(
                rows, settings.better, session=data.columns.session
            ), None
        return make_environment(settings.environment), int(own.trials_per_session.mean())

    def by_subject():
        for subject in dict.fromkeys(sessions.subjects):
            own = sessions.of_subjects([subject])
            yield subject, own, *world_of(table.iloc[np.concatenate(own.rows)], own)

    everyone = [(None, sessions, *world_of(table, sessions))]
    agents = {}
    for name, path in settings.models.items():
        model = _load_any(path)
        # Refuses a subject that the model does not know.
        played = by_subject() if sessions.for_model(model).subject_names else everyone
        agents[name] = [
            (agent_from_model(model, subject or name, subject=subject), *rest)
            for subject, *rest in played
        ]
    for name in settings.cognitive:
        model = COGNITIVE[name](
            num_arms=sessions.num_arms, num_signals=0, num_observations=sessions.num_observations
        )
        model.fit_sessions(sessions, "choice", seed=seed)
        agents[name] = [(agent_from_model(model, name), *rest) for _, *rest in everyone]
    if "animals" in agents:
        raise ValueError("models: the name 'animals' is that of the table's own behaviour")
    options = {"lags": settings.lags, "replicates": settings.replicates, "seed": seed}
    found = {"animals": compute_behaviour(sessions, better=better, **options)}
    for name, players in agents.items():
        tables, first = [], 0
        for agent, own, world, trials in players:
            count = settings.times * own.n_sessions
            played = simulate(
                agent, world, num_sessions=count, num_trials=trials, seed=seed, first_session=first
            )
            tables.append(played.to_table())
            first += count
        blocks = all("better_arm" in each for each in tables)
        played = pd.concat(tables, ignore_index=True)
        read = sessions_from_table(played, Columns(trial="trial"), num_arms=sessions.num_arms)
        better = better_arms_of(played, read, "better_arm") if blocks else None
        found[name] = compute_behaviour(read, better=better, **options)
    models = {name: behaviour for name, behaviour in found.items() if name != "animals"}
    distances = compute_behaviour_distances(found["animals"], models)
    out.mkdir(parents=True)
    frames = [behaviour.table.assign(who=name) for name, behaviour in found.items()]
    write_text(out / "behaviour.csv", pd.concat(frames).to_csv(index=False))
    write_text(out / "distances.csv", distances.to_csv(index=False))
    for ending in settings.figures:
        save_figure(out / f"behaviour.{ending}", plot_behaviour, found)
    return found, distances

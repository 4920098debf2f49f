"""Let fitted models play as agents, and compare their behaviour with that of animals."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pandas as pd
import tensorflow as tf

from keras_disrnn.analysis import (
    Behaviour,
    better_arms_of,
    compute_behaviour,
    compute_behaviour_distances,
)
from keras_disrnn.bandit import (
    Agent,
    BlockBandit,
    DriftingBandit,
    Environment,
    ScheduledBandit,
    SimulatedSessions,
    agent_from_model,
    simulate,
)
from keras_disrnn.data import Columns, Sessions, read_table, sessions_from_table
from keras_disrnn.experiments.behaviour_settings import BehaviourSettings, EnvironmentSettings
from keras_disrnn.experiments.comparison_plan import COGNITIVE
from keras_disrnn.experiments.figures import check_formats, save_figures
from keras_disrnn.experiments.settings import TableData
from keras_disrnn.io.keras_file import load_model
from keras_disrnn.io.saved_model import MANIFEST, check
from keras_disrnn.plots import plot_behaviour
from keras_disrnn.utils.checks import check_integer
from keras_disrnn.utils.checksums import check_checksums
from keras_disrnn.utils.files import check_new, new_folder, write_atomically
from keras_disrnn.utils.tables import write_csv


def make_environment(settings: EnvironmentSettings) -> Environment:
    """Make the environment that settings describe.

    Args:
        settings: The settings.

    Raises:
        FileNotFoundError, ValueError: If a number or the schedule is not as described.

    Example:

    >>> from keras_disrnn.experiments.behaviour import EnvironmentSettings, make_environment
    >>> make_environment(EnvironmentSettings(kind="blocks", high=0.8)).high
    0.8
    """
    if settings.kind == "drifting":
        return DriftingBandit(settings.drift)
    if settings.kind == "blocks":
        return BlockBandit(
            settings.high, settings.low, rewards=settings.rewards, switch=settings.switch
        )
    if settings.schedule is None or not settings.columns:
        raise ValueError(
            "environment: expected a schedule and its columns of reward probabilities for the kind "
            "'schedule', got none; give --environment.schedule and --environment.columns"
        )
    table = read_table(settings.schedule, text=[settings.session])
    return ScheduledBandit.from_table(table, settings.columns, session=settings.session)


def load_agent(
    path: str | os.PathLike[str], *, name: str | None = None, subject: str | None = None
) -> Agent:
    """Load a saved model as an agent.

    Args:
        path: A run folder, a `.keras` file (a `DisRNNModel` or a baseline) or a SavedModel.
        name: Name of the subject of its sessions. By default `subject`, or else the name of the
            file or folder.
        subject: The subject that plays, if the model has several.

    Returns:
        The agent.

    Raises:
        FileNotFoundError: If there is no such model.
        ValueError: If it cannot be read or cannot play.
    """
    name = name or subject or Path(path).stem
    return agent_from_model(_load_any(path), name, subject=subject)


def _load_any(path: str | os.PathLike[str]) -> Any:
    path = Path(path)
    if (path / "model.keras").exists():
        check_checksums(path, ["model.keras"])
        path = path / "model.keras"
    if path.is_file():
        return load_model(path, kind=None)
    if (path / "saved_model.pb").exists():
        if (path / MANIFEST).exists():
            check(path)
        return tf.saved_model.load(str(path))
    raise FileNotFoundError(
        f"{path}: expected a run folder, a .keras file or a SavedModel, got none of them"
    )


def simulate_table(
    model: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    environment: EnvironmentSettings,
    num_sessions: int,
    num_trials: int | None = None,
    seed: int = 0,
    subject: str | None = None,
) -> SimulatedSessions:
    """Let a model play, and write its sessions as a table.

    Args:
        model: The model, as for `load_agent`.
        out: The new file, .csv, .csv.gz or .parquet.
        environment: The task.
        num_sessions: Number of sessions.
        num_trials: Number of trials in each; `None` for 200, or for the lengths of the schedule.
        seed: Seed of the choices, rewards and reward probabilities.
        subject: The subject that plays, if the model has several.

    Returns:
        The sessions.

    Raises:
        FileExistsError: If the file exists.
        FileNotFoundError, ValueError: If the model, a setting or the file name is wrong.
    """
    out = check_new(out, "file")
    if not out.name.endswith((".csv", ".csv.gz", ".parquet")):
        raise ValueError(
            f"{out}: expected a name that ends in .csv, .csv.gz or .parquet, got {out.name!r}"
        )
    check_integer("seed", seed, 0)
    check_integer("num_sessions", num_sessions)
    if out.suffix == ".parquet" and importlib.util.find_spec("pyarrow") is None:
        raise ValueError(
            f"{out}: expected the package pyarrow to write .parquet, got none; install it with "
            "pip install pyarrow, or write a .csv"
        )
    world = make_environment(environment)
    if num_trials is None and environment.kind != "schedule":
        num_trials = 200
    agent = load_agent(model, subject=subject)
    played = simulate(agent, world, num_sessions=num_sessions, num_trials=num_trials, seed=seed)
    out.parent.mkdir(parents=True, exist_ok=True)
    table = played.to_table()

    def write(file: BinaryIO) -> None:
        if out.suffix == ".parquet":
            table.to_parquet(file, index=False)
        else:
            packing = "gzip" if out.suffix == ".gz" else None
            table.to_csv(file, index=False, mode="wb", compression=packing)

    write_atomically(out, write)
    return played


def compare_behaviour(
    out: str | os.PathLike[str],
    data: TableData,
    *,
    settings: BehaviourSettings,
    seed: int = 0,
) -> tuple[dict[str, Behaviour], pd.DataFrame]:
    """Compare the behaviour of models with that of the animals in a table, and write the results.

    A model of several subjects plays as each subject of the table, in proportion to its sessions.

    Args:
        out: The new folder: `behaviour.csv` (the tables of `compute_behaviour` with a column
            `who`), `distances.csv` (see `compute_behaviour_distances`) and the figure `behaviour`.
        data: The table. All of its sessions are the animals'.
        settings: The models and the task.
        seed: Seed of the fits, the simulations and the bootstrap.

    Returns:
        Dict of `"animals"` and the names of the models to their behaviour, and the table of
        distances.

    Raises:
        FileExistsError: If the folder exists.
        FileNotFoundError, ValueError: If the table, a model or a setting is wrong, or a model of
            several subjects does not have one of the table's subjects.
    """
    out = check_new(out)
    check_integer("seed", seed, 0)
    _check_settings(settings)
    names = [data.columns.session] + ([data.columns.subject] if data.columns.subject else [])
    table = read_table(data.table, text=names)
    sessions = sessions_from_table(
        table, data.columns, num_arms=data.num_arms, reward_kind=data.reward_kind
    )
    better = better_arms_of(table, sessions, settings.better) if settings.better else None

    def world_of(rows: pd.DataFrame, own: Sessions) -> tuple[Environment, int | None]:
        """Return the task to play instead of these sessions, and its number of trials."""
        if len(settings.better) == sessions.num_arms:
            return ScheduledBandit.from_table(
                rows, settings.better, session=data.columns.session
            ), None
        return make_environment(settings.environment), int(own.trials_per_session.mean())

    def by_subject() -> Iterator[tuple[Any, ...]]:
        for subject in dict.fromkeys(sessions.subjects):
            own = sessions.of_subjects([subject])
            assert own.rows is not None, "sessions of a table have its rows"
            yield subject, own, *world_of(table.iloc[np.concatenate(own.rows)], own)

    everyone: list[tuple[Any, ...]] = [(None, sessions, *world_of(table, sessions))]
    agents = {}
    for name, path in settings.models.items():
        model = _load_any(path)
        # `for_model` raises an error for a subject that the model does not have.
        players = by_subject() if sessions.for_model(model).subject_names else everyone
        agents[name] = [
            (agent_from_model(model, subject or name, subject=subject), *rest)
            for subject, *rest in players
        ]
    for name in settings.cognitive:
        model = COGNITIVE[name](
            num_arms=sessions.num_arms, num_signals=0, num_observations=sessions.num_observations
        )
        model.fit_sessions(sessions, "choice", seed=seed)
        agents[name] = [(agent_from_model(model, name), *rest) for _, *rest in everyone]
    options = {"lags": settings.lags, "replicates": settings.num_bootstrap_samples, "seed": seed}
    found = {"animals": compute_behaviour(sessions, better=better, **options)}
    for name, own_players in agents.items():
        tables, first = [], 0
        for agent, own, world, trials in own_players:
            count = settings.times * own.num_sessions
            simulated = simulate(
                agent, world, num_sessions=count, num_trials=trials, seed=seed, first_session=first
            )
            tables.append(simulated.to_table())
            first += count
        blocks = all("better_arm" in each for each in tables)
        played = pd.concat(tables, ignore_index=True)
        read = sessions_from_table(played, Columns(trial="trial"), num_arms=sessions.num_arms)
        better = better_arms_of(played, read, "better_arm") if blocks else None
        found[name] = compute_behaviour(read, better=better, **options)
    models = {name: behaviour for name, behaviour in found.items() if name != "animals"}
    distances = compute_behaviour_distances(found["animals"], models)
    frames = [behaviour.table.assign(who=name) for name, behaviour in found.items()]
    with new_folder(out) as folder:
        write_csv(folder / "behaviour.csv", pd.concat(frames))
        write_csv(folder / "distances.csv", distances)
        save_figures(folder / "behaviour", plot_behaviour, found, formats=settings.figures)
    return found, distances


def _check_settings(settings: BehaviourSettings) -> None:
    for name in ("times", "lags", "num_bootstrap_samples"):
        check_integer(name, getattr(settings, name))
    if settings.figures:
        check_formats(settings.figures)
    for name in settings.models:
        if name == "animals" or name in settings.cognitive:
            other = "the table's own sessions" if name == "animals" else "a baseline"
            raise ValueError(f"models: expected names other than that of {other}, got {name!r}")

"""The models of a comparison: which ones, and the functions that fit them."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from keras_disrnn.data import Sessions
from keras_disrnn.experiments.comparison_settings import ComparisonSettings
from keras_disrnn.experiments.run import make_model
from keras_disrnn.experiments.selection import select
from keras_disrnn.experiments.selection_settings import SelectionSettings
from keras_disrnn.experiments.settings import ModelSettings, TrainingSettings
from keras_disrnn.experiments.tensorboard import stage_boards
from keras_disrnn.models import baselines
from keras_disrnn.models.disrnn_model import DisRNNModel
from keras_disrnn.training.fit import train

COGNITIVE = {
    "Q": baselines.QLearning,
    "FQ": baselines.ForgettingQLearning,
    "DFQ": baselines.DifferentialForgettingQLearning,
    "actor-critic": baselines.LeakyActorCritic,
    "two-rate Q": baselines.DualRateQLearning,
    "kernel Q": baselines.ChoiceKernelQLearning,
    "fast-slow Q": baselines.FastSlowQLearning,
    "biased DFQ": baselines.BiasedForgettingQLearning,
    "belief": baselines.BayesianBelief,
    "logistic": baselines.RecursiveLogistic,
    "threshold": baselines.CompareToThreshold,
    "WSLS": baselines.WinStayLoseShift,
}
"""The cognitive models of the table, by name."""

DISRNN = "DisRNN"

Plan = dict[str, Callable[[Sessions, Mapping[str, Any], Path | None], Any]]
"""Name of a model to the function that fits it (see `plan_models`)."""


def plan_models(
    sessions: Sessions,
    settings: ComparisonSettings,
    *,
    model: ModelSettings,
    training: TrainingSettings | SelectionSettings,
    seed: int,
) -> Plan:
    """List the models to fit: the baselines, and the DisRNN unless the settings leave it out.

    Args:
        sessions: Sessions with the numbers of arms, observations and signals.
        settings: Which models, and how they are fitted.
        model: Shape and penalties of the DisRNN.
        training: The stages of its training, or `SelectionSettings`.
        seed: Seed of the starts, the initial weights, the noise and the batches.

    Returns:
        Dict of name to a function that fits the model. Its arguments are the training sessions, a
        dict of the models fitted before, and a folder for unfinished work (or `None`). It returns a
        model, or a dict of subject to model.
    """
    plan = plan_baselines(sessions, settings, seed)
    if settings.disrnn:
        plan[DISRNN] = lambda sessions, fitted, folder: fit_disrnn(
            sessions, model=model, training=training, seed=seed, folder=folder
        )
    return plan


def plan_baselines(sessions: Sessions, settings: ComparisonSettings, seed: int) -> Plan:
    """List the baselines to fit. Cognitive models are fitted to choices, to dopamine and to both.

    Args:
        sessions: As for `plan_models`.
        settings: As for `plan_models`.
        seed: Seed of the starts, the initial weights and the batches.

    Returns:
        What `plan_models` returns for the baselines.

    Example:

    >>> from keras_disrnn.data import Sessions
    >>> from keras_disrnn.experiments.comparison_plan import ComparisonSettings, plan_baselines
    >>> sessions = Sessions.from_trials([[0, 1]], [[1, 0]])
    >>> list(plan_baselines(sessions, ComparisonSettings(cognitive=["FQ"], gru_units=0), seed=0))
    ['naive', 'FQ, choice']
    """
    shape: dict[str, Any] = {
        "num_arms": sessions.num_arms,
        "num_observations": sessions.num_observations,
        "num_signals": sessions.num_signals,
    }

    def each(make: Callable[[], Any], *arguments: Any, **options: Any) -> Callable[..., Any]:
        def fit(sessions: Sessions) -> Any:
            if settings.per_subject:
                return baselines.fit_subjects(make, sessions, *arguments, **options)
            return _fit_one(make, sessions, *arguments, **options)

        return _alone(fit)

    plan: Plan = {"naive": each(functools.partial(baselines.Naive, **shape))}
    targets = ("choice", "dopamine", "joint") if sessions.num_signals == 1 else ("choice", "joint")
    for name in settings.cognitive:
        make = functools.partial(COGNITIVE[name], **shape)
        for target in targets if sessions.num_signals else ("choice",):
            label = f"{name}, {target}"
            plan[label] = each(make, target, starts=settings.num_starts, seed=seed)
            if target == "choice" and sessions.num_signals:
                plan[f"{label}, affine"] = _calibrated(label)
    if settings.gru_units:
        for label, signals in (("GRU, choice", 0), ("GRU, joint", sessions.num_signals)):
            if label == "GRU, choice" or signals:
                make = functools.partial(
                    baselines.GRU,
                    settings.gru_units,
                    seed=seed,
                    **{**shape, "num_signals": signals},
                )
                fit = functools.partial(_fit_one, make, steps=settings.gru_steps)
                plan[label] = _alone(fit)
    return plan


def fit_disrnn(
    sessions: Sessions,
    *,
    model: ModelSettings,
    training: TrainingSettings | SelectionSettings,
    seed: int,
    folder: Path | None = None,
) -> DisRNNModel:
    """Fit the DisRNN of a comparison.

    Args:
        sessions: The training sessions.
        model: Shape and penalties of the model.
        training: The stages of training, or `SelectionSettings` to select the penalties by the
            training sessions alone.
        seed: Seed of the initial weights, the noise and the batches.
        folder: Where to keep the state from which an interrupted fit resumes, or `None`.

    Returns:
        The trained model.
    """
    if folder is not None:
        folder.mkdir(exist_ok=True)
    if isinstance(training, SelectionSettings):
        make = functools.partial(make_model, sessions, model)
        paths = None if folder is None else folder / "paths"
        report = functools.partial(print, flush=True)
        return select(make, sessions, settings=training, seed=seed, folder=paths, report=report)[0]
    with training.scope():
        network = make_model(sessions, model, seed)
    checkpoint = None if folder is None else folder / "checkpoint.npz"
    train(
        network,
        sessions,
        **training.arguments(),
        seed=seed,
        checkpoint=checkpoint,
        callbacks=stage_boards(training.tensorboard),
        verbose=0,
    )
    return network


def _fit_one(make: Callable[[], Any], sessions: Sessions, *arguments: Any, **options: Any) -> Any:
    """Fit one model to all sessions."""
    model = make()
    model.fit_sessions(sessions, *arguments, **options)
    return model


def _alone(fit: Callable[[Sessions], Any]) -> Callable[..., Any]:
    """Return a function of a plan for a fit that needs no other model and no folder."""
    return lambda sessions, fitted, folder: fit(sessions)


def _calibrated(name: str) -> Callable[..., Any]:
    """Return a function of a plan that calibrates the dopamine of a model fitted before."""

    def calibrate(sessions: Sessions, model: Any) -> Any:
        if isinstance(model, dict):
            return {
                subject: one.calibrate(sessions.of_subjects([subject]))
                for subject, one in model.items()
            }
        return model.calibrate(sessions)

    return lambda sessions, fitted, folder: calibrate(sessions, fitted[name])

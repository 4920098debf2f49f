"""The models of a comparison: which ones, and the functions that fit them."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from keras_disrnn.analysis.seeds import seed_label
from keras_disrnn.data import Sessions
from keras_disrnn.experiments.comparison_settings import ComparisonSettings
from keras_disrnn.experiments.run import make_model
from keras_disrnn.experiments.selection import select
from keras_disrnn.experiments.selection_settings import SelectionSettings
from keras_disrnn.experiments.settings import ModelSettings, TrainingSettings
from keras_disrnn.experiments.tensorboard import stage_boards
from keras_disrnn.models import baselines
from keras_disrnn.models.baselines.cognitive import CognitiveModel
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
    known: bool = True,
) -> Plan:
    """List the models to fit: the baselines, and the DisRNN unless the settings leave it out.

    Args:
        sessions: Sessions with the numbers of arms, observations and signals.
        settings: Which models, and how they are fitted.
        model: Shape and penalties of the DisRNN.
        training: The stages of its training, or `SelectionSettings`.
        seed: Seed of the starts, the initial weights, the noise and the batches.
        known: Whether the models are scored on subjects that they were fitted to.

    Returns:
        Dict of name to a function that fits the model. Its arguments are the training sessions, a
        dict of the models fitted before, and a folder for unfinished work (or `None`). It returns a
        model, or a dict of subject to model.
    """
    plan = plan_baselines(sessions, settings, seed, known=known)
    if settings.disrnn:
        plan[DISRNN] = lambda sessions, fitted, folder: fit_disrnn(
            sessions, model=model, training=training, seed=seed, folder=folder
        )
    return plan


def plan_baselines(
    sessions: Sessions, settings: ComparisonSettings, seed: int, *, known: bool = True
) -> Plan:
    """List the baselines to fit. Cognitive models are fitted to choices, to dopamine and to both.

    Args:
        sessions: As for `plan_models`.
        settings: As for `plan_models`.
        seed: Seed of the starts, the initial weights and the batches.
        known: As for `plan_models`.

    Returns:
        What `plan_models` returns for the baselines.

    Raises:
        ValueError: If a cognitive model is for another number of arms, or partial pooling is asked
            for without several known subjects.

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
    subjects = tuple(dict.fromkeys(sessions.subjects))
    if settings.partial_pooling and not (known and len(subjects) > 1):
        raise ValueError(
            "partial_pooling: expected several subjects, each with training sessions, got "
            + (f"{len(subjects)} subject" if known else "held-out subjects without any")
        )

    def each(make: Callable[[], Any], *arguments: Any, **options: Any) -> Callable[..., Any]:
        def fit(sessions: Sessions) -> Any:
            if settings.per_subject:
                return baselines.fit_subjects(make, sessions, *arguments, **options)
            return _fit_one(make, sessions, *arguments, **options)

        return _alone(fit)

    plan: Plan = {"naive": each(functools.partial(baselines.Naive, **shape))}
    if sessions.num_signals:
        plan["reward and side"] = each(functools.partial(baselines.ValueRegression, **shape))
    for name in _cognitive_names(settings):
        make: Callable[[], Any] = functools.partial(COGNITIVE[name], **shape)
        for target in _targets(make(), sessions.num_signals):
            label, starts = f"{name}, {target}", settings.num_starts
            plan[label] = each(make, target, starts=starts, seed=seed)
            if target == "choice" and sessions.num_signals:
                plan[f"{label}, affine"] = _refined(label, _calibrate)
                plan[f"{label}, regression"] = _refined(label, _regress)
            if settings.partial_pooling and target != "dopamine":
                label = f"{label}, pooled in part"
                plan[label] = _alone(_pooling_in_part(make, target, starts=starts, seed=seed))
                if target == "choice" and sessions.num_signals:
                    plan[f"{label}, regression"] = _refined(label, _regress)
    return plan | _plan_gru(shape, subjects if known else (), settings, seed)


def _cognitive_names(settings: ComparisonSettings) -> list[str]:
    """Return the names of the cognitive models, of which "all" stands for every one."""
    return list(COGNITIVE if "all" in settings.cognitive else settings.cognitive)


def _targets(model: CognitiveModel, num_signals: int) -> list[str]:
    """Return the targets that a cognitive model can be fitted to."""
    if not num_signals:
        return ["choice"]
    alone = num_signals == 1 and model.fitted_names("dopamine")
    return ["choice", "dopamine", "joint"] if alone else ["choice", "joint"]


def _plan_gru(
    shape: Mapping[str, Any], subjects: tuple[str, ...], settings: ComparisonSettings, seed: int
) -> Plan:
    """List the GRUs: of choice and of both, with and without identity, for each seed."""
    plan: Plan = {}
    if not settings.gru_units:
        return plan
    identities: list[tuple[str, dict[str, Any]]] = [("", {})]
    if settings.gru_subjects and len(subjects) > 1:
        # The index of the subject is one more observation.
        own = {"subjects": subjects, "num_observations": shape["num_observations"] + 1}
        identities.append((", subjects known", own))
    for identity, own in identities:
        for target, signals in (("choice", 0), ("joint", shape["num_signals"])):
            if target == "joint" and not signals:
                continue
            for number in range(seed, seed + settings.gru_seeds):
                label = f"GRU, {target}{identity}"
                if settings.gru_seeds > 1:
                    label = seed_label(label, number)
                arguments = {**shape, "num_signals": signals, **own}
                make = functools.partial(
                    baselines.GRU, settings.gru_units, seed=number, **arguments
                )
                plan[label] = _alone(functools.partial(_fit_one, make, steps=settings.gru_steps))
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


def _pooling_in_part(
    make: Callable[[], Any], *arguments: Any, **options: Any
) -> Callable[[Sessions], Any]:
    """Return the function that fits a model to the subjects of one population."""
    return lambda sessions: (
        baselines.fit_partially_pooled(make, sessions, *arguments, **options).models
    )


def _calibrate(model: CognitiveModel, sessions: Sessions) -> Any:
    """Return a copy of a model with its dopamine in the units of the recording."""
    return model.calibrate(sessions)


def _regress(model: CognitiveModel, sessions: Sessions) -> Any:
    """Return the regression of dopamine on the trial and the values of a model."""
    return baselines.ValueRegression(model).fit_sessions(sessions)


def _refined(name: str, refine: Callable[[Any, Sessions], Any]) -> Callable[..., Any]:
    """Return a function of a plan that adds the dopamine of a model fitted before."""

    def fit(sessions: Sessions, model: Any) -> Any:
        if isinstance(model, dict):
            return {
                subject: refine(one, sessions.of_subjects([subject]))
                for subject, one in model.items()
            }
        return refine(model, sessions)

    return lambda sessions, fitted, folder: fit(sessions, fitted[name])

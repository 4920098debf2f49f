"""The stages of training, and how a model is compiled for each."""

from __future__ import annotations

import json
from collections.abc import Hashable
from typing import Any

import keras
import numpy as np

from keras_disrnn.models.disrnn_model import DisRNNModel
from keras_disrnn.models.penalties import PENALTIES
from keras_disrnn.objectives.losses import ChoiceCrossentropy, DopamineMSE, LogDopamineMSE
from keras_disrnn.objectives.metrics import (
    DopamineMeanSquaredError,
    DopamineR2,
    NormalizedLikelihood,
)
from keras_disrnn.training.optimizers import (
    CLIP_NORM,
    LEARNING_RATE,
    LearningRate,
    describe_optimizer,
    make_optimizer,
)
from keras_disrnn.training.plan import STAGES, Stage, check_choice_weight
from keras_disrnn.utils import distribute
from keras_disrnn.utils.types import cost_dtype


def compile_stage(
    model: DisRNNModel,
    stage: str | Stage,
    *,
    optimizer: keras.optimizers.Optimizer | str | None = None,
    learning_rate: LearningRate = LEARNING_RATE,
    clip_norm: float = CLIP_NORM,
    choice_weight: float = 0.5,
    **compile_arguments: Any,
) -> None:
    """Compile a model for a stage: frozen parts, noise, penalties, loss, metrics and optimizer.

    If a stage differs from the one before only in noise and penalties, the traced step is used
    again. So stage 1 uses the step of the warm-up. The optimizer always starts from its initial
    state.

    Args:
        model: A `DisRNNModel`.
        stage: A name of `STAGES`, or a `Stage`.
        optimizer: A Keras optimizer, of which each stage gets a fresh copy; the name of one; or
            `None` for `FlatAdam`, which is Adam on all weights at once.
        learning_rate: A number or a `keras.optimizers.schedules.LearningRateSchedule`. It applies
            to the default optimizer and to one given by name. An optimizer object keeps its own.
        clip_norm: Gradients are scaled down to this global norm. Applies as `learning_rate` does.
        choice_weight: Weight of the cross-entropy in the joint stage. `log(1 + MSE)` of dopamine
            has the weight `1 - choice_weight`.
        **compile_arguments: Further arguments of `model.compile`.

    Raises:
        ValueError: If the stage is unknown or needs a dopamine readout that the model does not
            have, or if an argument is wrong. Also if the model cannot be trained under its
            `tf.distribute` strategy.

    Example:
        >>> import keras
        >>> import keras_disrnn
        >>> model = keras_disrnn.DisRNNModel(num_latents=2, seed=0)
        >>> keras_disrnn.compile_stage(model, "stage1", optimizer=keras.optimizers.Lion(1e-4))
        >>> model.optimizer.name, model.frozen
        ('lion', ('dopamine_readout',))
    """
    distribute.check_strategy(model, compile_arguments.get("steps_per_execution", 1))
    if not isinstance(stage, Stage) and stage not in STAGES:
        raise ValueError(f"stage: expected one of {tuple(STAGES)}, got {stage!r}")
    plan = stage if isinstance(stage, Stage) else STAGES[stage]
    if "dopamine" in plan.fits and model.dopamine_readout is None:
        raise ValueError(
            f"stage: expected one that a model without dopamine readout (num_signals=0) can have, "
            f"got {stage!r}"
        )
    check_choice_weight(choice_weight)
    with distribute.scope(model):
        optimizer = make_optimizer(optimizer, learning_rate=learning_rate, clip_norm=clip_norm)
    if not model.built:
        model.build((None, None, model.num_observations))
    model.noise = plan.noise
    model.penalised = plan.penalised
    frozen = tuple(name for name in model.parts if name not in plan.trains)
    settings = (plan.fits, describe_optimizer(optimizer), choice_weight, compile_arguments)
    before = getattr(model, "_stage", None)
    if before is not None and before.serves(model, frozen, settings):
        before.reset_optimizer()
        return
    model.frozen = frozen
    losses, metrics = _losses_and_metrics(model, plan)
    weights = {"choice": choice_weight, "dopamine": 1.0 - choice_weight}
    with distribute.scope(model):
        model.compile(
            optimizer=optimizer,
            loss=losses,
            loss_weights=weights if len(plan.fits) > 1 else None,
            weighted_metrics=metrics,
            **compile_arguments,
        )
        # Variables that are created while `fit` traces its step would cost a second trace.
        model.optimizer.build(model.trainable_variables)
        model._stage = _CompiledStage(model, settings)
    if model.made_under is None:
        shared = _shared_settings(model.optimizer, plan, choice_weight, compile_arguments)
        model.compiled_as(shared, *_example(model))


def _shared_settings(
    optimizer: keras.optimizers.Optimizer,
    plan: Stage,
    choice_weight: float,
    compile_arguments: dict[str, Any],
) -> Hashable | None:
    """Return the constants of a traced step, or `None` if other models cannot have them."""
    # Keras has these as attributes of the model. Other arguments can be objects with a state.
    if set(compile_arguments) - {"steps_per_execution", "jit_compile", "run_eagerly"}:
        return None
    described = describe_optimizer(optimizer)
    if not isinstance(described.get("learning_rate"), dict):
        # A number is a variable of the optimizer, and a schedule is not.
        described.pop("learning_rate", None)
    text = json.dumps(described, sort_keys=True, default=str)
    return type(optimizer), text, plan.fits, choice_weight


def _example(model: DisRNNModel) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Return targets and outputs of one time step."""
    targets: dict[str, np.ndarray] = {"choice": np.zeros((1, 1))}
    outputs: dict[str, np.ndarray] = {"choice": np.zeros((1, 1, model.num_arms))}
    if model.num_signals:
        targets["dopamine"] = outputs["dopamine"] = np.zeros((1, 1, model.num_signals))
    return targets, outputs


def _losses_and_metrics(model: DisRNNModel, plan: Stage) -> tuple[dict, dict]:
    dtype = cost_dtype(model.dtype_policy)
    # Keras prefixes the name of a metric with that of its output, unless there is one output only.
    prefix = "" if model.num_signals else "choice_"
    losses, metrics = {}, {}
    if "choice" in plan.fits:
        losses["choice"] = ChoiceCrossentropy(dtype=dtype)
        metrics["choice"] = [NormalizedLikelihood(f"{prefix}normalized_likelihood")]
    if "dopamine" in plan.fits:
        joint = len(plan.fits) > 1
        losses["dopamine"] = LogDopamineMSE(dtype=dtype) if joint else DopamineMSE(dtype=dtype)
        metrics["dopamine"] = [DopamineMeanSquaredError(), DopamineR2(model.num_signals)]
    return losses, metrics


class _CompiledStage:
    """The settings that a model was compiled with, and the initial state of its optimizer."""

    def __init__(self, model: DisRNNModel, settings: tuple) -> None:
        self._settings = settings
        self._config = self._traced(model)
        self._optimizer = model.optimizer
        self._state = [keras.ops.convert_to_numpy(v) for v in model.optimizer.variables]

    def serves(self, model: DisRNNModel, frozen: tuple[str, ...], settings: tuple) -> bool:
        """Whether the traced step fits these settings and the current state of the model."""
        return (
            model.optimizer is self._optimizer
            and model.frozen == frozen
            and settings == self._settings
            and self._traced(model) == self._config
        )

    @staticmethod
    def _traced(model: DisRNNModel) -> dict[str, Any]:
        """Return the settings that a traced step holds as constants."""
        return {
            k: v for k, v in model.get_config().items() if k not in PENALTIES and k != "trained"
        }

    def reset_optimizer(self) -> None:
        for variable, value in zip(self._optimizer.variables, self._state, strict=True):
            variable.assign(value)


def stage_of(model: DisRNNModel) -> str:
    """Return the name of the stage that a model was last compiled for by `compile_stage`.

    Args:
        model: A `DisRNNModel`.

    Raises:
        ValueError: If the model is in none of `STAGES`.

    Example:
        >>> import keras_disrnn
        >>> from keras_disrnn.training.stages import stage_of
        >>> model = keras_disrnn.DisRNNModel(num_latents=2, seed=0)
        >>> keras_disrnn.compile_stage(model, "warmup")
        >>> stage_of(model)
        'warmup'
    """
    trains = tuple(name for name in model.parts if name not in model.frozen)
    for name, plan in STAGES.items():
        # A model without subjects or dopamine does not have the parts for them.
        planned = tuple(part for part in plan.trains if part in model.parts)
        if (plan.noise, plan.penalised) == (model.noise, model.penalised) and planned == trains:
            return name
    raise ValueError(
        f"model: expected one compiled for a stage of {tuple(STAGES)}, got one that trains "
        f"{trains} with noise={model.noise} and penalised={model.penalised}"
    )

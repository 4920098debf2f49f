"""The stages of training, and how a model is compiled for each."""

import dataclasses

import keras

from keras_disrnn.layers.information_bottleneck import cost_dtype
from keras_disrnn.models.penalties import PENALTIES
from keras_disrnn.objectives.losses import ChoiceCrossentropy, DopamineMSE, LogDopamineMSE
from keras_disrnn.objectives.metrics import (
    DopamineMeanSquaredError,
    DopamineR2,
    NormalizedLikelihood,
)
from keras_disrnn.objectives.optimizer import FlatAdam
from keras_disrnn.utils import distribute


@dataclasses.dataclass(frozen=True)
class Stage:
    """What a stage trains, and against what.

    Attributes:
        trains: Names of the model's parts that train, where it has them; the others are frozen.
        fits: The targets in the loss.
        noise: Whether training adds the bottlenecks' noise.
        penalised: Whether the loss has the penalties.
    """

    trains: tuple[str, ...]
    fits: tuple[str, ...]
    noise: bool = True
    penalised: bool = True


CHOICE_PARTS = ("subject_embedding", "core", "choice_readout")


STEPS_PER_EXECUTION = 10
"""`train` does up to so many steps between two returns to Python and its callbacks."""


STAGES = {
    "warmup": Stage(CHOICE_PARTS, ("choice",), noise=False, penalised=False),
    "stage1": Stage(CHOICE_PARTS, ("choice",)),
    "stage2": Stage(("dopamine_readout",), ("dopamine",)),
    "joint": Stage((*CHOICE_PARTS, "dopamine_readout"), ("choice", "dopamine")),
}
"""The stages by name: choice without noise or penalties; choice; dopamine from the frozen core;
choice and dopamine together."""


def compile_stage(
    model, stage, learning_rate=1e-3, clip_norm=1.0, choice_weight=0.5, **compile_arguments
):
    """Makes `model` ready for `fit` in a stage: what is frozen, the noise, the loss, the metrics.

    A stage that differs from the one before only in noise and penalties (whether and how dear), as
    stage 1 does from the warm-up, keeps the traced step; its optimizer starts anew all the same.

    Args:
        model: A `DisRNNModel`.
        stage: A name of `STAGES`, or a `Stage`.
        learning_rate: Of Adam.
        clip_norm: Gradients are scaled down to this global norm.
        choice_weight: For the joint stage, the weight of the cross-entropy; `log(1 + MSE)` has
            one minus it.
        **compile_arguments: Further arguments of `model.compile`.

    Raises:
        ValueError: If the stage is unknown, or needs a dopamine readout that the model has not; or
            under a `tf.distribute` strategy that a model cannot be trained under.
    """
    distribute.check_strategy(model, compile_arguments.get("steps_per_execution", 1))
    if not isinstance(stage, Stage) and stage not in STAGES:
        raise ValueError(f"stage: expected one of {tuple(STAGES)}, got {stage!r}")
    plan = stage if isinstance(stage, Stage) else STAGES[stage]
    if "dopamine" in plan.fits and model.dopamine_readout is None:
        raise ValueError(f"{stage}: the model has no dopamine readout (signals=0)")
    if not 0.0 <= choice_weight <= 1.0:
        raise ValueError(f"choice_weight: expected a number from 0 to 1, got {choice_weight}")
    model.noise = plan.noise
    model.penalised = plan.penalised
    frozen = tuple(name for name in model.parts if name not in plan.trains)
    settings = (plan.fits, learning_rate, clip_norm, choice_weight, compile_arguments)
    before = getattr(model, "_stage", None)
    if before is not None and before.goes_on(model, frozen, settings):
        before.renew_optimizer()
        return
    model.frozen = frozen
    dtype = cost_dtype(model.dtype_policy)
    # Keras puts the output's name before a metric's, but not where there is one output only.
    prefix = "" if model.num_signals else "choice_"
    joint = len(plan.fits) > 1
    losses, metrics = {}, {}
    if "choice" in plan.fits:
        losses["choice"] = ChoiceCrossentropy(dtype=dtype)
        metrics["choice"] = [NormalizedLikelihood(f"{prefix}normalized_likelihood")]
    if "dopamine" in plan.fits:
        losses["dopamine"] = LogDopamineMSE(dtype=dtype) if joint else DopamineMSE(dtype=dtype)
        metrics["dopamine"] = [DopamineMeanSquaredError(), DopamineR2(model.num_signals)]
    weights = {"choice": choice_weight, "dopamine": 1.0 - choice_weight}
    with distribute.scope(model):
        model.compile(
            optimizer=FlatAdam(learning_rate, global_clipnorm=clip_norm),
            loss=losses,
            loss_weights=weights if joint else None,
            weighted_metrics=metrics,
            **compile_arguments,
        )
        if model.built:
            # Variables made while `fit` traces its step cost a second trace.
            model.optimizer.build(model.trainable_variables)
            model._stage = _CompiledStage(model, settings)


class _CompiledStage:
    """What a model was compiled for, and the state its optimizer began with."""

    def __init__(self, model, settings):
        self._settings = settings
        self._config = self._traced(model)
        self._optimizer = model.optimizer
        self._state = [keras.ops.convert_to_numpy(v) for v in model.optimizer.variables]

    def goes_on(self, model, frozen, settings):
        """Whether the step that was traced serves for these settings and the model as it is now."""
        return (
            model.optimizer is self._optimizer
            and model.frozen == frozen
            and settings == self._settings
            and self._traced(model) == self._config
        )

    @staticmethod
    def _traced(model):
        """The settings that a traced step holds as constants."""
        return {k: v for k, v in model.get_config().items() if k not in PENALTIES}

    def renew_optimizer(self):
        for variable, value in zip(self._optimizer.variables, self._state, strict=True):
            variable.assign(value)


def stage_of(model):
    """Name of the stage that a model was last made ready for by `compile_stage`."""
    trains = tuple(name for name in model.parts if name not in model.frozen)
    for name, plan in STAGES.items():
        # A model without subjects or dopamine lacks the parts for them.
        planned = tuple(part for part in plan.trains if part in model.parts)
        if (plan.noise, plan.penalised) == (model.noise, model.penalised) and planned == trains:
            return name
    raise ValueError(f"model: it is in none of the stages {tuple(STAGES)}")

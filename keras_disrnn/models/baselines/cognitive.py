"""The base class of the cognitive models: a few named parameters, a rule, and the fit."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

import keras
import numpy as np
import tensorflow as tf
from keras import ops

from keras_disrnn.bandit.agents import MappedDopamine, RuleAgent
from keras_disrnn.bandit.rules import Rule
from keras_disrnn.layers.time_steps import remove_padding
from keras_disrnn.models.baselines import fitting, recurrence
from keras_disrnn.models.baselines.base import Baseline
from keras_disrnn.models.inputs import check_observations
from keras_disrnn.utils.checks import check_integer, check_number
from keras_disrnn.utils.types import Tensor

if TYPE_CHECKING:
    from keras_disrnn.data import Sessions


class _Within(keras.constraints.Constraint):
    """Clips a parameter to its range after each step of Keras' own `fit`."""

    def __init__(self, lower: float, upper: float) -> None:
        self.lower = lower
        self.upper = upper

    def __call__(self, value: Tensor) -> Tensor:
        return ops.clip(value, self.lower, self.upper)


class CognitiveModel(Baseline):
    """A learning model with a few parameters, fitted by maximum likelihood.

    A subclass declares each parameter as a `fitting.Parameter` and returns its rule from
    `make_rule`. The calls and the fit both use that rule. The latents of the model are the rule's
    variables and one more number, which is 0 before the first time step and 1 after it.

    The dopamine prediction is `gain * prediction error + offset`. Gain and offset are 1 and 0
    unless they are given, or fitted by `fit_sessions` or `calibrate`.

    Each parameter is an attribute of the model: a float, or `None` before the fit.

    Args:
        parameters: Values by name; each is `None` for a model that is not fitted yet.
        gain: One number for each signal, or `None`.
        offset: One number for each signal, or `None`.
        fitted_to: The targets of the fit that gave the parameters; `None` for given parameters.
            `fit_sessions` sets it.
        **kwargs: `num_observations`, `num_arms` and `num_signals` of `Baseline`.

    Raises:
        ValueError: If only some parameters are given, one is out of range, or the rule is for
            another number of arms.
    """

    PARAMETERS: ClassVar[tuple[fitting.Parameter, ...]] = ()
    """The declared parameters, in order."""

    DOPAMINE_PARAMETERS: ClassVar[tuple[str, ...] | None] = None
    """Names of the parameters that change the prediction error; `None` for all. If there are none,
    the model has no fit to dopamine alone."""

    OWN_SCALE: ClassVar[bool] = True
    """Whether a parameter sets the scale of the prediction error. If not, a fit to dopamine alone
    needs a gain and an offset."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        own = tuple(each for each in vars(cls).values() if isinstance(each, fitting.Parameter))
        cls.PARAMETERS = own or cls.PARAMETERS

    def __init__(
        self,
        parameters: Mapping[str, float | None],
        *,
        gain: Sequence[float] | None = None,
        offset: Sequence[float] | None = None,
        fitted_to: Literal["choice", "dopamine", "joint"] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        given = [name for name, value in parameters.items() if value is not None]
        missing = [name for name in parameters if name not in given]
        if given and missing:
            raise ValueError(
                f"{type(self).__name__}: expected all parameters or none, got {given[0]} without "
                f"{missing[0]}"
            )
        # Any parameters will do: a rule knows for how many arms it is.
        some = {parameter.name: np.mean(parameter.start) for parameter in self.PARAMETERS}
        self.make_rule(some).variable_names(self.num_arms)
        affine_map = self._pair_of_signals("gain and offset", gain, offset)
        if fitted_to is not None:
            self._check_targets(fitted_to)
        self.fitted = bool(given)
        self.fitted_to: str | None = fitted_to
        self.last_fit: fitting.Fit | None = None
        """The `Fit` of the last `fit_sessions`. Files do not keep it."""
        self._weights_by_name = {}
        for parameter in self.PARAMETERS:
            start = parameter.check(parameters[parameter.name]) if given else 0.0
            self._weights_by_name[parameter.name] = self.add_weight(
                shape=(),
                initializer=keras.initializers.Constant(start),
                constraint=_Within(parameter.lower, parameter.upper),
                name=parameter.name,
            )
        self.affine_map = self.add_weight(
            (2, self.num_signals), "zeros", trainable=False, name="gain_and_offset"
        )
        self._set_map(affine_map)
        self.built = True

    @staticmethod
    def make_rule(parameters: Mapping[str, Any]) -> Rule:
        """Return the rule with the given parameters, which are numbers or scalar tensors."""
        raise NotImplementedError

    def in_order(self, values: np.ndarray, targets: str) -> np.ndarray:
        """Return the values of the fitted parameters in the order that their names promise.

        Where two solutions only exchange the names of variables, a subclass picks one of them.

        Args:
            values: The parameters of `fitted_names`.
            targets: The targets of the fit.
        """
        return values

    # === Parameters ===

    @classmethod
    def parameter_names(cls) -> tuple[str, ...]:
        """Return the names of the parameters, in order."""
        return tuple(parameter.name for parameter in cls.PARAMETERS)

    @property
    def parameters(self) -> dict[str, float]:
        """The parameters by name.

        Raises:
            ValueError: If the model is not fitted.
        """
        self._check_fitted()
        return {name: float(weight.numpy()) for name, weight in self._weights_by_name.items()}

    @property
    def gain(self) -> list[float] | None:
        """The gain of each signal; `None` if the dopamine prediction is not mapped."""
        return self.affine_map.numpy()[0].tolist() if self.affine else None

    @property
    def offset(self) -> list[float] | None:
        """The offset of each signal; `None` if the dopamine prediction is not mapped."""
        return self.affine_map.numpy()[1].tolist() if self.affine else None

    @property
    def parameter_count(self) -> int:
        names = self.fitted_names(self.fitted_to or "joint")
        return len(names) + (2 * self.num_signals if self.affine else 0)

    def get_config(self) -> dict[str, Any]:
        names = (*self.parameter_names(), "gain", "offset", "fitted_to")
        return {**super().get_config(), **{name: getattr(self, name) for name in names}}

    # === The model ===

    @property
    def initial_latents(self) -> Tensor:
        return recurrence.start_state(self.rule(), self.num_arms, self.compute_dtype)

    def compute_latents(self, features: Tensor) -> Tensor:
        features = ops.convert_to_tensor(features, dtype=self.compute_dtype)
        check_observations(self, features.shape)
        seen, real = remove_padding(features)
        time_first = (ops.swapaxes(seen, 0, 1), ops.swapaxes(real, 0, 1))
        return ops.swapaxes(recurrence.all_states(self.rule(), *time_first, self.num_arms), 0, 1)

    def advance(self, seen: Tensor, latents: Tensor) -> Tensor:
        return recurrence.next_state(self.rule(), seen, latents)

    def read_choice(self, latents: Tensor) -> Tensor:
        return recurrence.choice_logits(self.rule(), latents)

    def read_dopamine(self, seen: Tensor, before: Tensor, after: Tensor) -> Tensor:
        error = recurrence.prediction_error(self.rule(), seen, before)
        gain, offset = ops.unstack(ops.cast(self.affine_map, error.dtype))
        return gain * error[..., None] + offset

    def agent(self, name: str | None = None, *, signal: int = 0) -> MappedDopamine:
        """Return the `bandit.Agent` with the rule and the parameters of this model.

        Args:
            name: The subject of the agent's sessions; by default the name of this class.
            signal: Which signal the agent's dopamine is, from 0.

        Returns:
            An agent. Its dopamine is the prediction of this model.

        Raises:
            ValueError: If the model is not fitted, or has no such signal.
        """
        name = name or type(self).__name__
        gain, offset = 1.0, 0.0
        rule = self.make_rule(self.parameters)
        if self.num_signals:
            check_integer("signal", signal, 0, self.num_signals - 1)
            gain, offset = (float(value) for value in self.affine_map.numpy()[:, signal])
        return MappedDopamine(RuleAgent(rule, name), gain=gain, offset=offset, name=name)

    # === The fit ===

    def fit_sessions(
        self,
        sessions: Sessions,
        targets: Literal["choice", "dopamine", "joint"] = "choice",
        *,
        starts: int = 8,
        seed: int = 0,
        confidence: float = 0.95,
    ) -> fitting.Fit:
        """Fit the parameters to all sessions together, and set them.

        The fit runs L-BFGS-B from several random starts, in float64, on the gradients of the
        model's own equations.

        - `"choice"`: maximum likelihood of the choices with a weight. Gain and offset become 1 and
          0; see `calibrate`.
        - `"dopamine"`: least squares on the recorded dopamine. Parameters without an effect on it
          become 0.
        - `"joint"`: maximum likelihood of both. Dopamine is normal about a gain times the
          prediction error plus an offset, because the choices already set the scale of the values.

        Standard errors come from the observed information (the inverse Hessian). They assume that
        the model is true and that trials are independent given the model. For a robust error, fit
        bootstrap samples of the sessions.

        Args:
            sessions: `keras_disrnn.data.Sessions`.
            targets: What to fit: `"choice"`, `"dopamine"` or `"joint"`.
            starts: Number of random starts.
            seed: Seed of the starts.
            confidence: Confidence level of the intervals, from 0 to 1.

        Returns:
            A `Fit`, which the model also keeps as `last_fit`.

        Raises:
            ValueError: If the sessions do not match the model, have no data for the targets, or no
                start reaches a finite likelihood.

        Example:

        >>> from keras_disrnn import bandit, baselines
        >>> from keras_disrnn.data import Sessions
        >>> played = bandit.simulate(
        ...     bandit.QLearning(), bandit.DriftingBandit(), num_sessions=2, num_trials=20, seed=0
        ... )
        >>> sessions = Sessions.from_trials(played.choice, played.reward)
        >>> fit = baselines.QLearning(num_signals=0).fit_sessions(sessions, "choice", starts=1)
        >>> list(fit.estimates["parameter"])
        ['alpha', 'kappa_1', 'kappa_2']
        """
        check_integer("starts", starts, 1)
        check_number("confidence", confidence, 0, 1)
        self._check_sessions(sessions, targets)
        if targets == "dopamine" and self.OWN_SCALE and self.num_signals > 1:
            raise ValueError(
                f"targets: expected 'joint' for {self.num_signals} dopamine signals, whose scales "
                f"differ, got 'dopamine'; or fit {type(self).__name__} to one signal at a time"
            )
        if not self.fitted_names(targets):
            raise ValueError(
                f"targets: expected 'choice' or 'joint', because no parameter of "
                f"{type(self).__name__} changes dopamine, got {targets!r}"
            )
        affine = targets == "joint" or (targets == "dopamine" and not self.OWN_SCALE)
        compute = self._loss_and_gradient(targets, affine)
        data = fitting.arrays(sessions)
        fitted = self.fitted_names(targets)
        positions = [self.parameter_names().index(name) for name in fitted]
        values = np.zeros(len(self.PARAMETERS))

        def loss(point: np.ndarray) -> tuple[float, np.ndarray]:
            values[positions] = point
            total, gradient, _ = compute(tf.constant(values), *data)
            return float(total), gradient.numpy()[positions]

        unit = 1.0
        if targets == "dopamine" and self.OWN_SCALE:
            unit = float(np.std(sessions.dopamine[sessions.dopamine_weight > 0])) or 1.0
        fit = fitting.maximise(
            loss,
            [parameter for parameter in self.PARAMETERS if parameter.name in fitted],
            unit=unit,
            targets=targets,
            starts=starts,
            seed=seed,
            confidence=confidence,
            in_order=functools.partial(self.in_order, targets=targets),
        )
        values[positions] = fit.estimates["estimate"]
        _, _, affine_map = compute(tf.constant(values), *data)
        named = fit.estimates.set_index("parameter").reindex(self.parameter_names())
        named["estimate"] = named["estimate"].fillna(0.0)
        fit = fit._replace(estimates=named.reset_index())

        self.take_fit(fit, values, affine_map.numpy() if affine else None)
        return fit

    def take_fit(self, fit: fitting.Fit, values: np.ndarray, affine_map: np.ndarray | None) -> None:
        """Set the parameters to those of a fit.

        Args:
            fit: The fit, which the model keeps as `last_fit`.
            values: All parameters in order, `(parameters,)`.
            affine_map: The gains and the offsets, `(2, signals)`, or `None` for 1 and 0.
        """
        for weight, value in zip(self._weights_by_name.values(), values, strict=True):
            weight.assign(value)
        self._set_map(affine_map)
        self.fitted, self.last_fit, self.fitted_to = True, fit, fit.targets

    def calibrate(self, sessions: Sessions) -> Self:
        """Return a copy whose dopamine is mapped to the units of a recording.

        The map of each signal is the least-squares line of the recorded dopamine on the prediction
        error. The values of a fit to choices have no unit of dopamine, and the map makes its
        predictions comparable with the recording.

        Args:
            sessions: `keras_disrnn.data.Sessions`, the training set.

        Returns:
            A model of the same class with the same parameters.

        Raises:
            ValueError: If the model is not fitted, or the sessions have no dopamine.
        """
        values = np.array(list(self.parameters.values()))
        self._check_sessions(sessions, "dopamine")
        compute = self._loss_and_gradient("dopamine", affine=True)
        _, _, affine_map = compute(tf.constant(values), *fitting.arrays(sessions))
        copy = type(self).from_config({**self.get_config(), "name": f"{self.name}_calibrated"})
        copy._set_map(affine_map.numpy())
        copy.last_fit = self.last_fit
        return copy

    def likelihood(
        self, sessions: Sessions, targets: Literal["choice", "joint"]
    ) -> Callable[[Tensor], tuple[Tensor, Tensor, Tensor]]:
        """Return the loss of the parameters on sessions, as `fitting.loss_and_gradient` has it.

        Args:
            sessions: `keras_disrnn.data.Sessions`.
            targets: `"choice"` or `"joint"`.

        Returns:
            A function of the parameters, float64 `(parameters,)`.

        Raises:
            ValueError: If the sessions do not match the model, or have no data for the targets.
        """
        self._check_sessions(sessions, targets)
        compute = self._loss_and_gradient(targets, targets == "joint")
        data = fitting.arrays(sessions)
        return lambda values: compute(values, *data)

    def _loss_and_gradient(self, targets: str, affine: bool) -> Any:
        model_type: Any = type(self)
        return fitting.loss_and_gradient(model_type, self.num_arms, targets, affine)

    def _set_map(self, affine_map: np.ndarray | None) -> None:
        self.affine = affine_map is not None
        identity = np.stack([np.ones(self.num_signals), np.zeros(self.num_signals)])
        self.affine_map.assign(affine_map if self.affine else identity)

    def fitted_names(self, targets: str) -> tuple[str, ...]:
        """Return the names of the parameters that a fit to the targets determines."""
        if targets == "dopamine" and self.DOPAMINE_PARAMETERS is not None:
            return self.DOPAMINE_PARAMETERS
        return self.parameter_names()

    def rule(self) -> Rule:
        """Return the rule with the parameters of this model, as tensors.

        Raises:
            ValueError: If the model is not fitted.
        """
        self._check_fitted()
        weights = self._weights_by_name.items()
        return self.make_rule({name: ops.cast(w, self.compute_dtype) for name, w in weights})

    def _check_fitted(self) -> None:
        if not self.fitted:
            raise ValueError(
                f"{type(self).__name__}: expected fitted parameters, got none; call fit_sessions, "
                f"or pass {', '.join(self.parameter_names())} when you make the model"
            )

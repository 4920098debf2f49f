"""What the cognitive models share: a few named parameters, equations, and the fit."""

import keras
import numpy as np
import tensorflow as tf
from keras import ops

from keras_disrnn.bandit.agents import MappedDopamine
from keras_disrnn.layers.time_steps import remove_padding
from keras_disrnn.models.baselines import fitting
from keras_disrnn.models.baselines.base import Baseline
from keras_disrnn.utils.checks import check_integer, check_number


class _Within(keras.constraints.Constraint):
    """Keeps a parameter in its range while Keras' own `fit` moves it."""

    def __init__(self, lower, upper):
        self.lower = lower
        self.upper = upper

    def __call__(self, value):
        return ops.clip(value, self.lower, self.upper)


class CognitiveModel(Baseline):
    """A model of learning with a few parameters, fitted by maximum likelihood.

    A subclass declares `PARAMETERS` and writes its equations once, as functions of parameters and
    state, for the calls and the fit alike. Its state ends with a variable that is 0 until the first
    row has passed: that row, of zeros, tells of no trial.

    The dopamine prediction is `gain * prediction error + offset`, with gain 1 and offset 0 unless
    they were fitted too (`fit_sessions` to both targets, `calibrate`) or given.

    Args:
        parameters: By name; `None` for each until the model is fitted.
        gain, offset: One number a signal each, or `None`.
        fitted_to: The targets that the parameters were fitted to, `None` where they were given;
            `fit_sessions` sets it, and files keep it.
        num_observations, num_arms, num_signals: As for `Baseline`.

    Raises:
        ValueError: If some parameters are given and others not, or one is out of range.
    """

    PARAMETERS = ()
    """The `fitting.Parameter`s, in order."""

    DOPAMINE_PARAMETERS = None
    """Names of those that the prediction error depends on; `None` for all."""

    OWN_SCALE = True
    """Whether a parameter sets the scale of the prediction error. If not, a fit to dopamine alone
    needs a gain and an offset."""

    def __init__(self, parameters, gain=None, offset=None, fitted_to=None, **kwargs):
        super().__init__(**kwargs)
        given = [name for name, value in parameters.items() if value is not None]
        missing = [name for name in parameters if name not in given]
        if given and missing:
            raise ValueError(
                f"{type(self).__name__}: expected all parameters or none, got {given[0]} without "
                f"{missing[0]}"
            )
        self.fitted = bool(given)
        self._start = {name: 0.0 for name in parameters}
        if self.fitted:
            self._start = self._checked(parameters)
        self.affine = gain is not None
        if (gain is None) != (offset is None):
            raise ValueError("gain and offset: expected both or neither, got one of them")
        self._map_start = np.stack([np.ones(self.num_signals), np.zeros(self.num_signals)])
        if self.affine:
            self._map_start = np.stack([np.asarray(v, float) for v in (gain, offset)])
            if self._map_start.shape != (2, self.num_signals) or np.isnan(self._map_start).any():
                raise ValueError(
                    f"gain, offset: expected {self.num_signals} numbers each, one a signal, got "
                    f"{gain} and {offset}"
                )
        if fitted_to is not None:
            self._check_targets(fitted_to)
        self.fitted_to = fitted_to
        self.last_fit = None
        """The `Fit` of the last `fit_sessions`; not kept in files."""

    def build(self, input_shape=None):
        self._weights_by_name = {
            parameter.name: self.add_weight(
                shape=(),
                initializer=keras.initializers.Constant(self._start[parameter.name]),
                constraint=_Within(parameter.lower, parameter.upper),
                name=parameter.name,
            )
            for parameter in self.PARAMETERS
        }
        self.affine_map = self.add_weight(
            shape=(2, self.num_signals),
            initializer=lambda shape, dtype: ops.convert_to_tensor(self._map_start, dtype),
            trainable=False,
            name="gain_and_offset",
        )
        self.built = True

    # === Equations ===

    @staticmethod
    def initial_values(parameters, arms, dtype):
        """The values before the first trial, `(variables,)`."""
        raise NotImplementedError

    @staticmethod
    def update(parameters, choice, reward, values):
        """The values `(..., variables)` after a trial.

        Args:
            parameters: Dict of scalars.
            choice: `(..., arms)`, 1 for the chosen arm and 0 for others.
            reward: `(..., 1)`.
            values: Before the trial, `(..., variables)`.
        """
        raise NotImplementedError

    @staticmethod
    def error(parameters, choice, reward, values):
        """The prediction error `(...)` of a trial; arguments as for `update`."""
        raise NotImplementedError

    @classmethod
    def logits(cls, parameters, state):
        """Logits `(..., arms)` of the next choice."""
        return state[..., :-1]

    @classmethod
    def initial_state(cls, parameters, arms, dtype):
        """The state before the first row, `(variables + 1,)`."""
        values = cls.initial_values(parameters, arms, dtype)
        return ops.concatenate([values, ops.zeros((1,), dtype)])

    @classmethod
    def transition(cls, parameters, seen, state):
        """The state `(..., variables + 1)` after a row `(..., observations)`, no padding."""
        values, begun = state[..., :-1], state[..., -1:]
        moved = cls.update(parameters, *cls._trial(seen, cls._arms(state)), values)
        return ops.concatenate([ops.where(begun > 0, moved, values), ops.ones_like(begun)], axis=-1)

    @classmethod
    def prediction_error(cls, parameters, seen, before):
        """The prediction error `(...)` of the trial of a row, from the state before it."""
        trial = cls._trial(seen, cls._arms(before))
        return cls.error(parameters, *trial, before[..., :-1])

    @classmethod
    def parameter_names(cls):
        """Names of the parameters, in order."""
        return tuple(parameter.name for parameter in cls.PARAMETERS)

    @classmethod
    def _arms(cls, state):
        return state.shape[-1] - 1

    @staticmethod
    def _trial(seen, arms):
        choice = ops.cast(seen[..., :1] == ops.arange(arms, dtype=seen.dtype), seen.dtype)
        return choice, seen[..., 1:2]

    # === The model ===

    @property
    def parameters(self):
        """The parameters, name to float."""
        self._check_fitted()
        if not self.built:
            return dict(self._start)
        return {name: float(weight.numpy()) for name, weight in self._weights_by_name.items()}

    def agent(self, name=None, signal=0):
        """The `bandit.Agent` that plays by these equations and parameters.

        Args:
            name: The subject of its sessions; by default the name of this class.
            signal: Which signal its dopamine is, from 0.

        Returns:
            An agent; its dopamine is the prediction of this model.

        Raises:
            ValueError: If the model is not fitted.
        """
        played = self.played_as(self.parameters)
        gain, offset = 1.0, 0.0
        if self.num_signals:
            check_integer("signal", signal, 0, self.num_signals - 1)
            maps = self.affine_map.numpy() if self.built else self._map_start
            gain, offset = (float(value) for value in maps[:, signal])
        return MappedDopamine(played, gain, offset, name or type(self).__name__)

    @classmethod
    def played_as(cls, parameters):
        """The agent of `keras_disrnn.bandit` with these equations, from a dict of parameters."""
        raise NotImplementedError

    @property
    def parameter_count(self):
        held = 0
        if self.fitted_to == "dopamine":
            held = len(self.PARAMETERS) - len(self._fitted_names("dopamine"))
        return len(self.PARAMETERS) - held + (2 * self.num_signals if self.affine else 0)

    @property
    def initial_latents(self):
        self._check_fitted()
        return self.initial_state(self._weights(), self.num_arms, self.compute_dtype)

    def compute_latents(self, features):
        features = ops.convert_to_tensor(features, dtype=self.compute_dtype)
        self._check_features(features.shape)
        seen, real = remove_padding(features)
        start = self.initial_latents
        start = ops.broadcast_to(start, (ops.shape(seen)[0], start.shape[-1]))

        def move(state, row):
            return ops.where(row[1][:, None], self.advance(row[0], state), state)

        rows_first = (ops.swapaxes(seen, 0, 1), ops.swapaxes(real, 0, 1))
        return ops.swapaxes(tf.scan(move, rows_first, start), 0, 1)

    def advance(self, seen, latents):
        self._check_fitted()
        return self.transition(self._weights(), seen, latents)

    def read_choice(self, latents):
        return self.logits(self._weights(), latents)

    def read_dopamine(self, seen, before, after):
        error = self.prediction_error(self._weights(), seen, before)
        gain, offset = ops.unstack(ops.cast(self.affine_map, error.dtype))
        return gain * error[..., None] + offset

    def get_config(self):
        config = super().get_config()
        if self.fitted:
            config |= self.parameters
        if self.affine:
            gain, offset = (self.affine_map.numpy() if self.built else self._map_start).tolist()
            config |= {"gain": gain, "offset": offset}
        if self.fitted_to is not None:
            config["fitted_to"] = self.fitted_to
        return config

    # === The fit ===

    def fit_sessions(self, sessions, targets="choice", *, starts=8, seed=0, confidence=0.95):
        """Fits the parameters to all sessions together, and sets them.

        Multi-start L-BFGS-B on the gradients of the model's own equations, in float64.

        - `"choice"`: maximum likelihood on the choices that count. Gain and offset are 1 and 0
          after it; see `calibrate`.
        - `"dopamine"`: least squares on the dopamine that was recorded. Parameters that it does not
          depend on are set to 0.
        - `"joint"`: maximum likelihood on both, with normal noise about a gain times the
          prediction error plus an offset, because choices alone set the scale of the values.

        Standard errors are those of the observed information (the inverse Hessian). They take the
        trials for independent given the model, and the model for true; for a robust error, fit
        resampled sessions.

        Args:
            sessions: `keras_disrnn.data.Sessions`.
            targets: `"choice"`, `"dopamine"` or `"joint"`.
            starts: Number of random starts.
            seed: Of the starts.
            confidence: Of the intervals.

        Returns:
            A `Fit`, also kept as `last_fit`.

        Raises:
            ValueError: If the sessions do not fit the model, hold nothing of the kind to fit, or no
                start leads to a finite likelihood.
        """
        check_integer("starts", starts, 1)
        check_number("confidence", confidence, 0, 1)
        self._check_sessions(sessions, targets)
        if targets == "dopamine" and self.OWN_SCALE and self.num_signals > 1:
            raise ValueError(
                f"targets: expected 'joint' for {self.num_signals} dopamine signals, whose scales "
                f"differ, got 'dopamine'; or fit {type(self).__name__} to one signal at a time"
            )
        affine = targets == "joint" or (targets == "dopamine" and not self.OWN_SCALE)
        compute = fitting.loss_and_gradient(type(self), self.num_arms, targets, affine)
        data = fitting.arrays(sessions)
        fitted = self._fitted_names(targets)
        where = [self.parameter_names().index(name) for name in fitted]
        values = np.zeros(len(self.PARAMETERS))

        def loss(point):
            values[where] = point
            total, gradient, _ = compute(tf.constant(values), *data)
            return float(total), gradient.numpy()[where]

        unit = 1.0
        if targets == "dopamine" and self.OWN_SCALE:
            unit = float(np.std(sessions.dopamine[sessions.dopamine_weight > 0])) or 1.0
        chosen = [parameter for parameter in self.PARAMETERS if parameter.name in fitted]
        fit = fitting.maximise(loss, chosen, unit, targets, starts, seed, confidence)
        values[where] = fit.estimates["estimate"]
        _, _, affine_map = compute(tf.constant(values), *data)
        named = fit.estimates.set_index("parameter").reindex(self.parameter_names())
        named["estimate"] = named["estimate"].fillna(0.0)
        fit = fit._replace(estimates=named.reset_index())

        self.fitted = True
        if not self.built:
            self.build()
        for name, value in zip(self.parameter_names(), values, strict=True):
            self._weights_by_name[name].assign(value)
        self._set_map(affine_map.numpy() if affine else None)
        self.last_fit, self.fitted_to = fit, targets
        return fit

    def calibrate(self, sessions):
        """A copy of the model whose dopamine goes through an affine map fitted to sessions.

        Least squares of each recorded signal on the prediction error. It makes a fit to choices,
        whose values have no unit of dopamine, comparable with the recording.

        Args:
            sessions: `keras_disrnn.data.Sessions`, the training set.

        Returns:
            A model of the same kind and parameters.

        Raises:
            ValueError: If the model is not fitted, or the sessions have no dopamine.
        """
        self._check_fitted()
        self._check_sessions(sessions, "dopamine")
        compute = fitting.loss_and_gradient(type(self), self.num_arms, "dopamine", True)
        values = np.array(list(self.parameters.values()))
        _, _, affine_map = compute(tf.constant(values), *fitting.arrays(sessions))
        copy = type(self).from_config({**self.get_config(), "name": f"{self.name}_calibrated"})
        copy.build()
        copy._set_map(affine_map.numpy())
        copy.last_fit = self.last_fit
        return copy

    def _set_map(self, affine_map):
        self.affine = affine_map is not None
        if not self.affine:
            affine_map = np.stack([np.ones(self.num_signals), np.zeros(self.num_signals)])
        self.affine_map.assign(affine_map)

    def _fitted_names(self, targets):
        if targets == "dopamine" and self.DOPAMINE_PARAMETERS is not None:
            return self.DOPAMINE_PARAMETERS
        return self.parameter_names()

    def _weights(self):
        self._check_fitted()
        if not self.built:
            self.build()
        return {
            name: ops.cast(weight, self.compute_dtype)
            for name, weight in self._weights_by_name.items()
        }

    def _check_fitted(self):
        if not self.fitted:
            raise ValueError(
                f"{type(self).__name__}: it has no parameters yet; fit it with fit_sessions, or "
                f"pass {', '.join(self.parameter_names())} to it"
            )

    def _checked(self, values):
        return {
            parameter.name: check_number(
                parameter.name, values[parameter.name], parameter.lower, parameter.upper
            )
            for parameter in self.PARAMETERS
        }

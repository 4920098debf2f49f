"""A fitted network as equations: the rule of each open latent, choice and dopamine as formulas."""

from typing import NamedTuple

import keras
import numpy as np
import pandas as pd

from keras_disrnn.analysis import rules
from keras_disrnn.analysis.bottlenecks import check_built, latent_names
from keras_disrnn.analysis.subjects import embedding_of
from keras_disrnn.models.latents import predict_latents
from keras_disrnn.objectives.metrics import OPEN_BELOW

MOST_REWARDS = 8
"""With more values of reward than this there is no formula for each."""

STILL = 1e-4
"""A latent whose standard deviation over the trials of a case is below this tells of no rate."""


class Formulas(NamedTuple):
    """Small formulas fitted to what a network computes, each with its error.

    Attributes:
        updates: `pandas.DataFrame`, one row for each open latent, choice and reward, of the formula
            `latent <- latent + alpha (target - latent) + sum of coefficients times other latents`:
            the columns `latent`, `choice`, `reward`, `alpha`, `target`, `drift` (`alpha target`, or
            the mean change where alpha is NaN); a column for each latent
            with its coefficient (0 for one that is not in the formula); `r2`, `rms_error` and
            `max_error` of the latent's change; `n`, the trials it was fitted to. The target is NaN
            where alpha is 0, both are where the latent is all but constant over those trials.
        choice: One row for each arm (for two arms one, of arm 1 against arm 0) of the formula
            `logit = intercept + sum of coefficients times latents`: `arm`, `intercept`, a column
            for each latent, `r2`, `rms_error`, `max_error`, `n`. For more than two arms the logits
            are taken minus their mean over arms.
        dopamine: One row for each signal, choice and reward of the formula `dopamine = intercept +
            sum of coefficients times latents`: `signal`, `choice`, `reward`, and as for `choice`.
            Empty without a dopamine readout.
        reads: Whether the dopamine readout reads the latents `"pre"` or `"post"` the update; `None`
            without one.
    """

    updates: pd.DataFrame
    choice: pd.DataFrame
    dopamine: pd.DataFrame
    reads: str | None

    def learning_rates(self):
        """The learning rate of each open latent for each choice.

        Returns:
            A `pandas.DataFrame`, one row a latent and choice: `latent`, `choice`, `alpha` (the mean
            over rewards, weighted by trials, of those where it is not NaN), the smallest and
            largest of them, `alpha_min` and `alpha_max`, and `n`. A latent that follows the value
            of one arm has its learning rate in that arm's row and its forgetting rate in others'.
        """
        rows = []
        for (latent, choice), part in self.updates.groupby(["latent", "choice"], sort=False):
            part = part[part["alpha"].notna()]
            alpha = np.full(3, np.nan)
            if len(part):
                mean = np.average(part["alpha"], weights=part["n"])
                alpha = (mean, part["alpha"].min(), part["alpha"].max())
            rows.append((latent, choice, *alpha, int(part["n"].sum())))
        names = ["latent", "choice", "alpha", "alpha_min", "alpha_max", "n"]
        return pd.DataFrame(rows, columns=names)

    def to_markdown(self, digits=3):
        """The formulas as Markdown, a table each of updates, choice and dopamine.

        A term that rounds to 0 at so many digits is left out. The latent after a trial is `z1'`.
        """
        lines = []
        for title, head, rows in self._equations(digits):
            lines += [f"**{title}**", "", f"| {head} | formula | R² | RMS error | max error |"]
            lines.append("|---|---|---:|---:|---:|")
            for case, left, right, row in rows:
                errors = (_number(row[name], digits) for name in ("r2", "rms_error", "max_error"))
                lines.append(f"| {case} | `{left} = {right}` | {' | '.join(errors)} |")
            lines.append("")
        return "\n".join(lines)

    def to_latex(self, digits=3):
        """The formulas as lines of a LaTeX `align*`, R² and RMS error behind each."""
        lines = [r"\begin{align*}"]
        for _, _, rows in self._equations(digits, latex=True):
            for case, left, right, row in rows:
                errors = f"R^2 = {_number(row['r2'], digits)}"
                errors += f",\\ \\mathrm{{RMS}} = {_number(row['rms_error'], digits)}"
                behind = rf"\text{{{case}}}\ ({errors})" if case else f"({errors})"
                lines.append(rf"{left} &= {right} && {behind} \\")
        return "\n".join([*lines, r"\end{align*}", ""])

    def _equations(self, digits, latex=False):
        """`(title, head of the cases, [(case, left side, right side, row)])` of each table."""

        def symbol(latent, time):
            if not latex:
                return latent + ("'" if time else "")
            return f"z_{{{latent[1:]},t{'+1' if time else ''}}}"

        names = [name for name in self.choice.columns if name[:1] == "z" and name[1:].isdigit()]

        def terms(row, time=0):
            return "".join(
                f" {'-' if row[name] < 0 else '+'} {_number(abs(row[name]), digits)} "
                f"{symbol(name, time)}"
                for name in names
                if round(abs(row[name]), digits) > 0
            )

        tables = []
        updates = []
        for _, row in self.updates.iterrows():
            own = symbol(row["latent"], 0)
            right = own
            if np.isfinite(row["alpha"]) and np.isfinite(row["target"]):
                target = _number(row["target"], digits)
                right += f" + {_number(row['alpha'], digits)} ({target} - {own})"
            else:
                right += f" + {_number(row['drift'], digits)}"
            updates.append((_case(row), symbol(row["latent"], 1), right + terms(row), row))
        tables.append(("Updates", "choice, reward", updates))
        choice = [
            (
                f"arm {int(row['arm'])}",
                r"\mathrm{logit}" if latex else "logit",
                _number(row["intercept"], digits) + terms(row, int(latex)),
                row,
            )
            for _, row in self.choice.iterrows()
        ]
        tables.append(("Choice", "of", choice))
        if len(self.dopamine):
            time = int(self.reads == "post")
            rows = [
                (
                    _case(row),
                    _upright(row["signal"]) if latex else row["signal"],
                    _number(row["intercept"], digits) + terms(row, time),
                    row,
                )
                for _, row in self.dopamine.iterrows()
            ]
            tables.append(("Dopamine", "choice, reward", rows))
        return tables


def compute_formulas(model, sessions, *, threshold=OPEN_BELOW):
    """Fits a formula to each rule of a model, over the states that sessions go through.

    The noiseless network is run over the sessions. For every trial of a choice and a reward, least
    squares fit the change of each open latent as `alpha (target - latent)`, linear in the latent,
    plus a term for every open other latent that its update network can read. Every trial counts
    once, so states weigh as often as they are visited, and each error is one over visited states;
    nothing is said about others. A latent is open where its own bottleneck is below `threshold`; as
    an input also the reader's bottleneck on it has to be.

    An affine change of a latent leaves `alpha` as it is: where a network has learnt Q-learning,
    alpha is the learning rate, whatever the scale of its latents.

    >>> formulas = compute_formulas(model, sessions)
    >>> formulas.updates[["latent", "choice", "reward", "alpha", "target", "r2", "rms_error"]]

    Args:
        model: A built `DisRNNModel`.
        sessions: `keras_disrnn.data.Sessions` that it can read; of a model with subjects, those of
            one of them, whose formulas they are then.
        threshold: Sigma below which a bottleneck is open.

    Returns:
        A `Formulas`.

    Raises:
        ValueError: If the model is not built, reads other observations than the sessions have,
            there are more than 8 values of reward, or several subjects to a model that tells them
            apart.
    """
    check_built(model)
    sessions = sessions.for_model(model)
    several = len(set(sessions.subjects))
    if model.subjects and several > 1:
        raise ValueError(
            "sessions: expected those of one subject, as each has formulas of its own, got those "
            f"of {several}; pass sessions.of_subjects([{sessions.subjects[0]!r}]), or use "
            "compute_subject_rates"
        )
    embedding = embedding_of(model, sessions.subjects[0] if model.subjects else None)
    if model.num_observations != sessions.num_observations:
        raise ValueError(
            f"sessions: expected {model.num_observations} observations, as the model reads, got "
            f"{sessions.num_observations}"
        )
    features = sessions.features
    latents = predict_latents(model, features).astype(np.float64)
    # Row 0 tells of no trial; a trial's update leads from the row above its own to its own.
    happened = sessions.row_mask[:, 1:]
    seen = features[:, 1:][happened]
    before, after = latents[:, :-1][happened], latents[:, 1:][happened]
    rewards = np.unique(seen[:, 1])
    if len(rewards) > MOST_REWARDS:
        raise ValueError(
            f"sessions: expected at most {MOST_REWARDS} values of reward, for each of which there "
            f"is a formula, got {len(rewards)}"
        )
    cases = [
        (arm, float(reward), (seen[:, 0] == arm) & (seen[:, 1] == reward))
        for arm in range(model.num_arms)
        for reward in rewards
    ]
    names = latent_names(before.shape[1])
    cell = model.core.cell
    is_open = _numpy(cell.latent_bottleneck.sigma) < threshold
    reads = _numpy(cell.update_latent_bottleneck.sigma) < threshold
    updates = []
    for index in np.flatnonzero(is_open):
        others = [j for j in np.flatnonzero(is_open & reads[index]) if j != index]
        for arm, reward, where in cases:
            if where.any():
                row = _update(before[where], after[where], index, others, names)
                updates.append({"latent": names[index], "choice": arm, "reward": reward, **row})

    # The states that choices are made in: after every row, the first included.
    states = np.concatenate([latents[:, 0], after])
    read = _numpy(model.choice_readout.bottleneck.sigma)[: len(names)] < threshold
    inputs = np.flatnonzero(is_open & read)
    logits = _numpy(model.choice_readout(_tensor(rules.with_embedding(states, embedding))))
    if model.num_arms == 2:
        targets = {1: logits[:, 1] - logits[:, 0]}
    else:
        centred = logits - logits.mean(axis=-1, keepdims=True)
        targets = {arm: centred[:, arm] for arm in range(model.num_arms)}
    choice = [
        {"arm": arm, **_linear(states, target, inputs, names)} for arm, target in targets.items()
    ]
    dopamine, moment = [], None
    if model.dopamine_readout is not None:
        readout = model.dopamine_readout
        moment = readout.timing
        read = before if readout.reads_previous else after
        read_with = rules.with_embedding(np.concatenate([read, seen[:, :2]], axis=1), embedding)
        predicted = _numpy(readout(_tensor(read_with)))
        inputs = np.flatnonzero(_numpy(readout.bottleneck.sigma)[: len(names)] < threshold)
        signals = sessions.signal_names
        if len(signals) != predicted.shape[1]:
            signals = [f"dopamine_{i + 1}" for i in range(predicted.shape[1])]
        for signal, name in enumerate(signals):
            for arm, reward, where in cases:
                if where.any():
                    row = _linear(read[where], predicted[where, signal], inputs, names)
                    dopamine.append({"signal": name, "choice": arm, "reward": reward, **row})
    ends = ["r2", "rms_error", "max_error", "n"]
    case = ["choice", "reward"]
    return Formulas(
        pd.DataFrame(updates, columns=["latent", *case, "alpha", "target", "drift", *names, *ends]),
        pd.DataFrame(choice, columns=["arm", "intercept", *names, *ends]),
        pd.DataFrame(dopamine, columns=["signal", *case, "intercept", *names, *ends]),
        moment,
    )


def compute_subject_rates(model, sessions, *, threshold=OPEN_BELOW):
    """The learning rate of each subject, read off its own update rules.

    Args:
        model: A built `DisRNNModel` with subjects.
        sessions: `keras_disrnn.data.Sessions` of some of them.
        threshold: Sigma below which a bottleneck is open.

    Returns:
        A `pandas.DataFrame` with one row a subject of the sessions: `subject`, and for each open
        latent its learning rate, `learning rate z1`, ... (`Formulas.learning_rates`, of the choices
        the one that moves it most), and `learning rate`, their mean.

    Raises:
        ValueError: As `compute_formulas`.
    """
    rows = []
    for subject in dict.fromkeys(sessions.subjects):
        own = sessions.of_subjects([subject])
        rates = compute_formulas(model, own, threshold=threshold).learning_rates()
        alpha = rates.groupby("latent", sort=False)["alpha"].max()
        named = {f"learning rate {latent}": value for latent, value in alpha.items()}
        rows.append({"subject": subject, **named, "learning rate": alpha.mean()})
    return pd.DataFrame(rows)


def rule_tables(model, features=None, **settings):
    """The update, choice and dopamine functions of a model as tables, for any plotting program.

    Args:
        model: A built `DisRNNModel`.
        features, **settings: Of `compute_update_rules`, `compute_choice_rule` and
            `compute_dopamine_rule` alike: `points`, `threshold`, `reference`.

    Returns:
        Dict of `"update"`, `"choice"` and, where the model predicts it, `"dopamine"` to a
        `pandas.DataFrame`, as the `to_frame` of the rules gives it.
    """
    updates = rules.compute_update_rules(model, features, **settings)
    frames = [rule.to_frame() for rule in updates]
    tables = {
        "update": pd.concat(frames, ignore_index=True) if frames else pd.DataFrame(),
        "choice": rules.compute_choice_rule(model, features, **settings).to_frame(),
    }
    if model.dopamine_readout is not None:
        tables["dopamine"] = rules.compute_dopamine_rule(model, features, **settings).to_frame()
    return tables


def _update(before, after, index, others, names):
    """One row of `Formulas.updates`, from the latents of the trials of a case."""
    change = after[:, index] - before[:, index]
    own = before[:, index]
    moves = own.std() >= STILL
    inputs = [index, *others] if moves else others
    fitted = _linear(before, change, inputs, names)
    pull = fitted.pop(names[index])
    drift = fitted.pop("intercept")
    row = {"alpha": np.nan, "target": np.nan, "drift": drift, **fitted, names[index]: 0.0}
    if moves:
        row["alpha"] = -pull
        if abs(pull) > 1e-6:
            row["target"] = -drift / pull
    return row


def _linear(states, target, inputs, names):
    """Least squares of a target on some of the latents: intercept, coefficients and errors."""
    inputs = list(inputs)
    design = states[:, inputs].astype(np.float64)
    centre = design.mean(axis=0)
    mean = target.mean()
    weights = np.linalg.lstsq(design - centre, target - mean, rcond=1e-10)[0]
    error = target - mean - (design - centre) @ weights
    scatter = np.sum((target - mean) ** 2)
    row = {"intercept": mean - centre @ weights, **dict.fromkeys(names, 0.0)}
    row |= {names[i]: float(weight) for i, weight in zip(inputs, weights, strict=True)}
    return {
        **row,
        # What hardly varies at all is told by its mean; its R² would be one of rounding.
        "r2": float(1 - np.sum(error**2) / scatter) if scatter > 1e-9 * len(target) else np.nan,
        "rms_error": float(np.sqrt(np.mean(error**2))),
        "max_error": float(np.abs(error).max()),
        "n": len(target),
    }


def _upright(name):
    """A name in a LaTeX formula."""
    return r"\mathrm{" + name.replace("_", r"\_") + "}"


def _case(row):
    return f"{int(row['choice'])}, {row['reward']:g}"


def _number(value, digits):
    return "–" if not np.isfinite(value) else f"{value:.{digits}f}"


def _numpy(tensor):
    return np.asarray(keras.ops.convert_to_numpy(tensor), np.float64)


def _tensor(array):
    return keras.ops.convert_to_tensor(np.asarray(array, np.float32))

"""Describes a fitted network by equations for the updates, the choice and the dopamine."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pandas as pd

from keras_disrnn.analysis.arrays import to_numpy, to_tensor
from keras_disrnn.analysis.bottlenecks import check_built, is_latent, latent_names, open_latents
from keras_disrnn.analysis.network_rules import choice_logits, signal_names_of, with_embedding
from keras_disrnn.analysis.rules import contrast
from keras_disrnn.analysis.subjects import embedding_of
from keras_disrnn.models.latents import predict_latents
from keras_disrnn.utils.tables import escape_latex, format_number, summarized, to_markdown
from keras_disrnn.utils.thresholds import OPEN_BELOW

if TYPE_CHECKING:
    from keras_disrnn.data import Sessions
    from keras_disrnn.models.disrnn_model import DisRNNModel

MOST_REWARDS = 8
"""The largest number of different rewards. Each of them has its own formulas."""

CONSTANT_BELOW = 1e-4
"""A latent with a smaller standard deviation over the trials of a case has no learning rate."""

_ERRORS = ["r2", "rms_error", "max_error", "n"]


@summarized
class Formulas(NamedTuple):
    """Small formulas that were fitted to the networks of a model, each with its error.

    Attributes:
        updates: One row for each open latent, choice and reward, for the formula
            `latent <- latent + alpha (target - latent) + sum of coefficients times other latents`.
            Its columns are `latent`, `choice`, `reward`, `alpha`, `target` and `drift` (`alpha
            target`, or the mean change if alpha is NaN); the coefficient of each latent (0 if it is
            not in the formula); `r2`, `rms_error` and `max_error` of the change of the latent; and
            `n`, the number of trials of the fit. The target is NaN if alpha is 0. Both are NaN if
            the latent is nearly constant over the trials.
        choice: One row for each arm, for the formula `logit = intercept + sum of coefficients times
            latents`: `arm`, `intercept`, the coefficient of each latent, `r2`, `rms_error`,
            `max_error` and `n`. Two arms have one row, of arm 1 minus arm 0. With more arms, logits
            are relative to their mean over arms.
        dopamine: One row for each signal, choice and reward, for the formula `dopamine = intercept
            + sum of coefficients times latents`: `signal`, `choice` and `reward`, then the columns
            of `choice` after `arm`. Empty without a dopamine readout.
        timing: `"pre"` or `"post"`: the dopamine readout reads the latents before or after the
            update. `None` without a dopamine readout.

    Example:

    >>> import pandas as pd
    >>> from keras_disrnn.analysis import Formulas
    >>> updates = pd.DataFrame(
    ...     {"latent": "z1", "choice": 0, "reward": [0.0, 1.0], "alpha": [0.1, 0.3], "n": [1, 1]}
    ... )
    >>> formulas = Formulas(updates, pd.DataFrame(), pd.DataFrame(), timing=None)
    >>> formulas.learning_rates()["alpha"].round(2).tolist()
    [0.2]
    """

    updates: pd.DataFrame
    choice: pd.DataFrame
    dopamine: pd.DataFrame
    timing: str | None

    def _contents(self) -> Mapping[str, object]:
        return {
            "updates": len(self.updates),
            "choice": len(self.choice),
            "dopamine": len(self.dopamine),
            "timing": self.timing,
        }

    def _repr_html_(self) -> str:
        return "".join(
            f"<h4>{title}</h4>{table.to_html(index=False, border=0, escape=True)}"
            for title, table, _ in self._tables(digits=3)
        )

    def learning_rates(self) -> pd.DataFrame:
        """Returns the learning rate of each open latent for each choice.

        If a latent follows the value of one arm, the row of this arm has its learning rate. The
        rows of other arms then have its forgetting rate.

        Returns:
            A table with one row for each latent and choice: `latent`, `choice`, `alpha` (the mean
            over rewards, weighted by trials, without NaN), `alpha_min` and `alpha_max` (its
            smallest and largest value over rewards) and `n` (trials).
        """
        rows = []
        for (latent, choice), part in self.updates.groupby(["latent", "choice"], sort=False):
            part = part[part["alpha"].notna()]
            alpha = (np.nan, np.nan, np.nan)
            if len(part):
                mean = np.average(part["alpha"], weights=part["n"])
                alpha = (mean, part["alpha"].min(), part["alpha"].max())
            rows.append((latent, choice, *alpha, int(part["n"].sum())))
        names = ["latent", "choice", "alpha", "alpha_min", "alpha_max", "n"]
        return pd.DataFrame(rows, columns=names)

    def to_markdown(self, digits: int = 3) -> str:
        """Writes the formulas as Markdown: a table each of updates, choice and dopamine.

        A term that rounds to 0 is left out. The value of `z1` after the trial is `z1'`.

        Args:
            digits: Decimals of all numbers.

        Returns:
            The Markdown.
        """
        return "\n".join(
            f"**{title}**\n\n{to_markdown(table, code='formula')}"
            for title, table, _ in self._tables(digits)
        )

    def to_latex(self, digits: int = 3) -> str:
        """Writes the formulas as a LaTeX `align*`, each line with its R² and RMS error.

        Args:
            digits: Decimals of all numbers.

        Returns:
            The LaTeX.
        """
        lines = [r"\begin{align*}"]
        for _, _, equations in self._tables(digits, latex=True):
            for case, left, right, row in equations:
                errors = f"R^2 = {format_number(row['r2'], digits)}"
                errors += f",\\ \\mathrm{{RMS}} = {format_number(row['rms_error'], digits)}"
                after = rf"\text{{{case}}}\ ({errors})"
                lines.append(rf"{left} &= {right} && {after} \\")
        return "\n".join([*lines, r"\end{align*}", ""])

    def _tables(
        self, digits: int, latex: bool = False
    ) -> Iterator[tuple[str, pd.DataFrame, list[tuple[str, str, str, pd.Series]]]]:
        """Yields the title, the table as text and the equations of each part.

        An equation is its case, its left side, its right side and its row.
        """
        names = [name for name in self.choice.columns if is_latent(name)]

        def symbol(latent: str, after: bool) -> str:
            if not latex:
                return latent + ("'" if after else "")
            return f"z_{{{latent[1:]},t{'+1' if after else ''}}}"

        def terms(row: pd.Series, after: bool = False) -> str:
            return "".join(
                f" {'-' if row[name] < 0 else '+'} {format_number(abs(row[name]), digits)} "
                f"{symbol(name, after)}"
                for name in names
                if round(abs(row[name]), digits) > 0
            )

        def linear(row: pd.Series, after: bool) -> str:
            return format_number(row["intercept"], digits) + terms(row, after)

        def case(row: pd.Series) -> str:
            return f"{int(row['choice'])}, {row['reward']:g}"

        def upright(name: str) -> str:
            return rf"\mathrm{{{escape_latex(name)}}}" if latex else name

        updates = []
        for _, row in self.updates.iterrows():
            own = symbol(row["latent"], after=False)
            change = format_number(row["drift"], digits)
            if np.isfinite(row["alpha"]) and np.isfinite(row["target"]):
                target = format_number(row["target"], digits)
                change = f"{format_number(row['alpha'], digits)} ({target} - {own})"
            right = f"{own} + {change}{terms(row)}"
            updates.append((case(row), symbol(row["latent"], after=True), right, row))
        # In LaTeX the choice of trial t + 1 reads the latents after trial t.
        choice = [
            (f"arm {int(row['arm'])}", upright("logit"), linear(row, after=latex), row)
            for _, row in self.choice.iterrows()
        ]
        dopamine = [
            (case(row), upright(row["signal"]), linear(row, after=self.timing == "post"), row)
            for _, row in self.dopamine.iterrows()
        ]
        for title, head, equations in (
            ("Updates", "choice, reward", updates),
            ("Choice", "of", choice),
            ("Dopamine", "choice, reward", dopamine),
        ):
            if equations or title != "Dopamine":
                yield title, _text_table(head, equations, digits), equations


def compute_formulas(
    model: DisRNNModel, sessions: Sessions, *, threshold: float = OPEN_BELOW
) -> Formulas:
    """Fits formulas to the networks of a model, over the states that sessions visit.

    Runs the model on the sessions and fits the change of each open latent by least squares, for
    each choice and reward. The change is `alpha (target - latent)`, which is linear in the latent.
    Every other open latent that its update network can read adds a linear term. Parts that were
    never trained have no formulas. Every trial has the same weight, so the errors are errors over
    visited states. A latent is open if its own bottleneck is below `threshold`. As an input, the
    reader's bottleneck on it must be open too.

    `alpha` does not depend on the scale and offset of a latent. If a network has learned
    Q-learning, alpha is the learning rate.

    Args:
        model: A built `DisRNNModel`.
        sessions: Sessions that the model can read. A model with subjects has formulas for each of
            them, so give it the sessions of one subject.
        threshold: A bottleneck is open if its sigma is below this.

    Returns:
        The formulas.

    Raises:
        ValueError: If the model is not built, reads other observations than the sessions have, or
            distinguishes subjects and the sessions are from several; or if there are more than 8
            different rewards.

    Example:

    >>> import keras_disrnn
    >>> from keras_disrnn.analysis import compute_formulas
    >>> sessions = keras_disrnn.data.Sessions.from_trials([[0, 1, 1, 0] * 5], [[1, 0] * 10])
    >>> model = keras_disrnn.DisRNNModel(num_latents=1, num_signals=0, seed=0)
    >>> formulas = compute_formulas(model, sessions)
    >>> formulas
    Formulas(updates=4, choice=1, dopamine=0, timing=None)
    >>> formulas.updates[["latent", "choice", "reward", "n"]].values.tolist()[0]
    ['z1', 0, 0.0, 5]
    """
    check_built(model)
    sessions = sessions.for_model(model)
    several = len(set(sessions.subjects))
    if model.subjects and several > 1:
        raise ValueError(
            f"sessions: expected those of one subject, got those of {several}; pass "
            f"sessions.of_subjects([{sessions.subjects[0]!r}]), or use compute_subject_rates"
        )
    embedding = embedding_of(model, sessions.subjects[0] if model.subjects else None)
    if model.num_observations != sessions.num_observations:
        raise ValueError(
            f"sessions: expected {model.num_observations} observations, as the model reads, got "
            f"{sessions.num_observations}"
        )
    features = sessions.features
    latents = predict_latents(model, features).astype(np.float64)
    # Time step 0 describes no trial. Time step t has the latents after trial t - 1.
    happened = sessions.row_mask[:, 1:]
    seen = features[:, 1:][happened]
    before, after = latents[:, :-1][happened], latents[:, 1:][happened]
    rewards = np.unique(seen[:, 1])
    if len(rewards) > MOST_REWARDS:
        raise ValueError(
            f"sessions: expected at most {MOST_REWARDS} values of reward, got {len(rewards)}; each "
            "value needs its own formulas"
        )
    cases = {}
    for arm, reward in itertools.product(range(model.num_arms), rewards):
        where = (seen[:, 0] == arm) & (seen[:, 1] == reward)
        if where.any():
            cases[arm, float(reward)] = where
    names = latent_names(before.shape[1])
    cell = model.core.cell
    is_open = np.isin(names, open_latents(model, threshold))
    reads = to_numpy(cell.update_latent_bottleneck.sigma) < threshold
    updates = []
    for index in np.flatnonzero(is_open).tolist():
        others = [j for j in np.flatnonzero(is_open & reads[index]).tolist() if j != index]
        for (arm, reward), where in cases.items():
            row = _update(before[where], after[where], index, others, names)
            updates.append({"latent": names[index], "choice": arm, "reward": reward, **row})

    # Choices are made in the states after every time step, including the first.
    states = np.concatenate([latents[:, 0], after])
    read = to_numpy(model.choice_readout.bottleneck.sigma)[: len(names)] < threshold
    inputs = np.flatnonzero(is_open & read).tolist()
    logits = contrast(choice_logits(model, states, embedding))
    targets = {1: logits} if logits.ndim == 1 else dict(enumerate(logits.T))
    if "choice_readout" in model.untrained:
        targets = {}
    choice = [
        {"arm": arm, **_linear(states, target, inputs, names)} for arm, target in targets.items()
    ]
    dopamine, timing = [], None
    readout = model.dopamine_readout
    if readout is not None and "dopamine_readout" not in model.untrained:
        timing = readout.timing
        read = before if readout.reads_previous else after
        steps = with_embedding(np.concatenate([read, seen[:, :2]], axis=1), embedding)
        predicted = to_numpy(readout(to_tensor(steps)))
        read_sigma = to_numpy(readout.bottleneck.sigma)[: len(names)]
        inputs = np.flatnonzero(read_sigma < threshold).tolist()
        signals = sessions.signal_names
        if len(signals) != predicted.shape[1]:
            signals = signal_names_of(predicted.shape[1])
        for signal, name in enumerate(signals):
            for (arm, reward), where in cases.items():
                row = _linear(read[where], predicted[where, signal], inputs, names)
                dopamine.append({"signal": name, "choice": arm, "reward": reward, **row})
    case, linear = ["choice", "reward"], ["intercept", *names, *_ERRORS]
    change = ["alpha", "target", "drift", *names, *_ERRORS]
    return Formulas(
        pd.DataFrame(updates, columns=["latent", *case, *change]),
        pd.DataFrame(choice, columns=["arm", *linear]),
        pd.DataFrame(dopamine, columns=["signal", *case, *linear]),
        timing,
    )


def compute_subject_rates(
    model: DisRNNModel, sessions: Sessions, *, threshold: float = OPEN_BELOW
) -> pd.DataFrame:
    """Computes the learning rate of each subject from its own update rules.

    Args:
        model: A built `DisRNNModel` with subjects.
        sessions: Sessions of some of the subjects.
        threshold: A bottleneck is open if its sigma is below this.

    Returns:
        A table with one row for each subject of the sessions. Its columns are `subject`; the
        learning rate of each open latent, `learning rate z1`, ... (the largest over choices of
        `Formulas.learning_rates`); and `learning rate`, their mean.

    Raises:
        ValueError: See `compute_formulas`.

    Example:

    >>> import keras_disrnn
    >>> from keras_disrnn.analysis import compute_subject_rates
    >>> sessions = keras_disrnn.data.Sessions.from_trials(
    ...     [[0, 1, 1, 0] * 5] * 2, [[1, 0] * 10] * 2, subjects=["m1", "m2"]
    ... )
    >>> model = keras_disrnn.DisRNNModel(
    ...     num_observations=3, num_latents=1, num_signals=0,
    ...     subjects=["m1", "m2"], subject_units=1, seed=0,
    ... )
    >>> list(compute_subject_rates(model, sessions)["subject"])
    ['m1', 'm2']
    """
    rows = []
    for subject in dict.fromkeys(sessions.subjects):
        own = sessions.of_subjects([subject])
        rates = compute_formulas(model, own, threshold=threshold).learning_rates()
        alpha = rates.groupby("latent", sort=False)["alpha"].max()
        named = {f"learning rate {latent}": value for latent, value in alpha.items()}
        rows.append({"subject": subject, **named, "learning rate": alpha.mean()})
    return pd.DataFrame(rows)


def _text_table(
    head: str, equations: Sequence[tuple[str, str, str, pd.Series]], digits: int
) -> pd.DataFrame:
    """A table of text with one row for each equation."""
    columns: dict[str, list[str]] = {
        head: [case for case, _, _, _ in equations],
        "formula": [f"{left} = {right}" for _, left, right, _ in equations],
    }
    for title, name in (("R²", "r2"), ("RMS error", "rms_error"), ("max error", "max_error")):
        columns[title] = [format_number(row[name], digits) for *_, row in equations]
    return pd.DataFrame(columns)


def _update(
    before: np.ndarray, after: np.ndarray, index: int, others: Sequence[int], names: Sequence[str]
) -> dict[str, float]:
    """Fits one row of `Formulas.updates` to the latents of the trials of a case."""
    change = after[:, index] - before[:, index]
    own = before[:, index]
    varies = own.std() >= CONSTANT_BELOW
    inputs = [index, *others] if varies else others
    fitted = _linear(before, change, inputs, names)
    pull = fitted.pop(names[index])
    drift = fitted.pop("intercept")
    row = {"alpha": np.nan, "target": np.nan, "drift": drift, **fitted, names[index]: 0.0}
    if varies:
        row["alpha"] = -pull
        if abs(pull) > 1e-6:
            row["target"] = -drift / pull
    return row


def _linear(
    states: np.ndarray, target: np.ndarray, inputs: Sequence[int], names: Sequence[str]
) -> dict[str, float]:
    """Fits a target by least squares to some of the latents: intercept, coefficients, errors."""
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
        # R² of a target that hardly varies would only measure rounding errors.
        "r2": float(1 - np.sum(error**2) / scatter) if scatter > 1e-9 * len(target) else np.nan,
        "rms_error": float(np.sqrt(np.mean(error**2))),
        "max_error": float(np.abs(error).max()),
        "n": len(target),
    }

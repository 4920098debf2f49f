"""Compares several models on the same sessions, as in Table 1 of Jain et al. (2025)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from keras_disrnn.analysis.bootstrap import (
    SCORES,
    Totals,
    draw_sessions,
    score_totals,
    with_interval,
)
from keras_disrnn.analysis.evaluation import session_totals
from keras_disrnn.analysis.predictions import Predictions, SessionTotals
from keras_disrnn.utils.tables import escape_markdown, format_interval, to_latex, to_markdown

if TYPE_CHECKING:
    from keras_disrnn.data import Sessions

TITLES = {
    "normalized_likelihood": "normalized likelihood",
    "mse": "dopamine MSE",
    "r2": "dopamine R²",
}
"""The names of the scores in tables and figures."""

PARTS = {"train": "training sessions", "held_out": "held-out sessions"}
"""The names of the parts of a data set in tables and figures."""

_BLOCKS = {"": "scores", "_difference": "differences to {against}, paired by session"}
"""Endings of column names, and the title of the block of each."""


def compute_comparison(
    models: Mapping[str, Any],
    parts: Mapping[str, Sessions],
    *,
    against: str | None = None,
    replicates: int = 2000,
    seed: int = 0,
    confidence: float = 0.95,
) -> pd.DataFrame:
    """Scores models on parts of a data set, with bootstrap intervals over sessions.

    Scores are pooled over targets, as in `compute_evaluation`. Intervals are percentile intervals.
    Every model is scored on the same bootstrap samples, so differences are paired. An interval is
    NaN if there is only one session, or no session with a target of the kind.

    Args:
        models: Mapping of name to a Keras model, or to a mapping of subject to Keras model. For a
            model that is not a Keras model: a mapping of part to `Predictions` or `SessionTotals`.
        parts: Mapping of name, such as `"train"` and `"held_out"`, to sessions.
        against: Name of the model that differences are taken to; the first when `None`.
        replicates: Number of bootstrap samples.
        seed: Seed of the bootstrap samples.
        confidence: Confidence level of the intervals.

    Returns:
        A table with one row for each part and model. Its columns are `part`, `model`,
        `parameters` (number of fitted parameters), `sessions`, `choices` and `responses`. For each
        score `normalized_likelihood`, `mse` and `r2` there are the score, its `_lower` and
        `_upper` end, and the same with `_difference` after the name: the score of the model minus
        that of `against`. Dopamine scores of a model without dopamine are NaN. `attrs["against"]`
        is the name of the model that differences are taken to.

    Raises:
        ValueError: If no model has the name `against`, or a subject has no model.

    Example:

    >>> import keras_disrnn
    >>> import numpy as np
    >>> from keras_disrnn.analysis import Predictions, comparison_markdown, compute_comparison
    >>> sessions = keras_disrnn.data.Sessions.from_trials([[0, 1], [1, 1]], [[1, 0], [0, 1]])
    >>> chance = {"train": Predictions(np.zeros((2, 3, 2)))}
    >>> print(comparison_markdown(compute_comparison({"chance": chance}, {"train": sessions})))
    Training sessions (2 sessions, 4 choices): scores
    <BLANKLINE>
    | model | parameters | normalized likelihood |
    |---|---:|---:|
    | chance | 0 | 0.5000 |
    <BLANKLINE>
    """
    against = _check_against(models, against)
    totals = {
        part: {
            name: session_totals(_in_part(model, part), sessions) for name, model in models.items()
        }
        for part, sessions in parts.items()
    }
    counts = {name: _parameter_count(model) for name, model in models.items()}
    return _tabulate(totals, parts, counts, against, replicates, seed, confidence)


def compute_fold_comparison(
    folds: Mapping[str, Mapping[str, Any]],
    sessions: Sessions,
    *,
    against: str | None = None,
    replicates: int = 2000,
    seed: int = 0,
    confidence: float = 0.95,
) -> pd.DataFrame:
    """Compares models that were fitted with each subject held out in turn.

    Each fold has models that were fitted without one subject. As a held-out session, a session is
    scored by the models of the fold that left its subject out. As a training session, it is scored
    by the models of all other folds. Both scores are pooled over all sessions. The bootstrap
    samples sessions and does not fit the models again.

    Args:
        folds: Mapping of subject to the models that were fitted without it. The models are a
            mapping of name to Keras model, with the same names in every fold.
        sessions: The sessions of all subjects.
        against: See `compute_comparison`.
        replicates: See `compute_comparison`.
        seed: See `compute_comparison`.
        confidence: See `compute_comparison`.

    Returns:
        The table of `compute_comparison` with the parts `"train"` and `"held_out"`. `parameters`
        are those of one fold.

    Raises:
        ValueError: If no model has the name `against`, or folds and subjects differ.

    Example:

    >>> from keras_disrnn import baselines
    >>> from keras_disrnn.analysis import compute_fold_comparison
    >>> from keras_disrnn.data import Sessions
    >>> sessions = Sessions.from_trials([[0, 1], [1, 1]], [[1, 0], [0, 1]], subjects=["a", "b"])
    >>> naive = baselines.Naive(num_signals=0)
    >>> folds = {"a": {"naive": naive}, "b": {"naive": naive}}
    >>> compute_fold_comparison(folds, sessions, replicates=10)["part"].tolist()
    ['train', 'held_out']
    """
    if set(folds) != set(sessions.subjects):
        raise ValueError(
            f"folds: expected one for each subject, {', '.join(dict.fromkeys(sessions.subjects))}, "
            f"got {', '.join(folds)}"
        )
    first = next(iter(folds.values()))
    against = _check_against(first, against)
    subjects = np.asarray(sessions.subjects, dtype=object)
    totals: dict[str, dict[str, Totals]] = {"train": {}, "held_out": {}}
    for name in first:
        # Take the sums of every fold over all sessions, so that R² refers to one mean.
        by_fold = {subject: session_totals(fold[name], sessions) for subject, fold in folds.items()}
        totals["train"][name] = _sum_over_folds(by_fold, lambda subject: subjects != subject)
        totals["held_out"][name] = _sum_over_folds(by_fold, lambda subject: subjects == subject)
    counts = {name: _parameter_count(model) for name, model in first.items()}
    parts = dict.fromkeys(totals, sessions)
    return _tabulate(totals, parts, counts, against, replicates, seed, confidence)


def reference_model(table: pd.DataFrame) -> str:
    """Returns the name of the model that the differences in a comparison are taken to."""
    return table.attrs.get("against", table["model"].iloc[0])


def comparison_cells(table: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Formats a comparison as text, in blocks.

    Args:
        table: What `compute_comparison` returns.

    Returns:
        A dict of title, such as "Held-out sessions (3 sessions, 60 choices): scores", to a table of
        text with one row for each model.
    """
    return {f"{part}: {title}": cells for part, title, cells in _blocks(table)}


def comparison_markdown(table: pd.DataFrame) -> str:
    """Writes a comparison as Markdown: for each part the scores, then the differences.

    Intervals are in brackets. A dopamine score that no model has is left out.

    Args:
        table: What `compute_comparison` returns.

    Returns:
        The Markdown.

    Example:

    >>> import numpy as np
    >>> from keras_disrnn.analysis import Predictions, comparison_markdown, compute_comparison
    >>> from keras_disrnn.data import Sessions
    >>> sessions = Sessions.from_trials([[0, 1], [1, 1]], [[1, 0], [0, 1]])
    >>> chance = {"train": Predictions(np.zeros((2, 3, 2)))}
    >>> table = compute_comparison({"chance": chance}, {"train": sessions})
    >>> comparison_markdown(table).splitlines()[0]
    'Training sessions (2 sessions, 4 choices): scores'
    """
    blocks = comparison_cells(table).items()
    return "\n".join(f"{escape_markdown(title)}\n\n{to_markdown(cells)}" for title, cells in blocks)


def comparison_latex(table: pd.DataFrame) -> str:
    """Writes a comparison as LaTeX, for the package booktabs.

    There is one `tabular` for each part, with the scores and below them the differences.

    Args:
        table: What `compute_comparison` returns.

    Returns:
        The LaTeX.

    Example:

    >>> import numpy as np
    >>> from keras_disrnn.analysis import Predictions, comparison_latex, compute_comparison
    >>> from keras_disrnn.data import Sessions
    >>> sessions = Sessions.from_trials([[0, 1], [1, 1]], [[1, 0], [0, 1]])
    >>> chance = {"train": Predictions(np.zeros((2, 3, 2)))}
    >>> latex = comparison_latex(compute_comparison({"chance": chance}, {"train": sessions}))
    >>> latex.splitlines()[0]
    '% Training sessions (2 sessions, 4 choices)'
    """
    parts: dict[str, dict[str, pd.DataFrame]] = {}
    for part, title, cells in _blocks(table):
        parts.setdefault(part, {})[title if parts.get(part) else ""] = cells
    return "\n".join(f"% {part}\n{to_latex(blocks)}" for part, blocks in parts.items())


def _blocks(table: pd.DataFrame) -> Iterator[tuple[str, str, pd.DataFrame]]:
    """Yields the part with its counts, the title and the text cells of each block."""
    against = reference_model(table)
    for part, rows in table.groupby("part", sort=False):
        scores = [score for score in SCORES if rows[score].notna().any()]
        title = PARTS.get(part, part)
        first = rows.iloc[0]
        counts = f"{first['sessions']} sessions, {first['choices']} choices"
        if first["responses"]:
            counts += f", {first['responses']} responses"
        for suffix, block in _BLOCKS.items():
            shown = rows[rows["model"] != against] if suffix else rows
            columns = {"model": shown["model"].astype(str)}
            if not suffix:
                columns["parameters"] = shown["parameters"].astype(str)
            for score in scores:
                names = [f"{score}{suffix}{end}" for end in ("", "_lower", "_upper")]
                columns[TITLES[score]] = [format_interval(*row) for row in shown[names].to_numpy()]
            if len(shown):
                heading = f"{title[0].upper()}{title[1:]} ({counts})"
                yield heading, block.format(against=against), pd.DataFrame(columns)


def _tabulate(
    totals: Mapping[str, Mapping[str, Totals]],
    parts: Mapping[str, Sessions],
    counts: Mapping[str, int],
    against: str,
    replicates: int,
    seed: int,
    confidence: float,
) -> pd.DataFrame:
    """Makes the table from the sums of each part and model."""
    rows = []
    for part, by_model in totals.items():
        sessions = parts[part]
        drawn = draw_sessions(sessions.num_sessions, replicates, seed)
        found = {name: score_totals(sums, drawn) for name, sums in by_model.items()}
        reference_values, reference_draws = found[against]
        for name, (values, draws) in found.items():
            row = {
                "part": part,
                "model": name,
                "parameters": counts[name],
                "sessions": sessions.num_sessions,
                "choices": int((sessions.choice_weight > 0).sum()),
                "responses": int((sessions.dopamine_weight > 0).sum()),
            }
            for score in SCORES:
                row |= with_interval(score, float(values[score]), draws[score], confidence)
            for score in SCORES:
                row |= with_interval(
                    f"{score}_difference",
                    float(values[score] - reference_values[score]),
                    draws[score] - reference_draws[score],
                    confidence,
                )
            rows.append(row)
    table = pd.DataFrame(rows)
    table.attrs["against"] = against
    return table


def _check_against(models: Mapping[str, Any], against: str | None) -> str:
    if not models:
        raise ValueError("models: expected at least one, got none")
    against = next(iter(models)) if against is None else against
    if against not in models:
        raise ValueError(
            f"against: expected the name of one of {', '.join(map(repr, models))}, got {against!r}"
        )
    return against


def _sum_over_folds(by_fold: Mapping[str, Totals], inside: Callable[[str], np.ndarray]) -> Totals:
    """Sums over folds the sums of the sessions that `inside` selects for each fold."""
    choice, dopamine = [], []
    for subject, (choice_sums, dopamine_sums) in by_fold.items():
        weight = inside(subject).astype(float)
        choice.append(weight[:, None] * choice_sums)
        if dopamine_sums is not None:
            dopamine.append(weight[:, None, None] * dopamine_sums)
    return np.sum(choice, axis=0), np.sum(dopamine, axis=0) if dopamine else None


def _in_part(model: Any, part: str) -> Any:
    """Returns a Keras model as it is, or the predictions or sums for a part."""
    if isinstance(model, Mapping) and isinstance(model.get(part), Predictions | SessionTotals):
        return model[part]
    return model


def _parameter_count(model: Any) -> int:
    if isinstance(model, Mapping):
        counts = [_parameter_count(each) for each in model.values()]
        alike = isinstance(next(iter(model.values())), Predictions | SessionTotals)
        return counts[0] if alike else sum(counts)
    own = getattr(model, "parameter_count", None)
    return model.count_params() if own is None else own

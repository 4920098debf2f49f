"""Several models side by side on the same sessions, as in Table 1 of Jain et al. (2025)."""

from collections.abc import Mapping

import numpy as np
import pandas as pd

from keras_disrnn.analysis.bootstrap import (
    SCORES,
    draw_sessions,
    four_digits,
    score_totals,
    with_interval,
)
from keras_disrnn.analysis.evaluation import Predictions, SessionTotals, session_totals

TITLES = {
    "normalized_likelihood": "normalized likelihood",
    "mse": "dopamine MSE",
    "r2": "dopamine R²",
}
"""What the scores are called in tables and figures."""

PARTS = {"train": "training sessions", "held_out": "held-out sessions"}
"""What the parts of a data set are called in tables and figures."""


def compute_comparison(models, parts, *, against=None, replicates=2000, seed=0, confidence=0.95):
    """Scores of models on parts of a data set, with bootstrap intervals over sessions.

    Scores are pooled over targets, as in `compute_evaluation`. An interval holds the middle share
    of the scores of resampled sessions; every model sees the same resamples, so the differences are
    paired. Where there is one session, or none with a target of the kind, an interval is NaN.

    Args:
        models: Dict of name to a Keras model, or to a dict of subject to model. Or to a dict of
            part to `Predictions` or `SessionTotals`, of what is no Keras model.
        parts: Dict of name, such as "train" and "held_out", to `keras_disrnn.data.Sessions`.
        against: Name of the model that differences are taken to; the first when `None`.
        replicates: Number of resamples.
        seed: Of the resamples.
        confidence: Of the intervals.

    Returns:
        A `pandas.DataFrame`, a row for each part and model, with the columns `part`, `model`,
        `parameters` (fitted numbers), `sessions`, `choices`, `responses`; for each score
        `normalized_likelihood`, `mse` and `r2` its value and `_lower` and `_upper`; and for each of
        them `_difference` (the model's score minus that of `against`), `_difference_lower` and
        `_difference_upper`. Dopamine scores of a model without dopamine are NaN. `attrs["against"]`
        names the model of the differences.

    Raises:
        ValueError: If there is no model of the name `against`, or a subject has no model.
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
    folds, sessions, *, against=None, replicates=2000, seed=0, confidence=0.95
):
    """The table of `compute_comparison` where each subject's sessions were held out in turn.

    Each fold has models that were fitted without one subject. Held out, a session is scored by the
    models of the fold that left its subject out, and the scores are pooled over all sessions. As
    training data it is scored by the models of all other folds, pooled likewise. Resamples are of
    sessions: the models of the folds are taken as they are.

    Args:
        folds: Dict of subject to the models that were fitted without it: dict of name to Keras
            model, the same names in every fold.
        sessions: `keras_disrnn.data.Sessions` of all subjects.
        against, replicates, seed, confidence: As for `compute_comparison`.

    Returns:
        The table of `compute_comparison` with the parts "train" and "held_out". `parameters` are
        those of one fold.

    Raises:
        ValueError: If there is no model of the name `against`, or folds and subjects are not the
            same.
    """
    if set(folds) != set(sessions.subjects):
        raise ValueError(
            f"folds: expected one for each subject, {', '.join(dict.fromkeys(sessions.subjects))}, "
            f"got {', '.join(folds)}"
        )
    first = next(iter(folds.values()))
    against = _check_against(first, against)
    subjects = np.asarray(sessions.subjects, dtype=object)
    totals = {"train": {}, "held_out": {}}
    for name in first:
        # All folds' sums are taken of all sessions, so that R^2 is about one mean.
        by_fold = {subject: session_totals(fold[name], sessions) for subject, fold in folds.items()}
        totals["train"][name] = _sum_over_folds(by_fold, lambda subject: subjects != subject)
        totals["held_out"][name] = _sum_over_folds(by_fold, lambda subject: subjects == subject)
    counts = {name: _parameter_count(model) for name, model in first.items()}
    parts = dict.fromkeys(totals, sessions)
    return _tabulate(totals, parts, counts, against, replicates, seed, confidence)


def reference_model(table):
    """Name of the model that the differences of a table of `compute_comparison` are taken to."""
    return table.attrs.get("against", table["model"].iloc[0])


def comparison_markdown(table):
    """The table of `compute_comparison` as Markdown: scores, then differences, by part.

    Intervals are in brackets; a dopamine score that no model has is left out.
    """
    lines = []
    for title, cells in comparison_cells(table).items():
        marks = ["---:" if head == "parameters" else "---" for head in cells]
        lines += [title, "", f"| {' | '.join(cells)} |", f"|{'|'.join(marks)}|"]
        lines += [f"| {' | '.join(row)} |" for row in cells.itertuples(index=False)]
        lines.append("")
    return "\n".join(lines)


def comparison_cells(table):
    """The table of `compute_comparison` as it is printed.

    Args:
        table: What `compute_comparison` returned.

    Returns:
        Dict of a title, such as "Held-out sessions (3 sessions, 60 choices): scores", to a
        `pandas.DataFrame` of text, one row a model.
    """
    against, blocks = reference_model(table), {}
    for part, rows in table.groupby("part", sort=False):
        scores = _present_scores(rows)
        for suffix, title in _BLOCKS.items():
            shown = [row for _, row in _shown(rows, suffix and against)]
            cells = {"model": [row["model"] for row in shown]}
            if not suffix:
                cells["parameters"] = [str(row["parameters"]) for row in shown]
            for score in scores:
                cells[TITLES[score]] = [_cell(row, f"{score}{suffix}") for row in shown]
            what = title.format(against=against)
            blocks[f"{_part_title(part)} ({_counts(rows)}): {what}"] = pd.DataFrame(cells)
    return blocks


def comparison_latex(table):
    """The table of `compute_comparison` as LaTeX, for the package booktabs.

    One `tabular` a part, with scores, and differences below them; intervals are in brackets.
    """
    against, lines = reference_model(table), []
    for part, rows in table.groupby("part", sort=False):
        scores = _present_scores(rows)
        heads = [_escape(TITLES[score]) for score in scores]
        lines += [
            f"% {_part_title(part)} ({_counts(rows)})",
            rf"\begin{{tabular}}{{lr{'l' * len(scores)}}}",
            r"\toprule",
            rf"model & parameters & {' & '.join(heads)} \\",
        ]
        for suffix, title in _BLOCKS.items():
            lines.append(r"\midrule")
            if suffix:
                what = title.format(against=against)
                width = 2 + len(scores)
                lines.append(rf"\multicolumn{{{width}}}{{l}}{{\textit{{{_escape(what)}}}}} \\")
            for _, row in _shown(rows, suffix and against):
                cells = [_escape(row["model"]), "" if suffix else str(row["parameters"])]
                cells += [_latex_cell(_cell(row, f"{score}{suffix}")) for score in scores]
                lines.append(rf"{' & '.join(cells)} \\")
        lines += [r"\bottomrule", r"\end{tabular}", ""]
    return "\n".join(lines)


_BLOCKS = {"": "scores", "_difference": "differences to {against}, paired by session"}
"""Ends of the columns' names to what stands in them."""


def _tabulate(totals, parts, counts, against, replicates, seed, confidence):
    rows = []
    for part, by_model in totals.items():
        sessions = parts[part]
        drawn = draw_sessions(sessions.n_sessions, replicates, seed)
        found = {name: score_totals(sums, drawn) for name, sums in by_model.items()}
        reference_values, reference_draws = found[against]
        for name, (values, draws) in found.items():
            row = {
                "part": part,
                "model": name,
                "parameters": counts[name],
                "sessions": sessions.n_sessions,
                "choices": int((sessions.choice_weight > 0).sum()),
                "responses": int((sessions.dopamine_weight > 0).sum()),
            }
            for score in SCORES:
                row |= with_interval(score, values[score], draws[score], confidence)
            for score in SCORES:
                row |= with_interval(
                    f"{score}_difference",
                    values[score] - reference_values[score],
                    draws[score] - reference_draws[score],
                    confidence,
                )
            rows.append(row)
    table = pd.DataFrame(rows)
    table.attrs["against"] = against
    return table


def _check_against(models, against):
    if not models:
        raise ValueError("models: expected at least one, got none")
    against = next(iter(models)) if against is None else against
    if against not in models:
        raise ValueError(
            f"against: expected the name of one of {', '.join(map(repr, models))}, got {against!r}"
        )
    return against


def _sum_over_folds(by_fold, inside):
    """Sums over folds of the sums of the sessions that `inside` picks for each fold."""
    choice, dopamine = 0.0, 0.0
    for subject, (choice_sums, dopamine_sums) in by_fold.items():
        weight = inside(subject).astype(float)
        choice = choice + weight[:, None] * choice_sums
        if dopamine_sums is None:
            dopamine = None
        else:
            dopamine = dopamine + weight[:, None, None] * dopamine_sums
    return choice, dopamine


def _in_part(model, part):
    """A model, or its predictions (or sums) for a part."""
    if isinstance(model, Mapping) and isinstance(model.get(part), Predictions | SessionTotals):
        return model[part]
    return model


def _parameter_count(model):
    if isinstance(model, Mapping):
        counts = [_parameter_count(each) for each in model.values()]
        alike = isinstance(next(iter(model.values())), Predictions | SessionTotals)
        return counts[0] if alike else sum(counts)
    own = getattr(model, "parameter_count", None)
    return model.count_params() if own is None else own


# === Cells ===


def _present_scores(rows):
    """The scores that some model has."""
    return [score for score in SCORES if rows[score].notna().any()]


def _shown(rows, without):
    """The rows, without that of the model of this name."""
    return rows[rows["model"] != without].iterrows()


def _part_title(part):
    title = PARTS.get(part, part)
    return title[0].upper() + title[1:]


def _counts(rows):
    row = rows.iloc[0]
    counts = f"{row['sessions']} sessions, {row['choices']} choices"
    return counts + (f", {row['responses']} responses" if row["responses"] else "")


def _cell(row, name):
    value, low, high = (row[f"{name}{end}"] for end in ("", "_lower", "_upper"))
    if np.isnan(value):
        return "–"
    cell = four_digits(value)
    return cell if np.isnan(low) else f"{cell} [{four_digits(low)}, {four_digits(high)}]"


def _latex_cell(cell):
    """Numbers in math mode, so that a minus is one; the interval smaller."""
    if cell == "–":
        return "--"
    value, _, interval = cell.partition(" ")
    if not interval:
        return f"${value}$"
    low, high = interval.strip("[]").split(", ")
    return rf"${value}$ {{\footnotesize [${low}$, ${high}$]}}"


def _escape(text):
    special = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
    special |= {mark: f"\\{mark}" for mark in "&%$#_{}"} | {"²": r"$^2$"}
    return "".join(special.get(letter, letter) for letter in text)

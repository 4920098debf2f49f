"""Compares many fits of a study: scores of subjects, penalty scales, and agreement of seeds."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import networkx
import numpy as np
import pandas as pd

from keras_disrnn.analysis.comparison import compute_comparison
from keras_disrnn.analysis.evaluation import jackknife_se, ratio_likelihood, stored_totals
from keras_disrnn.analysis.graph import cluster_graphs, describe_graph
from keras_disrnn.analysis.predictions import SessionTotals

if TYPE_CHECKING:
    from keras_disrnn.data import Sessions

CHOSEN = "scale chosen"
"""End of the name of a model whose penalty scale was chosen for each session."""


class StudyFit(NamedTuple):
    """A fit of a study, and its results.

    Attributes:
        data: Name of the data set.
        subject: The subject that it was fitted to; `None` for all of them together.
        model: Name of the model.
        scale: Penalty scale of the model; `None` if it has no penalties.
        seed: Seed of the fit.
        scores: A dict of `loss`, the final training loss, `likelihood`, the held-out normalized
            likelihood, and others.
        graph: What `compute_graph` returns, or `None`.
        sessions: The tables of `compute_evaluation` of both parts, with a column `part`.

    Example:

    >>> import pandas as pd
    >>> from keras_disrnn.analysis.studies import StudyFit
    >>> fit = StudyFit("mice", "m1", "naive", None, 0, {"likelihood": 0.5}, None, pd.DataFrame())
    >>> fit.scores["likelihood"]
    0.5
    """

    data: str
    subject: str | None
    model: str
    scale: float | None
    seed: int
    scores: dict[str, Any]
    graph: networkx.DiGraph | None
    sessions: pd.DataFrame


def compute_study_table(
    fits: Sequence[StudyFit],
    parts: Mapping[str, Sessions],
    *,
    against: str | None = None,
    replicates: int = 2000,
    seed: int = 0,
) -> tuple[pd.DataFrame | None, list[str]]:
    """Compares the models of a study, with one row for each.

    If models were fitted to each subject, a row stands for the models of all subjects, each scored
    on its own sessions. Of several seeds, the fit with the smallest training loss counts, so
    held-out sessions have no influence. A model with several penalty scales has one row for each,
    and one more, "scale chosen". There, each held-out session is scored at the scale that predicts
    the *other* held-out sessions of its subject best. If its subject has no other, those of all
    subjects count. So the choice of the scale never depends on the session that is scored.

    Args:
        fits: Fits of one data set.
        parts: `"train"` and `"held_out"` to the sessions of all subjects.
        against: The row that differences are taken to; the first if `None` or if it is left out.
        replicates: See `compute_comparison`.
        seed: See `compute_comparison`.

    Returns:
        The table of `compute_comparison`, or `None` if it has no row; and a list of sentences about
        the models that are left out because the fit of a subject is missing.

    Example:

    >>> import numpy as np
    >>> import pandas as pd
    >>> from keras_disrnn.analysis import Predictions, compute_evaluation, compute_study_table
    >>> from keras_disrnn.analysis.studies import StudyFit
    >>> from keras_disrnn.data import Sessions
    >>> sessions = Sessions.from_trials([[0, 1], [1, 1]], [[1, 0], [0, 1]], subjects=["a", "b"])
    >>> table = compute_evaluation(Predictions(np.zeros((2, 3, 2))), sessions).per_session
    >>> tables = pd.concat([table.assign(part="train"), table.assign(part="held_out")])
    >>> fit = StudyFit("mice", None, "naive", None, 0, {"loss": 1.0, "parameters": 0}, None, tables)
    >>> parts = {"train": sessions, "held_out": sessions}
    >>> compute_study_table([fit], parts, replicates=10)[0]["normalized_likelihood"].tolist()
    [0.5, 0.5]
    """
    models, left_out = {}, []
    subjects = set(parts["train"].subjects) | set(parts["held_out"].subjects)
    for name, own in _rows(fits).items():
        best = best_seeds(own)
        missing = subjects - set(best)
        if None not in best and missing:
            left_out.append(
                f"{name} is left out: no fit of {', '.join(map(repr, sorted(missing)))} is done."
            )
            continue
        sessions = pd.concat([fit.sessions for fit in best.values()])
        count = sum(fit.scores["parameters"] for fit in best.values())
        models[name] = {
            part: stored_totals(sessions[sessions["part"] == part], data, parameter_count=count)
            for part, data in parts.items()
        }
    for chosen, names in _choices(fits).items():
        if all(name in models for name in names):
            models[chosen] = _choose_scales([models[name] for name in names], parts)
    if not models:
        return None, left_out
    if against not in models:
        against = None
    table = compute_comparison(models, parts, against=against, replicates=replicates, seed=seed)
    return table, left_out


def row_names(fits: Sequence[StudyFit]) -> list[str]:
    """Returns the names of the rows of `compute_study_table`, if all fits are done."""
    return [*_rows(fits), *_choices(fits)]


def best_seeds(fits: Sequence[StudyFit]) -> dict[str | None, StudyFit]:
    """Selects the fit of each subject with the smallest training loss, among its seeds."""
    best: dict[str | None, StudyFit] = {}
    for fit in fits:
        if fit.subject not in best or fit.scores["loss"] < best[fit.subject].scores["loss"]:
            best[fit.subject] = fit
    return best


def _rows(fits: Sequence[StudyFit]) -> dict[str, list[StudyFit]]:
    """The fits of each row of the table, in order."""
    rows: dict[str, list[StudyFit]] = {}
    for fit, name, _ in _named(fits):
        rows.setdefault(name, []).append(fit)
    return rows


def _choices(fits: Sequence[StudyFit]) -> dict[str, dict[str, None]]:
    """For each row of a chosen scale, the names of the rows to choose from."""
    choices: dict[str, dict[str, None]] = {}
    for _, name, chosen in _named(fits):
        if chosen is not None:
            choices.setdefault(chosen, {})[name] = None
    return choices


def _named(fits: Sequence[StudyFit]) -> Iterator[tuple[StudyFit, str, str | None]]:
    """Yields each fit, the name of its row, and the row of the chosen scale, if there is one."""
    both = len({fit.subject is None for fit in fits}) > 1
    scales: dict[str, set[float | None]] = {}
    for fit in fits:
        scales.setdefault(fit.model, set()).add(fit.scale)
    for fit in fits:
        end = ", pooled" if both and fit.subject is None else ""
        if len(scales[fit.model]) > 1:
            yield fit, f"{fit.model} x{fit.scale:g}{end}", f"{fit.model}{end}, {CHOSEN}"
        else:
            yield fit, f"{fit.model}{end}", None


def _choose_scales(
    models: Sequence[Mapping[str, SessionTotals]], parts: Mapping[str, Sessions]
) -> dict[str, SessionTotals]:
    """The sums of each part at the scale chosen for each session (see `compute_study_table`)."""
    held_out = parts["held_out"]
    choice = np.stack([model["held_out"].choice for model in models])
    subjects = np.asarray(held_out.subjects, object)
    everything = choice.sum(axis=1)
    chosen = {"held_out": np.zeros(len(subjects), int)}
    by_subject = {}
    for subject in dict.fromkeys(held_out.subjects):
        own = np.flatnonzero(subjects == subject)
        sums = choice[:, own].sum(axis=1)
        by_subject[subject] = int(np.argmax(_likelihood(sums)))
        for session in own:
            others = (sums if len(own) > 1 else everything) - choice[:, session]
            chosen["held_out"][session] = np.argmax(_likelihood(others))
    overall = int(np.argmax(_likelihood(everything)))
    chosen["train"] = np.array([by_subject.get(name, overall) for name in parts["train"].subjects])

    def pick(part: str, arrays: list[np.ndarray]) -> np.ndarray:
        return np.stack(arrays)[chosen[part], np.arange(len(chosen[part]))]

    totals = {}
    for part in parts:
        sums = [model[part] for model in models]
        dopamine = [each.dopamine for each in sums if each.dopamine is not None]
        totals[part] = SessionTotals(
            pick(part, [each.choice for each in sums]),
            pick(part, dopamine) if len(dopamine) == len(sums) else None,
            models[0]["held_out"].parameter_count,
        )
    return totals


def _likelihood(sums: np.ndarray) -> np.ndarray:
    """Normalized likelihood of sums of log p and counts; -inf if nothing was counted."""
    return np.nan_to_num(ratio_likelihood(sums[..., 0], sums[..., 1]), nan=-np.inf)


def compute_subject_scores(fits: Sequence[StudyFit], held_out: Sessions) -> pd.DataFrame:
    """Computes how well each model predicts the held-out choices of each subject.

    Args:
        fits: Fits of one data set. Of several seeds, the one with the smallest training loss
            counts.
        held_out: The held-out sessions of all subjects.

    Returns:
        A table with one row for each subject and model: `subject`, `sessions`, `model`,
        `likelihood` (normalized), `difference` to the best other model of the subject and its
        standard error `difference_se` (jackknife, paired by session; NaN for one session), and
        `best`. The best model is selected on the held-out scores themselves, so its score is
        optimistic.

    Example:

    >>> import numpy as np
    >>> from keras_disrnn.analysis import Predictions, compute_evaluation, compute_subject_scores
    >>> from keras_disrnn.analysis.studies import StudyFit
    >>> from keras_disrnn.data import Sessions
    >>> sessions = Sessions.from_trials([[0, 1], [1, 1]], [[1, 0], [0, 1]], subjects=["a", "b"])
    >>> table = compute_evaluation(Predictions(np.zeros((2, 3, 2))), sessions).per_session
    >>> fit = StudyFit("mice", None, "naive", None, 0, {"loss": 1.0}, None, table)
    >>> compute_subject_scores([fit], sessions)[["subject", "likelihood"]].to_numpy().tolist()
    [['a', 0.5], ['b', 0.5]]
    """
    subjects = np.asarray(held_out.subjects, object)
    ids = np.asarray(held_out.ids, object)
    rows = []
    for subject in dict.fromkeys(held_out.subjects):
        own = set(ids[subjects == subject])
        sums = {}
        for name, each in _rows(fits).items():
            best = best_seeds(each)
            fit = best.get(subject, best.get(None))
            if fit is not None:
                table = fit.sessions[fit.sessions["session"].isin(own)].sort_values("session")
                sums[name] = table[["log_likelihood", "n_choices"]].to_numpy(float)
        scores = {name: float(_likelihood(each.sum(axis=0))) for name, each in sums.items()}
        for name, each in sums.items():
            others = [other for other in sums if other != name]
            row = {"subject": subject, "sessions": len(own), "model": name}
            row["likelihood"] = scores[name]
            if others:
                rival = max(others, key=lambda name: scores[name])
                both = np.stack([each, sums[rival]], axis=1)
                row["difference"] = scores[name] - scores[rival]
                # Sessions without a free choice do not count as sessions of the jackknife.
                row["difference_se"] = jackknife_se(_difference, both[both[:, 0, 1] > 0])
            row["best"] = scores[name] == max(scores.values())
            rows.append(row)
    return pd.DataFrame(rows)


def _difference(sums: np.ndarray) -> np.ndarray:
    """Difference in likelihood of sums `[..., 2 models, 2]`."""
    one, other = (ratio_likelihood(sums[..., i, 0], sums[..., i, 1]) for i in range(2))
    return one - other


def compute_agreement(fits: Sequence[StudyFit]) -> pd.DataFrame | None:
    """Computes whether fits that only differ in their seed find the same graph.

    Args:
        fits: Fits of one data set.

    Returns:
        A table with one row for each subject, model and penalty scale with at least two seeds that
        have a graph. Its columns are `subject`, `model`, `scale` and `seeds`; `same_graph`, the
        share of pairs of seeds with the same graph, up to the names of the latents;
        `likelihood_range`, the largest minus the smallest held-out normalized likelihood; and
        `graph`, the most frequent one in words. `None` if there is no row.

    Example:

    >>> import pandas as pd
    >>> from keras_disrnn.analysis import compute_agreement
    >>> from keras_disrnn.analysis.graph import make_graph
    >>> from keras_disrnn.analysis.studies import StudyFit
    >>> graph = make_graph([("reward", "z1"), ("z1", "choice readout")])
    >>> fits = [
    ...     StudyFit("mice", "m1", "DisRNN", 1.0, seed, {"likelihood": 0.6}, graph, pd.DataFrame())
    ...     for seed in (0, 1)
    ... ]
    >>> compute_agreement(fits)[["seeds", "same_graph"]].to_numpy().tolist()
    [[2.0, 1.0]]
    """
    groups: dict[tuple[str | None, str, float | None], list[StudyFit]] = {}
    for fit in fits:
        if fit.graph is not None:
            groups.setdefault((fit.subject, fit.model, fit.scale), []).append(fit)
    rows = []
    for (subject, model, scale), own in groups.items():
        if len(own) < 2:
            continue
        clusters = cluster_graphs([fit.graph for fit in own])
        pairs = [a == b for a, b in itertools.combinations(clusters, 2)]
        likelihoods = [fit.scores["likelihood"] for fit in own]
        usual = own[clusters.index(max(clusters, key=clusters.count))]
        rows.append(
            {
                "subject": subject,
                "model": model,
                "scale": scale,
                "seeds": len(own),
                "same_graph": float(np.mean(pairs)),
                "likelihood_range": max(likelihoods) - min(likelihoods),
                "graph": describe(usual.graph),
            }
        )
    return pd.DataFrame(rows) if rows else None


def compute_graph_clusters(fits: Sequence[StudyFit]) -> pd.DataFrame | None:
    """Counts how often each graph was found.

    Args:
        fits: Fits of one data set.

    Returns:
        A table with one row for each graph (up to the names of the latents), the most frequent
        first: `graph`, in words, of one of the fits; `edges`; `fits`; `subjects`, the number of
        subjects, without models of all of them together; the `models` and penalty `scales` that
        found it; and `likelihood`, the mean held-out likelihood. `None` if no model has a graph.

    Example:

    >>> import pandas as pd
    >>> from keras_disrnn.analysis import compute_graph_clusters
    >>> from keras_disrnn.analysis.graph import make_graph
    >>> from keras_disrnn.analysis.studies import StudyFit
    >>> graph = make_graph([("reward", "z1"), ("z1", "choice readout")])
    >>> fits = [
    ...     StudyFit("mice", "m1", "DisRNN", 1.0, seed, {"likelihood": 0.6}, graph, pd.DataFrame())
    ...     for seed in (0, 1)
    ... ]
    >>> compute_graph_clusters(fits)[["graph", "fits"]].to_numpy().tolist()
    [['reward > z1; z1 > choice readout', 2]]
    """
    graphs = [(fit, fit.graph) for fit in fits if fit.graph is not None]
    if not graphs:
        return None
    rows = []
    clusters = cluster_graphs([graph for _, graph in graphs])
    for number in sorted(set(clusters), key=lambda number: -clusters.count(number)):
        own = [fit for (fit, _), cluster in zip(graphs, clusters, strict=True) if cluster == number]
        graph = graphs[clusters.index(number)][1]
        scales = {fit.scale for fit in own if fit.scale is not None}
        rows.append(
            {
                "graph": describe(graph),
                "edges": graph.number_of_edges(),
                "fits": len(own),
                "subjects": len({fit.subject for fit in own} - {None}),
                "models": ", ".join(dict.fromkeys(fit.model for fit in own)),
                "scales": ", ".join(f"{scale:g}" for scale in sorted(scales)),
                "likelihood": float(np.mean([fit.scores["likelihood"] for fit in own])),
            }
        )
    return pd.DataFrame(rows)


def describe(graph: networkx.DiGraph) -> str:
    """Describes a graph in words, even if it has no edges."""
    return describe_graph(graph) or "all closed"

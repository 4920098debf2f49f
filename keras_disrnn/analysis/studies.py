"""Many fits side by side: which model predicts each subject, what penalties cost, what agrees."""

import itertools
from typing import NamedTuple

import networkx
import numpy as np
import pandas as pd

from keras_disrnn.analysis.comparison import compute_comparison
from keras_disrnn.analysis.evaluation import (
    SessionTotals,
    jackknife_se,
    ratio_likelihood,
    stored_totals,
)
from keras_disrnn.analysis.graph import cluster_graphs, describe_graph

CHOSEN = "multiple chosen"
"""End of the name of a model whose multiple was chosen session by session."""


class StudyFit(NamedTuple):
    """A fit of a study, and what was found.

    Attributes:
        data: Name of the data set.
        subject: The subject it was fitted to; `None` for all of them together.
        model: Name of the model.
        scale: Multiple of the model's penalties; `None` where it has none.
        seed: Its seed.
        scores: A dict: `loss`, what training minimised, and `likelihood`, held out, and others.
        graph: What `compute_graph` gives, or `None`.
        sessions: The tables of `compute_evaluation`, of both parts, with a column `part`.
    """

    data: str
    subject: str | None
    model: str
    scale: float | None
    seed: int
    scores: dict
    graph: networkx.DiGraph | None
    sessions: pd.DataFrame


def compute_study_table(fits, parts, *, against=None, replicates=2000, seed=0):
    """Table 1 of a study: the table of `compute_comparison`, each model a row.

    Where models were fitted to each subject, a row is those of all subjects, each for its own
    sessions. Of several seeds the fit with the smallest training loss counts, so that no held-out
    session has a say. A model of several multiples has one row for each, and one more, "multiple
    chosen", where each held-out session is scored at the multiple that predicts the *other*
    held-out sessions of its subject best (of all subjects, where its subject has no other): so that
    the choice has not seen what it is scored on.

    Args:
        fits: `StudyFit`s of one data set.
        parts: `"train"` and `"held_out"` to the `keras_disrnn.data.Sessions` of all subjects.
        against: The row that differences are taken to; the first where it is `None` or left out.
        replicates, seed: As for `compute_comparison`.

    Returns:
        The table, `None` if there is no row; and a list of sentences on the models that were left
        out, because they lack the fit of a subject.
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
            part: stored_totals(sessions[sessions["part"] == part], data, count)
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


def row_names(fits):
    """The rows that the table of these fits has, if all are done."""
    return [*_rows(fits), *_choices(fits)]


def best_seeds(fits):
    """Of each subject's fits the one with the smallest training loss.

    Args:
        fits: `StudyFit`s that differ in subject and seed alone.

    Returns:
        Dict of subject to `StudyFit`.
    """
    best = {}
    for fit in fits:
        if fit.subject not in best or fit.scores["loss"] < best[fit.subject].scores["loss"]:
            best[fit.subject] = fit
    return best


def _rows(fits):
    """Name of a row of the table to its fits, in order."""
    rows = {}
    for fit, name, several in _named(fits):
        rows.setdefault(
            f"{name[0]} x{fit.scale:g}{name[1]}" if several else "".join(name), []
        ).append(fit)
    return rows


def _choices(fits):
    """Name of a row of chosen multiples to the rows to choose from."""
    choices = {}
    for fit, name, several in _named(fits):
        if several:
            one = choices.setdefault(f"{''.join(name)}, {CHOSEN}", {})
            one[f"{name[0]} x{fit.scale:g}{name[1]}"] = None
    return choices


def _named(fits):
    """Each fit, with the start and the end of its row's name, and if a multiple stands between."""
    both = len({fit.subject is None for fit in fits}) > 1
    scales = {}
    for fit in fits:
        scales.setdefault(fit.model, set()).add(fit.scale)
    for fit in fits:
        end = ", pooled" if both and fit.subject is None else ""
        yield fit, (fit.model, end), len(scales[fit.model]) > 1


def _choose_scales(models, parts):
    """Parts to the totals of the multiples chosen for each session (see `compute_study_table`)."""
    held_out = parts["held_out"]
    choice = np.stack([model["held_out"].choice for model in models])
    subjects = np.asarray(held_out.subjects, object)
    everything = choice.sum(axis=1)
    chosen = {"held_out": np.zeros(len(subjects), int), "train": None}
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

    def pick(part, field):
        arrays = [getattr(model[part], field) for model in models]
        if any(array is None for array in arrays):
            return None
        return np.stack(arrays)[chosen[part], np.arange(len(chosen[part]))]

    count = models[0]["held_out"].parameter_count
    return {
        part: SessionTotals(pick(part, "choice"), pick(part, "dopamine"), count) for part in parts
    }


def _likelihood(sums):
    """Normalized likelihood of sums of log p and counts; -inf where nothing was counted."""
    return np.nan_to_num(ratio_likelihood(sums[..., 0], sums[..., 1]), nan=-np.inf)


def compute_subject_scores(fits, held_out):
    """How well each model predicts each subject's held-out choices, and which does best.

    Args:
        fits: `StudyFit`s of one data set; of several seeds the one with the smallest training loss
            counts.
        held_out: The held-out `keras_disrnn.data.Sessions` of all subjects.

    Returns:
        A `pandas.DataFrame`, one row a subject and model: `subject`, `sessions`, `model`,
        `likelihood` (normalized), `difference` to the subject's best other model and its standard
        error `difference_se` (jackknife, paired by session; NaN for one session), and `best`. Best
        are the models as they are, none chosen on the way: the best of many looks better than it
        is.
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
                rival = max(others, key=scores.get)
                both = np.stack([each, sums[rival]], axis=1)
                row["difference"] = scores[name] - scores[rival]
                # A session without a free choice tells nothing, and is no session to leave out.
                row["difference_se"] = jackknife_se(_difference, both[both[:, 0, 1] > 0])
            row["best"] = scores[name] == max(scores.values())
            rows.append(row)
    return pd.DataFrame(rows)


def _difference(sums):
    """Difference in likelihood of sums `[..., 2 models, 2]`."""
    return ratio_likelihood(sums[..., 0, 0], sums[..., 0, 1]) - ratio_likelihood(
        sums[..., 1, 0], sums[..., 1, 1]
    )


def compute_agreement(fits):
    """Whether fits that differ in their seed alone find the same graph and predict alike.

    Args:
        fits: `StudyFit`s of one data set.

    Returns:
        A `pandas.DataFrame`, one row for each subject, model and multiple with at least two seeds
        that have a graph: `subject`, `model`, `scale`, `seeds`, `same_graph` (the share of pairs of
        seeds with the same graph, up to the names of the latents), `likelihood_range` (largest
        minus smallest held-out normalized likelihood) and `graph`, the most frequent one in words.
    """
    groups = {}
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


def compute_graph_clusters(fits):
    """Which graphs were found, and how often.

    Args:
        fits: `StudyFit`s of one data set.

    Returns:
        A `pandas.DataFrame`, one row a graph (up to the names of the latents), the most frequent
        first: `graph`, in words, of one of the fits; `edges`; `fits`; `subjects`, how many of them;
        a model of all of them together counts as none; `models` and `scales` that found it;
        `likelihood`, the mean held out. `None` where no model has a graph.
    """
    fits = [fit for fit in fits if fit.graph is not None]
    if not fits:
        return None
    rows = []
    clusters = cluster_graphs([fit.graph for fit in fits])
    for number in sorted(set(clusters), key=lambda number: -clusters.count(number)):
        own = [fit for fit, cluster in zip(fits, clusters, strict=True) if cluster == number]
        rows.append(
            {
                "graph": describe(own[0].graph),
                "edges": own[0].graph.number_of_edges(),
                "fits": len(own),
                "subjects": len({fit.subject for fit in own} - {None}),
                "models": ", ".join(dict.fromkeys(fit.model for fit in own)),
                "scales": ", ".join(f"{scale:g}" for scale in sorted({fit.scale for fit in own})),
                "likelihood": float(np.mean([fit.scores["likelihood"] for fit in own])),
            }
        )
    return pd.DataFrame(rows)


def describe(graph):
    """`describe_graph`, or in words that there is nothing to describe."""
    return describe_graph(graph) or "all closed"

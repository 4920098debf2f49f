"""What a model of several subjects knows of each: its embedding, beside what is known of it."""

import keras
import numpy as np
import pandas as pd
import scipy.stats

from keras_disrnn.analysis.bottlenecks import check_built, compute_bottlenecks, embedding_names
from keras_disrnn.objectives.metrics import OPEN_BELOW
from keras_disrnn.utils.checks import suggest

MOST_PERMUTED = 7
"""Of so many subjects every permutation is tried for a p value."""


def compute_embeddings(model):
    """The embedding of every subject of a model, before any noise.

    Args:
        model: A built `DisRNNModel` with subjects.

    Returns:
        A `pandas.DataFrame` with one row a subject, in the order of their index: `subject`, and its
        coordinates, `subject 1`, `subject 2`, ...

    Raises:
        ValueError: If the model has no subjects.
    """
    _check_subjects(model)
    columns = {"subject": list(model.subjects)}
    columns |= dict(zip(embedding_names(model.subject_units), _table(model).T, strict=True))
    return pd.DataFrame(columns)


def open_embeddings(model, threshold=OPEN_BELOW):
    """Names of the dimensions of the embedding through which information can flow.

    Args:
        model: A built `DisRNNModel` with subjects.
        threshold: Sigma below which a bottleneck is open.

    Returns:
        List of names (`"subject 1"`, ...), in order: those whose own bottleneck is open, and which
        something reads through an open bottleneck: an open latent's update network or a readout.

    Raises:
        ValueError: If the model has no subjects.
    """
    _check_subjects(model)
    rows = compute_bottlenecks(model)
    rows = rows[rows["sigma"] < threshold]
    own, latent = (set(rows.loc[rows["group"] == g, "source"]) for g in ("subject", "latent"))
    readers = rows[rows["target"].isin([*latent, "choice", "dopamine"])]
    read = set(readers["source"])
    return [name for name in embedding_names(model.subject_units) if name in own & read]


def embedding_of(model, subject=None):
    """The embedding that a rule is to be computed for.

    Args:
        model: A built `DisRNNModel`.
        subject: Name of a subject; values `(subject_units,)`; or `None`, the mean over subjects.

    Returns:
        An array `(subject_units,)`, of no elements for a model without subjects.

    Raises:
        ValueError: If there is no such subject, or the values are not as many.
    """
    if not model.subjects:
        if subject is not None:
            raise ValueError(f"subject: the model has no subjects, got {subject!r}")
        return np.zeros(0)
    table = _table(model)
    if subject is None:
        return table.mean(axis=0)
    if isinstance(subject, str):
        return table[subject_index(model, subject)]
    values = np.asarray(subject, np.float64)
    if values.shape != (model.subject_units,):
        raise ValueError(
            f"subject: expected a name, or {model.subject_units} values, got shape {values.shape}"
        )
    return values


def subject_index(model, subject):
    """The index of a subject of that name; raises ValueError where there is none."""
    if subject not in model.subjects:
        listed = ", ".join(map(repr, model.subjects[:10]))
        more = ", ..." if model.num_subjects > 10 else ""
        raise ValueError(
            f"subject: expected one of the model's {model.num_subjects} subjects, {listed}{more}, got "
            f"{subject!r}{suggest(str(subject), model.subjects)}"
        )
    return model.subjects.index(subject)


def embedding_ranges(model, points):
    """`[subject_units, points]` values of each dimension, from its least to its greatest."""
    table = _table(model) if model.subjects else np.zeros((1, 0))
    return np.linspace(table.min(axis=0), table.max(axis=0), points, axis=-1)


def compute_embedding_correlations(embeddings, known):
    """Spearman's rank correlation of each coordinate with each thing that is known of subjects.

    Args:
        embeddings: What `compute_embeddings` returns, or a part of its columns; or any table with a
            column `subject` and columns of numbers, such as `compute_subject_rates` gives.
        known: A `pandas.DataFrame` with a column `subject` and columns of numbers; other columns
            are left out. Subjects that are in one of the two tables only do not count.

    Returns:
        A `pandas.DataFrame` with the columns `dimension`, `known`, `rho`, `p` (two-sided, of no
        correlation; by all permutations of up to `MOST_PERMUTED` subjects, by Student's t of more)
        and `n`, the subjects that have both values. `rho` is NaN for fewer than three.

    Raises:
        ValueError: If a table has no column `subject`, `known` no column of numbers or a subject
            twice, or no subject is in both.
    """
    for name, table in (("embeddings", embeddings), ("known", known)):
        if "subject" not in table:
            raise ValueError(f"{name}: expected a column 'subject', got {list(table.columns)}")
    found, facts = beside(embeddings, known)
    rows = []
    for dimension in found:
        for name in facts:
            pair = np.stack([found[dimension], facts[name]])
            pair = pair[:, ~np.isnan(pair).any(axis=0)]
            rho, p = np.nan, np.nan
            if pair.shape[1] > 2 and (np.ptp(pair, axis=1) > 0).all():
                rho, p = _correlate(*pair)
            rows.append((dimension, name, float(rho), float(p), pair.shape[1]))
    return pd.DataFrame(rows, columns=["dimension", "known", "rho", "p", "n"])


def _correlate(one, other):
    rho, p = scipy.stats.spearmanr(one, other)
    if len(one) <= MOST_PERMUTED:
        # Student's t knows nothing of so few: it gives 0 wherever their orders are the same.
        ranks = scipy.stats.rankdata(other)
        p = scipy.stats.permutation_test(
            (scipy.stats.rankdata(one),),
            lambda values, axis: ((values - values.mean(axis=axis, keepdims=True)) * ranks).sum(
                axis
            ),
            permutation_type="pairings",
            n_resamples=np.inf,
            vectorized=True,
        ).pvalue
    return rho, p


def beside(embeddings, known):
    """The columns of numbers of both tables, of the subjects that are in both, in one order.

    Raises:
        ValueError: As `compute_embedding_correlations`.
    """
    known = known.assign(subject=known["subject"].astype(str))
    twice = known["subject"][known["subject"].duplicated()]
    if len(twice):
        raise ValueError(f"known: expected one row a subject, got {twice.iloc[0]!r} more than once")
    columns = known.select_dtypes("number").columns
    if columns.empty:
        raise ValueError(
            f"known: expected columns of numbers beside 'subject', got {list(known.columns)}"
        )
    left, right = embeddings.set_index("subject"), known.set_index("subject")[columns]
    both = [name for name in left.index if name in right.index]
    if not both:
        raise ValueError(
            f"known: expected the model's subjects, such as {left.index[0]!r}, got "
            f"{right.index[0]!r} and others"
        )
    return left.loc[both].astype(float), right.loc[both].astype(float)


def _check_subjects(model):
    check_built(model)
    if not model.subjects:
        raise ValueError("model: expected a model of several subjects, got one that knows of none")


def _table(model):
    return np.asarray(keras.ops.convert_to_numpy(model.subject_embedding.table), np.float64)

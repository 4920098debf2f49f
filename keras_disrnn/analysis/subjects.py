"""The subject embedding of a model, and how it relates to what is known of the subjects."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import scipy.stats
from numpy.typing import ArrayLike

from keras_disrnn.analysis.arrays import to_numpy
from keras_disrnn.analysis.bottlenecks import check_built, compute_bottlenecks, embedding_names
from keras_disrnn.utils.checks import suggest
from keras_disrnn.utils.ids import id_texts
from keras_disrnn.utils.tables import check_columns
from keras_disrnn.utils.thresholds import OPEN_BELOW

if TYPE_CHECKING:
    from keras_disrnn.models.disrnn_model import DisRNNModel

MOST_PERMUTED = 7
"""The p value of a correlation over at most so many subjects uses all permutations."""


def compute_embeddings(model: DisRNNModel) -> pd.DataFrame:
    """Tabulates the embedding of every subject of a model, without noise.

    Args:
        model: A built `DisRNNModel` with subjects.

    Returns:
        A table with one row for each subject, in the order of their index: `subject` and its
        coordinates `subject 1`, `subject 2`, ...

    Raises:
        ValueError: If the model has no subjects, or their embeddings were never trained.

    Example:

    >>> import keras_disrnn
    >>> from keras_disrnn.analysis import compute_embeddings
    >>> model = keras_disrnn.DisRNNModel(
    ...     num_observations=3, num_latents=1, subjects=["m1", "m2"], subject_units=1
    ... )
    >>> list(compute_embeddings(model))
    ['subject', 'subject 1']
    """
    _check_subjects(model)
    if "subject_embedding" in model.untrained:
        raise ValueError(
            "model: expected trained embeddings of the subjects, got ones that were never trained; "
            "give stage1_steps above 0"
        )
    columns = {"subject": list(model.subjects)}
    columns |= dict(zip(embedding_names(model.subject_units), _table(model).T, strict=True))
    return pd.DataFrame(columns)


def open_embeddings(model: DisRNNModel, threshold: float = OPEN_BELOW) -> list[str]:
    """Returns the names of the embedding dimensions through which information can flow.

    Args:
        model: A built `DisRNNModel` with subjects.
        threshold: A bottleneck is open if its sigma is below this.

    Returns:
        Names (`"subject 1"`, ...), in order, of the open dimensions. Such a dimension has an open
        bottleneck, and a readout or an open latent's update network reads it through another one.

    Raises:
        ValueError: If the model has no subjects.

    Example:

    >>> import keras_disrnn
    >>> from keras_disrnn.analysis import open_embeddings
    >>> model = keras_disrnn.DisRNNModel(
    ...     num_observations=3, num_latents=1, subjects=["m1", "m2"], subject_units=1
    ... )
    >>> open_embeddings(model)
    ['subject 1']
    """
    _check_subjects(model)
    rows = compute_bottlenecks(model)
    rows = rows[rows["sigma"] < threshold]
    own, latent = (set(rows.loc[rows["group"] == g, "source"]) for g in ("subject", "latent"))
    readers = rows[rows["target"].isin([*latent, "choice", "dopamine"])]
    read = set(readers["source"])
    return [name for name in embedding_names(model.subject_units) if name in own & read]


def embedding_of(model: DisRNNModel, subject: str | ArrayLike | None = None) -> np.ndarray:
    """Returns the embedding of a subject.

    Args:
        model: A built `DisRNNModel`.
        subject: Name of a subject; or values `[subject_units]`; or `None` for the mean over
            subjects.

    Returns:
        An array `[subject_units]`, empty for a model without subjects.

    Raises:
        ValueError: If there is no such subject, or the number of values is wrong.

    Example:

    >>> import keras_disrnn
    >>> from keras_disrnn.analysis import embedding_of
    >>> model = keras_disrnn.DisRNNModel(num_latents=1)
    >>> embedding_of(model)
    array([], dtype=float64)
    """
    if not model.subjects:
        if subject is not None:
            raise ValueError(
                f"subject: expected None for a model without subjects, got {subject!r}"
            )
        return np.zeros(0)
    table = _table(model)
    if subject is None:
        return table.mean(axis=0)
    if np.ndim(subject) == 0:
        return table[subject_index(model, subject)]
    values = np.asarray(subject, np.float64)
    if values.shape != (model.subject_units,):
        raise ValueError(
            f"subject: expected a name, or {model.subject_units} values, got shape {values.shape}"
        )
    return values


def subject_index(model: DisRNNModel, subject: Any) -> int:
    """Returns the index of a subject, or raises a ValueError if there is none of that name."""
    [subject] = id_texts("subject", subject)
    if subject not in model.subjects:
        listed = ", ".join(map(repr, model.subjects[:10]))
        more = ", ..." if model.num_subjects > 10 else ""
        raise ValueError(
            f"subject: expected one of the model's {model.num_subjects} subjects, {listed}{more}, "
            f"got {subject!r}{suggest(subject, model.subjects)}"
        )
    return model.subjects.index(subject)


def embedding_ranges(model: DisRNNModel, points: int) -> np.ndarray:
    """Returns `[subject_units, points]` values of each dimension, over the range of subjects."""
    table = _table(model) if model.subjects else np.zeros((1, 0))
    return np.linspace(table.min(axis=0), table.max(axis=0), points, axis=-1)


def compute_embedding_correlations(embeddings: pd.DataFrame, known: pd.DataFrame) -> pd.DataFrame:
    """Correlates each coordinate with each known property of the subjects (Spearman's rank).

    Args:
        embeddings: What `compute_embeddings` returns, or some of its columns. Or any table with a
            column `subject` and numeric columns, such as that of `compute_subject_rates`.
        known: A table with a column `subject` and numeric columns. Other columns are ignored, and
            so are subjects that are in only one of the two tables.

    Returns:
        A table with the columns `dimension`, `known`, `rho`, `p` (two-sided, of no correlation) and
        `n`, the number of subjects that have both values. `p` uses all permutations for at most
        `MOST_PERMUTED` subjects, and Student's t otherwise. `rho` is NaN for fewer than three.

    Raises:
        ValueError: If a table has no column `subject`, `known` has no numeric column or repeats a
            subject, or no subject is in both tables.

    Example:

    >>> import pandas as pd
    >>> from keras_disrnn.analysis import compute_embedding_correlations
    >>> found = pd.DataFrame({"subject": ["a", "b", "c"], "subject 1": [0.1, 0.2, 0.4]})
    >>> known = pd.DataFrame({"subject": ["a", "b", "c"], "age": [3, 5, 8]})
    >>> round(compute_embedding_correlations(found, known)["rho"].item(), 3)
    1.0
    """
    check_columns("embeddings", embeddings, ["subject"])
    check_columns("known", known, ["subject"])
    found, facts = align_subjects(embeddings, known)
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


def _correlate(one: np.ndarray, other: np.ndarray) -> tuple[float, float]:
    """Spearman's rank correlation, and its p value."""
    rho, p = scipy.stats.spearmanr(one, other)
    if len(one) <= MOST_PERMUTED:
        # With so few subjects, Student's t gives p = 0 for every perfect correlation.
        ranks = scipy.stats.rankdata(other)

        def statistic(values: np.ndarray, axis: int) -> np.ndarray:
            centred = values - values.mean(axis=axis, keepdims=True)
            return (centred * ranks).sum(axis)

        p = scipy.stats.permutation_test(
            (scipy.stats.rankdata(one),),
            statistic,
            permutation_type="pairings",
            n_resamples=np.inf,
            vectorized=True,
        ).pvalue
    return rho, p


def align_subjects(
    embeddings: pd.DataFrame, known: pd.DataFrame
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Returns the numeric columns of both tables, with the subjects in both as index.

    The tables, and the errors, are those of `compute_embedding_correlations`.
    """
    known = known.assign(subject=id_texts("known", known["subject"]))
    twice = known["subject"][known["subject"].duplicated()]
    if len(twice):
        raise ValueError(
            f"known: expected one row per subject, got {twice.iloc[0]!r} more than once"
        )
    columns = known.select_dtypes("number").columns
    if columns.empty:
        raise ValueError(
            f"known: expected numeric columns besides 'subject', got {list(known.columns)}"
        )
    left, right = embeddings.set_index("subject"), known.set_index("subject")[columns]
    both = [name for name in left.index if name in right.index]
    if not both:
        raise ValueError(
            f"known: expected the model's subjects, such as {left.index[0]!r}, got "
            f"{right.index[0]!r} and others"
        )
    return left.loc[both].astype(float), right.loc[both].astype(float)


def _check_subjects(model: DisRNNModel) -> None:
    check_built(model)
    if not model.subjects:
        raise ValueError("model: expected a model of several subjects, got one without subjects")


def _table(model: DisRNNModel) -> np.ndarray:
    """The embedding `[subjects, subject_units]`."""
    assert model.subject_embedding is not None
    return to_numpy(model.subject_embedding.table)

"""Several seeds of one model in a comparison: their mean, their spread and the best one."""

from __future__ import annotations

import numpy as np
import pandas as pd

from keras_disrnn.analysis.bootstrap import SCORES
from keras_disrnn.utils.tables import to_markdown

_SEED = ", seed "


def seed_label(model: str, seed: int) -> str:
    """Returns the name of one seed of a model in a comparison.

    Example:

    >>> from keras_disrnn.analysis.seeds import seed_label
    >>> seed_label("GRU, joint", 3)
    'GRU, joint, seed 3'
    """
    return f"{model}{_SEED}{seed}"


def compute_seed_spread(table: pd.DataFrame) -> pd.DataFrame:
    """Summarizes the models of a comparison that were fitted with several seeds.

    The best seed is chosen by the training sessions alone. Its loss is the cross-entropy of choice
    in nats, plus, for a model with dopamine, 1 - R², the error in units of the variance.

    Args:
        table: What `compute_comparison` returns, with a part `"train"` and models whose names are
            those of `seed_label`.

    Returns:
        A table with one row for each part, model and score that some seed has. Its columns are
        `part`, `model` (without the seed), `score`, `seeds` (their number), `mean`, `sd` (over
        seeds, NaN for one), `min` and `max`; `best_seed` by the training loss, and `best`, the
        score of that seed.

    Example:

    >>> import pandas as pd
    >>> from keras_disrnn.analysis.seeds import compute_seed_spread
    >>> table = pd.DataFrame(
    ...     {
    ...         "part": ["train", "train", "held_out", "held_out"],
    ...         "model": ["GRU, choice, seed 0", "GRU, choice, seed 1"] * 2,
    ...         "normalized_likelihood": [0.60, 0.62, 0.58, 0.56], "mse": None, "r2": None,
    ...     }
    ... )
    >>> compute_seed_spread(table)[["part", "mean", "best_seed", "best"]].round(2).values.tolist()
    [['train', 0.61, 1, 0.62], ['held_out', 0.57, 1, 0.56]]
    """
    names = table["model"].str.rpartition(_SEED)
    rows = table.assign(base=names[0], seed=names[2])[names[1] != ""].astype({"seed": int})
    found = []
    for (part, base), own in rows.groupby(["part", "base"], sort=False):
        train = rows[(rows["part"] == "train") & (rows["base"] == base)]
        unexplained = 1.0 - train["r2"].astype(float).fillna(1.0)
        loss = unexplained - np.log(train["normalized_likelihood"].astype(float))
        best_seed = int(train["seed"].loc[loss.idxmin()])
        for score in SCORES:
            values = own[score].astype(float)
            if values.notna().any():
                found.append(
                    {
                        "part": part,
                        "model": base,
                        "score": score,
                        "seeds": len(own),
                        "mean": values.mean(),
                        "sd": values.std(),
                        "min": values.min(),
                        "max": values.max(),
                        "best_seed": best_seed,
                        "best": values[own["seed"] == best_seed].item(),
                    }
                )
    return pd.DataFrame(found)


def seed_spread_markdown(spread: pd.DataFrame) -> str:
    """Writes what `compute_seed_spread` returns as Markdown."""
    return f"Several seeds, best by training loss\n\n{to_markdown(spread)}"

"""Tables of the information bottlenecks of a fitted network."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from keras_disrnn.analysis.arrays import to_numpy
from keras_disrnn.utils.thresholds import OPEN_BELOW

if TYPE_CHECKING:
    from keras_disrnn.models.disrnn_model import DisRNNModel

COUNT_OPEN_BELOW = (0.1, 0.25, 0.5)
COUNT_CLOSED_ABOVE = 0.9

GROUPS = ("subject", "latent", "update", "choice", "dopamine")


def latent_names(num_latents: int) -> tuple[str, ...]:
    """Returns the names of the latents, `("z1", "z2", ...)`.

    Args:
        num_latents: Number of latents, L.

    Returns:
        L names, in the order of the network.

    Example:

    >>> from keras_disrnn.analysis import latent_names
    >>> latent_names(2)
    ('z1', 'z2')
    """
    return tuple(f"z{index + 1}" for index in range(num_latents))


def is_latent(name: str) -> bool:
    """Returns whether a name, such as that of a column, is one of `latent_names`."""
    return name[:1] == "z" and name[1:].isdigit()


def embedding_names(units: int) -> tuple[str, ...]:
    """Returns the names of the embedding's dimensions, `("subject 1", "subject 2", ...)`.

    Args:
        units: Number of dimensions of the subject embedding.

    Returns:
        The names, in order.

    Example:

    >>> from keras_disrnn.analysis import embedding_names
    >>> embedding_names(1)
    ('subject 1',)
    """
    return tuple(f"subject {index + 1}" for index in range(units))


def observation_names_of(
    model: DisRNNModel, observation_names: Sequence[str] | None = None
) -> tuple[str, ...]:
    """Returns the names of a model's observations, without the subject's index.

    Args:
        model: A `DisRNNModel` with O observations.
        observation_names: O names, or `None` for `"choice"`, `"reward"`, `"observation_1"`, ...
            With subjects, the name of the index is optional.

    Returns:
        O names, or O - 1 with subjects.

    Raises:
        ValueError: If the number of names differs from the number of observations.
    """
    count = model.num_trial_observations
    if observation_names is None:
        extra = (f"observation_{index}" for index in range(1, count - 1))
        return ("choice", "reward", *extra)
    names = tuple(observation_names)
    if len(names) not in (count, model.num_observations):
        raise ValueError(
            f"observation_names: expected {model.num_observations} names, one for each observation "
            f"of the model, got {len(names)}: {names}"
        )
    return names[:count]


def compute_bottlenecks(
    model: DisRNNModel, observation_names: Sequence[str] | None = None
) -> pd.DataFrame:
    """Tabulates every information bottleneck of a model.

    A bottleneck adds noise with standard deviation sigma to what passes through it. It is open near
    sigma = 0. It is closed near sigma = 1, where the noise is as large as the information that it
    may carry (Miller et al. 2023).

    Args:
        model: A built `DisRNNModel` with L latents and O observations.
        observation_names: O names, or `None` for `"choice"`, `"reward"`, `"observation_1"`, ...

    Returns:
        A table with one row for each bottleneck and the columns

        - `group`: `"latent"` (L rows), `"update"` (L x (O + L) rows: for the update network of each
          latent, all observations and then all latents), `"choice"` (L rows) and, with a dopamine
          readout, `"dopamine"` (L + 2 rows: the latents, choice and reward). A model with subjects
          starts with `"subject"` (one row for each dimension of the embedding). The embedding is
          then also an input: after the observations, and last in the readouts. Groups of parts
          that were never trained (`model.untrained`) are absent.
        - `target`: what reads through the bottleneck: a latent, `"choice"` or `"dopamine"`.
        - `source`: what is read. Bottlenecks of latents and of the embedding have themselves as
          target and source.
        - `sigma`, and `openness`: 1 - sigma, clipped to [0, 1].
        - `multiplier`: the factor on the input; NaN for latent bottlenecks, which have none.

    Raises:
        ValueError: If the model is not built, or `observation_names` does not have O names.

    Example:

    >>> import keras_disrnn
    >>> from keras_disrnn.analysis import compute_bottlenecks
    >>> model = keras_disrnn.DisRNNModel(num_latents=1, num_signals=0)
    >>> compute_bottlenecks(model)["source"].tolist()
    ['z1', 'choice', 'reward', 'z1', 'z1']
    """
    check_built(model)
    cell = model.core.cell
    latents = latent_names(cell.num_latents)
    subject = embedding_names(model.subject_units)
    inputs = observation_names_of(model, observation_names) + subject + latents
    shown = {name: part for name, part in model.parts.items() if name not in model.untrained}
    tables = []
    if "subject_embedding" in shown:
        tables.append(_group("subject", subject, subject, shown["subject_embedding"].bottleneck))
    if "core" in shown:
        tables.append(_group("latent", latents, latents, cell.latent_bottleneck))
        tables.append(
            _group(
                "update",
                np.repeat(latents, len(inputs)),
                np.tile(inputs, len(latents)),
                cell.update_obs_bottleneck,
                cell.update_latent_bottleneck,
            )
        )
    if "choice_readout" in shown:
        sources = latents + subject
        tables.append(_group("choice", "choice", sources, shown["choice_readout"].bottleneck))
    if "dopamine_readout" in shown:
        sources = (*latents, "choice", "reward", *subject)
        tables.append(_group("dopamine", "dopamine", sources, shown["dopamine_readout"].bottleneck))
    return pd.concat(tables, ignore_index=True)


def bottleneck_matrices(
    bottlenecks: pd.DataFrame, values: str = "openness"
) -> dict[str, pd.DataFrame]:
    """Arranges the table of bottlenecks as one matrix for each group.

    Args:
        bottlenecks: What `compute_bottlenecks` returns.
        values: The column in the matrices: `"openness"`, `"sigma"` or `"multiplier"`.

    Returns:
        A dict of group to matrix, in the order of the table. `"update"` has L rows, the targets,
        and the sources as columns. Every other group has the sources as rows, and one column.

    Example:

    >>> import keras_disrnn
    >>> from keras_disrnn.analysis import bottleneck_matrices, compute_bottlenecks
    >>> model = keras_disrnn.DisRNNModel(num_latents=1, num_signals=0)
    >>> bottleneck_matrices(compute_bottlenecks(model))["update"].shape
    (1, 3)
    """
    matrices = {}
    for group in GROUPS:
        rows = bottlenecks[bottlenecks["group"] == group]
        if rows.empty:
            continue
        if group == "update":
            matrices[group] = rows.pivot(index="target", columns="source", values=values).loc[
                rows["target"].unique(), rows["source"].unique()
            ]
        else:
            matrices[group] = rows.set_index("source")[[values]]
    return matrices


def sorted_latents(bottlenecks: pd.DataFrame) -> list[str]:
    """Returns the names of the latents, the most open latent bottleneck first.

    Args:
        bottlenecks: What `compute_bottlenecks` returns.

    Returns:
        L names, ordered by the sigma of the latent bottleneck.

    Example:

    >>> import keras_disrnn
    >>> from keras_disrnn.analysis import compute_bottlenecks, sorted_latents
    >>> model = keras_disrnn.DisRNNModel(num_latents=1, num_signals=0)
    >>> sorted_latents(compute_bottlenecks(model))
    ['z1']
    """
    rows = bottlenecks[bottlenecks["group"] == "latent"]
    return rows.sort_values("sigma", kind="stable")["target"].tolist()


def open_latents(model: DisRNNModel, threshold: float = OPEN_BELOW) -> list[str]:
    """Returns the names of the latents whose own bottleneck is open.

    Args:
        model: A built `DisRNNModel`.
        threshold: A latent is open if its sigma is below this.

    Returns:
        Names (`"z1"`, ...), in the order of the network. None if the core was never trained.

    Example:

    >>> import keras_disrnn
    >>> from keras_disrnn.analysis import open_latents
    >>> model = keras_disrnn.DisRNNModel(num_latents=2, num_signals=0)
    >>> open_latents(model)
    ['z1', 'z2']
    """
    check_built(model)
    if "core" in model.untrained:
        return []
    sigma = to_numpy(model.core.cell.latent_bottleneck.sigma)
    return [
        name
        for name, value in zip(latent_names(len(sigma)), sigma, strict=True)
        if value < threshold
    ]


def participation_ratio(sigma: ArrayLike) -> float:
    """Computes how many bottlenecks are open, without a threshold.

    With the openness o = max(1 - sigma, 0) it is (sum o)² / sum o². It equals n if n bottlenecks
    are equally open and the others are closed.

    Args:
        sigma: Array-like of sigmas.

    Returns:
        A number between 1 and the number of bottlenecks, or 0 if all are closed.

    Example:

    >>> from keras_disrnn.analysis import participation_ratio
    >>> participation_ratio([0.0, 0.0, 1.0])
    2.0
    """
    openness = np.clip(1.0 - np.asarray(sigma, np.float64), 0.0, None)
    total = openness.sum()
    return float(total**2 / (openness**2).sum()) if total > 0 else 0.0


def count_bottlenecks(bottlenecks: pd.DataFrame) -> pd.DataFrame:
    """Counts the open and closed bottlenecks of each group.

    Args:
        bottlenecks: What `compute_bottlenecks` returns.

    Returns:
        A table with the groups as index. Its columns are `n`; the counts by sigma `open_below_0.1`,
        `open_below_0.25`, `open_below_0.5` and `closed_above_0.9`; and `participation_ratio`.

    Example:

    >>> import keras_disrnn
    >>> from keras_disrnn.analysis import compute_bottlenecks, count_bottlenecks
    >>> model = keras_disrnn.DisRNNModel(num_latents=1, num_signals=0)
    >>> count_bottlenecks(compute_bottlenecks(model))["n"].to_dict()
    {'latent': 1, 'update': 3, 'choice': 1}
    """
    counts = {}
    for group, rows in bottlenecks.groupby("group", sort=False):
        sigma = rows["sigma"].to_numpy()
        counts[group] = {
            "n": len(sigma),
            **{f"open_below_{limit}": int((sigma < limit).sum()) for limit in COUNT_OPEN_BELOW},
            f"closed_above_{COUNT_CLOSED_ABOVE}": int((sigma > COUNT_CLOSED_ABOVE).sum()),
            "participation_ratio": participation_ratio(sigma),
        }
    return pd.DataFrame.from_dict(counts, orient="index").rename_axis("group")


def check_built(model: DisRNNModel) -> None:
    """Raises a ValueError if the model does not have its weights yet."""
    if not model.built:
        raise ValueError(
            "model: expected a built model, got one without weights; call it on features first"
        )


def _group(group: str, targets: ArrayLike, sources: ArrayLike, *bottlenecks: Any) -> pd.DataFrame:
    """The rows of one group; the inputs of a target are those of all layers, side by side."""
    sigma = np.concatenate([to_numpy(layer.sigma) for layer in bottlenecks], axis=-1)
    multiplier = np.full(sigma.shape, np.nan)
    if bottlenecks[0].multiplier is not None:
        multiplier = np.concatenate([to_numpy(layer.multiplier) for layer in bottlenecks], axis=-1)
    return pd.DataFrame(
        {
            "group": group,
            "target": targets,
            "source": sources,
            "sigma": sigma.reshape(-1),
            "openness": np.clip(1.0 - sigma, 0.0, 1.0).reshape(-1),
            "multiplier": multiplier.reshape(-1),
        }
    )

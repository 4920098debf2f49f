"""What every information bottleneck of a fitted network lets through."""

import keras
import numpy as np
import pandas as pd

from keras_disrnn.objectives.metrics import OPEN_BELOW

COUNT_OPEN_BELOW = (0.1, 0.25, 0.5)
COUNT_CLOSED_ABOVE = 0.9

GROUPS = ("subject", "latent", "update", "choice", "dopamine")


def latent_names(latents):
    """Names of the latents by their index in the network.

    Args:
        latents: Number of latents, L.

    Returns:
        The tuple `("z1", ..., "zL")`.
    """
    return tuple(f"z{index + 1}" for index in range(latents))


def embedding_names(units):
    """Names of the dimensions of the subjects' embedding.

    Args:
        units: Number of dimensions, E.

    Returns:
        The tuple `("subject 1", ..., "subject E")`.
    """
    return tuple(f"subject {index + 1}" for index in range(units))


def observation_names_of(model, observation_names=None):
    """Names of the observations of a model, given or by default, the subject's index left out.

    Args:
        model: A `DisRNNModel` with O observations.
        observation_names: O names, or `None` for `"choice"`, `"reward"`, `"observation_1"`, ...;
            with subjects, that of the index may be left out.

    Returns:
        Tuple of O names, or O - 1 with subjects.

    Raises:
        ValueError: If the number of names is not the model's number of observations.
    """
    count = model.num_trial_observations
    if observation_names is None:
        extra = (f"observation_{index}" for index in range(1, count - 1))
        return ("choice", "reward", *extra)
    names = tuple(observation_names)
    if len(names) not in (count, model.num_observations):
        raise ValueError(
            f"observation_names: expected {model.num_observations} names, one for each observation of "
            f"the model, got {len(names)}: {names}"
        )
    return names[:count]


def compute_bottlenecks(model, observation_names=None):
    """Table of every information bottleneck of a model.

    A bottleneck adds noise of standard deviation sigma to what passes it. It is open near sigma = 0
    and closed near sigma = 1, where the noise is as large as what it may carry (Miller et al.
    2023).

    Args:
        model: A built `DisRNNModel` with L latents and O observations.
        observation_names: O names, or `None` for `"choice"`, `"reward"`, `"observation_1"`, ...

    Returns:
        A `pandas.DataFrame` with one row a bottleneck and the columns

        - `group`: `"latent"` (L rows), `"update"` (L x (O + L) rows: for each latent's update
          network every observation, then every latent), `"choice"` (L rows) and, where the model
          has a dopamine readout, `"dopamine"` (L + 2 rows: the latents, choice and reward). With
          subjects, first `"subject"` (a row for each dimension of the embedding), and the embedding
          among what is read: after the observations (of which the index is none), and in the
          readouts last.
        - `target`: what reads through the bottleneck: a latent's name, `"choice"` or `"dopamine"`.
        - `source`: what is read. A latent bottleneck has the latent itself as target and source,
          and so have those of the embedding itself.
        - `sigma`, and `openness`: 1 - sigma, clipped to [0, 1].
        - `multiplier`: the factor on the input; NaN for latent bottlenecks, which have none.

    Raises:
        ValueError: If the model is not built or `observation_names` does not hold O names.
    """
    check_built(model)
    cell = model.core.cell
    latents = latent_names(cell.num_latents)
    subject = embedding_names(model.subject_units)
    inputs = observation_names_of(model, observation_names) + subject + latents
    tables = []
    if model.subjects:
        tables.append(_group("subject", subject, subject, model.subject_embedding.bottleneck))
    tables += [
        _group("latent", latents, latents, cell.latent_bottleneck),
        _group(
            "update",
            np.repeat(latents, len(inputs)),
            np.tile(inputs, len(latents)),
            cell.update_obs_bottleneck,
            cell.update_latent_bottleneck,
        ),
        _group("choice", "choice", latents + subject, model.choice_readout.bottleneck),
    ]
    if model.dopamine_readout is not None:
        sources = (*latents, "choice", "reward", *subject)
        tables.append(_group("dopamine", "dopamine", sources, model.dopamine_readout.bottleneck))
    return pd.concat(tables, ignore_index=True)


def bottleneck_matrices(bottlenecks, values="openness"):
    """The table of bottlenecks as one matrix a group, in the table's own order.

    Args:
        bottlenecks: What `compute_bottlenecks` returns.
        values: The column that fills the matrices: `"openness"`, `"sigma"` or `"multiplier"`.

    Returns:
        Dictionary from group to a `pandas.DataFrame`. `"update"`: targets in the rows (L) and
        sources in the columns. Every other group: sources in the rows and one column.
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


def sorted_latents(bottlenecks):
    """Names of the latents, the most open latent bottleneck first.

    Args:
        bottlenecks: What `compute_bottlenecks` returns.

    Returns:
        List of L names, by rising sigma of the latent bottleneck.
    """
    rows = bottlenecks[bottlenecks["group"] == "latent"]
    return rows.sort_values("sigma", kind="stable")["target"].tolist()


def open_latents(model, threshold=OPEN_BELOW):
    """Names of the latents through whose own bottleneck information can flow.

    Args:
        model: A built `DisRNNModel`.
        threshold: A latent is open where its sigma is below this.

    Returns:
        List of names (`"z1"`, ...), in the order of their index.
    """
    check_built(model)
    sigma = _array(model.core.cell.latent_bottleneck.sigma)
    return [
        name
        for name, value in zip(latent_names(len(sigma)), sigma, strict=True)
        if value < threshold
    ]


def participation_ratio(sigma):
    """How many bottlenecks are open, without a threshold.

    With the openness o = max(1 - sigma, 0) it is (sum o)^2 / sum o^2: n where n bottlenecks are
    equally open and the others closed.

    Args:
        sigma: Array-like of sigmas.

    Returns:
        A float between 1 and the number of bottlenecks, or 0 where all are closed.
    """
    openness = np.clip(1.0 - np.asarray(sigma, np.float64), 0.0, None)
    total = openness.sum()
    return float(total**2 / (openness**2).sum()) if total > 0 else 0.0


def count_bottlenecks(bottlenecks):
    """Counts of open and closed bottlenecks in each group.

    Args:
        bottlenecks: What `compute_bottlenecks` returns.

    Returns:
        A `pandas.DataFrame` indexed by group, with the columns `n`, `open_below_0.1`,
        `open_below_0.25`, `open_below_0.5` and `closed_above_0.9` (counts by sigma) and
        `participation_ratio` (see `participation_ratio`).
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


def check_built(model):
    """Raises ValueError unless the model has its weights."""
    if not model.built:
        raise ValueError(
            "model: expected a built model, got one without weights; call it on features first"
        )


def _array(tensor):
    return np.asarray(keras.ops.convert_to_numpy(tensor), np.float64)


def _group(group, targets, sources, *bottlenecks):
    """Rows of one group; several bottleneck layers stand side by side as the inputs of a target."""
    sigma = np.concatenate([_array(layer.sigma) for layer in bottlenecks], axis=-1)
    multiplier = np.full(sigma.shape, np.nan)
    if bottlenecks[0].multiplier is not None:
        multiplier = np.concatenate([_array(layer.multiplier) for layer in bottlenecks], axis=-1)
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

"""Test which latents each readout uses, by ablating every latent of every readout."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import keras
import numpy as np
import pandas as pd

from keras_disrnn.analysis.bootstrap import draw_sessions, score_totals, with_interval
from keras_disrnn.analysis.bottlenecks import check_built, latent_names, open_latents
from keras_disrnn.analysis.evaluation import session_totals
from keras_disrnn.data import Sessions
from keras_disrnn.experiments.data import load_run_data
from keras_disrnn.experiments.figures import save_figures
from keras_disrnn.experiments.folder import ResultFolder, Step, compute_step
from keras_disrnn.experiments.settings import BATCH_SIZE
from keras_disrnn.experiments.stored_run import digest_model, load_training
from keras_disrnn.models.disrnn_model import DisRNNModel
from keras_disrnn.plots import plot_ablation
from keras_disrnn.training.checkpoint import StopOnNaN
from keras_disrnn.training.courses import choose_batch_size
from keras_disrnn.training.fit import with_latents
from keras_disrnn.training.plan import STAGES, Stage, steps_together
from keras_disrnn.training.stages import compile_stage
from keras_disrnn.utils.checks import check_integer
from keras_disrnn.utils.files import absolute_path, write_text
from keras_disrnn.utils.tables import format_interval, to_markdown, write_csv
from keras_disrnn.utils.thresholds import SMALLEST_EFFECT

READOUTS = {
    "choice": (Stage(("choice_readout",), ("choice",)), "normalized_likelihood"),
    "dopamine": (STAGES["stage2"], "r2"),
}
"""How each readout is retrained on the frozen core, and the score that its verdict is about."""


class Ablation(NamedTuple):
    """The effects of ablating each latent.

    Attributes:
        effects: One row per readout and latent (see `compute_ablation`).
        verdicts: One row per latent: `latent`, `open`, `choice` and, with dopamine, `dopamine` (the
            verdicts on the two readouts) and `joint`.
    """

    effects: pd.DataFrame
    verdicts: pd.DataFrame


def compute_ablation(
    model: DisRNNModel,
    train: Sessions,
    held_out: Sessions,
    *,
    steps: int = 3000,
    learning_rate: float = 1e-3,
    batch_size: int | Literal["all"] | None = None,
    buckets: int = 1,
    smallest_effect: Mapping[str, float] | None = None,
    num_bootstrap_samples: int = 2000,
    seed: int = 0,
    confidence: float = 0.95,
    progress: Callable[[str], None] | None = None,
    step: Step = compute_step,
) -> Ablation:
    """Test which latents the choice readout and the dopamine readout use.

    A latent is ablated for one readout at a time. The core does not change. There are two ways.

    - *Clamped* (mean ablation): the fitted readout reads the mean of the latent over the training
      sessions instead of its value. The loss shows whether the fitted readout reads the latent.
    - *Retrained*: a new readout is trained on the noiseless latents of the frozen core, with the
      latent at its mean everywhere. It is compared with a new readout that was trained on all
      latents, from the same weights and with the same noise. The loss shows whether the latent has
      information that the others do not have.

    A loss is the score with the latent minus the score without it, on the held-out sessions. The
    score is the normalized likelihood for choice and R^2 for dopamine. The interval of a loss comes
    from bootstrap samples of the sessions, the same for both scores. A latent *hurts* if the whole
    interval is above the smallest effect. It *does not hurt* if the whole interval is below. The
    verdict on a readout and a latent is

    - "used": clamping and retraining both hurt;
    - "redundant": clamping hurts and retraining does not. The readout reads the latent, but other
      latents have the same information;
    - "not used": neither hurts;
    - "unclear": anything else.

    The joint verdict on a latent is "shared" if both readouts use it, "choice only", "dopamine
    only" or "neither". It is "unclear" if one of the two verdicts is, else "redundant" if one is.

    Args:
        model: A trained model with L latents. It does not change.
        train: Sessions for the retraining: those that the model was trained on.
        held_out: Sessions for the scores, with the same signals.
        steps: Steps of each retraining; use those of stage 2. There are L + 1 per readout.
        learning_rate: As for `keras_disrnn.train`.
        batch_size: As for `keras_disrnn.train`.
        buckets: As for `keras_disrnn.train`.
        smallest_effect: Dict of "choice" and "dopamine" to the smallest loss that counts; `None`
            for `SMALLEST_EFFECT`.
        num_bootstrap_samples: Number of bootstrap samples for the intervals.
        seed: Seed of the new readouts' weights, their noise, the batches and the bootstrap.
        confidence: Confidence level of the intervals.
        progress: Function that receives a line of text before each retraining, or `None`.
        step: `ResultFolder.step` of a folder that keeps each finished retraining. By default
            nothing is kept.

    Returns:
        An `Ablation`. Its `effects` have the columns

        - `readout`, `latent`, `open` (whether the latent's own bottleneck is open), `score` (name
          of the score) and `intact`;
        - `clamped`, the score with the latent clamped; `retrained_all` and `retrained`, the scores
          of the new readouts, on all latents and without this one;
        - `clamped_loss` and `retrained_loss`, each with `_lower` and `_upper`;
        - for dopamine, the mean squared errors `intact_mse`, `clamped_mse`, `retrained_all_mse` and
          `retrained_mse`;
        - `smallest_effect` and `verdict`.

        The rows of choice include closed latents, which are noise in training, but not when the
        readouts are scored.

    Raises:
        ValueError: If the model is not built, a setting is wrong, or the sessions do not match the
            model.
    """
    check_built(model)
    smallest = {**SMALLEST_EFFECT, **(smallest_effect or {})}
    _check_settings(steps, num_bootstrap_samples, smallest, seed)
    train, held_out = train.for_model(model), held_out.for_model(model)
    for name in ("num_observations", "num_arms", "num_signals"):
        for part in (train, held_out):
            want, got = getattr(model, name), getattr(part, name)
            if want != got:
                raise ValueError(
                    f"{name}: expected sessions with {want}, as the model has, got {got}"
                )
    dopamine = all(part.num_signals and part.dopamine_weight.any() for part in (train, held_out))
    shown = {"choice", *(["dopamine"] if dopamine else [])} - {*model.untrained_outputs}
    readouts = [name for name in READOUTS if name in shown]

    train, held_out = with_latents(model, train, held_out)
    assert train.latents is not None
    means = train.latents[train.row_mask].mean(axis=0)
    names = latent_names(len(means))
    drawn = draw_sessions(held_out.num_sessions, num_bootstrap_samples, seed)
    is_open = open_latents(model)
    rows = []
    for readout in readouts:
        stage, score = READOUTS[readout]
        copy = _Copy(model, stage, learning_rate, steps, batch_size, buckets, seed)

        def scored(
            without: int | None = None,
            retrain: bool = False,
            copy: _Copy = copy,
            readout: str = readout,
        ) -> tuple[Any, Any]:
            def compute() -> dict[str, Any]:
                if retrain and progress is not None:
                    what = "all latents" if without is None else f"all latents but {names[without]}"
                    progress(f"retraining the {readout} readout on {what}")
                sums = copy.totals(train, held_out, without, means, retrain)
                return {"choice": sums[0], "dopamine": sums[1]}

            left_out = "all" if without is None else f"without-{names[without]}"
            way = "retrained" if retrain else "clamped"
            sums = step(f"{readout}-{way}-{left_out}", compute)
            return score_totals((sums["choice"], sums["dopamine"]), drawn)

        intact, control = scored(), scored(retrain=True)
        for index, name in enumerate(names):
            clamped, retrained = scored(index), scored(index, retrain=True)
            row = {"readout": readout, "latent": name, "open": name in is_open, "score": score}
            row |= {"intact": float(intact[0][score]), "clamped": float(clamped[0][score])}
            row |= _loss("clamped_loss", intact, clamped, score, confidence)
            row |= {
                "retrained_all": float(control[0][score]),
                "retrained": float(retrained[0][score]),
            }
            row |= _loss("retrained_loss", control, retrained, score, confidence)
            if readout == "dopamine":
                for label, scores in (
                    ("intact", intact),
                    ("clamped", clamped),
                    ("retrained_all", control),
                    ("retrained", retrained),
                ):
                    row[f"{label}_mse"] = float(scores[0]["mse"])
            row["smallest_effect"] = smallest[readout]
            row["verdict"] = verdict(row)
            rows.append(row)
    effects = pd.DataFrame(rows)
    return Ablation(effects, _joint(effects, readouts))


def ablate_run(
    run: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    steps: int | None = None,
    smallest_effect: Mapping[str, float] | None = None,
    num_bootstrap_samples: int = 2000,
    seed: int = 0,
) -> Ablation:
    """Test which latents the readouts of a run's model use, and write the result folder.

    An interrupted call resumes: finished retrainings are not repeated.

    Args:
        run: The folder of a finished run.
        out: The folder: `effects.csv` and `verdicts.csv`, the tables of an `Ablation`;
            `ablation.md`; the figure `ablation`; `config.yaml` and `environment.json`.
        steps: Steps of each retraining. `None` for those of the run's stage 2.
        smallest_effect: As for `compute_ablation`.
        num_bootstrap_samples: As for `compute_ablation`.
        seed: As for `compute_ablation`.

    Returns:
        The `Ablation`.

    Raises:
        FileExistsError: If the folder holds anything but this ablation, unfinished.
        FileNotFoundError, ValueError: If the run or a setting is wrong.
    """
    training = load_training(run)
    if steps is None and not training.stage2_steps:
        raise ValueError(
            f"steps: expected a number, because the run {run} has no stage 2, got none"
        )
    settings: dict[str, Any] = {
        "steps": training.stage2_steps if steps is None else steps,
        "smallest_effect": {**SMALLEST_EFFECT, **(smallest_effect or {})},
        "num_bootstrap_samples": num_bootstrap_samples,
        "seed": seed,
    }
    _check_settings(settings["steps"], num_bootstrap_samples, settings["smallest_effect"], seed)
    config = {"run": absolute_path(run), **settings}
    folder = ResultFolder(out, config, command="ablate", last="ablation.md")
    model, sessions = load_run_data(run)
    batch = choose_batch_size(sessions.train, training.batch_size, course=training.course)
    with folder.begin(data=f"{sessions.digest}-{digest_model(run)}"):
        ablation = compute_ablation(
            model,
            sessions.train,
            sessions.held_out,
            **settings,
            learning_rate=training.learning_rate,
            batch_size=batch,
            buckets=training.buckets,
            progress=print,
            step=folder.step,
        )
        write_csv(folder.path / "effects.csv", ablation.effects)
        write_csv(folder.path / "verdicts.csv", ablation.verdicts)
        save_figures(folder.path / "ablation", plot_ablation, ablation)
        write_text(folder.path / "ablation.md", ablation_markdown(ablation))
        folder.discard_steps()
    return ablation


def _check_settings(steps: Any, samples: Any, smallest: Mapping[str, float], seed: Any) -> None:
    check_integer("steps", steps)
    check_integer("num_bootstrap_samples", samples)
    check_integer("seed", seed, 0)
    for name, value in smallest.items():
        if name not in READOUTS or not 0.0 <= value < float("inf"):
            raise ValueError(
                "smallest_effect: expected numbers of at least 0 for 'choice' and 'dopamine', got "
                f"{value!r} for {name!r}"
            )


def verdict(row: Mapping[str, Any]) -> str:
    """Return the verdict on a row of `Ablation.effects` (see `compute_ablation`).

    Args:
        row: The row.

    Example:

    >>> from keras_disrnn.experiments.ablation import verdict
    >>> row = {f"clamped_loss_{end}": 0.1 for end in ("lower", "upper")}
    >>> row |= {f"retrained_loss_{end}": 0.1 for end in ("lower", "upper")}
    >>> verdict({**row, "smallest_effect": 0.01})
    'used'
    """
    effects: dict[str, Any] = {}
    for kind in ("clamped_loss", "retrained_loss"):
        low, high = row[f"{kind}_lower"], row[f"{kind}_upper"]
        hurts, harmless = low > row["smallest_effect"], high < row["smallest_effect"]
        effects[kind] = True if hurts else False if harmless else None
    return {
        (True, True): "used",
        (True, False): "redundant",
        (False, False): "not used",
    }.get((effects["clamped_loss"], effects["retrained_loss"]), "unclear")


def ablation_markdown(ablation: Ablation) -> str:
    """Writes an `Ablation` as Markdown: the verdicts on each latent, then the losses."""
    verdicts = ablation.verdicts
    is_open = verdicts["open"].to_numpy()
    names = verdicts["latent"] + np.where(is_open, "", " (closed)")
    lines = [to_markdown(verdicts.assign(latent=names).drop(columns="open"))]
    for readout, rows in ablation.effects.groupby("readout", sort=False):
        first = rows.iloc[0]
        score = {"normalized_likelihood": "normalized likelihood", "r2": "R²"}[first["score"]]
        cells = {"latent": rows["latent"]}
        for kind, title in (
            ("clamped_loss", "clamped at its mean"),
            ("retrained_loss", "retrained without it"),
        ):
            numbers = rows[[kind, f"{kind}_lower", f"{kind}_upper"]].to_numpy()
            cells[title] = [format_interval(*row) for row in numbers]
        cells["verdict"] = rows["verdict"]
        lines.append(
            f"Loss of {score} at the {readout} readout (intact {first['intact']:.4f}, retrained on "
            f"all latents {first['retrained_all']:.4f}; smallest loss that counts "
            f"{first['smallest_effect']:g}):\n\n{to_markdown(pd.DataFrame(cells))}"
        )
    return "\n".join(lines)


def _loss(name: str, intact: Any, ablated: Any, score: str, confidence: float) -> dict[str, float]:
    """Return a loss and its interval."""
    value = intact[0][score] - ablated[0][score]
    draws = intact[1][score] - ablated[1][score]
    cells = with_interval(name, value, draws, confidence)
    # A readout that does not depend on the latent loses nothing in every bootstrap sample.
    if value == 0 and not draws.any():
        cells |= {f"{name}_lower": 0.0, f"{name}_upper": 0.0}
    return cells


def _joint(effects: pd.DataFrame, readouts: Sequence[str]) -> pd.DataFrame:
    table = effects.pivot(index="latent", columns="readout", values="verdict")
    first = effects.drop_duplicates("latent")[["latent", "open"]]
    table = first.join(table[list(readouts)], on="latent").reset_index(drop=True)
    if len(readouts) == 2:
        table["joint"] = [
            _joint_verdict(*pair) for pair in zip(table["choice"], table["dopamine"], strict=True)
        ]
    return table


def _joint_verdict(choice: str, dopamine: str) -> str:
    for word in ("unclear", "redundant"):
        if word in (choice, dopamine):
            return word
    return {
        ("used", "used"): "shared",
        ("used", "not used"): "choice only",
        ("not used", "used"): "dopamine only",
        ("not used", "not used"): "neither",
    }[choice, dopamine]


class _Copy:
    """A copy of a model in which latents are ablated and one readout is retrained."""

    def __init__(
        self,
        model: DisRNNModel,
        stage: Stage,
        learning_rate: float,
        steps: int,
        batch_size: int | Literal["all"] | None,
        buckets: int,
        seed: int,
    ) -> None:
        self._stage, self._learning_rate, self._steps = stage, learning_rate, steps
        self._batch_size, self._buckets, self._seed = batch_size, buckets, seed
        config = {**model.get_config(), "seed": seed, "frozen": [], "trained": list(model.parts)}
        self._model = type(model).from_config(config)
        compile_stage(
            self._model,
            stage,
            learning_rate=learning_rate,
            steps_per_execution=steps_together(self._steps),
        )
        (retrained,) = stage.trains
        fresh = self._model.parts[retrained].get_weights()
        for name, part in model.parts.items():
            self._model.parts[name].set_weights(part.get_weights())
        self._intact = self._values()
        self._model.parts[retrained].set_weights(fresh)
        self._fresh = self._values()

    def totals(
        self,
        train: Sessions,
        held_out: Sessions,
        without: int | None,
        means: np.ndarray,
        retrain: bool,
    ) -> tuple[np.ndarray, np.ndarray | None]:
        """Return the sums of the held-out sessions, with the readout as it was or retrained."""
        for variable, value in self._fresh if retrain else self._intact:
            variable.assign(value)
        if without is not None:
            train, held_out = (_blank(part, without, means) for part in (train, held_out))
            # The dopamine readout reads these before the first trial.
            initial = keras.ops.convert_to_numpy(self._model.initial_latents).copy()
            initial[without] = means[without]
            self._model.core.cell.initial_latents.assign(initial)
        if retrain:
            self._fit(train)
        return session_totals(self._model, held_out, batch_size=BATCH_SIZE)

    def _fit(self, sessions: Sessions) -> None:
        compile_stage(
            self._model,
            self._stage,
            learning_rate=self._learning_rate,
            steps_per_execution=steps_together(self._steps),
        )
        self._model.fit(
            sessions.dataset(
                self._batch_size,
                shuffle=self._batch_size is not None,
                seed=self._seed,
                steps=self._steps,
                buckets=self._buckets,
            ),
            steps_per_epoch=self._steps,
            callbacks=[StopOnNaN()],
            shuffle=False,
            verbose=0,
        )

    def _values(self) -> list[tuple[Any, np.ndarray]]:
        return [(v, keras.ops.convert_to_numpy(v)) for v in self._model.variables]


def _blank(sessions: Sessions, latent: int, means: np.ndarray) -> Sessions:
    latents = np.array(sessions.latents)
    latents[..., latent] = means[latent]
    return dataclasses.replace(sessions, latents=latents)

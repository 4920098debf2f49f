"""Which latents each readout uses: every latent taken away from it, with a verdict."""

import dataclasses
import math
from typing import NamedTuple

import keras
import numpy as np
import pandas as pd

from keras_disrnn.analysis.bootstrap import draw_sessions, score_totals, with_interval
from keras_disrnn.analysis.bottlenecks import check_built, latent_names, open_latents
from keras_disrnn.analysis.evaluation import session_totals
from keras_disrnn.experiments.data import load_data
from keras_disrnn.experiments.figures import save_figures
from keras_disrnn.experiments.folder import ResultFolder, compute_step, load_run, load_training
from keras_disrnn.plots import plot_ablation
from keras_disrnn.training.checkpoint import StopOnNaN
from keras_disrnn.training.fit import fingerprint, with_latents
from keras_disrnn.training.stages import STAGES, STEPS_PER_EXECUTION, Stage, compile_stage
from keras_disrnn.utils.checks import check_integer
from keras_disrnn.utils.files import write_text
from keras_disrnn.utils.tables import format_interval, to_markdown

SMALLEST_EFFECT = {"choice": 0.002, "dopamine": 0.005}
"""The smallest loss that counts: of normalized likelihood for choice, of R^2 for dopamine."""

READOUTS = {
    "choice": (Stage(("choice_readout",), ("choice",)), "normalized_likelihood"),
    "dopamine": (STAGES["stage2"], "r2"),
}
"""How each readout is refitted on the frozen core, and the score of which its verdict is."""


class Ablation(NamedTuple):
    """What becomes of the readouts when a latent is taken away from them.

    Attributes:
        effects: One row a readout and latent; see `compute_ablation`.
        verdicts: One row a latent: `latent`, `open`, `choice` and, with dopamine, `dopamine` (the
            verdicts of the two readouts) and `joint`.
    """

    effects: pd.DataFrame
    verdicts: pd.DataFrame


def compute_ablation(
    model,
    train,
    held_out,
    *,
    steps=3000,
    learning_rate=1e-3,
    batch_size=None,
    buckets=1,
    smallest_effect=None,
    num_bootstrap_samples=2000,
    seed=0,
    confidence=0.95,
    progress=None,
    step=compute_step,
):
    """Tests which latents the choice and the dopamine readout use.

    A latent is taken away from one readout at a time; the core and what the latents do to each
    other stay. It is done in two ways. *Held*: the fitted readout reads the latent's mean over the
    training sessions in place of its value. *Refitted*: a new readout is trained on the frozen
    core's noiseless latents with that latent blanked (its mean everywhere), and set against one
    trained alike, from the same weights and with the same noise, on all latents. What holding costs
    tells whether the fitted readout reads the latent; what refitting costs tells whether it has
    anything that the others have not.

    A loss is the score with the latent minus the score without it, on the held-out sessions: of
    normalized likelihood for choice, of R^2 (so, in shares of the response's variance) for
    dopamine. Its interval is of resampled sessions, both scores on the same resamples. It *hurts*
    where the whole interval lies above the smallest effect, it *does not* where the whole interval
    lies below, and is undecided otherwise. The verdict on a readout and a latent is

    - "used": held and refitted both hurt;
    - "redundant": holding hurts, refitting does not: the readout reads it, but finds the same
      elsewhere;
    - "not used": neither hurts;
    - "unclear": anything else.

    The joint verdict on a latent is "shared" where both readouts use it, "choice only", "dopamine
    only" or "neither"; "unclear" where one of the two verdicts is, else "redundant" where one is.

    Args:
        model: A trained `DisRNNModel` with L latents. It is not changed.
        train: `keras_disrnn.data.Sessions` to refit on, those that the model was trained on.
        held_out: `keras_disrnn.data.Sessions` to score on, with the same signals.
        steps: Steps of each refit; take those of stage 2. There are L + 1 refits a readout.
        learning_rate, batch_size, buckets: As for `train`.
        smallest_effect: Dict of "choice" and "dopamine" to the smallest loss that counts;
            `SMALLEST_EFFECT` when `None`.
        num_bootstrap_samples: Resamples of the bootstrap.
        seed: Of the new readouts' weights, their noise, the batches and the resamples.
        confidence: Of the intervals.
        progress: Called with a line of text before each refit, or `None`.
        step: `ResultFolder.step` of a folder that keeps each finished refit; by default nothing is
            kept.

    Returns:
        An `Ablation`. Its `effects` have the columns `readout`, `latent`, `open` (is its own
        bottleneck), `score` (name of the score), `intact`; `held` (the score with the latent held);
        `refitted_all` and `refitted` (the scores of the new readouts, on all latents and without
        this one); `held_loss` and `refitted_loss`, each with `_lower` and `_upper`; for dopamine
        also the mean squared errors `intact_mse`, `held_mse`, `refitted_all_mse`, `refitted_mse`;
        `smallest_effect` and `verdict`. Rows of choice are of all latents too: a closed one is
        noise in training, but not when the readouts are scored.

    Raises:
        ValueError: If the model is not built, a setting is wrong, or the sessions are not the
            model's kind.
    """
    check_built(model)
    check_integer("steps", steps)
    check_integer("num_bootstrap_samples", num_bootstrap_samples)
    smallest = {**SMALLEST_EFFECT, **(smallest_effect or {})}
    for name, value in smallest.items():
        if name not in READOUTS or not 0.0 <= value < float("inf"):
            raise ValueError(
                "smallest_effect: expected numbers of at least 0 for 'choice' and 'dopamine', got "
                f"{value!r} for {name!r}"
            )
    train, held_out = train.for_model(model), held_out.for_model(model)
    for name in ("num_observations", "num_arms", "num_signals"):
        for part in (train, held_out):
            want, got = getattr(model, name), getattr(part, name)
            if want != got:
                raise ValueError(f"{name}: the model was made for {want}, the sessions have {got}")
    dopamine = all(part.num_signals and part.dopamine_weight.any() for part in (train, held_out))
    readouts = ("choice", "dopamine") if dopamine else ("choice",)

    train, held_out = with_latents(model, train, held_out)
    means = train.latents[train.row_mask].mean(axis=0)
    names = latent_names(len(means))
    drawn = draw_sessions(held_out.n_sessions, num_bootstrap_samples, seed)
    is_open = open_latents(model)
    rows = []
    for readout in readouts:
        stage, score = READOUTS[readout]
        copy = _Copy(model, stage, learning_rate, steps, batch_size, buckets, seed)

        def scored(without=None, refit=False, copy=copy, readout=readout):
            def compute():
                if refit and progress is not None:
                    what = "all latents" if without is None else f"all latents but {names[without]}"
                    progress(f"refitting the {readout} readout on {what}")
                sums = copy.totals(train, held_out, without, means, refit)
                return {"choice": sums[0], "dopamine": sums[1]}

            left_out = "all" if without is None else f"without-{names[without]}"
            way = "retrained" if refit else "clamped"
            sums = step(f"{readout}-{way}-{left_out}", compute)
            return score_totals((sums["choice"], sums["dopamine"]), drawn)

        intact, control = scored(), scored(refit=True)
        for index, name in enumerate(names):
            held, refitted = scored(index), scored(index, refit=True)
            row = {"readout": readout, "latent": name, "open": name in is_open, "score": score}
            row |= {"intact": float(intact[0][score]), "held": float(held[0][score])}
            row |= _loss("held_loss", intact, held, score, confidence)
            row |= {
                "refitted_all": float(control[0][score]),
                "refitted": float(refitted[0][score]),
            }
            row |= _loss("refitted_loss", control, refitted, score, confidence)
            if readout == "dopamine":
                for label, scores in (
                    ("intact", intact),
                    ("held", held),
                    ("refitted_all", control),
                    ("refitted", refitted),
                ):
                    row[f"{label}_mse"] = float(scores[0]["mse"])
            row["smallest_effect"] = smallest[readout]
            row["verdict"] = verdict(row)
            rows.append(row)
    effects = pd.DataFrame(rows)
    return Ablation(effects, _joint(effects, readouts))


def ablate_run(run, out, *, steps=None, smallest_effect=None, num_bootstrap_samples=2000, seed=0):
    """Test which latents the readouts of a run's model use, and write the result folder.

    An interrupted call resumes: a readout that is retrained already is not trained again.

    Args:
        run: The folder of a finished run.
        out: The folder: `effects.csv` and `verdicts.csv`, the tables of an `Ablation`;
            `ablation.md`; the figure `ablation`; `config.yaml` and `environment.json`.
        steps: Steps of each retraining. `None` for those of the run's stage 2.
        smallest_effect, num_bootstrap_samples, seed: As for `compute_ablation`.

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
    settings = {
        "steps": training.stage2_steps if steps is None else steps,
        "smallest_effect": {**SMALLEST_EFFECT, **(smallest_effect or {})},
        "num_bootstrap_samples": num_bootstrap_samples,
        "seed": seed,
    }
    folder = ResultFolder(out, {"run": str(run), **settings}, command="ablate", last="ablation.md")
    model, data, data_seed = load_run(run)
    sessions = load_data(data, data_seed)
    check_integer("steps", settings["steps"])
    check_integer("num_bootstrap_samples", num_bootstrap_samples)
    folder.begin(data=fingerprint(sessions.train))
    ablation = compute_ablation(
        model,
        sessions.train,
        sessions.held_out,
        **settings,
        learning_rate=training.learning_rate,
        batch_size=training.batch_size,
        buckets=training.buckets,
        progress=print,
        step=folder.step,
    )
    write_text(folder.path / "effects.csv", ablation.effects.to_csv(index=False))
    write_text(folder.path / "verdicts.csv", ablation.verdicts.to_csv(index=False))
    save_figures(folder.path / "ablation", plot_ablation, ablation)
    write_text(folder.path / "ablation.md", ablation_markdown(ablation))
    folder.discard_steps()
    return ablation


def verdict(row):
    """The verdict on a row of `Ablation.effects` (see `compute_ablation`)."""
    effects = {}
    for kind in ("held_loss", "refitted_loss"):
        low, high = row[f"{kind}_lower"], row[f"{kind}_upper"]
        hurts, harmless = low > row["smallest_effect"], high < row["smallest_effect"]
        effects[kind] = True if hurts else False if harmless else None
    return {
        (True, True): "used",
        (True, False): "redundant",
        (False, False): "not used",
    }.get((effects["held_loss"], effects["refitted_loss"]), "unclear")


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
            ("held_loss", "clamped at its mean"),
            ("refitted_loss", "retrained without it"),
        ):
            numbers = rows[[kind, f"{kind}_lower", f"{kind}_upper"]].to_numpy()
            cells[title] = [format_interval(*row) for row in numbers]
        cells["verdict"] = rows["verdict"]
        lines.append(
            f"Loss of {score} at the {readout} readout (intact {first['intact']:.4f}, retrained on "
            f"all latents {first['refitted_all']:.4f}; smallest loss that counts "
            f"{first['smallest_effect']:g}):\n\n{to_markdown(pd.DataFrame(cells))}"
        )
    return "\n".join(lines)


def _loss(name, intact, ablated, score, confidence):
    """The loss and its interval."""
    value = intact[0][score] - ablated[0][score]
    draws = intact[1][score] - ablated[1][score]
    cells = with_interval(name, value, draws, confidence)
    # A readout that does not depend on the latent at all loses the same, nothing, in each resample.
    if value == 0 and not draws.any():
        cells |= {f"{name}_lower": 0.0, f"{name}_upper": 0.0}
    return cells


def _joint(effects, readouts):
    table = effects.pivot(index="latent", columns="readout", values="verdict")
    first = effects.drop_duplicates("latent")[["latent", "open"]]
    table = first.join(table[list(readouts)], on="latent").reset_index(drop=True)
    if len(readouts) == 2:
        table["joint"] = [
            _joint_verdict(*pair) for pair in zip(table["choice"], table["dopamine"], strict=True)
        ]
    return table


def _joint_verdict(choice, dopamine):
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
    """A copy of a model, to take latents from and to refit one readout of, again and again."""

    def __init__(self, model, stage, learning_rate, steps, batch_size, buckets, seed):
        self._stage, self._learning_rate = stage, learning_rate
        self._steps, self._batch_size, self._buckets = steps, batch_size, buckets
        self._seed = seed
        config = {**model.get_config(), "seed": seed, "frozen": []}
        self._model = type(model).from_config(config)
        self._model.build((None, None, model.num_observations))
        compile_stage(
            self._model, stage, learning_rate, steps_per_execution=self._steps_per_execution
        )
        (refitted,) = stage.trains
        fresh = self._model.parts[refitted].get_weights()
        for name, part in model.parts.items():
            self._model.parts[name].set_weights(part.get_weights())
        self._intact = self._values()
        self._model.parts[refitted].set_weights(fresh)
        self._fresh = self._values()

    @property
    def _steps_per_execution(self):
        return math.gcd(self._steps, STEPS_PER_EXECUTION)

    def totals(self, train, held_out, without, means, refit):
        """The sums of the held-out sessions, with the readout as it was or refitted."""
        for variable, value in self._fresh if refit else self._intact:
            variable.assign(value)
        if without is not None:
            train, held_out = (_blank(part, without, means) for part in (train, held_out))
            # What the dopamine readout reads before the first trial.
            initial = keras.ops.convert_to_numpy(self._model.initial_latents).copy()
            initial[without] = means[without]
            self._model.core.cell.initial_latents.assign(initial)
        if refit:
            self._fit(train)
        return session_totals(self._model, held_out, batch_size=_BATCH_SIZE)

    def _fit(self, sessions):
        compile_stage(
            self._model,
            self._stage,
            self._learning_rate,
            steps_per_execution=self._steps_per_execution,
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

    def _values(self):
        return [(v, keras.ops.convert_to_numpy(v)) for v in self._model.variables]


_BATCH_SIZE = 256
"""Sessions at a time where nothing is trained."""


def _blank(sessions, latent, means):
    latents = sessions.latents.copy()
    latents[..., latent] = means[latent]
    return dataclasses.replace(sessions, latents=latents)

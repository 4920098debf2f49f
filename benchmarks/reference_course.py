"""Train one model of the authors' package by a course, and keep the time of each check.

    PYTHON benchmarks/reference_course.py DATA.npz OUT.npz --course '{"warmup_steps": 100, ...}'

PYTHON has `disentangled-rnns`. `benchmarks/time_to_model.py` calls this program. The loop is the
authors' own `train_network`. It looks at its parameters once every `log_losses_every` steps, and
this program copies them there. The clock stands still while it copies. OUT.npz holds the parameters
of each check, and a table of the times in the array `checks`.
"""

import argparse
import json
import time

import numpy as np
from reference_recovery import CONFIG


class Clock:
    """Wall and processor seconds since the start, without those of the checks."""

    def __init__(self):
        self._left_out = np.zeros(2)
        self._start = self._now()

    @staticmethod
    def _now():
        return np.array([time.perf_counter(), time.process_time()])

    def seconds(self):
        return self._now() - self._start - self._left_out

    def leave_out(self, function):
        """Call a function while the clock stands still."""
        began = self._now()
        function()
        self._left_out += self._now() - began


class TimeLimitReached(Exception):
    """The fit has used its time."""


def flatten(params):
    """Return a copy of the parameters by `module|name`."""
    return {
        f"{module}|{name}": np.array(array)
        for module, arrays in params.items()
        for name, array in arrays.items()
    }


def fit(arrays, course, seed, limit):
    """Return the rows of the checks, the parameters of each, and how the fit ended."""
    began = time.perf_counter()
    import dataclasses

    import jax
    import optax
    from disentangled_rnns.library import disrnn, rnn_utils

    imports = {"imports_wall": time.perf_counter() - began, "imports_cpu": time.process_time()}
    batch_size = course["batch_size"]
    data = rnn_utils.DatasetRNNCategorical(
        arrays["features"].swapaxes(0, 1),
        arrays["choice"].swapaxes(0, 1)[..., None],
        n_classes=2,
        batch_mode="random" if batch_size else "single",
        batch_size=batch_size,
        rng=np.random.default_rng(seed),
    )
    config = disrnn.DisRnnConfig(**{**CONFIG, "latent_penalty": course["latent_penalty"]})
    free = {name: 0.0 for name in CONFIG if name.endswith(("_penalty", "l2_scale"))}
    calm = dataclasses.replace(config, noiseless_mode=True, **free)
    rows, kept, ended, params = [], [], "finished", None
    every = course["check_every"]
    look, clock = rnn_utils.nan_in_dict, Clock()
    for stage, settings, count in (
        ("warmup", calm, course["warmup_steps"]),
        ("stage1", config, course["steps"]),
    ):
        if not count:
            continue
        rate = course["learning_rate"]
        if stage == "stage1" and course["decay_steps"]:
            constant = count - course["decay_steps"]
            falling = optax.cosine_decay_schedule(rate, course["decay_steps"], alpha=0.01)
            rate = optax.join_schedules([optax.constant_schedule(rate), falling], [constant])
        calls = iter(range(0, count + every, every))

        def check(params, stage=stage, calls=calls, count=count):
            # Steps are sent off before they are done.
            jax.block_until_ready(params)
            # The authors' loop looks after the steps 0, every, 2 * every, ..., and after the last.
            step = min(next(calls) + 1, count)
            wall, cpu = clock.seconds()
            rows.append({"stage": stage, "step": step, "wall": wall, "cpu": cpu})
            clock.leave_out(lambda: kept.append(flatten(params)))
            if cpu > limit:
                raise TimeLimitReached
            return any(np.isnan(array).any() for array in kept[-1].values())

        rnn_utils.nan_in_dict = check
        try:
            params, _, _ = rnn_utils.train_network(
                lambda settings=settings: disrnn.HkDisentangledRNN(settings),
                data,
                None,
                opt=optax.adam(rate),
                random_key=jax.random.PRNGKey(seed),
                params=params,
                loss="penalized_categorical",
                loss_param=1.0,
                n_steps=count,
                log_losses_every=every,
                report_progress_by="none",
            )
        except TimeLimitReached:
            ended = f"limit of {limit:g} processor seconds"
            break
        except ValueError as error:
            # The loop says "NaN in params", "NaN in loss" or "Loss is too large".
            ended = str(error)
            rows.pop(), kept.pop()
            break
        finally:
            rnn_utils.nan_in_dict = look
    return rows, kept, {"ended": ended, **imports}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", help="file with the arrays features and choice")
    parser.add_argument("out", help="file for the parameters of each check")
    parser.add_argument("--course", type=json.loads, required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--limit", type=float, default=3600, help="processor seconds of training")
    given = parser.parse_args()
    with np.load(given.data) as arrays:
        rows, kept, about = fit(arrays, given.course, given.seed, given.limit)
    numbered = {
        f"{number}|{name}": array
        for number, flat in enumerate(kept)
        for name, array in flat.items()
    }
    np.savez(given.out, checks=json.dumps({**about, "checks": rows}), **numbered)


if __name__ == "__main__":
    main()

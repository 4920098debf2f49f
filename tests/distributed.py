"""Work of a process that trains under a strategy. test_distribute.py also runs it as a script.

TensorFlow's devices and workers are set once, before it does anything. So each kind of strategy
needs its own process.
"""

import contextlib
import dataclasses
import json
import os
import sys

import numpy as np
import tensorflow as tf

LENGTHS = (12, 2, 7, 12, 1)
"""Trials of each session. In the last batch of two, one replica has no session."""


def make_sessions(lengths=LENGTHS):
    """Make sessions of these lengths, with some forced trials and some missing responses."""
    from keras_disrnn import bandit
    from keras_disrnn.data import Columns, sessions_from_table

    played = bandit.simulate(
        bandit.QLearning(),
        bandit.DriftingBandit(),
        num_sessions=len(lengths),
        num_trials=max(lengths),
        seed=3,
    )
    table = played.to_table()
    table["forced"] = table["trial"] % 5 == 1
    table.loc[table["trial"] % 4 == 2, "dopamine"] = np.nan
    kept = np.repeat(lengths, max(lengths))
    columns = Columns(dopamine="dopamine", forced="forced", trial="trial")
    return sessions_from_table(table[table["trial"] < kept], columns)


def make_model(strategy=None, **arguments):
    import keras_disrnn

    defaults = {"num_latents": 2, "update_units": 3, "num_update_layers": 1, "seed": 1}
    if "subjects" in arguments:
        defaults["subject_units"] = 1
    with contextlib.nullcontext() if strategy is None else strategy.scope():
        model = keras_disrnn.DisRNNModel(**defaults, **arguments)
    return model


def outcome(model, history):
    """Return the numbers to compare: the history (without times) and the weights."""
    return {
        "history": {name: list(map(float, values)) for name, values in history.items()},
        "weights": [weight.numpy().tolist() for weight in model.weights],
    }


def fit_stage(strategy, stage, batch_size, validate=True, **arguments):
    """Train two epochs of a stage with Keras' `fit`."""
    from keras_disrnn.training.fit import with_latents
    from keras_disrnn.training.stages import compile_stage

    model = make_model(strategy, **arguments)
    sessions = make_sessions()
    if model.subjects:
        subjects = tuple(str(i % model.num_subjects) for i in range(sessions.num_sessions))
        sessions = dataclasses.replace(sessions, subjects=subjects).for_model(model)
    if stage == "stage2":
        (sessions,) = with_latents(model, sessions)
    compile_stage(model, stage, learning_rate=1e-2)
    steps = -(-sessions.num_sessions // (batch_size or sessions.num_sessions))
    history = model.fit(
        sessions.dataset(batch_size, steps=2 * steps),
        epochs=2,
        steps_per_epoch=steps,
        validation_data=sessions.dataset(batch_size) if validate else None,
        verbose=0,
        shuffle=False,
    ).history
    if validate:
        scores = model.evaluate(sessions.dataset(3), verbose=0, return_dict=True)
        history |= {f"evaluated_{name}": [value] for name, value in scores.items()}
    return outcome(model, history)


def train_all(
    strategy,
    batch_size,
    checkpoint=None,
    stop_after=None,
    returns_model=False,
    course="reference",
    **arguments,
):
    """Train all four stages with `train`; `stop_after` stops it after that many epochs."""
    import keras

    from keras_disrnn import train

    class Stop(keras.callbacks.Callback):
        left = stop_after

        def on_epoch_end(self, epoch, logs=None):
            if self.left is not None:
                self.left -= 1
                if self.left == 0:
                    raise KeyboardInterrupt

    sessions = make_sessions()
    model = make_model(strategy, **arguments)
    with contextlib.suppress(KeyboardInterrupt):
        history = train(
            model,
            sessions,
            sessions.subset(np.arange(3)),
            warmup_steps=4,
            stage1_steps=4,
            stage2_steps=4,
            joint_steps=4,
            steps_per_epoch=2,
            course=course,
            batch_size=batch_size,
            learning_rate=1e-2,
            checkpoint=checkpoint,
            callbacks=[Stop()],
            verbose=0,
        )
        numbers = history.drop(columns=["stage", "seconds"]).fillna(-1.0)
        got = outcome(model, numbers.to_dict("list"))
        return (got, model) if returns_model else got
    return None


def train_and_save(strategy, folder, **settings):
    """Train, save the model as a `.keras` file and a SavedModel, and return its outputs."""
    from keras_disrnn.io.saved_model import export

    got, model = train_all(strategy, returns_model=True, **settings)
    model.save(f"{folder}/model.keras")
    export(model, f"{folder}/saved_model")
    outputs = model.predict(make_sessions().dataset(2), verbose=0)
    return got | {"outputs": {name: output.tolist() for name, output in outputs.items()}}


def run_folder(strategy, out, mirrored):
    """Return the contents of metrics.json of a small run, without its times."""
    from keras_disrnn.experiments.run import run
    from keras_disrnn.experiments.settings import ModelSettings, SyntheticData, TrainingSettings

    metrics = run(
        "fit",
        out,
        data=SyntheticData(num_sessions=5, num_held_out_sessions=3, num_trials=9),
        model=ModelSettings(num_latents=2, update_units=3, num_update_layers=1),
        training=TrainingSettings(
            warmup_steps=2,
            stage1_steps=2,
            stage2_steps=2,
            steps_per_epoch=2,
            strategy="mirrored" if mirrored else None,
        ),
        seed=0,
        full=False,
    )
    del metrics["seconds"]
    return metrics


def draw(strategy):
    """Draw the noise of five sessions in both implementations of the layers."""
    from keras_disrnn.native import Parameters, Recurrence
    from keras_disrnn.utils import distribute

    model = make_model(strategy, implementation="keras")
    cell, readout = model.core.cell, model.choice_readout
    features = np.zeros((5, 3, 2), "float32")

    def step():
        with distribute.share(features) as mine:
            noise = dict(cell.draw_noise(3, len(mine)))
            noise["readout"] = tf.transpose(readout.bottleneck.draw_noise((len(mine), 3, 2)))
            first = distribute.first_session() or 0
            parameters = Parameters(*(x.numpy() for x in Parameters.of_cell(cell)))
            inputs = mine, np.zeros((len(mine), 2), "float32")
            native = Recurrence("leaky_relu", 2.0).draws(inputs, parameters, (1, 2, first))
            return noise | {f"native_{i}": tf.constant(part) for i, part in enumerate(native)}

    if strategy is None:
        drawn = step()
    else:
        parts = strategy.run(step)
        drawn = {
            name: tf.concat(strategy.experimental_local_results(part), -1)
            for name, part in parts.items()
        }
    return {
        "history": {name: part.numpy().ravel().tolist() for name, part in drawn.items()},
        "weights": [],
    }


def refusals(strategy):
    """Return the messages of the errors."""
    from keras_disrnn.training.stages import compile_stage

    sessions = make_sessions()
    model, outside = make_model(strategy), make_model()
    compile_stage(model, "stage1")
    batches = sessions.dataset(2)
    split = strategy.experimental_distribute_dataset(batches)

    def inside():
        with strategy.scope():
            compile_stage(outside, "stage1")

    messages = []
    for refused in (
        lambda: model.fit(sessions.features),
        lambda: model.fit(batches, validation_data=split),
        lambda: compile_stage(model, "stage1", steps_per_execution=5),
        inside,
    ):
        try:
            refused()
        except ValueError as error:
            messages.append(str(error))
    return {"messages": messages}


DOES = {
    does.__name__: does
    for does in (fit_stage, train_all, train_and_save, run_folder, draw, refusals)
}


def difference(one, other):
    """Return the largest difference in weights, and in the history with its name."""
    weights = (
        max(
            float(np.abs(np.subtract(a, b)).max(initial=0.0))
            for a, b in zip(one["weights"], other["weights"], strict=True)
        )
        if one["weights"]
        else 0.0
    )
    assert one["history"].keys() == other["history"].keys()
    history = {
        name: float(np.abs(np.subtract(values, other["history"][name])).max())
        for name, values in one["history"].items()
    }
    worst = max(history, key=history.get)
    return {"weights": weights, "history": history[worst], "worst": worst}


def make_strategy(kind, replicas=2, worker=0, ports=()):
    if kind == "multi_worker":
        workers = [f"127.0.0.1:{port}" for port in ports]
        task = {"type": "worker", "index": worker}
        os.environ["TF_CONFIG"] = json.dumps({"cluster": {"worker": workers}, "task": task})
        return tf.distribute.MultiWorkerMirroredStrategy()
    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(
        cpu, [tf.config.LogicalDeviceConfiguration()] * replicas
    )
    return tf.distribute.MirroredStrategy([f"CPU:{i}" for i in range(replicas)])


def main(strategy, cases, compare=True):
    """Print the outcome of each case, or its difference from that of a single process."""
    strategy = make_strategy(**strategy)
    for does, arguments in cases:
        got = DOES[does](strategy, **arguments)
        if compare and does != "refusals":
            got = difference(DOES[does](None, **arguments), got)
        print("RESULT " + json.dumps(got), flush=True)


if __name__ == "__main__":
    main(**json.loads(sys.argv[1]))

"""A correct script. A type checker must accept every line."""

import numpy as np

import keras_disrnn
from keras_disrnn import baselines, export
from keras_disrnn.analysis import compute_bottlenecks, compute_evaluation, open_latents
from keras_disrnn.data import Columns, sessions_from_table, split_by_session
from keras_disrnn.plots import plot_bottlenecks

columns = Columns(
    subject="mouse", session="day", choice="went_right", reward="rewarded", dopamine="dlight"
)
sessions = sessions_from_table("trials.csv", columns)
train, held_out = split_by_session(sessions, held_out_every=3)

model = keras_disrnn.DisRNNModel(num_latents=5, latent_penalty=3e-3, seed=0)
history = keras_disrnn.train(model, train, held_out)
for stage in ("warmup", "stage1", "stage2"):
    keras_disrnn.compile_stage(model, stage, learning_rate=1e-3)
    model.fit(train.dataset(steps=1000), validation_data=held_out.dataset(), shuffle=False)
latents: np.ndarray = keras_disrnn.predict_latents(model, held_out.features)

print(open_latents(model), compute_evaluation(model, held_out).summary)
plot_bottlenecks(compute_bottlenecks(model)).savefig("bottlenecks.pdf")

digest: str = export.export(model, "exported", run="runs/mice")
loaded = export.load("exported", digest)
again = keras_disrnn.load_model("model.keras")

agent = keras_disrnn.bandit.QLearning()
played = keras_disrnn.bandit.simulate(
    agent, keras_disrnn.bandit.DriftingBandit(), num_sessions=10, num_trials=20, seed=0
)
q_learning = baselines.QLearning()

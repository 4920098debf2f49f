"""A script with mistakes. A type checker must report each line that has a comment, and no other."""

import keras_disrnn
from keras_disrnn import bandit, export

keras_disrnn.DisRNNModel(num_latents="5")  # error: arg-type
keras_disrnn.DisRNNModle()  # error: attr-defined
export.load(5)  # error: arg-type
export.export(keras_disrnn.DisRNNModel(), "folder", "runs/mice")  # error: call-arg
agent, environment = bandit.QLearning(), bandit.DriftingBandit()
bandit.simulate(agent, environment, num_sessions="1", num_trials=1, seed=0)  # error: arg-type

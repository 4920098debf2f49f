"""The Keras layers of the disentangled RNN."""

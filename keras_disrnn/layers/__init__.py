"""Keras layers of the disentangled RNN."""

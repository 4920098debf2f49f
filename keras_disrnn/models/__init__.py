"""The model and the baselines."""

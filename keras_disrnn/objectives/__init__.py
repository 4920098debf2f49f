"""Losses, metrics and the optimizer of the training stages."""

"""Losses, metrics and the optimizer."""

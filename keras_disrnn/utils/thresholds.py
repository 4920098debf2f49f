"""Thresholds that several packages share, in a module that imports nothing."""

OPEN_BELOW = 0.5
"""A bottleneck is open if its sigma is below this (Miller et al. 2023)."""

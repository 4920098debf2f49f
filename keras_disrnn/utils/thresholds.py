"""Thresholds that several packages share. This module imports nothing, so that figures can use it."""

OPEN_BELOW = 0.5
"""A bottleneck is open where its sigma is below this (Miller et al. 2023)."""

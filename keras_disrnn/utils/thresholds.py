"""Thresholds that several packages share, in a module that imports nothing."""

OPEN_BELOW = 0.5
"""A bottleneck is open if its sigma is below this (Miller et al. 2023)."""

SMALLEST_EFFECT = {"choice": 0.002, "dopamine": 0.005}
"""The smallest loss of an ablation that counts: of normalized likelihood for choice, of R^2 for
dopamine."""

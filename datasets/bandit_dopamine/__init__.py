"""Sessions at a two-armed bandit with a dopamine response for each trial."""

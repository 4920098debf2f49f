"""Shared fixtures: quiet TensorFlow, the reference data, small random sessions."""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import json
from pathlib import Path

import hypothesis
import numpy as np
import pytest

# The same examples in every run, so that continuous integration is stable. `make fuzz` takes
# others, and many more.
hypothesis.settings.register_profile("ci", max_examples=100, deadline=None, derandomize=True)
hypothesis.settings.register_profile("slow", max_examples=5000, deadline=None, print_blob=True)
hypothesis.settings.load_profile("ci")

SHARED = Path(__file__).parents[2] / "shared"


@pytest.fixture
def rng():
    return np.random.default_rng(20161)


@pytest.fixture
def shared():
    """The folder of recordings and golden files. It is not part of the project."""
    if not SHARED.is_dir():
        pytest.skip(f"{SHARED} does not exist, so there is nothing to compare with")
    return SHARED


@pytest.fixture
def golden(shared):
    """A function that loads a golden file: (parameters, configuration, arrays, batch first)."""

    def load(name):
        arrays = np.load(shared / "golden" / f"{name}.npz")
        config = json.loads((shared / "golden" / f"{name}.json").read_text())["config"]
        params, rest = {}, {}
        for key in arrays.files:
            if key.startswith("params|"):
                _, module, parameter = key.split("|")
                params.setdefault(module, {})[parameter] = arrays[key]
            else:
                rest[key] = np.swapaxes(arrays[key], 0, 1)
        return params, config, rest

    return load


@pytest.fixture
def make_features(rng):
    """A function that makes random binary features, with padding after `lengths` time steps."""

    def make(sessions=6, rows=9, observations=2, lengths=None):
        features = rng.integers(0, 2, (sessions, rows, observations)).astype("float32")
        features[:, 0] = 0
        for session, length in enumerate(lengths or ()):
            features[session, length:] = np.nan
        return features

    return make

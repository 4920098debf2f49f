"""The settings of a small model, and the reference's parameters, compared."""

import numpy as np

SMALL = {
    "num_latents": 3,
    "update_units": 4,
    "num_update_layers": 1,
    "choice_units": 3,
    "num_choice_layers": 1,
    "dopamine_units": 3,
    "num_dopamine_layers": 1,
    "seed": 1,
}


def assert_same_parameters(found, expected):
    """Assert that two dicts `{module: {name: array}}` are identical, bit for bit."""
    assert {m: set(p) for m, p in found.items()} == {m: set(p) for m, p in expected.items()}
    for module, parameters in expected.items():
        for name, value in parameters.items():
            np.testing.assert_array_equal(found[module][name], value, err_msg=f"{module}|{name}")

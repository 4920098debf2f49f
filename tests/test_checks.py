"""The checks of arguments and of new paths."""

import numpy as np
import pytest

from keras_disrnn.utils.checks import check_integer, check_number, suggest
from keras_disrnn.utils.files import check_new
from keras_disrnn.utils.seeds import check_seed, derive_seeds


@pytest.mark.parametrize("value", [3, np.int64(3), np.uint8(3)])
def test_whole_numbers_are_returned_as_int(value):
    assert type(check_integer("n", value)) is int
    assert check_integer("n", value, None) == check_integer("n", value, 3, 3) == 3


@pytest.mark.parametrize("value", [True, np.True_, 3.0, "3", None, np.array([3, 4])])
def test_other_values_than_whole_numbers_are_refused(value):
    with pytest.raises(ValueError, match="^n: expected a whole number of at least 1, got "):
        check_integer("n", value)


@pytest.mark.parametrize(
    ("least", "most", "message"),
    [(4, None, "of at least 4, got 3"), (0, 2, "from 0 to 2, got 3"), (4, 5, "from 4 to 5, got 3")],
)
def test_the_message_names_the_bounds(least, most, message):
    with pytest.raises(ValueError, match=f"^n: expected a whole number {message}$"):
        check_integer("n", 3, least, most)


@pytest.mark.parametrize("value", [True, "1", b"1", None, [1], np.nan, np.inf, -0.1, 1.1])
def test_numbers_out_of_range_and_other_values_are_refused(value):
    with pytest.raises(ValueError, match="^x: expected a finite number from 0 to 1, got "):
        check_number("x", value, 0, 1)
    assert check_number("x", np.float32(0.5), 0, 1) == 0.5


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_check_new_refuses_a_path_that_exists(kind, tmp_path):
    assert check_new(str(tmp_path / "new"), kind) == tmp_path / "new"
    (tmp_path / "link").symlink_to(tmp_path / "gone")
    for path in (tmp_path, tmp_path / "link"):
        with pytest.raises(FileExistsError) as caught:
            check_new(path, kind)
        assert str(caught.value) == (
            f"{path}: expected a new {kind}, got one that exists; choose another name"
        )


def test_similar_names_are_suggested():
    assert suggest("Rewrd", ["choice", "reward"]) == "; did you mean 'reward'?"
    assert suggest("x", ["choice", "reward"]) == ""


def test_seeds_are_checked_and_derived():
    assert check_seed(np.int64(3)) == 3
    assert check_seed(None) is None
    with pytest.raises(ValueError, match="^seed: expected a whole number of at least 0, got -1$"):
        check_seed(-1)
    seeds = derive_seeds(3, 4)
    assert len(set(seeds)) == 4
    assert derive_seeds(3, 2) == seeds[:2]
    assert derive_seeds(4, 2) != seeds[:2]

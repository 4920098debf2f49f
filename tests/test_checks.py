"""The checks of numbers that a user gives."""

import numpy as np
import pytest

from keras_disrnn.utils.checks import check_integer, check_number
from keras_disrnn.utils.files import check_new


@pytest.mark.parametrize("value", [3, np.int64(3), np.uint8(3)])
def test_whole_numbers_come_back_as_python_has_them(value):
    assert type(check_integer("n", value)) is int
    assert check_integer("n", value, None) == check_integer("n", value, 3, 3) == 3


@pytest.mark.parametrize("value", [True, np.True_, 3.0, "3", None, np.array([3, 4])])
def test_what_is_no_whole_number_is_refused(value):
    with pytest.raises(ValueError, match="^n: expected a whole number of at least 1, got "):
        check_integer("n", value)


@pytest.mark.parametrize(
    ("least", "most", "message"),
    [(4, None, "of at least 4, got 3"), (0, 2, "from 0 to 2, got 3"), (4, 5, "from 4 to 5, got 3")],
)
def test_bounds_are_told(least, most, message):
    with pytest.raises(ValueError, match=f"^n: expected a whole number {message}$"):
        check_integer("n", 3, least, most)


@pytest.mark.parametrize("value", [True, "1", b"1", None, [1], np.nan, np.inf, -0.1, 1.1])
def test_what_is_no_number_in_range_is_refused(value):
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

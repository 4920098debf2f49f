"""Ids of subjects and sessions: one text for each, whatever type a reader finds.

Every function that reads, compares or looks up an id takes its text from here. So `18` in a flag,
`18.0` in a table with empty cells and "18" in a file are one subject, and "007" is another.
"""

from __future__ import annotations

import datetime
import unicodedata
import uuid
from collections.abc import Iterable
from typing import Any

import numpy as np
import pandas as pd

_LARGEST_EXACT = 2.0**53
"""A float above this may stand for several whole numbers."""


def id_text(value: Any) -> str | None:
    """Return the text of an id, as a file would have it.

    Text stays as it is. Whole numbers have no decimal point. Dates at midnight are written as
    `2024-01-31`, and other instants as `2024-01-31 10:30:00`. Booleans are `True` and `False`.

    Args:
        value: The id: text, bytes, a number, a boolean, a date, or a scalar of NumPy, pandas,
            Arrow or TensorFlow.

    Returns:
        The text; `None` for a missing or blank value.

    Raises:
        ValueError: If the value is not one plain value, or a number that is not exact.

    Example:

    >>> import datetime
    >>> from keras_disrnn.utils.ids import id_text
    >>> [id_text(value) for value in ("007", 7, 7.0, datetime.datetime(2024, 1, 31), None)]
    ['007', '7', '7', '2024-01-31', None]
    """
    if hasattr(value, "as_py"):  # A scalar of Arrow.
        value = value.as_py()
    elif hasattr(value, "numpy"):  # A tensor.
        value = value.numpy()
    if isinstance(value, np.ndarray) and value.ndim == 0:
        value = value[()]
    if isinstance(value, bytes):
        try:
            value = value.decode()
        except UnicodeDecodeError:
            raise ValueError(f"expected UTF-8 text, got {value!r}") from None
    if isinstance(value, str):
        return str(value) if value.strip() else None
    if isinstance(value, uuid.UUID):
        return str(value)
    if not pd.api.types.is_scalar(value):
        raise ValueError(f"expected one plain value, got {value!r}")
    if pd.isna(value):
        return None
    if isinstance(value, bool | np.bool_):
        return str(bool(value))
    if _is_date(value):
        return _date_text(value)
    if isinstance(value, np.timedelta64):
        return str(pd.Timedelta(value))
    try:
        whole = value == int(value)
    except (TypeError, ValueError, OverflowError):
        whole = False
    if not whole:
        return str(value)
    if isinstance(value, float | np.floating) and abs(float(value)) > _LARGEST_EXACT:
        raise ValueError(f"expected text or a whole number below 2**53, got {value!r}")
    return str(int(value))


def _is_date(value: Any) -> bool:
    return isinstance(value, datetime.date | np.datetime64)


def _date_text(value: Any) -> str:
    if isinstance(value, datetime.date) and not isinstance(value, datetime.datetime):
        return value.isoformat()
    try:
        stamp = pd.Timestamp(value)
    except (ValueError, OverflowError):  # pandas has no such year.
        return str(value)
    text = str(stamp)
    # Dates in another time zone are instants, so they keep their time.
    return text.removesuffix(" 00:00:00") if stamp.tzinfo is None else text


def id_texts(name: str, values: Any) -> list[str]:
    """Return the texts of several ids.

    Args:
        name: The argument's name, for errors.
        values: The ids; a single one counts as a list of one.

    Returns:
        The texts, in order.

    Raises:
        ValueError: If an id is missing or is not one plain value.

    Example:

    >>> from keras_disrnn.utils.ids import id_texts
    >>> id_texts("held_out", [18, "m1"]), id_texts("held_out", "m1")
    (['18', 'm1'], ['m1'])
    """
    if values is None:
        raise ValueError(f"{name}: expected ids, got None")
    if isinstance(values, str | bytes) or not isinstance(values, Iterable):
        values = [values]
    texts = []
    for index, value in enumerate(values):
        try:
            text = id_text(value)
        except ValueError as error:
            raise ValueError(f"{name}: {error} in entry {index}") from None
        if text is None:
            raise ValueError(
                f"{name}: expected an id in every entry, got {value!r} in entry {index}"
            )
        texts.append(text)
    return texts


def factorize_ids(values: Any) -> tuple[np.ndarray, list[str]]:
    """Find the different ids of a column.

    Args:
        values: The column, `(N,)`, of any type.

    Returns:
        The code of each row, int `(N,)`, numbered in order of appearance, -1 for a missing or blank
        id; and the text of each code.

    Raises:
        ValueError: If a cell is not one plain value. The message names its row.

    Example:

    >>> import pandas as pd
    >>> from keras_disrnn.utils.ids import factorize_ids
    >>> codes, names = factorize_ids(pd.Series([1, "1", "a", None], dtype=object))
    >>> codes.tolist(), names
    ([0, 0, 1, -1], ['1', 'a'])
    """
    column = values if isinstance(values, pd.Series) else pd.Series(values)
    if isinstance(column.dtype, pd.ArrowDtype):  # Some of its types cannot be factorized.
        column = pd.Series(column.to_list(), dtype=object)
    if column.dtype == object and pd.api.types.infer_dtype(column) != "string":
        # pandas takes 1, 1.0 and True for one value, so find the different ones by their type.
        found: dict[Any, int] = {}
        codes = np.empty(len(column), int)
        for row, value in enumerate(column):
            try:
                codes[row] = found.setdefault((type(value), value), len(found))
            except TypeError:  # A list, for example.
                raise ValueError(f"expected one plain value, got {value!r} in row {row}") from None
        different = [value for _, value in found]
    else:
        codes, uniques = pd.factorize(column)
        different = list(uniques)
    texts = []
    for index, value in enumerate(different):
        try:
            texts.append(id_text(value))
        except ValueError as error:
            raise ValueError(f"{error} in row {np.argmax(codes == index)}") from None
    place: dict[str, int] = {}
    merged = [-1 if text is None else place.setdefault(text, len(place)) for text in texts]
    return np.array([*merged, -1], dtype=np.intp)[codes], list(place)


def alike(ids: Iterable[str]) -> tuple[str, str] | None:
    """Find two different ids that look alike: they differ in white space or invisible characters.

    Args:
        ids: The ids.

    Returns:
        The first two; `None` if there are none.

    Example:

    >>> from keras_disrnn.utils.ids import alike
    >>> alike(["m1", "m2", "m1 "])
    ('m1', 'm1 ')
    """
    seen: dict[str, str] = {}
    for name in ids:
        first = seen.setdefault(look_of(name), name)
        if first != name:
            return first, name
    return None


def look_of(name: str) -> str:
    r"""Return what a reader sees of an id: without outer, repeated and invisible characters.

    Args:
        name: The id.

    Returns:
        Its look. Ids of one look cannot be told apart on paper.

    Example:

    >>> from keras_disrnn.utils.ids import look_of
    >>> look_of(" m1  left\u200b")
    'm1 left'
    """
    if not name.isascii():
        shown = (letter for letter in name if unicodedata.category(letter) != "Cf")
        name = unicodedata.normalize("NFC", "".join(shown))
    return " ".join(name.split())

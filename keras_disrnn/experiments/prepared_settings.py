"""Settings of a prepared data set of TensorFlow Datasets, and of the data of `fit` and its like.

The command line imports this module to print a help text or to refuse a word. So it does not import
TensorFlow Datasets: the folders on the disk tell what is prepared.
"""

from __future__ import annotations

import dataclasses
import os
import re
from pathlib import Path
from typing import Literal

from keras_disrnn.experiments.comparison_settings import OptionalTable
from keras_disrnn.experiments.settings import TableData, plain_config
from keras_disrnn.utils.checks import suggest
from keras_disrnn.utils.files import absolute_path

_BUILDER = "bandit_dopamine"
_NAME = re.compile(r"\w+(/[\w.-]+)?(:\d+\.\d+\.\d+)?")
_VERSION = re.compile(r"\d+\.\d+\.\d+")
_INFO = "dataset_info.json"


@dataclasses.dataclass(frozen=True)
class TfdsData:
    """A data set of TensorFlow Datasets that is prepared on the disk, one example per session.

    Args:
        tfds: Name of the data set, such as "bandit_dopamine/q_learning". A version may follow after
            a colon; by default the latest one is read.
        data_dir: Folder of the prepared data sets. By default it is the variable `TFDS_DATA_DIR`,
            or `~/tensorflow_datasets`. The path is stored as an absolute one.
        train_split: The training sessions: a split, or a part of it such as "train[:80%]".
        held_out_split: The held-out sessions.
        num_arms: Number of arms. By default it is one more than the largest choice, at least 2.
        reward_kind: "binary" if rewards are 0 or 1, "real" if they are any numbers.
        subjects: Subjects to use, in both parts. By default all.

    Raises:
        ValueError: If the name is not that of a data set.

    Example:

    >>> from keras_disrnn.experiments.prepared_settings import TfdsData
    >>> TfdsData("bandit_dopamine/q_learning", data_dir="/data").held_out_split
    'test'
    """

    tfds: str
    data_dir: str | None = None
    train_split: str = "train"
    held_out_split: str = "test"
    num_arms: int | None = None
    reward_kind: Literal["binary", "real"] = "binary"
    subjects: list[str] = dataclasses.field(default_factory=list)

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.tfds):
            raise ValueError(
                "tfds: expected the name of a data set, such as "
                f"{_BUILDER}/q_learning, got {self.tfds!r}"
            )
        place = self.data_dir or os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets"
        object.__setattr__(self, "data_dir", absolute_path(place))
        if self.subjects:
            from keras_disrnn.utils.ids import id_texts

            object.__setattr__(self, "subjects", id_texts("subjects", self.subjects))

    def find(self) -> str:
        """Return the folder of the version to read.

        Raises:
            FileNotFoundError: If the data set is not prepared. The message has the command for it.
        """
        data_dir = str(self.data_dir)
        name, _, version = self.tfds.partition(":")
        if "://" in data_dir:
            if not version:
                raise ValueError(
                    f"tfds: expected a name with a version for data in {data_dir}, got "
                    f"{self.tfds!r}; write for example {name}:3.0.0"
                )
            return f"{data_dir}/{name}/{version}"
        root = Path(data_dir)
        there = _versions(root / name)
        if there and (not version or version in there):
            return str(root / name / (version or max(there, key=_number)))
        prepared = _prepared(root)
        # A prepared data set without its config, or with another version, needs another name.
        near = [each for each in prepared if each.split("/")[0] == name] or prepared
        if there:
            near = [f"{name}:{each}" for each in there]
        raise FileNotFoundError(
            f"tfds: expected a data set that is prepared in {root}, got {self.tfds!r}, which is not"
            f" there (prepared: {', '.join(near) or 'none'}){suggest(self.tfds, near)}; prepare it "
            f"with {_preparation(name, data_dir)}"
        )


def _versions(folder: Path) -> list[str]:
    """Return the complete versions in the folder of a data set."""
    if not folder.is_dir():
        return []
    found = [each.name for each in folder.iterdir() if _VERSION.fullmatch(each.name)]
    return sorted((each for each in found if (folder / each / _INFO).is_file()), key=_number)


def _number(version: str) -> list[int]:
    return [int(part) for part in version.split(".")]


def _prepared(root: Path) -> list[str]:
    """Return the names of the data sets in a folder of prepared data sets."""
    if not root.is_dir():
        return []
    names = {each.relative_to(root) for each in [*root.glob("*"), *root.glob("*/*")]}
    return sorted(name.as_posix() for name in names if _versions(root / name))


def _preparation(name: str, data_dir: str) -> str:
    """Return the command that prepares a data set."""
    imports = "tensorflow_datasets as tfds"
    if name.split("/")[0] == _BUILDER:
        imports = f"keras_disrnn.datasets, {imports}"
    made = f"tfds.builder({name!r}, data_dir={data_dir!r}).download_and_prepare()"
    return f'python -c "import {imports}; {made}"'


@dataclasses.dataclass(frozen=True)
class RecordedData(OptionalTable):
    """A table with one row per trial, or a prepared data set of TensorFlow Datasets.

    Args:
        table: CSV (also .csv.gz), TSV or Parquet file. The path is stored as an absolute one.
        columns: Names of the columns of the table.
        num_arms: Number of arms. By default it is one more than the largest choice, at least 2.
        reward_kind: "binary" if rewards are 0 or 1, "real" if they are any numbers.
        held_out_every: Hold out every n-th session of each subject of the table.
        held_out_offset: Index of the first held-out session of each subject, counted from 0.
        held_out_sessions: Ids of the sessions to hold out, instead of every n-th.
        held_out_subjects: Subjects to hold out, instead of every n-th session.
        subjects: Subjects to use, in both parts. By default all.
        tfds: Instead of a table, a prepared data set, such as "bandit_dopamine/q_learning". A
            version may follow after a colon.
        data_dir: Folder of the prepared data sets. By default it is the variable `TFDS_DATA_DIR`,
            or `~/tensorflow_datasets`.
        train_split: Training sessions of a prepared data set: a split, or a part of it such as
            "train[:80%]". By default "train".
        held_out_split: Held-out sessions of a prepared data set. By default "test".

    Example:

    >>> from keras_disrnn.experiments.prepared_settings import RecordedData
    >>> RecordedData(tfds="bandit_dopamine/q_learning").chosen().train_split
    'train'
    """

    tfds: str | None = None
    data_dir: str | None = None
    train_split: str | None = None
    held_out_split: str | None = None

    def chosen(self) -> TableData | TfdsData:
        """Return the settings of the table or of the prepared data set.

        Raises:
            ValueError: If neither or both are given, or settings of the other one.
        """
        if (self.table is None) == (self.tfds is None):
            got = "neither" if self.table is None else "both"
            raise ValueError(f"data: expected either data.table or data.tfds, got {got}")
        kind: type[TableData] | type[TfdsData] = TableData if self.tfds is None else TfdsData
        other = "table" if self.tfds is not None else "tfds"
        own = {field.name for field in dataclasses.fields(kind)}
        # The parser makes lists of tuples, so compare plain values.
        given, default = (plain_config({"data": each})["data"] for each in (self, RecordedData()))
        for name in given:
            if name not in own and given[name] != default[name]:
                raise ValueError(
                    f"data.{name}: expected a setting of data.{kind.__name__[:-4].lower()}, got "
                    f"one of data.{other}; leave it out"
                )
        values = {name: getattr(self, name) for name in own}
        return kind(**{name: value for name, value in values.items() if value is not None})

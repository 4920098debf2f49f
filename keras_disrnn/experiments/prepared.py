"""Read a prepared data set of TensorFlow Datasets that settings describe."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from typing import Any

from keras_disrnn.data import Sessions, sessions_from_tfds
from keras_disrnn.data.tfds import FEATURES
from keras_disrnn.experiments.prepared_settings import TfdsData


def read_prepared(settings: TfdsData) -> tuple[Sessions, list[str]]:
    """Read the training and the held-out sessions of a prepared data set.

    Args:
        settings: The data set and its splits.

    Returns:
        `(sessions, held_out)`: the sessions of both splits, and the ids of the held-out ones.

    Raises:
        FileNotFoundError: If the data set is not prepared.
        ValueError: If it lacks a split or a feature, a split is empty, or a session is in both.
    """
    folder = settings.find()
    # Only a prepared data set needs this library, which takes a second to import.
    import tensorflow_datasets as tfds

    builder = tfds.builder_from_directory(folder)
    names = {"train_split": settings.train_split, "held_out_split": settings.held_out_split}
    for name, split in names.items():
        _check_split(builder, name, split)
    wanted = {name: True for name in FEATURES if name in builder.info.features}
    train_ids: list[str] = []
    held_out: list[str] = []

    def read(split: str, ids: list[str]) -> Iterator[Mapping[str, Any]]:
        examples = builder.as_dataset(
            split=split,
            decoders=tfds.decode.PartialDecoding(wanted),
            # One file at a time needs less memory, and keeps the order of the files.
            read_config=tfds.ReadConfig(interleave_cycle_length=1),
        )
        for example in examples.as_numpy_iterator():
            if "session" in example:
                ids.append(example["session"].decode())
            yield example

    def read_held_out() -> Iterator[Mapping[str, Any]]:
        yield from read(settings.held_out_split, held_out)
        if twice := set(train_ids) & set(held_out):
            raise ValueError(
                f"held_out_split: expected sessions that are not in {settings.train_split}, got "
                f"{len(twice)} that are, such as {min(twice)!r}; choose splits that do not overlap"
            )

    sessions = sessions_from_tfds(
        itertools.chain(read(settings.train_split, train_ids), read_held_out()),
        num_arms=settings.num_arms,
        reward_kind=settings.reward_kind,
    )
    return sessions, held_out


def _check_split(builder: Any, name: str, split: str) -> None:
    """Raise ValueError if a data set lacks a split, or the split is empty."""
    try:
        count = builder.info.splits[split].num_examples
    except (ValueError, KeyError) as error:
        there = ", ".join(builder.info.splits)
        raise ValueError(
            f"{name}: expected a split of {builder.info.full_name} ({there}) or a part of one, got "
            f"{split!r}; give for example --data.train_split=train[:80%] and "
            "--data.held_out_split=train[80%:]"
        ) from error
    if not count:
        raise ValueError(f"{name}: expected a split with sessions, got none in {split!r}")

"""The test images: for the final score alone, so nothing that searches or compares imports this module."""

from __future__ import annotations

from pathlib import Path

from hpsearch.training.data.datasets import Images, read_images


def load_test_images(dataset: str = "fashion-mnist", *, folder: Path | None = None) -> Images:
    """All test images of a data set.

    Raises:
        DataError: the data set is unknown, missing or damaged.
    """
    return read_images(dataset, train=False, folder=folder)

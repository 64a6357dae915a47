"""Loads the test images, which only the final score uses. A search or a comparison must not import this module."""

from __future__ import annotations

from pathlib import Path

from hpsearch.training.data.datasets import Images, read_images


def load_test_images(dataset: str = "fashion-mnist", *, folder: Path | None = None) -> Images:
    """Return all test images of a data set.

    Args:
        dataset: name of the data set.
        folder: the folder with the files; None to search the default folders.

    Returns:
        The images with their labels.

    Raises:
        DataError: the data set is unknown, missing or damaged.
    """
    return read_images(dataset, train=False, folder=folder)

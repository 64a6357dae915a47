"""Shows training images to a person: a grid of random images, or one image by its index."""

from __future__ import annotations

import contextlib
from pathlib import Path

import torch
from torch import Tensor

from hpsearch.config.paths import write_atomically
from hpsearch.errors import DataError, DiskError
from hpsearch.training.data.datasets import Images
from hpsearch.training.data.image_grid import captioned_grid, to_pillow
from hpsearch.training.data.split import Split, load_training_images
from hpsearch.training.randomness import generator

ROWS, COLUMNS = 5, 8
"""Number of rows and columns in the grid."""


def sample_grid(data: Images, *, seed: int = 0) -> bytes:
    """Draw images at random and show each with the name of its class.

    Args:
        data: the images to draw from.
        seed: the seed of the draw. The same seed draws the same images.

    Returns:
        The content of a PNG file.

    Raises:
        DataError: the images have another number of channels than 1 or 3.
    """
    order = torch.randperm(len(data.labels), generator=generator(seed, "sample grid"))[: ROWS * COLUMNS]
    captions = [data.classes[label] for label in data.labels[order].tolist()]
    return captioned_grid([to_pillow(image) for image in data.images[order].numpy()], captions, columns=COLUMNS)


def write_samples(split: Split, path: Path) -> None:
    """Write a grid of a split's training images for the reports, if the file does not exist yet.

    Several workers may do this at once. If the grid cannot be drawn or written, no error is raised.

    Args:
        split: the split that a study trains on.
        path: the PNG file to write.
    """
    if path.exists():
        return
    with contextlib.suppress(DiskError, DataError):
        images = Images(images=split.train_images.cpu(), labels=split.train_labels.cpu(), classes=split.classes)
        write_atomically(path, sample_grid(images))


def training_image(dataset: str, index: int, *, folder: Path | None = None) -> tuple[Tensor, str]:
    """Return one training image and the name of its class.

    Args:
        dataset: name of the data set.
        index: position of the image, from 0.
        folder: the folder with the files; None to search the default folders.

    Returns:
        The image, uint8 [C, H, W], and the name of its class.

    Raises:
        DataError: there is no image with that index, or the data set is missing or damaged.
    """
    data = load_training_images(dataset, folder=folder)
    if not 0 <= index < len(data.labels):
        raise DataError(f"the index of a training image of '{dataset}' must lie from 0 to {len(data.labels) - 1}, but got {index}")
    return data.images[index], data.classes[int(data.labels[index])]

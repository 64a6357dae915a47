"""Fashion-MNIST with ten thousand of its training images held back, others for each fold: `finalists_real.py` uses it."""

import os
from pathlib import Path

import numpy

import hpsearch
from hpsearch.training.data.datasets import Images, read_images

FOLD = "HELD_BACK_FOLD"
"""The environment variable that says which images are held back."""
HELD_BACK = 10_000


def held_back(*, kept: bool, root: Path | None = None) -> Images:
    """The training images that a search may see, or those that are held back from it."""
    data = read_images("fashion-mnist", train=True, folder=root)
    order = numpy.random.RandomState(int(os.environ[FOLD])).permutation(len(data.labels))
    chosen = numpy.sort(order[HELD_BACK:] if kept else order[:HELD_BACK])
    return Images(images=data.images[chosen], labels=data.labels[chosen], classes=data.classes)


@hpsearch.dataset("fashion-held-back")
def seen(root, *, train):
    """Without the images that are held back; there are no test images, which nothing here may read."""
    if not train:
        raise AssertionError("the test split has no part in this")
    data = held_back(kept=True)
    return data.images, data.labels, data.classes

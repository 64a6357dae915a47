"""Data sets as uint8 tensors: the seeded stratified split of the training images, and batches of it.

No function here can return test images: `test_split.py` alone asks `sources.py` for them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy
import torch
from numpy.typing import NDArray
from torch import Tensor

from hpsearch.config.seeds import derive_seed
from hpsearch.errors import DataError
from hpsearch.training.data.datasets import Images, read_images


@dataclass(frozen=True, kw_only=True, eq=False)
class Split:
    """Training and validation images, both out of the data set's training images.

    Attributes:
        train_images, validation_images: uint8 [N, C, H, W].
        train_labels, validation_labels: int64 [N].
        classes: the classes' names.
        mean, std: of each channel over the split's own training images, as shares of 255; the
            standard deviation of a channel that never changes is given as 1.
        hash: SHA-256 over the data set and the chosen images, hexadecimal.
    """

    train_images: Tensor
    train_labels: Tensor
    validation_images: Tensor
    validation_labels: Tensor
    classes: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    hash: str

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """Channels, height and width of an image."""
        _, channels, height, width = self.train_images.shape
        return channels, height, width

    def to(self, device: torch.device | str) -> Split:
        """The same split with its tensors on a device."""
        return replace(
            self,
            train_images=self.train_images.to(device),
            train_labels=self.train_labels.to(device),
            validation_images=self.validation_images.to(device),
            validation_labels=self.validation_labels.to(device),
        )


def load_split(
    dataset: str = "fashion-mnist",
    *,
    validation_images: int,
    seed: int,
    train_images: int | None = None,
    folder: Path | None = None,
) -> Split:
    """A data set's training images, divided at random with every class in proportion.

    The validation images depend on the seed and their number alone, not on `train_images`.

    Args:
        validation_images: how many to hold out.
        train_images: how many of the others to train on; all of them by default.
        folder: the only place to look for the files, when given.

    Raises:
        DataError: the data set is unknown, missing or damaged, or the numbers do not fit it.

    Example:
        >>> import hpsearch, torch
        >>> @hpsearch.dataset("shades")
        ... def shades(root, *, train):
        ...     labels = torch.arange(60) % 2
        ...     images = 200 * labels[:, None, None].expand(60, 28, 28)
        ...     return images.to(torch.uint8), labels, ("dark", "bright")
        >>> split = hpsearch.load_split("shades", validation_images=20, seed=0)
        >>> tuple(split.train_images.shape), split.validation_labels.bincount().tolist()
        ((40, 1, 28, 28), [10, 10])
    """
    return make_split(
        load_training_images(dataset, folder=folder), validation_images=validation_images, seed=seed, train_images=train_images
    )


def make_split(
    data: Images, *, validation_images: int, seed: int, train_images: int | None = None, exclude_from_validation: Tensor | None = None
) -> Split:
    """Divide images at random with every class in proportion: see `load_split`.

    Args:
        not_validated: int64, indices of images that are only trained on.
    """
    wanted = count_training_images(data, validation_images=validation_images, train_images=train_images)
    generator = _frozen_stream(seed)
    by_class = _shuffled(data, generator)
    held_out = allocate(validation_images, [len(indices) for indices in by_class])
    if exclude_from_validation is not None:
        by_class = _spare(by_class, held_out, exclude_from_validation.numpy(), generator)
    remaining = [indices[count:] for indices, count in zip(by_class, held_out, strict=True)]
    trained_on = allocate(wanted, [len(indices) for indices in remaining])
    validation = _joined(by_class, held_out)
    train = _joined(remaining, trained_on)
    images = data.images[train]
    mean, std = channel_statistics(images)
    digest = hashlib.sha256(data.hash.encode())
    digest.update(train.numpy().data)
    digest.update(b"validation")
    digest.update(validation.numpy().data)
    return Split(
        train_images=images,
        train_labels=data.labels[train],
        validation_images=data.images[validation],
        validation_labels=data.labels[validation],
        classes=data.classes,
        mean=mean,
        std=std,
        hash=digest.hexdigest(),
    )


def count_training_images(data: Images, *, validation_images: int, train_images: int | None = None) -> int:
    """How many images `make_split` trains on.

    Raises:
        DataError: the numbers do not fit the data set.
    """
    total = len(data.labels)
    if not 1 <= validation_images < total:
        raise DataError(
            f"validation_images must be at least 1 and below the {total:,} training images, but got {validation_images}",
            hint="They are held out of the training images: 10_000 of Fashion-MNIST's 60,000 are usual.",
        )
    rest = total - validation_images
    wanted = rest if train_images is None else train_images
    if not 1 <= wanted <= rest:
        raise DataError(
            f"train_images must be at least 1 and at most {rest:,} ({total:,} less {validation_images:,} for validation), but got {train_images}"
        )
    return wanted


def validation_indices(data: Images, *, validation_images: int, seed: int) -> Tensor:
    """Which images `make_split` holds out for validation: int64 [validation_images], rising."""
    by_class = _shuffled(data, _frozen_stream(seed))
    return _joined(by_class, allocate(validation_images, [len(indices) for indices in by_class]))


def undivided(data: Images) -> Split:
    """All images to train on and none for validation, as final training takes them."""
    mean, std = channel_statistics(data.images)
    nothing = slice(0, 0)
    return Split(
        train_images=data.images,
        train_labels=data.labels,
        validation_images=data.images[nothing],
        validation_labels=data.labels[nothing],
        classes=data.classes,
        mean=mean,
        std=std,
        hash=hashlib.sha256(f"undivided {data.hash}".encode()).hexdigest(),
    )


def load_training_images(dataset: str, *, folder: Path | None = None) -> Images:
    """All training images of a data set.

    Raises:
        DataError: the data set is unknown, missing or damaged.
    """
    return read_images(dataset, train=True, folder=folder)


def allocate(total: int, sizes: Sequence[int]) -> list[int]:
    """Shares of `total` in proportion to `sizes` by largest remainder; ties go to the first.

    No share exceeds its size when `total` does not exceed their sum.
    """
    whole = sum(sizes)
    shares = [total * size // whole for size in sizes]
    by_remainder = sorted(range(len(sizes)), key=lambda index: -(total * sizes[index] % whole))
    for index in by_remainder[: total - sum(shares)]:
        shares[index] += 1
    return shares


def channel_statistics(images: Tensor) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of each channel as shares of 255, from exact integer sums.

    Args:
        images: uint8 [N, C, H, W].
    """
    means, deviations = [], []
    for channel in images.unbind(1):
        counts = torch.bincount(channel.flatten(), minlength=256).tolist()
        number = sum(counts)
        total = sum(value * count for value, count in enumerate(counts))
        squares = sum(value * value * count for value, count in enumerate(counts))
        variance = (squares * number - total * total) / (number * number)
        means.append(total / number / 255)
        deviations.append(variance**0.5 / 255 or 1.0)
    return tuple(means), tuple(deviations)


def count_batches(images: int, batch_size: int) -> int:
    """How many batches `batches` makes of so many images."""
    full, rest = divmod(images, batch_size)
    return full + (rest > (1 if full else 0))


def batches(images: int, batch_size: int, generator: torch.Generator) -> Iterator[Tensor]:
    """Indices of the batches of one epoch: int64 [batch], a permutation of all images.

    The last batch may be smaller; a single image left over joins the batch before it, because
    batch normalisation cannot train on one.
    """
    order = torch.randperm(images, generator=generator)
    last = count_batches(images, batch_size) - 1
    for number in range(last + 1):
        yield order[number * batch_size :] if number == last else order[number * batch_size : (number + 1) * batch_size]


def _shuffled(data: Images, generator: numpy.random.RandomState) -> list[NDArray[Any]]:
    """The indices of each class in random order."""
    labels = data.labels.numpy()
    return [generator.permutation(numpy.flatnonzero(labels == label)) for label in range(len(data.classes))]


def _spare(
    by_class: Sequence[NDArray[Any]], held_out: Sequence[int], exclude_from_validation: NDArray[Any], generator: numpy.random.RandomState
) -> list[NDArray[Any]]:
    """The same images in an order in which the first ones, which are held out, are none of `exclude_from_validation`."""
    ordered = []
    for indices, count in zip(by_class, held_out, strict=True):
        spared = numpy.isin(indices, exclude_from_validation)
        free = indices[~spared]
        if len(free) < count:
            raise DataError(
                "there are not enough images to validate on others than the search did",
                hint="validation_images must be less than half of the training images.",
            )
        ordered.append(numpy.concatenate([free[:count], generator.permutation(numpy.concatenate([free[count:], indices[spared]]))]))
    return ordered


def _frozen_stream(seed: int) -> numpy.random.RandomState:
    # numpy promises never to change what RandomState draws; of its newer generators it does not.
    return numpy.random.RandomState(derive_seed(seed, "split"))


def _joined(by_class: Sequence[NDArray[Any]], counts: Sequence[int]) -> Tensor:
    chosen = numpy.concatenate([indices[:count] for indices, count in zip(by_class, counts, strict=True)])
    return torch.from_numpy(numpy.sort(chosen).astype(numpy.int64))

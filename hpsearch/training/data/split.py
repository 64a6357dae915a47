"""Splits the training images into parts for training and validation, and makes batches.

The split is random, seeded and stratified. No function of this module can return test images,
because only `held_out.py` reads test images.
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
    """The training images of a data set, divided into a part for training and a part for validation.

    Attributes:
        train_images: uint8 [N, C, H, W].
        train_labels: int64 [N].
        validation_images: uint8 [M, C, H, W].
        validation_labels: int64 [M].
        classes: the names of the classes.
        mean: mean of each channel over `train_images`, as a fraction of 255.
        std: standard deviation of each channel over `train_images`, as a fraction of 255; 1 for a constant channel.
        hash: SHA-256 of the data set and of the indices in both parts, hexadecimal.
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
        """Return the same split with its tensors on a device.

        Args:
            device: the device.

        Returns:
            A new split.
        """
        tensors: dict[str, Any] = {name: value.to(device) for name, value in vars(self).items() if isinstance(value, Tensor)}
        return replace(self, **tensors)


def load_split(
    dataset: str = "fashion-mnist",
    *,
    validation_images: int,
    seed: int,
    train_images: int | None = None,
    folder: Path | None = None,
) -> Split:
    """Split the training images of a data set at random. Each class has the same share in both parts.

    The choice of validation images depends on the seed and on `validation_images`, but not on `train_images`.

    Args:
        dataset: name of the data set.
        validation_images: number of images for validation.
        seed: seed of the split.
        train_images: number of images for training. The default is all other images.
        folder: the folder with the files; None to search the default folders.

    Returns:
        The split, on the CPU.

    Raises:
        DataError: the data set is unknown, missing or damaged, or it has too few images.

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
    """Split images as `load_split` does.

    Args:
        data: the training images of a data set.
        validation_images: number of images for validation.
        seed: seed of the split.
        train_images: number of images for training. The default is all other images.
        exclude_from_validation: int64 [K], indices of images that must not be used for validation.

    Returns:
        The split, on the CPU.

    Raises:
        DataError: there are too few images.
    """
    wanted = count_training_images(data, validation_images=validation_images, train_images=train_images)
    generator = _split_generator(seed)
    by_class = _shuffled(data, generator)
    held_out = allocate(validation_images, [len(indices) for indices in by_class])
    if exclude_from_validation is not None:
        by_class = _move_excluded_last(by_class, held_out, exclude_from_validation.numpy(), generator)
    remaining = [indices[count:] for indices, count in zip(by_class, held_out, strict=True)]
    trained_on = allocate(wanted, [len(indices) for indices in remaining])
    validation = _first_of_each_class(by_class, held_out)
    train = _first_of_each_class(remaining, trained_on)
    digest = hashlib.sha256(data.hash.encode())
    digest.update(train.numpy().data)
    digest.update(b"validation")
    digest.update(validation.numpy().data)
    return _split(data, train, validation, digest.hexdigest())


def count_training_images(data: Images, *, validation_images: int, train_images: int | None = None) -> int:
    """Return the number of images that `make_split` uses for training.

    Args:
        data: the training images of a data set.
        validation_images: number of images for validation.
        train_images: number of images for training. The default is all other images.

    Returns:
        The number.

    Raises:
        DataError: there are too few images.
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
    """Return the indices of the images that `make_split` uses for validation.

    Args:
        data: the training images of a data set.
        validation_images: number of images for validation.
        seed: seed of the split.

    Returns:
        int64 [validation_images], in ascending order.
    """
    by_class = _shuffled(data, _split_generator(seed))
    return _first_of_each_class(by_class, allocate(validation_images, [len(indices) for indices in by_class]))


def undivided(data: Images) -> Split:
    """Return a split for final training: all images for training and none for validation.

    Args:
        data: the training images of a data set.

    Returns:
        The split, on the CPU.
    """
    return _split(data, slice(None), slice(0, 0), hashlib.sha256(f"undivided {data.hash}".encode()).hexdigest())


def load_training_images(dataset: str, *, folder: Path | None = None) -> Images:
    """Return all training images of a data set.

    Args:
        dataset: name of the data set.
        folder: the folder with the files; None to search the default folders.

    Returns:
        The images with their labels.

    Raises:
        DataError: the data set is unknown, missing or damaged.
    """
    return read_images(dataset, train=True, folder=folder)


def allocate(total: int, sizes: Sequence[int]) -> list[int]:
    """Divide `total` in proportion to `sizes` by the largest remainder method.

    Args:
        total: the number to divide. It must not be larger than the sum of the sizes.
        sizes: size of each class.

    Returns:
        A share for each class, not larger than the class. If two remainders are equal, the first class gets more.
    """
    whole = sum(sizes)
    shares = [total * size // whole for size in sizes]
    by_remainder = sorted(range(len(sizes)), key=lambda index: -(total * sizes[index] % whole))
    for index in by_remainder[: total - sum(shares)]:
        shares[index] += 1
    return shares


def channel_statistics(images: Tensor) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return mean and standard deviation of each channel, computed from exact integer sums.

    Args:
        images: uint8 [N, C, H, W].

    Returns:
        The means and the standard deviations as fractions of 255. The standard deviation of a constant channel is 1.
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


def count_batches(n_images: int, batch_size: int) -> int:
    """Return the number of batches that `batches` makes.

    Args:
        n_images: number of training images.
        batch_size: images in a batch.

    Returns:
        The number of batches in an epoch.
    """
    full, rest = divmod(n_images, batch_size)
    return full + (rest > (1 if full else 0))


def batches(n_images: int, batch_size: int, generator: torch.Generator) -> Iterator[Tensor]:
    """Generate the batches of one epoch from a random permutation of all images.

    The last batch may be smaller. If only one image remains, it joins the previous batch, because
    batch normalisation cannot train on a single image.

    Args:
        n_images: number of training images.
        batch_size: images in a batch.
        generator: a generator on the CPU, which draws the permutation.

    Yields:
        The indices of the images of a batch, int64 [batch].
    """
    order = torch.randperm(n_images, generator=generator)
    last = count_batches(n_images, batch_size) - 1
    for number in range(last + 1):
        yield order[number * batch_size :] if number == last else order[number * batch_size : (number + 1) * batch_size]


def stratified_order(labels: Tensor, generator: torch.Generator) -> Tensor:
    """Return a random order in which every beginning has the classes in nearly the same shares as the whole.

    Args:
        labels: int64 [N].
        generator: a generator on the CPU.

    Returns:
        Indices, int64 [N].
    """
    labels = labels.cpu()
    place = torch.empty(len(labels), dtype=torch.float64)
    for label in range(int(labels.max()) + 1 if len(labels) else 0):
        of_class = torch.nonzero(labels == label).flatten()
        # The images of each class are spread evenly over the whole order, each at a random place of its part.
        places = torch.arange(len(of_class)) + torch.rand(len(of_class), generator=generator, dtype=torch.float64)
        place[of_class[torch.randperm(len(of_class), generator=generator)]] = places / len(of_class)
    return place.argsort(stable=True)


def _split(data: Images, train: Tensor | slice, validation: Tensor | slice, digest: str) -> Split:
    images = data.images[train]
    mean, std = channel_statistics(images)
    return Split(
        train_images=images,
        train_labels=data.labels[train],
        validation_images=data.images[validation],
        validation_labels=data.labels[validation],
        classes=data.classes,
        mean=mean,
        std=std,
        hash=digest,
    )


def _shuffled(data: Images, generator: numpy.random.RandomState) -> list[NDArray[Any]]:
    """Return the indices of the images of each class in random order."""
    labels = data.labels.numpy()
    return [generator.permutation(numpy.flatnonzero(labels == label)) for label in range(len(data.classes))]


def _move_excluded_last(
    by_class: Sequence[NDArray[Any]], held_out: Sequence[int], exclude_from_validation: NDArray[Any], generator: numpy.random.RandomState
) -> list[NDArray[Any]]:
    """Reorder the images of each class so that no image for validation is in `exclude_from_validation`.

    The images for validation are the first images of each class.
    """
    ordered = []
    for indices, count in zip(by_class, held_out, strict=True):
        spared = numpy.isin(indices, exclude_from_validation)
        free = indices[~spared]
        if len(free) < count:
            raise DataError(
                "there are not enough images for a validation part that has no image of the search's validation part",
                hint="validation_images must be less than half of the training images.",
            )
        ordered.append(numpy.concatenate([free[:count], generator.permutation(numpy.concatenate([free[count:], indices[spared]]))]))
    return ordered


def _split_generator(seed: int) -> numpy.random.RandomState:
    # numpy guarantees that RandomState always draws the same numbers. The newer generators may change.
    return numpy.random.RandomState(derive_seed(seed, "split"))


def _first_of_each_class(by_class: Sequence[NDArray[Any]], counts: Sequence[int]) -> Tensor:
    chosen = numpy.concatenate([indices[:count] for indices, count in zip(by_class, counts, strict=True)])
    return torch.from_numpy(numpy.sort(chosen).astype(numpy.int64))

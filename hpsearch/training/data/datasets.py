"""Reads and checks the images of a built-in or user-defined data set.

`split.py` splits the training images. Only `held_out.py` reads the test images.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from hpsearch.config.components import BUILT_IN
from hpsearch.config.registration import current_catalog, registered
from hpsearch.errors import DataError, did_you_mean
from hpsearch.formatting import show
from hpsearch.training.data import files

NO_NAME = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
"""Characters that no class name has: control characters, line breaks, and halves of characters, which no file can hold."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Images:
    """Images with their labels.

    Attributes:
        images: uint8 [N, C, H, W].
        labels: int64 [N], the index of a class for each image.
        classes: the names of the classes.
    """

    images: Tensor
    labels: Tensor
    classes: tuple[str, ...]

    @cached_property
    def hash(self) -> str:
        """SHA-256 of shape, pixels, labels and class names, hexadecimal."""
        digest = hashlib.sha256(repr((tuple(self.images.shape), self.classes)).encode())
        digest.update(self.images.contiguous().numpy().data)
        digest.update(self.labels.numpy().data)
        return digest.hexdigest()


def read_images(dataset: str, *, train: bool, folder: Path | None) -> Images:
    """Return the training images or the test images of a data set.

    Args:
        dataset: name of the data set.
        train: True for the training images, False for the test images.
        folder: the folder with the files; None to search the default folders.

    Returns:
        The images with their labels, on the CPU.

    Raises:
        DataError: the data set is unknown, missing or damaged. Also if the factory of a user's data
            set returned something that `registration.dataset` does not allow.
    """
    component = registered(dataset)
    if component is not None and component.kind == "dataset" and component.factory is not None:
        root = folder if folder is not None else files.default_root()
        return _checked(dataset, component.factory(root, train=train))
    if dataset not in BUILT_IN.names("dataset"):
        raise DataError(f"unknown data set {show(dataset)}", hint=did_you_mean(dataset, current_catalog().names("dataset")))
    part = "train" if train else "t10k"
    names = (f"{part}-images-idx3-ubyte", f"{part}-labels-idx1-ubyte")
    # Read the files without torchvision, because importing torchvision alone takes longer.
    images, labels = (
        torch.frombuffer(bytearray(content), dtype=torch.uint8).reshape(files.SHAPES[name])
        for name, content in zip(names, files.read(dataset, names, folder), strict=True)
    )
    return _checked(dataset, (images, labels, files.CLASS_NAMES[dataset]))


def _checked(dataset: str, made: object) -> Images:
    """Check and convert the images, labels and class names that the factory of a data set returned."""
    if not isinstance(made, tuple) or len(made) != 3:
        raise DataError(f"the data set '{dataset}' must return (images, labels, class names), but returned {show(made)}")
    images, labels = (_tensor(dataset, what, value) for what, value in zip(("images", "labels"), made, strict=False))
    classes = _class_names(dataset, made[2])
    if images.dtype != torch.uint8:
        raise DataError(f"the images of '{dataset}' must be uint8 from 0 to 255, but are {images.dtype}")
    if images.ndim == 3:
        images = images.unsqueeze(1)
    if images.ndim == 4 and _has_channels_last(*images.shape[1:]):
        raise DataError(
            f"the images of '{dataset}' must be [N, C, H, W], but are {list(images.shape)}: their channels seem to be last",
            hint="Write torch.as_tensor(images).permute(0, 3, 1, 2).",
        )
    if images.ndim != 4 or 0 in images.shape:
        raise DataError(f"the images of '{dataset}' must be [N, C, H, W] or [N, H, W] and not empty, but are {list(images.shape)}")
    if labels.dtype.is_floating_point or labels.dtype.is_complex or labels.dtype == torch.bool or labels.ndim != 1:
        raise DataError(f"the labels of '{dataset}' must be whole numbers [N], but are {labels.dtype} {list(labels.shape)}")
    if len(labels) != len(images):
        raise DataError(f"'{dataset}' has {len(images):,} images, but {len(labels):,} labels")
    if len(classes) < 2 or len(set(classes)) < len(classes):
        raise DataError(f"'{dataset}' must name at least 2 classes, each once, but names {show(list(classes))}")
    labels = labels.to(torch.int64)
    low, high = int(labels.min()), int(labels.max())
    if low < 0 or high >= len(classes):
        raise DataError(
            f"the labels of '{dataset}' must lie from 0 to {len(classes) - 1} for {len(classes)} classes, but range from {low} to {high}"
        )
    return Images(images=images.contiguous(), labels=labels.contiguous(), classes=classes)


def _class_names(dataset: str, names: Any) -> tuple[str, ...]:
    """Return the names of the classes as texts of one line. Numbers are allowed as names."""
    if not isinstance(names, Iterable):
        raise DataError(f"the class names of '{dataset}' must be a list, but are {show(names)}")
    found = tuple(str(name) for name in names)
    if unusable := [name for name in found if not name.strip() or NO_NAME.search(name)]:
        raise DataError(
            f"a class name of '{dataset}' must be one line of text, but is {show(unusable[0])}", hint="`name.strip()` removes a line break."
        )
    return found


def _has_channels_last(first: int, second: int, last: int) -> bool:
    """Return whether the last side of an image must be its channels: colours, or the greys of a square."""
    return min(first, second) > 4 and (last in (3, 4) or (last == 1 and first == second))


def _tensor(dataset: str, what: str, value: object) -> Tensor:
    try:
        return torch.as_tensor(value).cpu()
    except (TypeError, ValueError, RuntimeError) as error:
        raise DataError(f"the {what} of '{dataset}' must be a tensor or an array, but {show(value)} is none: {error}") from error

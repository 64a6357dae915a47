"""Pictures of images in a grid: what a data set holds, and what a model mistakes."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Sequence
from pathlib import Path

import torch
from PIL import Image, ImageDraw
from torch import Tensor

from hpsearch.config.paths import write_atomically
from hpsearch.errors import DataError, DiskError
from hpsearch.training.data.datasets import Images
from hpsearch.training.data.split import Split, load_training_images
from hpsearch.training.randomness import generator

ZOOM = 3
"""Screen pixels a pixel: 28×28 images are stamps otherwise."""

CAPTION = 14
"""Height of a line under an image, in pixels; Pillow's own font is 11 high."""

MARGIN = 6


def sample_grid(data: Images, *, rows: int = 5, columns: int = 8, seed: int = 0) -> bytes:
    """A PNG of images drawn at random, each with the name of its class.

    Raises:
        DataError: the images have another number of channels than 1 or 3.
    """
    number = min(rows * columns, len(data.labels))
    chosen = torch.randperm(len(data.labels), generator=generator(seed, "sample grid"))[:number].tolist()
    return captioned_grid(data.images[chosen], [(data.classes[int(data.labels[index])],) for index in chosen], columns=columns)


def captioned_grid(images: Tensor, captions: Sequence[tuple[str, ...]], *, columns: int = 8) -> bytes:
    """A PNG of images uint8 [N, C, H, W], each over the lines of its caption; a caption too long for its image is cut.

    Raises:
        DataError: the images have another number of channels than 1 or 3.
    """
    number, _, height, width = images.shape
    lines = max(map(len, captions), default=0)
    cell_width = width * ZOOM + MARGIN
    cell_height = height * ZOOM + lines * CAPTION + MARGIN
    canvas = Image.new("RGB", (columns * cell_width + MARGIN, max(1, -(-number // columns)) * cell_height + MARGIN), "white")
    pen = ImageDraw.Draw(canvas)
    for workspace, (image, caption) in enumerate(zip(images, captions, strict=True)):
        left = MARGIN + workspace % columns * cell_width
        top = MARGIN + workspace // columns * cell_height
        canvas.paste(_picture(image), (left, top))
        for line, text in enumerate(caption):
            pen.text((left, top + height * ZOOM + 1 + line * CAPTION), _shortened(pen, text, width * ZOOM), fill="black")
    content = io.BytesIO()
    canvas.save(content, format="PNG")
    return content.getvalue()


def leave_samples(split: Split, path: Path) -> None:
    """Write a grid of a split's training images where none lies yet, for the reports.

    Several workers may do it at once. A picture that cannot be made or written is no reason not to train.
    """
    if path.exists():
        return
    with contextlib.suppress(DiskError, DataError):
        images = Images(images=split.train_images.cpu(), labels=split.train_labels.cpu(), classes=split.classes)
        write_atomically(path, sample_grid(images))


def training_image(dataset: str, index: int, *, folder: Path | None = None) -> tuple[Tensor, str]:
    """One training image, uint8 [C, H, W], and the name of its class.

    Raises:
        DataError: there is no image of that index, or the data set is missing or damaged.
    """
    data = load_training_images(dataset, folder=folder)
    if not 0 <= index < len(data.labels):
        raise DataError(f"the index of a training image of '{dataset}' must lie from 0 to {len(data.labels) - 1}, but got {index}")
    return data.images[index], data.classes[int(data.labels[index])]


def _picture(image: Tensor) -> Image.Image:
    channels, height, width = image.shape
    if channels not in (1, 3):
        raise DataError(f"a picture can be made of images with 1 or 3 channels, but these have {channels}")
    made = Image.fromarray(image[0].numpy() if channels == 1 else image.permute(1, 2, 0).contiguous().numpy())
    return made.resize((width * ZOOM, height * ZOOM), Image.Resampling.NEAREST)


def _shortened(pen: ImageDraw.ImageDraw, text: str, width: int) -> str:
    while pen.textlength(text) > width and len(text) > 1:
        text = text[:-2] + "."
    return text

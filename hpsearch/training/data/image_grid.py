"""Images as PNG files: one image, or a grid of images with captions. Does not load torch."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

import numpy
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from hpsearch.errors import DataError

ZOOM = 3
"""Screen pixels for each pixel of an image. Without zoom, 28×28 images would be too small to see."""

CAPTION_LINE = 14
"""Height of a line of a caption in pixels. The letters of Pillow's own font are 11 pixels high."""

MOST_CAPTION_LINES = 4
"""Largest number of lines in a caption. The grid does not draw further lines."""

MARGIN = 6
"""Pixels between two cells of a grid."""


def to_pillow(image: NDArray[Any]) -> Image.Image:
    """Return an image as a Pillow image.

    Args:
        image: uint8 [C, H, W] with 1 or 3 channels.

    Returns:
        A grey or RGB image of H×W pixels.

    Raises:
        DataError: the image has another number of channels.
    """
    channels = image.shape[0]
    if channels not in (1, 3):
        raise DataError(f"images to draw must have 1 or 3 channels, but these have {channels}")
    return Image.fromarray(image[0] if channels == 1 else numpy.ascontiguousarray(image.transpose(1, 2, 0)))


def image_png(image: NDArray[Any]) -> bytes:
    """Return an image as a PNG file, without scaling.

    Args:
        image: uint8 [C, H, W] with 1 or 3 channels.

    Returns:
        The content of the file.

    Raises:
        DataError: the image has another number of channels.
    """
    return _png(to_pillow(image))


def captioned_grid(images: Sequence[Image.Image], captions: Sequence[str], *, columns: int = 8) -> bytes:
    """Draw images row by row, each with its caption below it, and return the PNG file.

    Args:
        images: the images, in order.
        captions: one caption for each image. A new line begins at a newline character, or before a
            word that does not fit. A word that is wider than the image is cut.
        columns: number of images in a row.

    Returns:
        The content of the file.
    """
    width, height = (ZOOM * max((image.size[side] for image in images), default=0) for side in (0, 1))
    pen = ImageDraw.Draw(Image.new("RGB", (1, 1)))
    lines = [_lines(pen, caption, width)[:MOST_CAPTION_LINES] for caption in captions]
    cell_width, cell_height = width + MARGIN, height + CAPTION_LINE * max(map(len, lines), default=0) + MARGIN
    rows = -(-len(images) // columns)
    canvas = Image.new("RGB", (columns * cell_width + MARGIN, rows * cell_height + MARGIN), "white")
    pen = ImageDraw.Draw(canvas)
    for cell, (image, caption) in enumerate(zip(images, lines, strict=True)):
        left, top = MARGIN + cell % columns * cell_width, MARGIN + cell // columns * cell_height
        canvas.paste(image.resize((image.width * ZOOM, image.height * ZOOM), Image.Resampling.NEAREST), (left, top))
        for number, line in enumerate(caption):
            pen.text((left, top + height + 1 + number * CAPTION_LINE), line, fill="black")
    return _png(canvas)


def _png(image: Image.Image) -> bytes:
    content = io.BytesIO()
    image.save(content, format="PNG", optimize=True)
    return content.getvalue()


def _lines(pen: ImageDraw.ImageDraw, text: str, width: int) -> list[str]:
    """Break a text into lines that are not wider than `width` pixels."""
    lines: list[str] = []
    for paragraph in text.replace(" %", "\u00a0%").split("\n"):
        line = ""
        for word in paragraph.split(" "):
            if line and pen.textlength(f"{line} {word}") <= width:
                line += f" {word}"
                continue
            if line:
                lines.append(line)
            while pen.textlength(word) > width and len(word) > 1:
                word = word[:-1]
            line = word
        lines.append(line)
    # Pillow's own font has no non-breaking space, so draw a normal space.
    return [line.replace("\u00a0", " ") for line in lines]

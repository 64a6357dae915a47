"""Images as PNG, for pages: a pixel stays a pixel."""

from __future__ import annotations

import io
from typing import Any

import numpy
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from hpsearch.errors import DataError
from hpsearch.report.blocks import Gallery

ZOOM = 3
"""Screen pixels a pixel: 28×28 images are stamps otherwise."""
COLUMNS = 6
CAPTION_LINE, CAPTION_LINES = 12, 4
"""Height of a line of Pillow's own font, and how many stand under a picture."""
MARGIN = 8


def png(image: NDArray[Any]) -> bytes:
    """An image as PNG.

    Args:
        image: uint8 [C, H, W].

    Raises:
        DataError: it has another number of channels than 1 or 3.
    """
    channels = image.shape[0]
    if channels not in (1, 3):
        raise DataError(f"a picture can be made of images with 1 or 3 channels, but these have {channels}")
    content = io.BytesIO()
    Image.fromarray(image[0] if channels == 1 else numpy.ascontiguousarray(image.transpose(1, 2, 0))).save(
        content, format="PNG", optimize=True
    )
    return content.getvalue()


def sheet(gallery: Gallery) -> bytes:
    """All pictures of a gallery on one PNG, each with its caption below it."""
    pictures = [Image.open(io.BytesIO(picture.png)).convert("RGB") for picture in gallery.pictures]
    width, height = (ZOOM * max(picture.size[side] for picture in pictures) for side in (0, 1))
    cell_width, cell_height = width + MARGIN, height + CAPTION_LINE * CAPTION_LINES + MARGIN
    rows = -(-len(pictures) // COLUMNS)
    canvas = Image.new("RGB", (min(COLUMNS, len(pictures)) * cell_width + MARGIN, rows * cell_height + MARGIN), "white")
    pen = ImageDraw.Draw(canvas)
    for workspace, (picture, told) in enumerate(zip(pictures, gallery.pictures, strict=True)):
        left, top = MARGIN + workspace % COLUMNS * cell_width, MARGIN + workspace // COLUMNS * cell_height
        canvas.paste(picture.resize((picture.width * ZOOM, picture.height * ZOOM), Image.Resampling.NEAREST), (left, top))
        for line, text in enumerate(_lines(pen, told.caption, width)[:CAPTION_LINES]):
            pen.text((left, top + height + line * CAPTION_LINE), text, fill="black")
    content = io.BytesIO()
    canvas.save(content, format="PNG", optimize=True)
    return content.getvalue()


def _lines(pen: ImageDraw.ImageDraw, text: str, width: int) -> list[str]:
    """Text in lines that fit a width; a longer word is cut."""
    lines: list[str] = []
    for word in text.replace(" %", "\u00a0%").split(" "):
        if lines and pen.textlength(f"{lines[-1]} {word}") <= width:
            lines[-1] += f" {word}"
            continue
        while pen.textlength(word) > width and len(word) > 1:
            word = word[:-1]
        lines.append(word)
    # Pillow's own font has no such space.
    return [line.replace("\u00a0", " ") for line in lines]

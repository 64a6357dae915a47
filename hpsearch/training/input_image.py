"""Converts picture files into the input of a model, and reports each change."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from hpsearch.errors import DataError
from hpsearch.formatting import show_path

LARGEST_PICTURE = 50_000_000
"""Largest number of pixels in a picture. A file with more pixels is probably an error or an attack."""
BRIGHT = 127.5
"""The background is bright if the mean of the border is higher. This is the middle of the scale from 0 to 255."""


@dataclass(frozen=True, kw_only=True, eq=False)
class InputImage:
    """A picture in the shape that a model needs.

    Attributes:
        image: uint8 [C, H, W].
        done: the changes in order, in words; empty if no change was needed.
    """

    image: Tensor
    done: tuple[str, ...]


def read_picture(path: Path, input_shape: tuple[int, int, int]) -> InputImage:
    """Read a picture file of any size, colour or grey.

    The picture is converted to the model's number of channels. It is scaled without changing its
    aspect ratio. A grey picture with a bright background is inverted, because the images of the
    MNIST family have a black background.

    Args:
        path: the file.
        input_shape: channels, height and width of the model's input.

    Returns:
        The image and the changes.

    Raises:
        DataError: the file is missing or is not a picture.
    """
    channels, height, width = input_shape
    try:
        with Image.open(path) as opened:
            if opened.width * opened.height > LARGEST_PICTURE:
                raise DataError(f"{show_path(path)} has {opened.width} × {opened.height} pixels, which is too many")
            mode, size = opened.mode, opened.size
            on_white = opened.convert("RGBA")
    except FileNotFoundError as error:
        raise DataError(f"there is no picture {show_path(path)}") from error
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError) as error:
        cause = getattr(error, "strerror", None) or str(error)
        raise DataError(f"{show_path(path)} cannot be read as a picture: {cause}", hint="PNG and JPEG are, among others.") from error
    done = []
    if numpy.asarray(on_white.getchannel("A")).min() < 255:
        ground = Image.new("RGBA", on_white.size, "white")
        on_white = Image.alpha_composite(ground, on_white)
        done.append("put on white")
    picture = on_white.convert("L" if channels == 1 else "RGB")
    if channels == 1 and mode not in ("L", "1", "I;16", "I", "LA"):
        done.append("made grey")
    if channels == 1 and _border_mean(picture) > BRIGHT:
        picture = Image.eval(picture, lambda value: 255 - value)
        done.append("inverted, since its ground is bright")
    if size != (width, height):
        picture = _fitted(picture, width, height)
        done.append(f"scaled from {size[0]} × {size[1]} to {width} × {height}")
    pixels = torch.from_numpy(numpy.array(picture, dtype=numpy.uint8))
    return InputImage(image=pixels[None] if channels == 1 else pixels.permute(2, 0, 1).contiguous(), done=tuple(done))


def _border_mean(picture: Image.Image) -> float:
    pixels = numpy.asarray(picture, dtype=numpy.float64)
    return float(numpy.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]]).mean())


def _fitted(picture: Image.Image, width: int, height: int) -> Image.Image:
    """Scale a picture to the largest size that fits, and centre it on a black canvas."""
    scale = min(width / picture.width, height / picture.height)
    size = max(1, round(picture.width * scale)), max(1, round(picture.height * scale))
    canvas = Image.new(picture.mode, (width, height))
    canvas.paste(picture.resize(size, Image.Resampling.LANCZOS), ((width - size[0]) // 2, (height - size[1]) // 2))
    return canvas

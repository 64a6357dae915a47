"""Images as PNG, for pages: a pixel stays a pixel."""

from __future__ import annotations

import io
from typing import Any

import numpy
from numpy.typing import NDArray
from PIL import Image

from hpsearch.errors import DataError


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

"""Images as PNG files."""

from __future__ import annotations

import io

import numpy
import pytest
from PIL import Image

from hpsearch.errors import DataError
from hpsearch.training.data.image_grid import CAPTION_LINE, captioned_grid, image_png, to_pillow


def test_a_caption_of_several_lines_makes_room_for_them() -> None:
    images = [Image.new("L", (28, 28))] * 3
    heights = []
    for caption in ("Shirt", "Shirt\nas Coat\n99 %"):
        with Image.open(io.BytesIO(captioned_grid(images, [caption] * 3, columns=2))) as picture:
            heights.append(picture.height)
    assert heights[1] == heights[0] + 2 * 2 * CAPTION_LINE, "two rows of images, each with two more lines"


def test_a_grid_of_nothing_is_a_picture_all_the_same() -> None:
    with Image.open(io.BytesIO(captioned_grid([], []))) as picture:
        assert picture.format == "PNG"


def test_a_caption_breaks_where_it_would_be_wider_than_its_image() -> None:
    images = [Image.new("L", (28, 28))]
    wanted = captioned_grid(images, ["Shirt, taken for\nPullover (99.1 %)"])
    assert captioned_grid(images, ["Shirt, taken for Pullover (99.1 %)"]) == wanted


def test_an_image_keeps_its_pixels() -> None:
    image = numpy.arange(3 * 4 * 5, dtype=numpy.uint8).reshape(3, 4, 5)
    with Image.open(io.BytesIO(image_png(image))) as picture:
        assert numpy.array_equal(numpy.asarray(picture), image.transpose(1, 2, 0))


def test_images_that_cannot_be_drawn_are_refused() -> None:
    with pytest.raises(DataError, match="1 or 3 channels, but these have 2"):
        to_pillow(numpy.zeros((2, 8, 8), dtype=numpy.uint8))

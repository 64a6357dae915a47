"""Conversion of picture files into the input of a model."""

from __future__ import annotations

from pathlib import Path

import numpy
import pytest
from PIL import Image

from hpsearch.errors import DataError
from hpsearch.training.input_image import read_picture

GREY = (1, 28, 28)


def _write(path: Path, pixels: numpy.ndarray, mode: str | None = None) -> Path:
    made = Image.fromarray(pixels)
    (made.convert(mode) if mode else made).save(path)
    return path


def _shape_on(ground: int, figure: int, size: int = 28) -> numpy.ndarray:
    pixels = numpy.full((size, size), ground, dtype=numpy.uint8)
    pixels[size // 4 : -size // 4, size // 4 : -size // 4] = figure
    return pixels


def test_a_picture_that_fits_is_taken_as_it_is(tmp_path: Path) -> None:
    pixels = _shape_on(0, 200)
    read = read_picture(_write(tmp_path / "a.png", pixels), GREY)
    assert read.done == ()
    assert numpy.array_equal(read.image[0].numpy(), pixels)


def test_a_bright_ground_is_inverted_and_said(tmp_path: Path) -> None:
    read = read_picture(_write(tmp_path / "a.png", _shape_on(255, 20)), GREY)
    assert read.done == ("inverted, since its ground is bright",)
    assert read.image[0, 0, 0] == 0
    assert read.image[0, 14, 14] == 235


def test_colour_and_size_are_changed_and_said(tmp_path: Path) -> None:
    colour = numpy.stack([_shape_on(0, 200, 100)] * 3, axis=-1)
    read = read_picture(_write(tmp_path / "a.png", colour), GREY)
    assert read.done == ("made grey", "scaled from 100 × 100 to 28 × 28")
    assert tuple(read.image.shape) == GREY


def test_sides_stay_in_proportion(tmp_path: Path) -> None:
    wide = numpy.full((10, 40), 100, dtype=numpy.uint8)
    read = read_picture(_write(tmp_path / "a.png", wide), GREY)
    rows = (read.image[0] > 0).any(dim=1).sum().item()
    assert rows == 7


def test_what_is_transparent_stands_on_white(tmp_path: Path) -> None:
    pixels = numpy.zeros((28, 28, 4), dtype=numpy.uint8)
    pixels[10:18, 10:18] = (0, 0, 0, 255)
    read = read_picture(_write(tmp_path / "a.png", pixels), GREY)
    assert read.done[0] == "put on white"
    assert "inverted, since its ground is bright" in read.done
    assert read.image[0, 14, 14] == 255


def test_a_model_of_colours_gets_colours(tmp_path: Path) -> None:
    read = read_picture(_write(tmp_path / "a.png", _shape_on(0, 9)), (3, 28, 28))
    assert tuple(read.image.shape) == (3, 28, 28)


@pytest.mark.parametrize("content", [b"", b"no picture", b"\x89PNG\r\n\x1a\ncut"])
def test_what_is_no_picture_is_named(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(content)
    with pytest.raises(DataError, match="cannot be read as a picture"):
        read_picture(path, GREY)
    with pytest.raises(DataError, match="there is no picture"):
        read_picture(tmp_path / "gone.png", GREY)
    with pytest.raises(DataError, match="cannot be read as a picture: Is a directory\n"):
        read_picture(tmp_path, GREY)

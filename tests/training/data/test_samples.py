"""Random samples of training images, and one image by its index."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
import torch
from PIL import Image

from hpsearch.errors import DataError
from hpsearch.training.data.datasets import Images
from hpsearch.training.data.samples import sample_grid, training_image


def test_the_grid_is_a_png_that_follows_its_seed(fashion: Images) -> None:
    one, same, other = (sample_grid(fashion, seed=seed) for seed in (1, 1, 2))
    assert one == same != other
    with Image.open(io.BytesIO(one)) as picture:
        assert picture.format == "PNG"
        assert picture.width > 8 * 3 * 28
        assert picture.height > 5 * 3 * 28


def test_colour_images_keep_their_colours() -> None:
    red = torch.zeros(2, 3, 8, 8, dtype=torch.uint8)
    red[:, 0] = 200
    content = sample_grid(Images(images=red, labels=torch.tensor([0, 1]), classes=("a", "a very long name of a class")))
    with Image.open(io.BytesIO(content)) as picture:
        assert picture.getpixel((10, 10)) == (200, 0, 0)


def test_images_that_cannot_be_shown_are_refused() -> None:
    images = Images(images=torch.zeros(2, 2, 8, 8, dtype=torch.uint8), labels=torch.tensor([0, 1]), classes=("a", "b"))
    with pytest.raises(DataError, match="1 or 3 channels, but these have 2"):
        sample_grid(images)


def test_one_training_image_comes_with_its_name(data_root: Path, fashion: Images) -> None:
    image, name = training_image("fashion-mnist", 0, folder=data_root)
    assert torch.equal(image, fashion.images[0])
    assert name == "Ankle boot"


@pytest.mark.parametrize("index", [-1, 60_000])
def test_an_image_that_is_not_there_is_refused(data_root: Path, index: int) -> None:
    with pytest.raises(DataError, match=f"must lie from 0 to 59999, but got {index}"):
        training_image("fashion-mnist", index, folder=data_root)

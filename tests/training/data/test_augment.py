"""Augmentations draw random numbers for each image."""

from __future__ import annotations

import torch

from hpsearch.training.data.augment import flip, shift


def generator(seed: int = 1) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


IMAGES = torch.randint(1, 256, (400, 3, 7, 9), dtype=torch.uint8, generator=generator(9))


def test_flip_mirrors_about_half_of_the_images() -> None:
    flipped = flip(IMAGES, generator())
    mirrored = [torch.equal(new, old.flip(-1)) for new, old in zip(flipped, IMAGES, strict=True)]
    assert all(torch.equal(new, old) for new, old, hit in zip(flipped, IMAGES, mirrored, strict=True) if not hit)
    assert 150 < sum(mirrored) < 250


def moved(image: torch.Tensor, down: int, right: int) -> torch.Tensor:
    """Shift an image with a plain loop."""
    result = torch.zeros_like(image)
    _, height, width = image.shape
    for row in range(height):
        for column in range(width):
            if 0 <= row - down < height and 0 <= column - right < width:
                result[:, row, column] = image[:, row - down, column - right]
    return result


def test_shift_moves_every_image_by_a_step_of_its_own() -> None:
    images = IMAGES[:80]
    seen = set()
    for new, old in zip(shift(images, 2, generator()), images, strict=True):
        found = [(down, right) for down in range(-2, 3) for right in range(-2, 3) if torch.equal(new, moved(old, down, right))]
        assert len(found) == 1
        seen.add(found[0])
    # After 80 draws out of 25 shifts, about one shift has not occurred.
    assert len(seen) > 18


def test_augmentations_keep_shape_type_and_order_of_memory() -> None:
    for made in (flip(IMAGES, generator()), shift(IMAGES, 3, generator())):
        assert (made.shape, made.dtype, made.is_contiguous()) == (IMAGES.shape, torch.uint8, True)


def test_augmentations_follow_their_generator() -> None:
    for augment in (flip, lambda images, draws: shift(images, 2, draws)):
        assert torch.equal(augment(IMAGES, generator(1)), augment(IMAGES, generator(1)))
        assert not torch.equal(augment(IMAGES, generator(1)), augment(IMAGES, generator(2)))


def test_augmentations_leave_their_input_alone() -> None:
    before = IMAGES.clone()
    flip(IMAGES, generator())
    shift(IMAGES, 2, generator())
    assert torch.equal(IMAGES, before)

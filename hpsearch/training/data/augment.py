"""Augments batches of images. Each image gets its own random numbers, unlike with torchvision's transforms of a batch."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


def flip(images: Tensor, generator: torch.Generator) -> Tensor:
    """Mirror each image left to right with probability 1/2.

    Args:
        images: [N, C, H, W], any dtype and device.
        generator: a generator on the CPU, so that every device gets the same numbers.

    Returns:
        New images with the same shape.
    """
    chosen = torch.rand(len(images), generator=generator).lt(0.5).to(images.device)
    return torch.where(chosen[:, None, None, None], images.flip(-1), images)


def shift(images: Tensor, pixels: int, generator: torch.Generator) -> Tensor:
    """Shift each image at random in both directions, and fill the empty border with 0.

    Args:
        images: [N, C, H, W], any dtype and device.
        pixels: the largest shift in each direction.
        generator: a generator on the CPU, so that every device gets the same numbers.

    Returns:
        New images with the same shape.
    """
    number, _, height, width = images.shape
    corners = torch.randint(0, 2 * pixels + 1, (2, number, 1), generator=generator).to(images.device)
    padded = functional.pad(images, (pixels,) * 4)
    rows = corners[0] + torch.arange(height, device=images.device)
    columns = corners[1] + torch.arange(width, device=images.device)
    which = torch.arange(number, device=images.device)[:, None, None]
    # Indexing on both sides of the channel axis moves that axis to the end, so move it back.
    return padded[which, :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2).contiguous()

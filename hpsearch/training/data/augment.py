"""Augmentations of whole batches in which every image draws for itself, by indexing."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


def flip(images: Tensor, generator: torch.Generator) -> Tensor:
    """Mirror each image left to right with probability 1/2.

    Args:
        images: [N, C, H, W].
        generator: on the CPU, so that every device draws the same.
    """
    chosen = torch.rand(len(images), generator=generator).lt(0.5).to(images.device)
    return torch.where(chosen[:, None, None, None], images.flip(-1), images)


def shift(images: Tensor, pixels: int, generator: torch.Generator) -> Tensor:
    """Shift each image by up to `pixels` each way, down and across; what comes in is 0.

    Args:
        images: [N, C, H, W].
        generator: on the CPU, so that every device draws the same.
    """
    number, _, height, width = images.shape
    corners = torch.randint(0, 2 * pixels + 1, (2, number, 1), generator=generator).to(images.device)
    padded = functional.pad(images, (pixels,) * 4)
    rows = corners[0] + torch.arange(height, device=images.device)
    columns = corners[1] + torch.arange(width, device=images.device)
    which = torch.arange(number, device=images.device)[:, None, None]
    # Indices on both sides of the channels' slice put the channels last.
    return padded[which, :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2).contiguous()

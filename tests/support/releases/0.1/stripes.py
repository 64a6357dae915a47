"""What study.toml uses beside the built-in components: noisy pictures, a network of two layers, and a schedule with a mistake."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn
from torch.optim.lr_scheduler import LambdaLR, LRScheduler

import hpsearch

SIDE = 16


@hpsearch.dataset("stripes")
def stripes(root: Path | None, *, train: bool) -> tuple[torch.Tensor, torch.Tensor, tuple[str, ...]]:
    """Stripes across, down and aslant, under noise."""
    draws = torch.Generator().manual_seed(1 if train else 2)
    labels = torch.arange(360 if train else 120) % 3
    images = torch.randint(0, 200, (len(labels), 1, SIDE, SIDE), generator=draws)
    images[labels == 0, :, ::4, :] += 45
    images[labels == 1, :, :, ::4] += 45
    images[labels == 2] += 45 * ((torch.arange(SIDE)[:, None] + torch.arange(SIDE)) % 4 == 0)
    return images.to(torch.uint8), labels, ("across", "down", "aslant")


@hpsearch.model(
    "pooled",
    help="a convolution, and a layer on its means over four quarters of the picture",
    maps=hpsearch.option(4, low=1, high=16, help="maps of the convolution"),
)
def pooled(*, input_shape: tuple[int, int, int], classes: int, maps: int) -> nn.Module:
    return nn.Sequential(nn.Conv2d(input_shape[0], maps, 5), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(4 * maps, classes))


@hpsearch.schedule("listed", help="a factor for each epoch, out of a list that is too short for more than four epochs")
def listed(optimizer: torch.optim.Optimizer, *, steps: int, steps_per_epoch: int) -> LRScheduler:
    factors = (1.0, 0.7, 0.4, 0.2, 0.1)
    return LambdaLR(optimizer, lambda step: factors[step // steps_per_epoch])

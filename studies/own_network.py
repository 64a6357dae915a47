"""A model, an optimizer and a schedule of one's own, for `own-network.toml`.

Each is one function with a decorator that gives it its name and declares its options: default,
bounds, and a line of help. A study file can then say what it says of the built-in ones.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

import hpsearch


class Shortcut(nn.Module):
    """A 3×3 convolution around which its input passes unchanged (He et al. 2016)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(width, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU())

    def forward(self, maps: Tensor) -> Tensor:
        """maps: float32 [N, width, H, W], as the result."""
        body: Tensor = self.body(maps)
        return maps + body


@hpsearch.model(
    "shortcut_net",
    help="one strided convolution, blocks with shortcuts, mean over the image",
    width=hpsearch.option(16, low=1, high=256, help="maps of every layer"),
    blocks=hpsearch.option(2, low=0, high=20, help="blocks with a shortcut"),
)
def shortcut_net(*, input_shape: tuple[int, int, int], classes: int, width: int, blocks: int) -> nn.Module:
    stem = nn.Conv2d(input_shape[0], width, 5, stride=2, padding=2)
    return nn.Sequential(
        stem, nn.ReLU(), *(Shortcut(width) for _ in range(blocks)), nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(16 * width, classes)
    )


class ClippedSGD(torch.optim.SGD):
    """Momentum SGD whose step never sees a gradient longer than `max_norm`."""

    def __init__(self, parameters: Iterable[nn.Parameter], *, max_norm: float, **options: Any) -> None:
        self._clipped = list(parameters)
        self._max_norm = max_norm
        super().__init__(self._clipped, **options)

    def step(self, closure: Any = None) -> Any:
        """One step, after the gradient of all weights together was clipped."""
        nn.utils.clip_grad_norm_(self._clipped, self._max_norm)
        return super().step(closure)


@hpsearch.optimizer(
    "clipped_sgd",
    help="momentum SGD with clipped gradients",
    lr=hpsearch.option(0.05, above=0, help="learning rate"),
    momentum=hpsearch.option(0.9, low=0, below=1, help="share of the last step that is kept"),
    max_norm=hpsearch.option(1.0, above=0, help="longest gradient"),
)
def clipped_sgd(parameters: Iterable[nn.Parameter], *, lr: float, momentum: float, max_norm: float) -> torch.optim.Optimizer:
    return ClippedSGD(parameters, max_norm=max_norm, lr=lr, momentum=momentum)


@hpsearch.schedule("warmup", help="up in a straight line over the first epoch, then constant")
def warmup(optimizer: torch.optim.Optimizer, *, steps: int, steps_per_epoch: int) -> torch.optim.lr_scheduler.LRScheduler:
    return torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: min(1.0, (step + 1) / steps_per_epoch))

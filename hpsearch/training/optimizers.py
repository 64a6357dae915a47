"""The built-in optimizers and learning-rate schedules.

Their options and defaults are declared in `hpsearch.config.components`; the trainer steps both after every batch.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

from torch import nn, optim
from torch.optim.lr_scheduler import LambdaLR

ONECYCLE_START = 1 / 25
"""The first learning rate of a one-cycle run, as a share of the highest: torch's `div_factor`."""

ONECYCLE_END = ONECYCLE_START / 10_000
"""The last one, as a share of the highest: torch's `final_div_factor` of the first."""

Parameters = Iterable[nn.Parameter]


def sgd(parameters: Parameters, *, lr: float, momentum: float, weight_decay: float, nesterov: bool) -> optim.Optimizer:
    """Stochastic gradient descent; nesterov needs momentum above 0 (ValueError)."""
    return optim.SGD(parameters, lr=lr, momentum=momentum, weight_decay=weight_decay, nesterov=nesterov, fused=True)


def adam(parameters: Parameters, *, lr: float, beta1: float, beta2: float, weight_decay: float) -> optim.Optimizer:
    """Adam (Kingma and Ba 2015)."""
    return optim.Adam(parameters, lr=lr, betas=(beta1, beta2), weight_decay=weight_decay, fused=True)


def adamw(parameters: Parameters, *, lr: float, beta1: float, beta2: float, weight_decay: float) -> optim.Optimizer:
    """Adam with decoupled weight decay (Loshchilov and Hutter 2019)."""
    return optim.AdamW(parameters, lr=lr, betas=(beta1, beta2), weight_decay=weight_decay, fused=True)


def rmsprop(parameters: Parameters, *, lr: float, alpha: float, momentum: float, weight_decay: float) -> optim.Optimizer:
    """RMSprop; torch has no fused form of it."""
    return optim.RMSprop(parameters, lr=lr, alpha=alpha, momentum=momentum, weight_decay=weight_decay)


def nadam(parameters: Parameters, *, lr: float, beta1: float, beta2: float, weight_decay: float) -> optim.Optimizer:
    """Adam with Nesterov momentum (Dozat 2016); torch has no fused form of it."""
    return optim.NAdam(parameters, lr=lr, betas=(beta1, beta2), weight_decay=weight_decay)


def constant(optimizer: optim.Optimizer, *, steps: int, steps_per_epoch: int) -> LambdaLR:
    """The learning rate stays."""
    return LambdaLR(optimizer, lambda step: 1.0)


def step(optimizer: optim.Optimizer, *, steps: int, steps_per_epoch: int, step_size: int, gamma: float) -> LambdaLR:
    """The learning rate is multiplied by `gamma` after every `step_size` epochs."""
    return LambdaLR(optimizer, lambda step: gamma ** (step // (step_size * steps_per_epoch)))


def cosine(optimizer: optim.Optimizer, *, steps: int, steps_per_epoch: int, eta_min: float) -> LambdaLR:
    """Half a cosine from the learning rate to `eta_min` after the last step (Loshchilov and Hutter 2017)."""
    lowest = eta_min / optimizer.param_groups[0]["lr"]
    return LambdaLR(optimizer, lambda step: _between(1.0, lowest, step / steps))


def onecycle(optimizer: optim.Optimizer, *, steps: int, steps_per_epoch: int, pct_start: float) -> LambdaLR:
    """Up to the learning rate within `pct_start` of the steps, then down to almost nothing (Smith 2018).

    The shape is that of torch's OneCycleLR, which fails on some short runs; the momentum stays as
    it was chosen.
    """
    return LambdaLR(optimizer, _one_cycle(steps, pct_start))


def _one_cycle(steps: int, pct_start: float) -> Callable[[int], float]:
    # With less than one step to go up the run starts at the top.
    peak, last = max(0.0, pct_start * steps - 1), steps - 1

    def factor(step: int) -> float:
        if step < peak:
            return _between(ONECYCLE_START, 1.0, step / peak)
        return _between(1.0, ONECYCLE_END, min(1.0, (step - peak) / ((last - peak) or 1.0)))

    return factor


def _between(start: float, end: float, share: float) -> float:
    """From start to end along half a cosine."""
    return end + (start - end) * (1 + math.cos(math.pi * share)) / 2

"""The built-in optimizers and learning-rate schedules.

`hpsearch.config.components` declares their options, defaults and ranges. The trainer steps the
optimizer and the schedule after every batch. A schedule returns a factor for each step. The
learning rate of the step is this factor times the option `lr`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

from torch import nn, optim
from torch.optim.lr_scheduler import LambdaLR

ONECYCLE_START = 1 / 25
"""First learning rate of a one-cycle run as a share of the highest learning rate. torch's OneCycleLR has the same default."""

ONECYCLE_END = ONECYCLE_START / 10_000
"""Last learning rate of a one-cycle run as a share of the highest learning rate. torch's OneCycleLR has the same default."""

Parameters = Iterable[nn.Parameter]


def sgd(parameters: Parameters, *, lr: float, momentum: float, weight_decay: float, nesterov: bool) -> optim.Optimizer:
    """Build stochastic gradient descent.

    Args:
        parameters: the parameters to train.
        lr: learning rate.
        momentum: share of the last step that is kept.
        weight_decay: factor of the L2 penalty.
        nesterov: whether to use Nesterov momentum.

    Returns:
        The optimizer.

    Raises:
        ValueError: `nesterov` is True, but `momentum` is 0.
    """
    return optim.SGD(parameters, lr=lr, momentum=momentum, weight_decay=weight_decay, nesterov=nesterov, fused=True)


def adam(parameters: Parameters, *, lr: float, beta1: float, beta2: float, weight_decay: float) -> optim.Optimizer:
    """Build Adam (Kingma and Ba 2015).

    Args:
        parameters: the parameters to train.
        lr: learning rate.
        beta1: decay rate of the mean of the gradients.
        beta2: decay rate of the mean of the squared gradients.
        weight_decay: factor of the L2 penalty.

    Returns:
        The optimizer.
    """
    return optim.Adam(parameters, lr=lr, betas=(beta1, beta2), weight_decay=weight_decay, fused=True)


def adamw(parameters: Parameters, *, lr: float, beta1: float, beta2: float, weight_decay: float) -> optim.Optimizer:
    """Build Adam with decoupled weight decay (Loshchilov and Hutter 2019).

    Args:
        parameters: the parameters to train.
        lr: learning rate.
        beta1: decay rate of the mean of the gradients.
        beta2: decay rate of the mean of the squared gradients.
        weight_decay: share of a weight that a step with lr = 1 removes.

    Returns:
        The optimizer.
    """
    return optim.AdamW(parameters, lr=lr, betas=(beta1, beta2), weight_decay=weight_decay, fused=True)


def rmsprop(parameters: Parameters, *, lr: float, alpha: float, momentum: float, weight_decay: float) -> optim.Optimizer:
    """Build RMSprop, which has no fused implementation in torch.

    Args:
        parameters: the parameters to train.
        lr: learning rate.
        alpha: decay rate of the mean of the squared gradients.
        momentum: share of the last step that is kept.
        weight_decay: factor of the L2 penalty.

    Returns:
        The optimizer.
    """
    return optim.RMSprop(parameters, lr=lr, alpha=alpha, momentum=momentum, weight_decay=weight_decay)


def nadam(parameters: Parameters, *, lr: float, beta1: float, beta2: float, weight_decay: float) -> optim.Optimizer:
    """Build Adam with Nesterov momentum (Dozat 2016), which has no fused implementation in torch.

    Args:
        parameters: the parameters to train.
        lr: learning rate.
        beta1: decay rate of the mean of the gradients.
        beta2: decay rate of the mean of the squared gradients.
        weight_decay: factor of the L2 penalty.

    Returns:
        The optimizer.
    """
    return optim.NAdam(parameters, lr=lr, betas=(beta1, beta2), weight_decay=weight_decay)


def constant(optimizer: optim.Optimizer, *, steps: int, steps_per_epoch: int) -> LambdaLR:
    """Keep the learning rate constant.

    Args:
        optimizer: the optimizer whose learning rate changes.
        steps: steps of the whole run.
        steps_per_epoch: steps of an epoch.

    Returns:
        The schedule.
    """
    return LambdaLR(optimizer, lambda step: 1.0)


def step(optimizer: optim.Optimizer, *, steps: int, steps_per_epoch: int, step_size: int, gamma: float) -> LambdaLR:
    """Multiply the learning rate by a factor after every few epochs.

    Args:
        optimizer: the optimizer whose learning rate changes.
        steps: steps of the whole run.
        steps_per_epoch: steps of an epoch.
        step_size: epochs between two changes.
        gamma: the factor.

    Returns:
        The schedule.
    """
    return LambdaLR(optimizer, lambda step: gamma ** (step // (step_size * steps_per_epoch)))


def cosine(optimizer: optim.Optimizer, *, steps: int, steps_per_epoch: int, eta_min: float) -> LambdaLR:
    """Decrease the learning rate along half a cosine (Loshchilov and Hutter 2017).

    Args:
        optimizer: the optimizer whose learning rate changes.
        steps: steps of the whole run.
        steps_per_epoch: steps of an epoch.
        eta_min: learning rate after the last step.

    Returns:
        The schedule.
    """
    lowest = eta_min / optimizer.param_groups[0]["lr"]
    return LambdaLR(optimizer, lambda step: _between(1.0, lowest, step / steps))


def onecycle(optimizer: optim.Optimizer, *, steps: int, steps_per_epoch: int, pct_start: float) -> LambdaLR:
    """Increase the learning rate and then decrease it to almost zero (Smith 2018).

    The curve has the same shape as torch's OneCycleLR, which fails on some short runs. The momentum
    does not change.

    Args:
        optimizer: the optimizer whose learning rate changes.
        steps: steps of the whole run.
        steps_per_epoch: steps of an epoch.
        pct_start: share of the steps in which the learning rate increases, 0 to 1.

    Returns:
        The schedule.
    """
    # If there is less than one step for the increase, the run starts with the highest learning rate.
    peak, last = max(0.0, pct_start * steps - 1), steps - 1

    def factor(step: int) -> float:
        if step < peak:
            return _between(ONECYCLE_START, 1.0, step / peak)
        return _between(1.0, ONECYCLE_END, min(1.0, (step - peak) / ((last - peak) or 1.0)))

    return LambdaLR(optimizer, factor)


def _between(start: float, end: float, share: float) -> float:
    """Interpolate from `start` to `end` along half a cosine. `share` must be from 0 to 1."""
    return end + (start - end) * (1 + math.cos(math.pi * share)) / 2

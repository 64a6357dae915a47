"""The learning rates of the schedules."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn, optim

from hpsearch.training.factory import build_schedule

from .conftest import Configure

EPOCHS, STEPS_PER_EPOCH = 6, 20
STEPS = EPOCHS * STEPS_PER_EPOCH


def rates(
    configure: Configure, name: str, *, lr: float = 0.4, epochs: int = EPOCHS, steps_per_epoch: int = STEPS_PER_EPOCH, **options: Any
) -> list[float]:
    """Return the learning rate of each step of a run."""
    optimizer = optim.SGD(nn.Linear(2, 2).parameters(), lr=lr, momentum=0.9)
    config = configure(schedule=name, epochs=epochs, **{f"schedule_{key}": value for key, value in options.items()})
    schedule = build_schedule(config, optimizer, steps_per_epoch=steps_per_epoch)
    return walked(optimizer, schedule, epochs * steps_per_epoch)


def walked(optimizer: optim.Optimizer, schedule: Any, steps: int) -> list[float]:
    seen = []
    for _ in range(steps):
        seen.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    assert optimizer.param_groups[0]["momentum"] == 0.9
    return seen


def test_constant_stays(configure: Configure) -> None:
    assert rates(configure, "constant") == [0.4] * STEPS


def test_step_falls_after_whole_epochs(configure: Configure) -> None:
    wanted = [0.4] * 40 + [0.2] * 40 + [0.1] * 40
    assert rates(configure, "step", step_size=2, gamma=0.5) == pytest.approx(wanted)


def test_cosine_is_torchs(configure: Configure) -> None:
    optimizer = optim.SGD(nn.Linear(2, 2).parameters(), lr=0.4, momentum=0.9)
    torchs = optim.lr_scheduler.CosineAnnealingLR(optimizer, STEPS, eta_min=0.01)
    assert rates(configure, "cosine", eta_min=0.01) == pytest.approx(walked(optimizer, torchs, STEPS))


@pytest.mark.parametrize("pct_start", [0.1, 0.3, 0.75])
def test_onecycle_is_torchs_without_the_momentums_cycle(configure: Configure, pct_start: float) -> None:
    optimizer = optim.SGD(nn.Linear(2, 2).parameters(), lr=0.4, momentum=0.9)
    torchs = optim.lr_scheduler.OneCycleLR(optimizer, 0.4, total_steps=STEPS, pct_start=pct_start, cycle_momentum=False)
    assert rates(configure, "onecycle", pct_start=pct_start) == pytest.approx(walked(optimizer, torchs, STEPS))


@pytest.mark.parametrize("epochs", [1, 2, 3, 4])
@pytest.mark.parametrize("pct_start", [0.01, 0.25, 0.5, 0.99])
def test_onecycle_takes_runs_of_a_few_steps(configure: Configure, epochs: int, pct_start: float) -> None:
    seen = rates(configure, "onecycle", epochs=epochs, steps_per_epoch=1, pct_start=pct_start)
    assert all(0 < rate <= 0.4 for rate in seen)


def test_onecycle_reaches_the_learning_rate_that_was_asked_for(configure: Configure) -> None:
    assert max(rates(configure, "onecycle")) == pytest.approx(0.4, rel=0.01)


@pytest.mark.parametrize("name", ["constant", "step", "cosine", "onecycle"])
def test_a_stored_schedule_goes_on_where_it_stopped(configure: Configure, name: str) -> None:
    def made() -> tuple[optim.Optimizer, Any]:
        optimizer = optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.4, momentum=0.9)
        return optimizer, build_schedule(configure(schedule=name, epochs=EPOCHS), optimizer, steps_per_epoch=STEPS_PER_EPOCH)

    whole = walked(*made(), STEPS)
    optimizer, schedule = made()
    walked(optimizer, schedule, 33)
    stored = optimizer.state_dict(), schedule.state_dict()
    optimizer, schedule = made()
    optimizer.load_state_dict(stored[0])
    schedule.load_state_dict(stored[1])
    assert walked(optimizer, schedule, STEPS - 33) == whole[33:]

"""Factories by name, and the declared options compared with torch's constructors."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn, optim

import hpsearch
from hpsearch.config.components import BUILT_IN
from hpsearch.config.registration import load_component_file
from hpsearch.errors import ComponentError, ConfigError
from hpsearch.training.factory import build_model, build_optimizer, build_schedule, check_components, factory

from .conftest import Configure

OPTIMIZERS = {"sgd": optim.SGD, "adam": optim.Adam, "adamw": optim.AdamW, "rmsprop": optim.RMSprop, "nadam": optim.NAdam}

DIFFERENT_ON_PURPOSE = {
    # With torch's default learning rate, SGD makes hardly any progress in 10 epochs; see components.py.
    ("sgd", "lr"): 0.05,
    ("sgd", "momentum"): 0.9,
    ("sgd", "weight_decay"): 5e-4,
}

TINY = """
import hpsearch
from torch import nn

@hpsearch.model("tiny", width=hpsearch.option(4, low=1))
def tiny(*, input_shape, classes, width):
    return nn.Sequential(nn.Flatten(), nn.LazyLinear(width), nn.ReLU(), nn.Linear(width, classes))
"""


def test_every_built_in_component_has_a_factory_that_takes_its_options() -> None:
    for kind in ("model", "optimizer", "schedule"):
        for name in BUILT_IN.names(kind):
            own = {"input_shape", "classes", "parameters", "optimizer", "steps", "steps_per_epoch"}
            taken = [parameter for parameter in inspect.signature(factory(kind, name)).parameters if parameter not in own]
            assert taken == [option.name for option in BUILT_IN.get(kind, name).options], (kind, name)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_optimizer_options_have_torchs_names_and_defaults(name: str) -> None:
    signature = inspect.signature(OPTIMIZERS[name]).parameters
    for option in BUILT_IN.get("optimizer", name).options:
        if option.name in ("beta1", "beta2"):
            wanted = signature["betas"].default[int(option.name[-1]) - 1]
        else:
            wanted = signature[option.name].default
        assert option.default == DIFFERENT_ON_PURPOSE.get((name, option.name), wanted), option.name
        if (name, option.name) in DIFFERENT_ON_PURPOSE:
            assert option.default != wanted


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_optimizer_passes_every_option_on(configure: Configure, name: str) -> None:
    values: dict[str, Any] = {
        "lr": 0.0123,
        "momentum": 0.37,
        "weight_decay": 0.0456,
        "nesterov": True,
        "alpha": 0.71,
        "beta1": 0.51,
        "beta2": 0.61,
    }
    options = [option.name for option in BUILT_IN.get("optimizer", name).options]
    config = configure(optimizer=name, **{f"optimizer_{option}": values[option] for option in options})
    made = build_optimizer(config, nn.Linear(2, 2))
    assert type(made) is OPTIMIZERS[name]
    for option in options:
        group = made.param_groups[0]
        found = group["betas"][int(option[-1]) - 1] if option.startswith("beta") else group[option]
        assert found == values[option]


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_optimizer_lowers_a_loss(configure: Configure, name: str) -> None:
    torch.manual_seed(1)
    model = nn.Linear(4, 1)
    optimizer = build_optimizer(configure(optimizer=name), model)
    inputs = torch.randn(32, 4)
    losses = []
    for _ in range(20):
        loss = (model(inputs) - inputs.sum(1, keepdim=True)).pow(2).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]


def test_nesterov_without_momentum_is_refused_by_name(configure: Configure) -> None:
    config = configure(optimizer="sgd", optimizer_nesterov=True, optimizer_momentum=0.0)
    with pytest.raises(ConfigError, match=r"optimizer 'sgd' does not take .*momentum = 0.0.*nesterov = true: Nesterov momentum requires"):
        build_optimizer(config, nn.Linear(2, 2))


def test_a_model_without_parameters_is_refused(configure: Configure) -> None:
    with pytest.raises(ConfigError, match="has no parameters to train"):
        build_optimizer(configure(), nn.Flatten())


def test_unknown_name_is_answered_with_the_nearest() -> None:
    with pytest.raises(ComponentError, match=r"unknown model 'lenet'\nDid you mean 'lenet5'\?"):
        factory("model", "lenet")


def test_a_name_of_another_kind_is_unknown() -> None:
    with pytest.raises(ComponentError, match="unknown optimizer 'cnn'"):
        factory("optimizer", "cnn")


def test_a_users_component_is_found_by_name() -> None:
    @hpsearch.optimizer("own", lr=hpsearch.option(0.1))
    def own(parameters: Any, *, lr: float) -> optim.Optimizer:
        return optim.SGD(parameters, lr=lr)

    assert factory("optimizer", "own") is own


def test_a_users_factory_must_make_a_module(configure: Configure) -> None:
    hpsearch.model("no-module")(lambda *, input_shape, classes: "a string")
    with pytest.raises(ConfigError, match=r"must be a torch.nn.Module, but its factory returned 'a string'"):
        build_model(configure(model="no-module"), (1, 28, 28), 10)


def test_a_users_factory_must_make_an_optimizer_and_a_schedule(configure: Configure) -> None:
    hpsearch.optimizer("no-optimizer")(lambda parameters: None)
    hpsearch.schedule("no-schedule")(lambda optimizer, *, steps, steps_per_epoch: {})
    with pytest.raises(ConfigError, match=r"'no-optimizer' must be a torch.optim.Optimizer, but its factory returned None"):
        build_optimizer(configure(optimizer="no-optimizer"), nn.Linear(1, 1))
    config = configure(schedule="no-schedule")
    with pytest.raises(ConfigError, match=r"'no-schedule' must be a torch.optim.lr_scheduler.LRScheduler, but its factory returned {}"):
        build_schedule(config, build_optimizer(config, nn.Linear(1, 1)), steps_per_epoch=1)


def test_a_component_file_that_changed_since_is_refused(tmp_path: Path, configure: Configure) -> None:
    path = tmp_path / "tiny.py"
    path.write_text(TINY)
    load_component_file(path)
    config = configure(model="tiny")
    check_components(config)
    path.write_text(TINY + "# changed\n")
    load_component_file(path)
    with pytest.raises(ComponentError, match=r"the model 'tiny' was loaded from .*tiny.py with SHA-256"):
        check_components(config)
    check_components(configure(model="tiny"))

"""Builds built-in and user-defined models, optimizers and schedules from their names.

Their options are declared in `hpsearch.config.components` and `hpsearch.config.registration`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any, Literal, TypeVar

from torch import nn, optim
from torch.optim.lr_scheduler import LRScheduler

from hpsearch.config.components import BUILT_IN, SELECTORS
from hpsearch.config.registration import current_catalog, registered
from hpsearch.config.train_config import ComponentConfig, TrainConfig
from hpsearch.errors import ComponentError, ConfigError, did_you_mean
from hpsearch.formatting import show
from hpsearch.training import models, optimizers

Selector = Literal["model", "optimizer", "schedule"]
Built = TypeVar("Built", nn.Module, optim.Optimizer, LRScheduler)

CLASSES: Mapping[Selector, str] = {
    "model": "torch.nn.Module",
    "optimizer": "torch.optim.Optimizer",
    "schedule": "torch.optim.lr_scheduler.LRScheduler",
}
"""The classes of what a factory returns, by their public names."""

BUILDERS: Mapping[str, ModuleType] = {"model": models, "optimizer": optimizers, "schedule": optimizers}
"""The modules of the built-in components. The function that builds a component has the name of the component."""


def factory(kind: Selector, name: str) -> Callable[..., Any]:
    """Return the function that builds a component.

    Args:
        kind: `model`, `optimizer` or `schedule`.
        name: name of a built-in or registered component.

    Returns:
        The function.

    Raises:
        ComponentError: there is no such component.
    """
    if name in BUILT_IN.names(kind):
        build: Callable[..., Any] = getattr(BUILDERS[kind], name)
        return build
    component = registered(name)
    if component is None or component.kind != kind or component.factory is None:
        raise ComponentError(f"unknown {kind} {show(name)}", hint=did_you_mean(name, current_catalog().names(kind)))
    return component.factory


def check_components(config: TrainConfig) -> None:
    """Check that the loaded components are the same as when the config was made.

    Args:
        config: the config of a run.

    Raises:
        ComponentError: a component is unknown, or its component file has changed.
    """
    recorded = {file.sha256 for file in config.component_files}
    for kind in SELECTORS:
        chosen: ComponentConfig = getattr(config, kind)
        factory(kind, chosen.name)
        component = registered(chosen.name)
        file = component.file if component is not None else None
        if file is not None and file.sha256 not in recorded:
            raise ComponentError(
                f"the {kind} '{chosen.name}' was loaded from {file.path} with SHA-256 {file.sha256[:12]}…, "
                f"but the config was made with {', '.join(f'{known.path} {known.sha256[:12]}…' for known in config.component_files) or 'no file'}",
                hint="Load the component file as it was, or make the config anew.",
            )


def build_model(config: TrainConfig, input_shape: tuple[int, int, int], classes: int) -> nn.Module:
    """Build the model of a config. torch's global generator draws the weights.

    Args:
        config: the config of a run.
        input_shape: channels, height and width of an image.
        classes: number of classes.

    Returns:
        A module that maps float32 [N, C, H, W] to logits [N, classes], on the CPU.

    Raises:
        ComponentError: the model is unknown.
        ConfigError: the model does not accept its options or the shape of the images.
    """
    return _build(nn.Module, "model", config.model, input_shape=input_shape, classes=classes)


def build_optimizer(config: TrainConfig, model: nn.Module) -> optim.Optimizer:
    """Build the optimizer of a config.

    Args:
        config: the config of a run.
        model: the model whose parameters the optimizer trains.

    Returns:
        The optimizer.

    Raises:
        ComponentError: the optimizer is unknown.
        ConfigError: the optimizer does not accept its options, or the model has no parameters to train.
    """
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    if not trainable:
        raise ConfigError(f"the model '{config.model.name}' has no parameters to train")
    return _build(optim.Optimizer, "optimizer", config.optimizer, trainable)


def build_schedule(config: TrainConfig, optimizer: optim.Optimizer, *, steps_per_epoch: int) -> LRScheduler:
    """Build the learning-rate schedule of a config for the whole run.

    Args:
        config: the config of a run.
        optimizer: the optimizer whose learning rate the schedule changes.
        steps_per_epoch: batches in an epoch.

    Returns:
        The schedule. The caller must step it after every batch.

    Raises:
        ComponentError: the schedule is unknown.
        ConfigError: the schedule does not accept its options.
    """
    steps = config.epochs * steps_per_epoch
    return _build(LRScheduler, "schedule", config.schedule, optimizer, steps=steps, steps_per_epoch=steps_per_epoch)


def _build(wanted: type[Built], kind: Selector, chosen: ComponentConfig, *arguments: object, **named: object) -> Built:
    try:
        made = factory(kind, chosen.name)(*arguments, **named, **chosen.options)
    # torch raises ValueError if two options do not fit together, for example nesterov without momentum.
    except ValueError as error:
        options = ", ".join(f"{name} = {show(value)}" for name, value in chosen.options.items())
        raise ConfigError(f"the {kind} '{chosen.name}' does not take {options}: {error}") from error
    if not isinstance(made, wanted):
        raise ConfigError(f"the {kind} '{chosen.name}' must be a {CLASSES[kind]}, but its factory returned {show(made)}")
    return made

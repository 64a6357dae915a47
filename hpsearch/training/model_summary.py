"""A model's layers as plain data: shapes, parameters, bytes and FLOPs, without a look at any image.

How the table is printed is its reader's business.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from hpsearch.config.train_config import TrainConfig
from hpsearch.training.factory import build_model
from hpsearch.training.randomness import seeded_generators

FLOP_BATCH = 2
"""Images in the pass that is counted; batch normalisation and squeezing models dislike a single one."""


@dataclass(frozen=True, kw_only=True)
class Layer:
    """One module that computes something itself.

    Attributes:
        name: its path in the model, as in the state dict.
        kind: its class.
        output_shape: for one image, without the batch.
        n_parameters: weights and biases; `trainable` of them take part in training.
        bytes: what the parameters occupy.
        flops: of one image, forward: 2 for each multiply-add of convolutions and products; the
            rest is not counted.
    """

    name: str
    kind: str
    output_shape: tuple[int, ...]
    n_parameters: int
    trainable: int
    bytes: int
    flops: int


@dataclass(frozen=True, kw_only=True)
class Summary:
    """A model's layers in the order in which they run, and the totals of the whole model.

    The totals are counted over the model, so that a layer that runs twice counts its parameters once.
    """

    layers: tuple[Layer, ...]
    n_parameters: int
    trainable: int
    bytes: int
    flops: int


def summarize(config: TrainConfig, input_shape: tuple[int, int, int], classes: int) -> Summary:
    """The layers of a config's model.

    Args:
        input_shape: channels, height and width of an image.

    Raises:
        ComponentError: the model is unknown.
        ConfigError: it refuses its options or the images' shape.
    """
    model, device = _without_memory(config, input_shape, classes)
    rows: list[Layer] = []
    counter = FlopCounterMode(display=False)
    # Of each module that is running: the count at its start, and what rows within it have taken.
    running: list[tuple[int, int]] = []

    def enter(module: nn.Module, inputs: Any) -> None:
        running.append((counter.get_total_flops(), 0))

    def leave(name: str, module: nn.Module, output: Any) -> None:
        start, inner = running.pop()
        flops = counter.get_total_flops() - start
        if running:
            running[-1] = (running[-1][0], running[-1][1] + flops)
        shape = tuple(output.shape[1:]) if isinstance(output, Tensor) else ()
        own = _sizes(list(module.parameters(recurse=False)))
        rows.append(Layer(name=name, kind=type(module).__name__, output_shape=shape, flops=(flops - inner) // FLOP_BATCH, **own))

    for name, module in model.named_modules():
        if not any(True for _ in module.children()) or any(True for _ in module.parameters(recurse=False)):
            module.register_forward_pre_hook(enter)
            module.register_forward_hook(lambda module, _, output, name=name: leave(name, module, output))
    with counter, torch.no_grad(), seeded_generators(config.seed, "summary", device=torch.device("cpu")):
        model(torch.zeros(FLOP_BATCH, *input_shape, device=device))
    return Summary(layers=tuple(rows), flops=counter.get_total_flops() // FLOP_BATCH, **_sizes(list(model.parameters())))


def count_parameters(config: TrainConfig, input_shape: tuple[int, int, int], classes: int) -> int:
    """How many weights and biases a config's model has; errors as those of `summarize`."""
    return summarize(config, input_shape, classes).n_parameters


def _sizes(parameters: list[nn.Parameter]) -> dict[str, int]:
    return {
        "n_parameters": sum(parameter.numel() for parameter in parameters),
        "trainable": sum(parameter.numel() for parameter in parameters if parameter.requires_grad),
        "bytes": sum(parameter.numel() * parameter.element_size() for parameter in parameters),
    }


def _without_memory(config: TrainConfig, input_shape: tuple[int, int, int], classes: int) -> tuple[nn.Module, torch.device]:
    """The model on the meta device, which has shapes but no numbers; on the CPU where it needs numbers."""
    cpu, meta = torch.device("cpu"), torch.device("meta")
    with seeded_generators(config.seed, "summary", device=cpu):
        try:
            with meta:
                model = build_model(config, input_shape, classes)
                # A lazy layer learns its size here.
                with torch.no_grad():
                    model.eval()(torch.zeros(FLOP_BATCH, *input_shape))
            return model, meta
        except (RuntimeError, NotImplementedError, ValueError, TypeError):
            model = build_model(config, input_shape, classes)
            with torch.no_grad():
                model.eval()(torch.zeros(FLOP_BATCH, *input_shape))
            return model, cpu

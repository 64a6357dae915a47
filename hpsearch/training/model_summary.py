"""Lists the layers of a model with shapes, parameters, bytes and FLOPs. This needs no images.

The callers print the table.
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
"""Number of images in the forward pass whose FLOPs are counted. Some models fail on a single image, for example models that squeeze."""


@dataclass(frozen=True, kw_only=True)
class Layer:
    """A module that has no inner modules, or that has parameters of its own.

    Attributes:
        name: path of the module in the model, as in the state dict.
        kind: name of the module's class.
        output_shape: shape of the output for one image, without the batch.
        n_parameters: number of weights and biases.
        trainable: number of weights and biases that are trained.
        bytes: memory of the parameters.
        flops: FLOPs for one image in the forward pass. Each multiply-add of a convolution or matrix
            product counts as 2. Other operations are not counted.
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
    """The layers of a model in the order in which they run, and the totals of the model.

    A layer that runs twice has two entries, but the totals count its parameters once.

    Attributes:
        layers: one entry for each time that a layer runs.
        n_parameters: number of weights and biases.
        trainable: number of weights and biases that are trained.
        bytes: memory of the parameters.
        flops: FLOPs for one image in the forward pass, counted as in `Layer`.
    """

    layers: tuple[Layer, ...]
    n_parameters: int
    trainable: int
    bytes: int
    flops: int


def summarize(config: TrainConfig, input_shape: tuple[int, int, int], classes: int) -> Summary:
    """List the layers of a config's model.

    Args:
        config: the config of a run.
        input_shape: channels, height and width of an image.
        classes: number of classes.

    Returns:
        The layers and the totals.

    Raises:
        ComponentError: the model is unknown.
        ConfigError: the model does not accept its options or the shape of the images.
    """
    model, device = _without_memory(config, input_shape, classes)
    rows: list[Layer] = []
    counter = FlopCounterMode(display=False)
    # One entry for each module that is running: the FLOPs counted before the module, and the FLOPs of its inner layers.
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


def _sizes(parameters: list[nn.Parameter]) -> dict[str, int]:
    return {
        "n_parameters": sum(parameter.numel() for parameter in parameters),
        "trainable": sum(parameter.numel() for parameter in parameters if parameter.requires_grad),
        "bytes": sum(parameter.numel() * parameter.element_size() for parameter in parameters),
    }


def _without_memory(config: TrainConfig, input_shape: tuple[int, int, int], classes: int) -> tuple[nn.Module, torch.device]:
    """Build the model on the meta device, which has shapes but no numbers. Use the CPU if the model needs numbers."""
    cpu, meta = torch.device("cpu"), torch.device("meta")

    def build(device: torch.device) -> nn.Module:
        with device:
            model = build_model(config, input_shape, classes).eval()
            with torch.no_grad():
                # Lazy layers get their sizes here.
                model(torch.zeros(FLOP_BATCH, *input_shape))
        return model

    with seeded_generators(config.seed, "summary", device=cpu):
        try:
            return build(meta), meta
        except (RuntimeError, NotImplementedError, ValueError, TypeError):
            return build(cpu), cpu

"""The built-in models, CNN and LeNet-5, as flat sequences of named layers.

Their options and defaults are declared in `hpsearch.config.components`; a user's models come from `hpsearch.config.registration`.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping

import torch
from torch import nn

from hpsearch.errors import ConfigError
from hpsearch.training.layers import AvgPool2d, Conv2d, Dropout, Tanh

ACTIVATIONS: Mapping[str, Callable[[], nn.Module]] = {
    "relu": nn.ReLU,
    "leaky_relu": nn.LeakyReLU,
    "elu": nn.ELU,
    "silu": nn.SiLU,
    "gelu": nn.GELU,
    "tanh": Tanh,
    "sigmoid": nn.Sigmoid,
}

POOLINGS: Mapping[str, Callable[[int], nn.Module]] = {"average": AvgPool2d, "max": nn.MaxPool2d}

LENET5_MAPS = (6, 16, 120)
LENET5_DENSE = 84
LENET5_KERNEL = 5


def cnn(
    *,
    input_shape: tuple[int, int, int],
    classes: int,
    filters1: int,
    filters2: int,
    dense: int,
    kernel_size: int,
    batch_norm: bool,
    dropout: float,
    activation: str,
) -> nn.Sequential:
    """Two convolutions and a dense layer: float32 [N, C, H, W] to logits [N, classes].

    The maxima of a pooling go through the activation after it: of ReLU and of every other that
    rises monotonically the result is the same, for a quarter of the work.

    Raises:
        ConfigError: nothing would be left of the image before the dense layer.
    """
    channels, height, width = input_shape
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    seen = zip(_used_sizes(height, kernel_size, batch_norm), _used_sizes(width, kernel_size, batch_norm), strict=True)
    for number, (filters, part) in enumerate(zip((filters1, filters2), seen, strict=True), start=1):
        layers[f"conv{number}"] = Conv2d(channels, filters, kernel_size, bias=not batch_norm, seen=part)
        layers[f"pool{number}"] = nn.MaxPool2d(2)
        if batch_norm:
            layers[f"norm{number}"] = nn.BatchNorm2d(filters)
        layers[f"activation{number}"] = ACTIVATIONS[activation]()
        channels, height, width = filters, (height - kernel_size + 1) // 2, (width - kernel_size + 1) // 2
        _require_image("cnn", input_shape, height, width, f"kernel_size {kernel_size}")
    layers["flatten"] = nn.Flatten()
    layers["dropout"] = Dropout(dropout)
    layers["dense"] = nn.Linear(channels * height * width, dense)
    layers["activation3"] = ACTIVATIONS[activation]()
    layers["logits"] = nn.Linear(dense, classes)
    return _channels_last(layers)


def lenet5(
    *, input_shape: tuple[int, int, int], classes: int, activation: str, pooling: str, batch_norm: bool, dropout: float
) -> nn.Sequential:
    """LeNet-5 (LeCun et al. 1998, figure 2) with C5 as a convolution: float32 [N, C, H, W] to logits [N, classes].

    C1 is padded by 2, which makes 28×28 images the 32×32 of the paper; C3 sees all maps of S2, and
    the output is a plain dense layer. Maxima are taken before the activation, averages after it.

    Raises:
        ConfigError: nothing would be left of the image before F6.
    """
    channels, height, width = input_shape
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    for number, maps, padding in ((1, LENET5_MAPS[0], 2), (3, LENET5_MAPS[1], 0), (5, LENET5_MAPS[2], 0)):
        layers[f"c{number}"] = Conv2d(channels, maps, LENET5_KERNEL, padding=padding, bias=not batch_norm)
        pooled = number < 5
        if pooled and pooling == "max":
            layers[f"s{number + 1}"] = POOLINGS[pooling](2)
        if batch_norm:
            layers[f"norm{number}"] = nn.BatchNorm2d(maps)
        layers[f"activation{number}"] = ACTIVATIONS[activation]()
        if pooled and pooling != "max":
            layers[f"s{number + 1}"] = POOLINGS[pooling](2)
        shrink = LENET5_KERNEL - 1 - 2 * padding
        channels, height, width = maps, height - shrink, width - shrink
        if pooled:
            height, width = height // 2, width // 2
        _require_image("lenet5", input_shape, height, width, f"kernels of {LENET5_KERNEL}")
    layers["flatten"] = nn.Flatten()
    layers["dropout"] = Dropout(dropout)
    layers["f6"] = nn.Linear(channels * height * width, LENET5_DENSE)
    layers["activation6"] = ACTIVATIONS[activation]()
    layers["logits"] = nn.Linear(LENET5_DENSE, classes)
    return _channels_last(layers)


def _used_sizes(size: int, kernel_size: int, batch_norm: bool) -> tuple[int, int]:
    """How many rows, or columns, of their inputs the CNN's two convolutions must see.

    Pooling leaves an odd last one out, as the pooling after it may another. Of 28 the CNN's output
    depends on 26, which is a sixth less work. Batch normalisation, though, counts all that is pooled.
    """
    first = (size - kernel_size + 1) // 2
    second = (first - kernel_size + 1) // 2
    by_second = 2 * second + kernel_size - 1
    by_first = 2 * (first if batch_norm else by_second) + kernel_size - 1
    return by_first, by_second


def _require_image(model: str, input_shape: tuple[int, int, int], height: int, width: int, kernels: str) -> None:
    if height < 1 or width < 1:
        raise ConfigError(
            f"{model} with {kernels} needs larger images than {input_shape[1]}×{input_shape[2]}: a layer would have no output",
            hint="Take a smaller kernel, another model, or larger images.",
        )


def _channels_last(layers: OrderedDict[str, nn.Module]) -> nn.Sequential:
    # On a CPU the convolutions are a quarter faster in this order of memory.
    return nn.Sequential(layers).to(memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]  # torch's overloads omit it

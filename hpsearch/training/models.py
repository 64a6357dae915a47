"""The built-in models, CNN and LeNet-5, as sequences of named layers.

`hpsearch.config.components` declares their options and defaults. Users register their own models
with `hpsearch.config.registration`.
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
"""Feature maps of C1, C3 and C5 in the paper."""
LENET5_DENSE = 84
"""Units of F6 in the paper."""
LENET5_KERNEL = 5
"""Height and width of the kernels in the paper."""


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
    """Build a network with two convolutions and a dense layer.

    The activation comes after the max pooling, which saves three quarters of the activation's work.
    For a monotonic activation such as ReLU, the other order would give the same result.

    Args:
        input_shape: channels, height and width of an image.
        classes: number of classes.
        filters1: feature maps of the first convolution.
        filters2: feature maps of the second convolution.
        dense: units of the dense layer.
        kernel_size: height and width of both kernels.
        batch_norm: whether to normalise after each pooling.
        dropout: share of the dense layer's inputs that is zeroed in training.
        activation: a key of `ACTIVATIONS`.

    Returns:
        A module that maps float32 [N, C, H, W] to logits [N, classes].

    Raises:
        ConfigError: the image is too small, so that a layer would have no output.
    """
    channels, height, width = input_shape
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    used_sizes = zip(_used_sizes(height, kernel_size, batch_norm), _used_sizes(width, kernel_size, batch_norm), strict=True)
    for number, (filters, used_size) in enumerate(zip((filters1, filters2), used_sizes, strict=True), start=1):
        layers[f"conv{number}"] = Conv2d(channels, filters, kernel_size, bias=not batch_norm, used_size=used_size)
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
    """Build LeNet-5 (LeCun et al. 1998, figure 2).

    C5 is a convolution, as in the paper. C1 has a padding of 2, because 28×28 images are smaller than
    the 32×32 images of the paper. Two things differ from the paper: C3 uses all feature maps of S2,
    and the output is a plain dense layer. Max pooling comes before the activation, and average
    pooling comes after the activation.

    Args:
        input_shape: channels, height and width of an image.
        classes: number of classes.
        activation: a key of `ACTIVATIONS`.
        pooling: a key of `POOLINGS`.
        batch_norm: whether to normalise before the activation of each convolution.
        dropout: share of F6's inputs that is zeroed in training.

    Returns:
        A module that maps float32 [N, C, H, W] to logits [N, classes].

    Raises:
        ConfigError: the image is too small, so that a layer would have no output.
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
    """Return the number of input rows (or columns) that the first and the second convolution of the CNN need.

    Pooling ignores the last row if the number of rows is odd. With kernels of size 3, for example, the
    CNN's output depends on only 26 of 28 rows. This saves a sixth of the work. Batch normalisation,
    however, needs all outputs of the pooling before it.
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
    # On a CPU, the convolutions are a quarter faster with this memory layout.
    return nn.Sequential(layers).to(memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]  # torch's overloads omit it

"""The layers of the two built-in models."""

from __future__ import annotations

import copy
import itertools
from collections import OrderedDict
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional

from hpsearch.config.components import ACTIVATIONS, BUILT_IN
from hpsearch.errors import ConfigError
from hpsearch.training import models
from hpsearch.training.factory import build_model

from .conftest import Configure


def built(configure: Configure, shape: tuple[int, int, int] = (1, 28, 28), classes: int = 10, **values: Any) -> nn.Sequential:
    model = build_model(configure(**values), shape, classes)
    assert isinstance(model, nn.Sequential)
    return model


def test_cnn_is_built_layer_by_layer_as_designed(configure: Configure) -> None:
    model = built(configure, model="cnn")
    assert [(name, str(layer)) for name, layer in model.named_children()] == [
        ("conv1", "Conv2d(1, 32, kernel_size=(3, 3), stride=(1, 1))"),
        ("pool1", "MaxPool2d(kernel_size=2, stride=2, padding=0, dilation=1, ceil_mode=False)"),
        ("activation1", "ReLU()"),
        ("conv2", "Conv2d(32, 64, kernel_size=(3, 3), stride=(1, 1))"),
        ("pool2", "MaxPool2d(kernel_size=2, stride=2, padding=0, dilation=1, ceil_mode=False)"),
        ("activation2", "ReLU()"),
        ("flatten", "Flatten(start_dim=1, end_dim=-1)"),
        ("dropout", "Dropout(p=0.5)"),
        ("dense", "Linear(in_features=1600, out_features=64, bias=True)"),
        ("activation3", "ReLU()"),
        ("logits", "Linear(in_features=64, out_features=10, bias=True)"),
    ]
    assert sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad) == 121_930


def test_lenet5_is_built_layer_by_layer_as_in_the_paper(configure: Configure) -> None:
    model = built(configure, model="lenet5")
    assert [(name, str(layer)) for name, layer in model.named_children()] == [
        ("c1", "Conv2d(1, 6, kernel_size=(5, 5), stride=(1, 1), padding=(2, 2))"),
        ("activation1", "Tanh()"),
        ("s2", "AvgPool2d(kernel_size=2, stride=2, padding=0)"),
        ("c3", "Conv2d(6, 16, kernel_size=(5, 5), stride=(1, 1))"),
        ("activation3", "Tanh()"),
        ("s4", "AvgPool2d(kernel_size=2, stride=2, padding=0)"),
        ("c5", "Conv2d(16, 120, kernel_size=(5, 5), stride=(1, 1))"),
        ("activation5", "Tanh()"),
        ("flatten", "Flatten(start_dim=1, end_dim=-1)"),
        ("dropout", "Dropout(p=0.0)"),
        ("f6", "Linear(in_features=120, out_features=84, bias=True)"),
        ("activation6", "Tanh()"),
        ("logits", "Linear(in_features=84, out_features=10, bias=True)"),
    ]
    assert sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad) == 61_706


def test_lenet5_takes_maxima_before_the_activation(configure: Configure) -> None:
    names = [name for name, _ in built(configure, model="lenet5", model_pooling="max", model_batch_norm=True).named_children()]
    assert names[:8] == ["c1", "s2", "norm1", "activation1", "c3", "s4", "norm3", "activation3"]


def test_lenet5_takes_averages_after_the_activation(configure: Configure) -> None:
    names = [name for name, _ in built(configure, model="lenet5", model_batch_norm=True).named_children()]
    assert names[:8] == ["c1", "norm1", "activation1", "s2", "c3", "norm3", "activation3", "s4"]


@pytest.mark.parametrize("model", ["cnn", "lenet5"])
def test_convolutions_under_batch_norm_have_no_bias(configure: Configure, model: str) -> None:
    layers = list(built(configure, model=model, model_batch_norm=True))
    convolutions = [layer for layer in layers if isinstance(layer, nn.Conv2d)]
    assert len(convolutions) == sum(isinstance(layer, nn.BatchNorm2d) for layer in layers)
    assert all(layer.bias is None for layer in convolutions)


@pytest.mark.parametrize("activation", ["relu", "leaky_relu", "tanh", "sigmoid", "elu"])
def test_pooling_before_a_rising_activation_is_pooling_after_it(activation: str) -> None:
    inputs = torch.randn(4, 8, 12, 12, generator=torch.Generator().manual_seed(1))
    activate = models.ACTIVATIONS[activation]()
    torch.testing.assert_close(activate(functional.max_pool2d(inputs, 2)), functional.max_pool2d(activate(inputs), 2), rtol=0, atol=1e-7)


@pytest.mark.parametrize("batch_norm", [False, True])
@pytest.mark.parametrize(("model", "kernel_size"), [("cnn", 3), ("cnn", 5), ("cnn", 4), ("lenet5", 5)])
@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 33, 30), (1, 40, 29)])
def test_what_the_layers_leave_out_changes_no_gradient(
    configure: Configure, model: str, kernel_size: int, batch_norm: bool, shape: tuple[int, int, int]
) -> None:
    options = {"model_kernel_size": kernel_size} if model == "cnn" else {}
    ours = built(configure, shape, model=model, model_batch_norm=batch_norm, model_dropout=0.0, **options).double()
    plain = nn.Sequential(OrderedDict((name, as_torchs(layer)) for name, layer in ours.named_children())).double()
    plain.load_state_dict(ours.state_dict())
    images = torch.randn(8, *shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    for each in (ours, plain):
        functional.cross_entropy(each(images), torch.arange(8)).backward()
    for (name, parameter), other in zip(ours.named_parameters(), plain.parameters(), strict=True):
        assert parameter.grad is not None
        torch.testing.assert_close(parameter.grad, other.grad, rtol=1e-9, atol=1e-12, msg=name)


def as_torchs(layer: nn.Module) -> nn.Module:
    """Return torch's own version of a layer."""
    if isinstance(layer, nn.Conv2d):
        height, padding = layer.kernel_size[0], layer.padding[0]
        assert isinstance(padding, int)
        return nn.Conv2d(layer.in_channels, layer.out_channels, height, padding=padding, bias=layer.bias is not None)
    return nn.AvgPool2d(2) if isinstance(layer, nn.AvgPool2d) else copy.deepcopy(layer)


@pytest.mark.parametrize("name", ["cnn", "lenet5"])
def test_every_value_of_every_option_builds_and_trains(configure: Configure, name: str) -> None:
    component = BUILT_IN.get("model", name)
    for option in component.options:
        choices = option.choices or ((False, True) if isinstance(option.default, bool) else ())
        bounds = [type(option.default)(bound) for bound in (option.low, option.high) if bound is not None and bound <= 256]
        for value in (*choices, *bounds):
            model = built(configure, model=name, **{f"model_{option.name}": value})
            logits = model(torch.randn(3, 1, 28, 28))
            assert logits.shape == (3, 10)
            functional.cross_entropy(logits, torch.tensor([0, 1, 2])).backward()
            assert all(parameter.grad is not None for parameter in model.parameters()), (option.name, value)


@pytest.mark.parametrize(
    ("model", "shape", "classes"),
    list(itertools.product(["cnn", "lenet5"], [(1, 28, 28), (3, 32, 32), (3, 40, 29), (4, 64, 64)], [2, 100])),
)
def test_models_take_any_image_that_is_large_enough(configure: Configure, model: str, shape: tuple[int, int, int], classes: int) -> None:
    assert built(configure, shape, classes, model=model)(torch.randn(2, *shape)).shape == (2, classes)


@pytest.mark.parametrize(
    ("values", "shape"),
    [
        ({"model": "cnn"}, (1, 9, 9)),
        ({"model": "cnn", "model_kernel_size": 7}, (1, 28, 19)),
        ({"model": "lenet5"}, (1, 27, 28)),
        ({"model": "lenet5"}, (1, 1, 1)),
    ],
)
def test_images_too_small_for_a_model_are_refused(configure: Configure, values: dict[str, Any], shape: tuple[int, int, int]) -> None:
    with pytest.raises(ConfigError, match=f"needs larger images than {shape[1]}×{shape[2]}"):
        built(configure, shape, **values)


def test_the_smallest_images_that_fit_are_taken(configure: Configure) -> None:
    assert built(configure, (1, 10, 10), model="cnn")(torch.randn(1, 1, 10, 10)).shape == (1, 10)
    assert built(configure, (1, 28, 28), model="lenet5")(torch.randn(1, 1, 28, 28)).shape == (1, 10)


def test_the_activations_offered_are_the_activations_built() -> None:
    assert tuple(models.ACTIVATIONS) == ACTIVATIONS

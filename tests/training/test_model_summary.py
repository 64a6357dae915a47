"""Layer tables, and the document that contains them."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import hpsearch
from hpsearch.errors import ConfigError
from hpsearch.training.factory import build_model
from hpsearch.training.model_summary import Summary, summarize

from .conftest import Configure

DOCUMENT = Path(__file__).parents[2] / "docs" / "models.md"
FASHION = (1, 28, 28)


def table(summary: Summary) -> str:
    """Return the layer table in the form of `docs/models.md`."""
    lines = ["| layer | kind | output | parameters | FLOPs |", "|---|---|---|---:|---:|"]
    for layer in summary.layers:
        shape = "×".join(map(str, layer.output_shape))
        lines.append(f"| {layer.name} | {layer.kind} | {shape} | {layer.n_parameters:,} | {layer.flops:,} |")
    lines.append(f"| **all** | | | **{summary.n_parameters:,}** ({summary.bytes / 1024:.2f} KB) | **{summary.flops:,}** |")
    return "\n".join(lines)


@pytest.mark.parametrize("model", ["cnn", "lenet5"])
def test_the_document_shows_the_layers_as_they_are_built(configure: Configure, model: str) -> None:
    assert table(summarize(configure(model=model), FASHION, 10)) in DOCUMENT.read_text()


@pytest.mark.parametrize(("model", "parameters", "size"), [("cnn", 121_930, "476.29"), ("lenet5", 61_706, "241.04")])
def test_totals_at_the_defaults(configure: Configure, model: str, parameters: int, size: str) -> None:
    summary = summarize(configure(model=model), FASHION, 10)
    assert summary.n_parameters == summary.trainable == sum(layer.n_parameters for layer in summary.layers) == parameters
    assert f"{summary.bytes / 1024:.2f}" == size
    assert summarize(configure(model=model), FASHION, 10).n_parameters == parameters


def test_flops_are_two_for_each_multiply_add_of_one_image(configure: Configure) -> None:
    layers = {layer.name: layer for layer in summarize(configure(model="cnn"), FASHION, 10).layers}
    assert layers["conv1"].flops == 2 * 26 * 26 * 32 * 9
    assert layers["conv2"].flops == 2 * 11 * 11 * 64 * 32 * 9
    assert layers["dense"].flops == 2 * 1600 * 64
    assert layers["pool1"].flops == 0


def test_a_huge_model_is_counted_without_being_made(configure: Configure) -> None:
    config = configure(model="cnn", model_filters1=1024, model_filters2=1024, model_dense=4096, model_kernel_size=7)
    start = time.perf_counter()
    parameters = summarize(config, (3, 256, 256), 10).n_parameters
    assert parameters > 10**10
    assert time.perf_counter() - start < 5


def test_counting_draws_no_random_number(configure: Configure) -> None:
    before = torch.random.get_rng_state()
    summarize(configure(), FASHION, 10)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_frozen_parameters_are_not_trainable(configure: Configure) -> None:
    @hpsearch.model("frozen")
    def frozen(*, input_shape: Any, classes: int) -> nn.Module:
        layers = nn.Sequential(nn.Flatten(), nn.Linear(784, 5), nn.Linear(5, classes))
        layers[1].requires_grad_(False)
        return layers

    summary = summarize(configure(model="frozen"), FASHION, 10)
    assert (summary.n_parameters, summary.trainable) == (3_985, 60)


def test_lazy_layers_own_parameters_and_shared_layers_are_counted_once(configure: Configure) -> None:
    @hpsearch.model("odd")
    class Odd(nn.Module):
        def __init__(self, *, input_shape: Any, classes: int) -> None:
            super().__init__()
            self.scale = nn.Parameter(torch.ones(784))
            self.first, self.shared, self.last = nn.LazyLinear(6), nn.Linear(6, 6), nn.Linear(6, classes)

        def forward(self, images: Tensor) -> Tensor:
            hidden = self.shared(self.shared(self.first(images.flatten(1) * self.scale)))
            assert isinstance(self.last(hidden), Tensor)
            return self.last(hidden)

    summary = summarize(configure(model="odd"), FASHION, 10)
    assert summary.n_parameters == 784 + 785 * 6 + 42 + 70
    rows = [(layer.name, layer.n_parameters, layer.flops) for layer in summary.layers]
    assert rows[0] == ("first", 785 * 6, 2 * 784 * 6)
    assert [row for row in rows if row[0] == "shared"] == [("shared", 42, 72)] * 2
    assert rows[-1] == ("", 784, 0)


def test_a_model_that_needs_numbers_is_made_on_the_cpu(configure: Configure) -> None:
    @hpsearch.model("numbers")
    class Numbers(nn.Module):
        def __init__(self, *, input_shape: Any, classes: int) -> None:
            super().__init__()
            self.dense = nn.Linear(784, classes)
            self.gain = float(self.dense.weight.std().item())

        def forward(self, images: Tensor) -> Tensor:
            return self.dense(images.flatten(1)) * self.gain

    assert summarize(configure(model="numbers"), FASHION, 10).n_parameters == 7_850


def test_images_too_small_are_refused(configure: Configure) -> None:
    with pytest.raises(ConfigError, match="needs larger images than 5×5"):
        summarize(configure(), (1, 5, 5), 10)


def test_the_summary_is_of_the_model_that_is_trained(configure: Configure) -> None:
    config = configure(model="lenet5", model_batch_norm=True)
    model = build_model(config, (3, 32, 32), 7)
    summary = summarize(config, (3, 32, 32), 7)
    assert [layer.name for layer in summary.layers] == [name for name, _ in model.named_children()]
    assert summary.n_parameters == sum(parameter.numel() for parameter in model.parameters())

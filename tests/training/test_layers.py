"""The faster layers compute the same as torch's layers."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional

from hpsearch.training.layers import AvgPool2d, Conv2d, Dropout, Tanh


def answers(layer: nn.Module, inputs: torch.Tensor) -> list[torch.Tensor]:
    """Return the output, and the gradients of a sum with a different weight for each output."""
    inputs = inputs.detach().requires_grad_()
    outputs = layer(inputs)
    weights = torch.randn(outputs.shape, generator=torch.Generator().manual_seed(2))
    return [outputs.detach(), *torch.autograd.grad((outputs * weights).sum(), [inputs, *layer.parameters()])]


@pytest.mark.parametrize("memory", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize(("height", "width", "padding", "bias"), [(5, 5, 0, True), (5, 5, 0, False), (5, 5, 1, True), (5, 8, 0, True)])
def test_a_convolution_of_the_whole_image_is_torchs(memory: torch.memory_format, height: int, width: int, padding: int, bias: bool) -> None:
    torch.manual_seed(1)
    ours, torchs = Conv2d(3, 7, 5, padding=padding, bias=bias), nn.Conv2d(3, 7, 5, padding=padding, bias=bias)
    torchs.load_state_dict(ours.state_dict())
    inputs = torch.randn(4, 3, height, width).to(memory_format=memory)
    torch.testing.assert_close(answers(ours.to(memory_format=memory), inputs), answers(torchs, inputs), rtol=1e-4, atol=1e-5)  # type: ignore[call-overload]


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(("size", "used_size"), [(9, None), (9, (8, 8)), (5, None)])
def test_a_convolution_in_bfloat16_is_torchs_within_rounding(size: int, used_size: tuple[int, int] | None, bias: bool) -> None:
    torch.manual_seed(1)
    ours, torchs = Conv2d(3, 7, 5, bias=bias, used_size=used_size), nn.Conv2d(3, 7, 5, bias=bias)
    torchs.load_state_dict(ours.state_dict())
    inputs = torch.randn(4, 3, size, size).to(memory_format=torch.channels_last)
    seen = inputs if used_size is None else inputs[..., : used_size[0], : used_size[1]].contiguous(memory_format=torch.channels_last)
    with torch.autocast("cpu", torch.bfloat16):
        (outputs, by_inputs, *by_weights), (wanted, wanted_inputs, *wanted_weights) = answers(ours, inputs), answers(torchs, seen)
    assert outputs.dtype == torch.bfloat16
    assert {gradient.dtype for gradient in (by_inputs, *by_weights)} == {torch.float32}
    torch.testing.assert_close(outputs, wanted, rtol=2**-7, atol=1e-3)
    torch.testing.assert_close(by_inputs[..., : seen.shape[2], : seen.shape[3]], wanted_inputs, rtol=2**-5, atol=2e-2)
    torch.testing.assert_close(by_weights, wanted_weights, rtol=2**-5, atol=2e-1)


def test_a_convolution_leaves_out_what_is_not_seen() -> None:
    layer, inputs = Conv2d(1, 2, 3, used_size=(6, 5)), torch.randn(4, 1, 8, 8)
    torch.testing.assert_close(layer(inputs), functional.conv2d(inputs, layer.weight, layer.bias)[..., :4, :3])
    _, gradient, *_ = answers(layer, inputs)
    assert not gradient[..., 6:, :].any()
    assert not gradient[..., 5:].any()


def test_a_convolution_draws_the_weights_of_torchs() -> None:
    torch.manual_seed(1)
    ours = Conv2d(3, 7, 5, used_size=(9, 9)).state_dict()
    torch.manual_seed(1)
    torchs = nn.Conv2d(3, 7, 5).state_dict()
    assert list(ours) == list(torchs)
    assert all(torch.equal(ours[name], torchs[name]) for name in ours)


@pytest.mark.parametrize("memory", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("shape", [(4, 6, 28, 28), (4, 16, 10, 10), (1, 1, 2, 4), (2, 3, 7, 8), (2, 3, 8, 7)])
def test_average_pooling_is_torchs_and_so_is_its_gradient(memory: torch.memory_format, shape: tuple[int, int, int, int]) -> None:
    inputs = torch.randn(shape, generator=torch.Generator().manual_seed(1)).to(memory_format=memory)
    torch.testing.assert_close(answers(AvgPool2d(2), inputs), answers(nn.AvgPool2d(2), inputs), rtol=0, atol=1e-6)


@pytest.mark.parametrize("p", [0.001, 0.1, 0.3, 0.5, 0.9])
def test_dropout_keeps_the_expected_value(p: float) -> None:
    torch.manual_seed(1)
    dropout = Dropout(p)
    outputs = dropout(torch.ones(2_000_003))
    kept = (outputs > 0).double().mean().item()
    deviation = (p * (1 - p) / len(outputs)) ** 0.5
    assert kept == pytest.approx(1 - p, abs=5 * deviation + 2**-17)
    # The expected value of each input is exact: a kept input is divided by its true probability.
    assert outputs.max().item() == pytest.approx(dropout.LEVELS / dropout.kept, rel=1e-6)
    assert outputs.mean().item() == pytest.approx(1, abs=5 * deviation / (1 - p))


def test_dropout_draws_every_input_by_itself() -> None:
    torch.manual_seed(1)
    kept = (Dropout(0.5)(torch.ones(4_000, 64)) > 0).double()
    correlation = torch.corrcoef(kept.T) - torch.eye(64, dtype=torch.float64)
    assert correlation.abs().max().item() < 6 / 4_000**0.5


def test_dropout_follows_the_global_seed() -> None:
    dropout, inputs = Dropout(0.5), torch.ones(1_000)
    torch.manual_seed(1)
    first = dropout(inputs)
    torch.manual_seed(1)
    again, other = dropout(inputs), dropout(inputs)
    assert torch.equal(first, again)
    assert not torch.equal(again, other)


def test_dropout_passes_the_gradient_where_it_kept_the_input() -> None:
    inputs = torch.ones(1_000, requires_grad=True)
    outputs = Dropout(0.25)(inputs)
    outputs.sum().backward()
    assert inputs.grad is not None
    assert torch.equal(inputs.grad, outputs.detach())


@pytest.mark.parametrize(("p", "training"), [(0.0, True), (0.5, False)])
def test_dropout_does_nothing_in_evaluation_or_at_zero(p: float, training: bool) -> None:
    inputs = torch.randn(100)
    assert Dropout(p).train(training)(inputs) is inputs


def test_tanh_is_torchs_and_so_is_its_gradient() -> None:
    inputs = torch.cat([torch.linspace(-20, 20, 10_001), torch.tensor([1e-8, 1e30, -1e30])]).requires_grad_()
    outputs = Tanh()(inputs)
    torch.testing.assert_close(outputs, torch.tanh(inputs), rtol=0, atol=2e-7)
    (gradient,) = torch.autograd.grad(outputs.sum(), inputs)
    (torchs,) = torch.autograd.grad(torch.tanh(inputs).sum(), inputs)
    torch.testing.assert_close(gradient, torchs, rtol=0, atol=5e-7)


def test_tanh_passes_what_is_no_number_on() -> None:
    assert Tanh()(torch.tensor([float("nan")])).isnan().all()


def test_tanh_in_evaluation_is_torchs_own() -> None:
    inputs = torch.randn(100)
    assert torch.equal(Tanh().eval()(inputs), torch.tanh(inputs))
    assert issubclass(Tanh, nn.Tanh)

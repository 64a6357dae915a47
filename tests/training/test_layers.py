"""The layers that are faster than torch's mean the same."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from hpsearch.training.layers import Dropout, Tanh


@pytest.mark.parametrize("p", [0.001, 0.1, 0.3, 0.5, 0.9])
def test_dropout_keeps_the_expected_value(p: float) -> None:
    torch.manual_seed(1)
    dropout = Dropout(p)
    outputs = dropout(torch.ones(2_000_003))
    kept = (outputs > 0).double().mean().item()
    deviation = (p * (1 - p) / len(outputs)) ** 0.5
    assert kept == pytest.approx(1 - p, abs=5 * deviation + 2**-17)
    # Each input's own expected value is exact: what is kept is divided by the true probability.
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

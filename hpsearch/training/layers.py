"""Two layers that are faster on a CPU than torch's own and mean the same."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional


class Dropout(nn.Module):
    """Dropout whose mask costs a third of torch's on a CPU: its numbers have 16 bits, not 53.

    Every input is kept with probability `kept / 65536` and then divided by exactly that, so the
    expected output is the input. The mask follows torch's global generator.

    Args:
        p: probability of zeroing an input, rounded to a multiple of 1/65536; 0 <= p < 1.
    """

    LEVELS = 2**16

    def __init__(self, p: float) -> None:
        super().__init__()
        self.p = p
        # At least one level, or the scale would be infinite.
        self.kept = max(1, round((1 - p) * self.LEVELS))

    def forward(self, inputs: Tensor) -> Tensor:
        """The inputs in evaluation; in training, some zeroed and the others scaled up."""
        if not self.training or self.kept == self.LEVELS:
            return inputs
        if inputs.device.type != "cpu":
            return functional.dropout(inputs, self.p)
        number = inputs.numel()
        # One 64-bit draw serves four inputs.
        draws = torch.empty((number + 3) // 4, dtype=torch.int64).random_(-(2**63), None)
        levels = draws.view(torch.int16)[:number].view(inputs.shape)
        mask = (levels < self.kept - self.LEVELS // 2).to(inputs.dtype).mul_(self.LEVELS / self.kept)
        return inputs * mask

    def extra_repr(self) -> str:
        """The probability, for print."""
        return f"p={self.p}"


class Tanh(nn.Tanh):
    """tanh by way of the logistic function, 2σ(2x) − 1, in training on a CPU: three times as fast.

    The result differs from torch's by at most 2e-7.
    """

    def forward(self, inputs: Tensor) -> Tensor:
        """tanh of every input."""
        if not self.training or inputs.device.type != "cpu":
            return super().forward(inputs)
        result: Tensor = _LogisticTanh.apply(inputs)  # type: ignore[no-untyped-call]
        return result


class _LogisticTanh(torch.autograd.Function):
    @staticmethod
    def forward(context: Any, inputs: Tensor) -> Tensor:
        outputs = torch.mul(inputs, 2).sigmoid_().mul_(2).sub_(1)
        context.save_for_backward(outputs)
        return outputs

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> Tensor:
        (outputs,) = context.saved_tensors
        return torch.ops.aten.tanh_backward(gradient, outputs)  # type: ignore[no-any-return]

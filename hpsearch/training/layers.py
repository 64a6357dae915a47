"""Layers that are faster on a CPU than torch's own and mean the same.

What each gains is measured in `benchmarks/results`.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional


class Conv2d(nn.Conv2d):
    """A convolution that leaves out, on a CPU, what nobody looks at.

    A kernel as large as the image makes the convolution a matrix product, which is computed as one.

    Args:
        seen: height and width of the part of the input, from its upper left, on which the model's
            output depends; nothing else is convolved. All of it by default.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        *,
        padding: int = 0,
        bias: bool = True,
        seen: tuple[int, int] | None = None,
    ) -> None:
        super().__init__(in_channels, out_channels, kernel_size, padding=padding, bias=bias)
        self.seen = seen

    def forward(self, inputs: Tensor) -> Tensor:
        """float32 [N, C, H, W] of the part of the input that is seen."""
        # The meta device too takes the plain way: a summary tells the shapes as the paper would.
        if inputs.device.type != "cpu":
            return super().forward(inputs)
        if self.seen is not None:
            inputs = inputs[..., : self.seen[0], : self.seen[1]]
        if inputs.shape[-2:] == self.weight.shape[-2:] and self.padding == (0, 0):
            # In the order of channels-last memory neither is copied.
            return functional.linear(_rows(inputs), _rows(self.weight), self.bias)[:, :, None, None]
        if self.bias is None or not torch.is_grad_enabled():
            return super().forward(inputs)
        result: Tensor = _ConvolutionWithBias.apply(inputs, self.weight, self.bias, self.padding)  # type: ignore[no-untyped-call]
        return result


class _ConvolutionWithBias(torch.autograd.Function):
    """The bias's gradient is a plain sum; within oneDNN's convolution it costs up to three times as much."""

    @staticmethod
    def forward(context: Any, inputs: Tensor, weight: Tensor, bias: Tensor, padding: tuple[int, int]) -> Tensor:
        context.save_for_backward(inputs, weight)
        context.padding = padding
        return functional.conv2d(inputs, weight, bias, padding=padding)

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor, Tensor, None]:
        inputs, weight = context.saved_tensors
        wanted = [context.needs_input_grad[0], True, False]
        by_inputs, by_weight, _ = torch.ops.aten.convolution_backward(
            gradient, inputs, weight, None, [1, 1], context.padding, [1, 1], False, [0, 0], 1, wanted
        )
        return by_inputs, by_weight, gradient.sum((0, 2, 3)), None


def _rows(tensor: Tensor) -> Tensor:
    return tensor.permute(0, 2, 3, 1).flatten(1)


class AvgPool2d(nn.AvgPool2d):
    """Means of 2×2 pixels on a CPU: torch's own are slow with the channels last in memory."""

    def __init__(self, kernel_size: int) -> None:
        super().__init__(kernel_size)

    def forward(self, inputs: Tensor) -> Tensor:
        """float32 [N, C, H // 2, W // 2]."""
        height, width = inputs.shape[-2:]
        if inputs.device.type != "cpu" or self.kernel_size != 2 or height % 2 or width % 2:
            return super().forward(inputs)
        result: Tensor = _AverageOfFour.apply(inputs)  # type: ignore[no-untyped-call]
        return result


class _AverageOfFour(torch.autograd.Function):
    """Rows are added as whole rows, so that the loops are long although there are few channels."""

    @staticmethod
    def forward(context: Any, inputs: Tensor) -> Tensor:
        number, channels, height, width = inputs.shape
        rows = inputs.permute(0, 2, 3, 1).reshape(number, height // 2, 2, width * channels)
        pairs = (rows[:, :, 0] + rows[:, :, 1]).view(number, height // 2, width // 2, 2, channels)
        return (pairs[..., 0, :] + pairs[..., 1, :]).mul_(0.25).permute(0, 3, 1, 2)

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> Tensor:
        number, channels, height, width = gradient.shape
        # A product with two unit matrices side by side writes each pixel twice, faster than a copy.
        twice = torch.eye(channels, dtype=gradient.dtype).repeat(1, 2).mul_(0.25)
        rows = (gradient.permute(0, 2, 3, 1).reshape(-1, channels) @ twice).view(number, height, 1, 2 * width * channels)
        return rows.expand(-1, -1, 2, -1).reshape(number, 2 * height, 2 * width, channels).permute(0, 3, 1, 2)


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

"""Layers that compute the same as torch's layers, but faster on a CPU. Inputs and outputs may also be bfloat16.

`benchmarks/results` has the measured gain of each layer.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional


class Conv2d(nn.Conv2d):
    """A convolution that, on a CPU, skips the part of the input that cannot affect the model's output.

    If the kernel is as large as the image, the convolution is computed as a matrix product.

    Args:
        in_channels: channels of the input.
        out_channels: channels of the output.
        kernel_size: height and width of the kernel.
        padding: rows and columns of zeros on each side.
        bias: whether the layer has a bias.
        used_size: height and width of the upper left part of the input that affects the model's
            output. The default is the whole input.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        *,
        padding: int = 0,
        bias: bool = True,
        used_size: tuple[int, int] | None = None,
    ) -> None:
        super().__init__(in_channels, out_channels, kernel_size, padding=padding, bias=bias)
        self.used_size = used_size

    def forward(self, inputs: Tensor) -> Tensor:
        """Convolve the used part of the inputs.

        Args:
            inputs: float32 [N, in_channels, H, W].

        Returns:
            float32 [N, out_channels, H', W'].
        """
        # The meta device takes this path too, so that a summary shows the shapes of the whole convolution.
        if inputs.device.type != "cpu":
            return super().forward(inputs)
        if self.used_size is not None:
            inputs = inputs[..., : self.used_size[0], : self.used_size[1]]
        if inputs.shape[-2:] == self.weight.shape[-2:] and self.padding == (0, 0):
            # With channels-last memory, this copies neither the inputs nor the weights.
            return functional.linear(_rows(inputs), _rows(self.weight), self.bias)[:, :, None, None]
        if self.bias is None or not torch.is_grad_enabled():
            return super().forward(inputs)
        weight, bias = self.weight, self.bias
        if torch.is_autocast_enabled("cpu"):
            # A custom function saves what it is given. Converted inside it, its backward pass would meet two number formats.
            inputs, weight, bias = (tensor.to(torch.get_autocast_dtype("cpu")) for tensor in (inputs, weight, bias))
        result: Tensor = _ConvolutionWithBias.apply(inputs, weight, bias, self.padding)  # type: ignore[no-untyped-call]  # torch has no types for it
        return result


class _ConvolutionWithBias(torch.autograd.Function):
    """Computes the gradient of the bias as a plain sum. oneDNN's convolution takes up to three times as long for this."""

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
    """Average pooling that is faster for 2×2 on a CPU, because torch is slow with channels-last memory."""

    def forward(self, inputs: Tensor) -> Tensor:
        """Return the means.

        Args:
            inputs: float32 [N, C, H, W].

        Returns:
            float32 [N, C, H', W'].
        """
        height, width = inputs.shape[-2:]
        if inputs.device.type != "cpu" or (self.kernel_size, self.stride, self.padding) != (2, 2, 0) or height % 2 or width % 2:
            return super().forward(inputs)
        result: Tensor = _AverageOfFour.apply(inputs)  # type: ignore[no-untyped-call]  # torch has no types for it
        return result


class _AverageOfFour(torch.autograd.Function):
    """Adds whole rows, so that the inner loops are long even if there are few channels."""

    @staticmethod
    def forward(context: Any, inputs: Tensor) -> Tensor:
        number, channels, height, width = inputs.shape
        rows = inputs.permute(0, 2, 3, 1).reshape(number, height // 2, 2, width * channels)
        pairs = (rows[:, :, 0] + rows[:, :, 1]).view(number, height // 2, width // 2, 2, channels)
        return (pairs[..., 0, :] + pairs[..., 1, :]).mul_(0.25).permute(0, 3, 1, 2)

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> Tensor:
        number, channels, height, width = gradient.shape
        # A product with two identity matrices side by side writes each pixel twice. It is faster than a copy.
        twice = torch.eye(channels, dtype=gradient.dtype).repeat(1, 2).mul_(0.25)
        rows = (gradient.permute(0, 2, 3, 1).reshape(-1, channels) @ twice).view(number, height, 1, 2 * width * channels)
        return rows.expand(-1, -1, 2, -1).reshape(number, 2 * height, 2 * width, channels).permute(0, 3, 1, 2)


class Dropout(nn.Module):
    """Dropout with random numbers of 16 bits instead of 53. On a CPU, its mask takes a third of the time.

    It keeps each input with the probability `kept / 65536` and divides it by this probability.
    Therefore the expected output is the input. torch's global generator draws the mask.

    Args:
        p: probability to zero an input, 0 <= p < 1, rounded to a multiple of 1/65536.
    """

    LEVELS = 2**16

    def __init__(self, p: float) -> None:
        super().__init__()
        self.p = p
        # If `kept` were 0, the scale would be infinite.
        self.kept = max(1, round((1 - p) * self.LEVELS))

    def forward(self, inputs: Tensor) -> Tensor:
        """In training, set some inputs to zero and scale up the other inputs. In evaluation, return the inputs.

        Args:
            inputs: float32, any shape.

        Returns:
            float32 with the same shape.
        """
        if not self.training or self.kept == self.LEVELS:
            return inputs
        if inputs.device.type != "cpu":
            return functional.dropout(inputs, self.p)
        number = inputs.numel()
        # A random number of 64 bits is enough for four inputs.
        draws = torch.empty((number + 3) // 4, dtype=torch.int64).random_(-(2**63), None)
        levels = draws.view(torch.int16)[:number].view(inputs.shape)
        mask = (levels < self.kept - self.LEVELS // 2).to(inputs.dtype).mul_(self.LEVELS / self.kept)
        return inputs * mask

    def extra_repr(self) -> str:
        """Return the probability, for `print(model)`.

        Returns:
            The text between the brackets.
        """
        return f"p={self.p}"


class Tanh(nn.Tanh):
    """tanh that is three times as fast as torch's tanh in training on a CPU.

    It is computed as 2σ(2x) − 1 with the logistic function σ. The result differs from torch's tanh
    by 2e-7 or less.
    """

    def forward(self, inputs: Tensor) -> Tensor:
        """Return tanh of each input.

        Args:
            inputs: float32, any shape.

        Returns:
            float32 with the same shape.
        """
        # In bfloat16, 2σ(2x) − 1 would lose half of the digits of a small x.
        if not self.training or inputs.device.type != "cpu" or inputs.dtype == torch.bfloat16:
            return super().forward(inputs)
        result: Tensor = _LogisticTanh.apply(inputs)  # type: ignore[no-untyped-call]  # torch has no types for it
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
        return torch.ops.aten.tanh_backward(gradient, outputs)  # type: ignore[no-any-return]  # torch has no types for it

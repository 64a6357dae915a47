"""Computes loss, accuracy and predictions of a model on images, without dropout and augmentation."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

EVALUATION_BATCH = 500
"""Images in a batch. On a CPU, larger batches are not faster and need more memory."""


class Normalisation(nn.Module):
    """Scales pixels to the input of a model: (pixel / 255 - mean) / standard deviation = pixel * factor + offset.

    Attributes:
        factor: float32 [1, C, 1, 1].
        offset: float32 [1, C, 1, 1].
    """

    factor: Tensor
    offset: Tensor

    def __init__(self, *, factor: Tensor, offset: Tensor) -> None:
        super().__init__()
        self.register_buffer("factor", factor)
        self.register_buffer("offset", offset)

    @classmethod
    def of(cls, mean: Sequence[float], std: Sequence[float], device: torch.device) -> Normalisation:
        """Make the normalisation for a mean and a standard deviation of each channel.

        Args:
            mean: mean of each channel, as a fraction of 255.
            std: standard deviation of each channel, as a fraction of 255.
            device: the device of the images.

        Returns:
            The normalisation.
        """
        means, deviations = (torch.tensor(values, dtype=torch.float64).view(1, -1, 1, 1) for values in (mean, std))
        return cls(factor=(1 / (255 * deviations)).float().to(device), offset=(-means / deviations).float().to(device))

    def forward(self, images: Tensor) -> Tensor:
        """Return the input of a model.

        Args:
            images: uint8 [N, C, H, W].

        Returns:
            float32 [N, C, H, W].
        """
        return images.to(torch.float32).mul_(self.factor).add_(self.offset)


@dataclass(frozen=True, kw_only=True, eq=False)
class Evaluation:
    """The results of a model on images. The tensors are on the CPU.

    Attributes:
        loss: mean cross-entropy; not finite if the weights are not finite.
        accuracy: share of images that are classified correctly, 0 to 1. A prediction that is no finite number is wrong.
        predicted: the predicted class of each image, int64 [N].
        confidence: the predicted probability of the predicted class, float32 [N].
        losses: the cross-entropy of each image, float32 [N].
    """

    loss: float
    accuracy: float
    predicted: Tensor
    confidence: Tensor
    losses: Tensor


def forward(model: nn.Module, inputs: Tensor, precision: str) -> Tensor:
    """Run a model's layers in a number format. The weights stay float32; torch converts them for each layer that gains from it.

    Args:
        model: maps float32 [N, C, H, W] to logits [N, classes].
        inputs: float32 [N, C, H, W].
        precision: `float32` or `bfloat16`.

    Returns:
        The logits. They are float32 also if the layers computed in bfloat16, so that the loss is.
    """
    with torch.autocast(inputs.device.type, dtype=torch.bfloat16, enabled=precision == "bfloat16"):
        logits: Tensor = model(inputs)
    return logits.float() if precision == "bfloat16" and isinstance(logits, Tensor) else logits


@torch.no_grad()
def evaluate(model: nn.Module, images: Tensor, labels: Tensor, normalise: Normalisation, precision: str = "float32") -> Evaluation:
    """Evaluate a model on images. The model stays in evaluation mode.

    Args:
        model: maps float32 [N, C, H, W] to logits [N, classes].
        images: uint8 [N, C, H, W].
        labels: int64 [N].
        normalise: scales the pixels.
        precision: number format of the layers, `float32` or `bfloat16`.

    Returns:
        The results. If there are no images, loss and accuracy are NaN.
    """
    model.eval()
    if not len(labels):
        nothing = torch.empty(0)
        return Evaluation(loss=math.nan, accuracy=math.nan, predicted=nothing.long(), confidence=nothing, losses=nothing)
    sums, losses, predicted, confidence = [], [], [], []
    for pixels, wanted in zip(torch.split(images, EVALUATION_BATCH), torch.split(labels, EVALUATION_BATCH), strict=True):
        log_probabilities = functional.log_softmax(forward(model, normalise(pixels), precision), dim=1)
        sums.append(functional.nll_loss(log_probabilities, wanted, reduction="sum"))
        losses.append(functional.nll_loss(log_probabilities, wanted, reduction="none"))
        best, classes = log_probabilities.max(dim=1)
        predicted.append(classes)
        confidence.append(best.exp())
    chosen, certainty = torch.cat(predicted), torch.cat(confidence)
    return Evaluation(
        loss=torch.stack(sums).double().sum().item() / len(labels),
        # torch names a class for logits that are not numbers. A model whose training diverged would have the accuracy of that class.
        accuracy=((chosen == labels) & certainty.isfinite()).sum().item() / len(labels),
        predicted=chosen.cpu(),
        confidence=certainty.cpu(),
        losses=torch.cat(losses).cpu(),
    )

"""What a model makes of some images, without dropout or augmentation: loss, accuracy and predictions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

EVALUATION_BATCH = 500
"""Images at once; more gain nothing on a CPU and cost memory."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Normalisation:
    """Turns pixels into what a model sees: share of 255, less the mean, over the standard deviation.

    Attributes:
        factor, offset: of each channel: float32 [1, C, 1, 1].
    """

    factor: Tensor
    offset: Tensor

    @classmethod
    def of(cls, mean: Sequence[float], std: Sequence[float], device: torch.device) -> Normalisation:
        """From each channel's mean and standard deviation as shares of 255."""
        factor = [1 / (255 * deviation) for deviation in std]
        offset = [-average / deviation for average, deviation in zip(mean, std, strict=True)]
        return cls(
            factor=torch.tensor(factor, dtype=torch.float32, device=device).view(1, -1, 1, 1),
            offset=torch.tensor(offset, dtype=torch.float32, device=device).view(1, -1, 1, 1),
        )

    def __call__(self, images: Tensor) -> Tensor:
        """float32 [N, C, H, W] from uint8 of the same shape."""
        return images.to(torch.float32).mul_(self.factor).add_(self.offset)


@dataclass(frozen=True, kw_only=True, eq=False)
class Evaluation:
    """What a model made of some images.

    Attributes:
        loss: mean cross-entropy; not finite where the weights are not.
        accuracy: share classified correctly, 0 to 1.
        predicted: int64 [N], on the CPU.
        confidence: float32 [N], the probability given to the predicted class, on the CPU.
        losses: float32 [N], the cross-entropy of each image, on the CPU.
    """

    loss: float
    accuracy: float
    predicted: Tensor
    confidence: Tensor
    losses: Tensor


@torch.no_grad()
def evaluate(model: nn.Module, images: Tensor, labels: Tensor, normalise: Normalisation) -> Evaluation:
    """Evaluate a model, and leave it in evaluation mode.

    Args:
        images: uint8 [N, C, H, W]; of none at all, loss and accuracy are NaN.
        labels: int64 [N].
    """
    model.eval()
    if not len(labels):
        nothing = torch.empty(0)
        return Evaluation(loss=math.nan, accuracy=math.nan, predicted=nothing.long(), confidence=nothing, losses=nothing)
    sums, losses, predicted, confidence = [], [], [], []
    for pixels, wanted in zip(torch.split(images, EVALUATION_BATCH), torch.split(labels, EVALUATION_BATCH), strict=True):
        log_probabilities = functional.log_softmax(model(normalise(pixels)), dim=1)
        sums.append(functional.nll_loss(log_probabilities, wanted, reduction="sum"))
        losses.append(functional.nll_loss(log_probabilities, wanted, reduction="none"))
        best, classes = log_probabilities.max(dim=1)
        predicted.append(classes)
        confidence.append(best.exp())
    chosen = torch.cat(predicted)
    return Evaluation(
        loss=torch.stack(sums).double().sum().item() / len(labels),
        accuracy=(chosen == labels).sum().item() / len(labels),
        predicted=chosen.cpu(),
        confidence=torch.cat(confidence).cpu(),
        losses=torch.cat(losses).cpu(),
    )

"""A model's most confident mistakes as pictures: often the image is strange, sometimes the label is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from numpy.typing import NDArray

from hpsearch.analysis.metrics import Predictions
from hpsearch.report.blocks import Gallery, Picture
from hpsearch.training.data.image_grid import image_png


def mistakes_gallery(predictions: Predictions, indices: Sequence[int], images: NDArray[Any]) -> Gallery:
    """Pictures with truth, guess and confidence.

    Args:
        indices: of the mistakes among the predictions.
        images: uint8 [N, C, H, W], the image of each of `indices`.
    """
    pictures = []
    for index, image in zip(indices, images, strict=True):
        truth, guess = predictions.classes[predictions.label[index]], predictions.classes[predictions.predicted[index]]
        said = f"{truth}, taken for {guess} ({100 * float(predictions.confidence[index]):.1f}\u00a0%)"
        pictures.append(Picture(png=image_png(image), alternative=f"image {index}: {said}", caption=said))
    return Gallery(pictures=tuple(pictures))

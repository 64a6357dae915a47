"""The command predict: images classified by a final model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hpsearch.cli.console import print_json, say
from hpsearch.cli.options import JsonOption


def predict(
    model: Annotated[
        Path, typer.Argument(metavar="MODEL", help="The folder of a final model, or its model.safetensors.", show_default=False)
    ],
    pictures: Annotated[
        list[Path], typer.Argument(metavar="PICTURE...", help="Image files of any size, in colour or grey.", show_default=False)
    ],
    trust: Annotated[bool, typer.Option("--trust", help="Run the model's component file even if you have not run it before.")] = False,
    json: JsonOption = False,
) -> None:
    """Classify images with a final model: the class, the confidence, and how each image was prepared."""
    import torch  # this import takes seconds

    from hpsearch.training.input_image import read_picture
    from hpsearch.training.saved_model import load_model

    saved = load_model(model, trust=trust)
    images = [read_picture(path, saved.input_shape) for path in pictures]
    confidences, classes = saved.probabilities(torch.stack([each.image for each in images])).max(dim=1)
    found = [
        {"picture": str(path), "class": saved.classes[index], "confidence": confidence, "done": list(image.done)}
        for path, image, index, confidence in zip(pictures, images, classes.tolist(), confidences.tolist(), strict=True)
    ]
    if json:
        print_json(found)
        return
    for row in found:
        done = f" ({', '.join(row['done'])})" if row["done"] else ""
        say(f"{row['picture']}: {row['class']}, {100 * row['confidence']:.1f} %{done}")

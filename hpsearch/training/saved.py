"""A trained model as one file that anybody can read: weights as safetensors, the rest as JSON in its metadata."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from hpsearch.components import show_path
from hpsearch.config import TrainConfig
from hpsearch.errors import DataError
from hpsearch.extensions import load_component_file, registered
from hpsearch.training.evaluate import Evaluation, Normalisation, evaluate
from hpsearch.training.registry import build_model

METADATA_KEY = "hpsearch"


@dataclass(frozen=True, kw_only=True, eq=False)
class SavedModel:
    """A trained model, ready to use on the CPU.

    Attributes:
        module: maps float32 [N, C, H, W], normalised, to logits [N, classes].
        mean, std: of each channel of the images that it was trained on, as shares of 255.
    """

    module: nn.Module
    config: TrainConfig
    classes: tuple[str, ...]
    input_shape: tuple[int, int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]

    @property
    def normalise(self) -> Normalisation:
        """Turns pixels into what the module sees."""
        return Normalisation.of(self.mean, self.std, torch.device("cpu"))

    @torch.no_grad()
    def probabilities(self, images: Tensor) -> Tensor:
        """float32 [N, classes] of images uint8 [N, C, H, W]."""
        self.module.eval()
        return torch.softmax(self.module(self.normalise(images)), dim=1)

    def evaluate(self, images: Tensor, labels: Tensor) -> Evaluation:
        """What the model makes of images uint8 [N, C, H, W] with labels int64 [N]."""
        return evaluate(self.module, images, labels, self.normalise)


def save_model(path: Path, model: SavedModel) -> None:
    """Write a model: its weights under their names in the state dict, the rest in the metadata."""
    about = {
        "config": model.config.to_dict(),
        "classes": model.classes,
        "input_shape": model.input_shape,
        "mean": model.mean,
        "std": model.std,
    }
    # The layout of a convolution's weights in memory is no business of a file's.
    weights = {name: tensor.detach().cpu().contiguous() for name, tensor in model.module.state_dict().items()}
    temporary = path.with_suffix(".part")
    safetensors.torch.save_file(weights, temporary, metadata={METADATA_KEY: json.dumps(about)})
    temporary.replace(path)


def load_model(path: Path | str) -> SavedModel:
    """A model that `hpsearch train` wrote: its folder, or the file itself.

    Raises:
        DataError: there is none, or it is damaged or of another maker.
        ComponentError: its architecture comes from a component file that is missing or changed.
    """
    file = Path(path) / "model.safetensors" if Path(path).is_dir() else Path(path)
    try:
        with safe_open(file, framework="pt") as opened:
            metadata: Mapping[str, str] = opened.metadata() or {}
            weights = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118  # no mapping, it only has keys()
        about: dict[str, Any] = json.loads(metadata[METADATA_KEY])
    except (FileNotFoundError, OSError) as error:
        raise DataError(
            f"cannot read the model {show_path(file)}: no such file", hint="`hpsearch train FILE --final -o DIR` writes one."
        ) from error
    except (SafetensorError, ValueError, KeyError) as error:
        raise DataError(f"{show_path(file)} is no model of hpsearch: {type(error).__name__}: {error}") from error
    config = TrainConfig.from_dict(about["config"])
    for component in config.component_files:
        if registered(config.model.name) is None:
            load_component_file(component.path)
    channels, height, width = about["input_shape"]
    module = build_model(config, (channels, height, width), len(about["classes"]))
    module.load_state_dict(weights)
    return SavedModel(
        module=module.eval(),
        config=config,
        classes=tuple(about["classes"]),
        input_shape=(channels, height, width),
        mean=tuple(about["mean"]),
        std=tuple(about["std"]),
    )

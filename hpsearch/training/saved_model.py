"""Saves and loads a trained model as one safetensors file. Everything except the weights is JSON in the file's metadata."""

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

from hpsearch.config.paths import write_atomically
from hpsearch.config.registration import find_component_file, load_component_file
from hpsearch.config.train_config import TrainConfig
from hpsearch.errors import DataError
from hpsearch.formatting import show_path
from hpsearch.training.evaluate import Evaluation, Normalisation, evaluate
from hpsearch.training.factory import build_model, check_components

METADATA_KEY = "hpsearch"


@dataclass(frozen=True, kw_only=True, eq=False)
class SavedModel:
    """A trained model, ready to use on the CPU.

    Attributes:
        module: maps normalised images, float32 [N, C, H, W], to logits [N, classes].
        config: the config with which the model was trained.
        classes: the names of the classes.
        input_shape: channels, height and width of an image.
        mean: mean of each channel of the training images, as a fraction of 255.
        std: standard deviation of each channel of the training images, as a fraction of 255.
    """

    module: nn.Module
    config: TrainConfig
    classes: tuple[str, ...]
    input_shape: tuple[int, int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]

    @property
    def normalise(self) -> Normalisation:
        """Scales pixels to the input of the module."""
        return Normalisation.of(self.mean, self.std, torch.device("cpu"))

    @torch.no_grad()
    def probabilities(self, images: Tensor) -> Tensor:
        """Return the probability of each class for each image.

        Args:
            images: uint8 [N, C, H, W].

        Returns:
            float32 [N, classes].
        """
        self.module.eval()
        return torch.softmax(self.module(self.normalise(images)), dim=1)

    def evaluate(self, images: Tensor, labels: Tensor) -> Evaluation:
        """Evaluate the model on images.

        Args:
            images: uint8 [N, C, H, W].
            labels: int64 [N].

        Returns:
            Loss, accuracy and predictions.
        """
        return evaluate(self.module, images, labels, self.normalise)


def save_model(path: Path, model: SavedModel) -> None:
    """Write a model. The weights have the same names as in the state dict.

    Args:
        path: the file to write.
        model: the model.

    Raises:
        DiskError: the file cannot be written.
    """
    about = {
        "config": model.config.to_dict(),
        "classes": model.classes,
        "input_shape": model.input_shape,
        "mean": model.mean,
        "std": model.std,
    }
    # Write the weights in the default memory layout, whatever layout the model uses.
    weights = {name: tensor.detach().cpu().contiguous() for name, tensor in model.module.state_dict().items()}
    # `save_file` would make a file that only its owner may read.
    write_atomically(path, safetensors.torch.save(weights, metadata={METADATA_KEY: json.dumps(about)}))


def load_model(path: Path | str) -> SavedModel:
    """Load a model that `hpsearch train` wrote.

    Args:
        path: the folder of the model, or its file.

    Returns:
        The model in evaluation mode, on the CPU.

    Raises:
        DataError: the file is missing or damaged, or another program wrote it.
        ComponentError: the model needs a component file that is missing or has changed.

    Example:
        The command `hpsearch train best.toml --final -o final` wrote the folder `final`.

        >>> import hpsearch, torch
        >>> model = hpsearch.load_model("final")
        >>> images = torch.zeros((2, *model.input_shape), dtype=torch.uint8)
        >>> model.probabilities(images).shape
        torch.Size([2, 2])
    """
    file = Path(path) / "model.safetensors" if Path(path).is_dir() else Path(path)
    weights, about = _read(file)
    try:
        config = TrainConfig.from_dict(about["config"])
        channels, height, width = (int(size) for size in about["input_shape"])
        classes = tuple(str(name) for name in about["classes"])
        mean, std = (tuple(float(value) for value in about[key]) for key in ("mean", "std"))
    except (KeyError, TypeError, ValueError) as error:
        raise _not_a_model(file, f"its metadata is incomplete ({type(error).__name__}: {error})") from error
    for component in config.component_files:
        places = (file.parent / component.path.name, component.path)
        found = find_component_file(places, component.sha256, owner=f"the model {show_path(file)}", beside="the model")
        load_component_file(found.path)
    check_components(config)
    module = build_model(config, (channels, height, width), len(classes))
    try:
        module.load_state_dict(weights)
    except RuntimeError as error:
        raise _not_a_model(file, f"its weights do not fit the model {config.model.name} in its metadata") from error
    return SavedModel(module=module.eval(), config=config, classes=classes, input_shape=(channels, height, width), mean=mean, std=std)


def _read(file: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read the weights and the metadata of a file."""
    try:
        with safe_open(file, framework="pt") as opened:
            metadata: Mapping[str, str] = opened.metadata() or {}
            if METADATA_KEY not in metadata:
                raise _not_a_model(file, "another program wrote it")
            about = json.loads(metadata[METADATA_KEY])
            weights = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118  # `opened` is not a mapping, it only has keys()
    except OSError as error:
        reason = "no such file" if isinstance(error, FileNotFoundError) else error.strerror or error
        raise DataError(
            f"cannot read the model {show_path(file)}: {reason}", hint="`hpsearch train FILE --final -o DIR` writes one."
        ) from error
    except SafetensorError as error:
        raise _not_a_model(file, f"it is damaged or cut short ({error})") from error
    except ValueError as error:
        raise _not_a_model(file, f"its metadata is damaged ({error})") from error
    return weights, about


def _not_a_model(file: Path, reason: str) -> DataError:
    return DataError(f"{show_path(file)} is not a model of hpsearch: {reason}", hint="`hpsearch train FILE --final -o DIR` writes one.")

"""Saves and loads a trained model as one safetensors file. Everything except the weights is JSON in the file's metadata."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from hpsearch.config.components import BUILT_IN
from hpsearch.config.paths import write_atomically
from hpsearch.config.registration import current_catalog, find_component_file, load_component_file, places_of
from hpsearch.config.train_config import TrainConfig, resolve
from hpsearch.errors import ConfigError, DataError
from hpsearch.formatting import one_line, show, show_path
from hpsearch.training.evaluate import Evaluation, Normalisation, evaluate
from hpsearch.training.factory import build_model, check_components

METADATA_KEY = "hpsearch"
LARGEST_SIDE = 65_536
"""Largest number of channels, rows or columns of an image. A file with more is damaged."""


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

        `hpsearch predict` prepares picture files for this. Images from elsewhere must be like the training images: pixels from
        0 to 255, upright, and with the same ground.

        Args:
            images: uint8 [N, C, H, W], of the model's input shape.

        Returns:
            float32 [N, classes].

        Raises:
            DataError: the images have another type or shape, the model fails on them, or its output is no probabilities.
        """
        if images.dtype != torch.uint8 or tuple(images.shape[1:]) != self.input_shape:
            raise DataError(
                f"the model {self.config.model.name} takes images of type torch.uint8 and shape (N, *{self.input_shape}), "
                f"but got {images.dtype} and {tuple(images.shape)}",
                hint="Pixels are whole numbers from 0 to 255. The channels come before the rows and columns.",
            )
        self.module.eval()
        try:
            found = torch.softmax(self.module(self.normalise(images)), dim=1)
        except Exception as error:  # the module may be a user's
            raise DataError(
                f"the model {self.config.model.name} fails on images of shape {tuple(images.shape)}: "
                f"{type(error).__name__}: {one_line(str(error))}"
            ) from error
        if tuple(found.shape) != (len(images), len(self.classes)) or not torch.isfinite(found).all():
            raise DataError(
                f"the model {self.config.model.name} must return finite logits of shape {(len(images), len(self.classes))}, but did not",
                hint="Its training diverged, or its file was changed. Train it again.",
            )
        return found

    def evaluate(self, images: Tensor, labels: Tensor) -> Evaluation:
        """Evaluate the model on images.

        Args:
            images: uint8 [N, C, H, W].
            labels: int64 [N].

        Returns:
            Loss, accuracy and predictions.

        Raises:
            DataError: the loss is not finite.
        """
        found = evaluate(self.module, images, labels, self.normalise)
        if len(labels) and not math.isfinite(found.loss):
            raise DataError(
                f"the loss of the model {self.config.model.name} on {len(labels):,} images is {found.loss}",
                hint="Its training diverged, or its file was changed. Train it again.",
            )
        return found


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


def load_model(path: Path | str, *, trust: bool = False) -> SavedModel:
    """Load a model that `hpsearch train` wrote.

    A model of a component file is code. That code runs only if this user has run the same file before, or if `trust` is True.

    Args:
        path: the folder of the model, or its file.
        trust: whether to run component files that this user has not run before.

    Returns:
        The model in evaluation mode, on the CPU.

    Raises:
        DataError: the file is missing or damaged, or another program wrote it.
        ComponentError: the model needs a component file that is missing, has changed, or has not been run by this user before.

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
        facts = _facts(about)
    except (ArithmeticError, ConfigError, KeyError, TypeError, ValueError) as error:
        message = error.message if isinstance(error, ConfigError) else f"{type(error).__name__}: {one_line(str(error))}"
        raise _not_a_model(file, f"its metadata is incomplete or wrong ({message})") from error
    for component in config.component_files:
        places = places_of(component.path, file.parent)
        found = find_component_file(places, component.sha256, owner=f"the model {show_path(file)}", beside="the model", trust=trust)
        load_component_file(found.path)
    check_components(config)
    try:
        # An option that a later version has added gets its default, which keeps the model as it was.
        config = replace(resolve(config.settings, catalog=current_catalog(), seed=config.seed), component_files=config.component_files)
    except ConfigError as error:
        raise _not_a_model(file, f"its metadata is wrong ({error.message})") from error
    return SavedModel(module=_module(file, config, facts, weights), config=config, **facts)


def _facts(about: Mapping[str, Any]) -> dict[str, Any]:
    """Return the attributes of `SavedModel` that are plain values. Raise an error if a value is not possible."""
    shape, classes = tuple(about["input_shape"]), tuple(about["classes"])
    mean, std = (tuple(float(value) for value in about[key]) for key in ("mean", "std"))
    if len(shape) != 3 or not all(type(size) is int and 1 <= size <= LARGEST_SIDE for size in shape):
        raise ValueError(f"input_shape is {show(about['input_shape'])}")
    if not classes or not all(isinstance(name, str) and name.encode() for name in classes):
        raise ValueError(f"classes is {show(about['classes'])}")
    if not len(mean) == len(std) == shape[0] or not all(map(math.isfinite, mean)) or not all(0 < value < math.inf for value in std):
        raise ValueError(f"mean is {show(about['mean'])} and std is {show(about['std'])}")
    return {"input_shape": shape, "classes": classes, "mean": mean, "std": std}


def _module(file: Path, config: TrainConfig, facts: Mapping[str, Any], weights: dict[str, Tensor]) -> nn.Module:
    """Build the model of a file with its weights."""
    misfit = f"its weights do not fit the model {config.model.name} in its metadata"
    shape, classes = facts["input_shape"], len(facts["classes"])
    if config.model.name in BUILT_IN.names("model"):
        # Wrong metadata may describe a model that no memory can hold. Tensors on the device `meta` have shapes but no content.
        with torch.device("meta"):
            described = build_model(config, shape, classes).state_dict()
        if {name: tensor.shape for name, tensor in described.items()} != {name: tensor.shape for name, tensor in weights.items()}:
            raise _not_a_model(file, misfit)
    try:
        module = build_model(config, shape, classes)
        module.load_state_dict(weights)
    except ConfigError:
        raise
    except Exception as error:  # the module may be a user's
        raise _not_a_model(file, f"{misfit} ({type(error).__name__}: {one_line(str(error))})") from error
    if not all(torch.isfinite(tensor).all() for tensor in module.state_dict().values()):
        raise _not_a_model(file, "some of its weights are no finite numbers")
    return module.eval()


def _read(file: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read the weights and the metadata of a file."""
    try:
        if file.exists() and not file.is_file():  # reading a pipe might never end
            raise _not_a_model(file, "it is not a regular file")
        with safe_open(file, framework="pt") as opened:
            metadata: Mapping[str, str] = opened.metadata() or {}
            if METADATA_KEY not in metadata:
                raise _not_a_model(file, "another program wrote it")
            about = json.loads(metadata[METADATA_KEY])
            if not isinstance(about, dict):
                raise ValueError("it is no table")
            weights = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118  # `opened` is not a mapping, it only has keys()
    except OSError as error:
        reason = "no such file" if isinstance(error, FileNotFoundError) else error.strerror or error
        raise DataError(
            f"cannot read the model {show_path(file)}: {reason}", hint="`hpsearch train FILE --final -o DIR` writes one."
        ) from error
    except SafetensorError as error:
        raise _not_a_model(file, f"it is damaged or cut short ({error})") from error
    except (RecursionError, ValueError) as error:
        raise _not_a_model(file, f"its metadata is damaged ({one_line(str(error))})") from error
    return weights, about


def _not_a_model(file: Path, reason: str) -> DataError:
    return DataError(f"{show_path(file)} is not a model of hpsearch: {reason}", hint="`hpsearch train FILE --final -o DIR` writes one.")

"""Exports a trained model to an ONNX file after checking the result. This needs the extra `onnx`."""

from __future__ import annotations

import importlib.util
import json
import logging
import tempfile
import warnings
from pathlib import Path

import torch
from torch import Tensor, nn

from hpsearch.config.paths import write_atomically
from hpsearch.errors import TrainingError, UsageError
from hpsearch.training.saved_model import SavedModel

PACKAGES = ("onnx", "onnxscript", "onnxruntime")
"""The packages of the extra `onnx`."""
TOLERANCE = 1e-4
"""Largest accepted difference between the probabilities of onnxruntime and torch. Rounding in float32 causes much less."""
CHECKED_BATCHES = (1, 2, 7)
"""Batch sizes to check. There are several sizes because the exported model must accept any batch size."""


def require_onnx() -> None:
    """Check that the extra `onnx` is installed.

    Raises:
        UsageError: a package is missing.
    """
    missing = [name for name in PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        raise UsageError(f"--onnx needs {' and '.join(missing)}", hint='Install the extra: pip install "hpsearch[onnx]"')


def write_onnx(path: Path, model: SavedModel, images: Tensor) -> float:
    """Write an ONNX model that maps `images`, uint8 [N, C, H, W], to `probabilities`, float32 [N, classes].

    The file is written after onnx.checker accepts the model and onnxruntime returns the same
    probabilities as torch.

    Args:
        path: the file to write.
        model: the model.
        images: images for the check, uint8 [N, C, H, W]. N must be at least the largest of `CHECKED_BATCHES`.

    Returns:
        The largest difference between the probabilities of onnxruntime and torch.

    Raises:
        UsageError: a package is missing.
        TrainingError: the model cannot be exported, or the probabilities differ too much.
        DiskError: the file cannot be written.
    """
    require_onnx()
    with tempfile.TemporaryDirectory(prefix="hpsearch-onnx-") as folder:
        temporary = Path(folder) / path.name
        _export(temporary, model, images[:2])
        difference = _difference(temporary, model, images)
        if difference > TOLERANCE:
            raise TrainingError(
                f"onnxruntime and torch differ by {difference:.2g}, where at most {TOLERANCE:.0e} is allowed: {path} is not written"
            )
        write_atomically(path, temporary.read_bytes())
    return difference


def _export(path: Path, model: SavedModel, example: Tensor) -> None:
    import onnx

    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), torch.no_grad():
            # Ignore the warnings of the exporter about its own implementation.
            warnings.simplefilter("ignore")
            torch.onnx.export(
                nn.Sequential(model.normalise, model.module, nn.Softmax(dim=1)).eval(),
                (example,),
                path,
                input_names=["images"],
                output_names=["probabilities"],
                dynamic_shapes=({0: torch.export.Dim("batch")},),
                dynamo=True,
                external_data=False,
                verbose=False,
            )
    except Exception as error:
        reason = (str(error).strip().splitlines() or [""])[0]
        raise TrainingError(f"the model '{model.config.model.name}' cannot be written as ONNX: {type(error).__name__}: {reason}") from error
    made = onnx.load(path)
    made.metadata_props.add(key="classes", value=json.dumps(model.classes))
    onnx.checker.check_model(made, full_check=True)
    onnx.save(made, path)


def _difference(path: Path, model: SavedModel, images: Tensor) -> float:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    worst = 0.0
    for count in CHECKED_BATCHES:
        (probabilities,) = session.run(["probabilities"], {"images": images[:count].numpy()})
        worst = max(worst, float((torch.from_numpy(probabilities) - model.probabilities(images[:count])).abs().max()))
    return worst

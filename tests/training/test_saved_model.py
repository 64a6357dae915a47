"""A trained model as a file: loaded by hpsearch, by plain torch, and as ONNX."""

from __future__ import annotations

import json
import math
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch

from hpsearch.config import registration
from hpsearch.config.best_config import BestConfig
from hpsearch.config.registration import load_component_file
from hpsearch.config.sections import Data
from hpsearch.config.space_parser import configure
from hpsearch.errors import ComponentError, DataError, UsageError
from hpsearch.report.model_card import model_card
from hpsearch.training import onnx_export as onnx_file
from hpsearch.training.factory import build_model
from hpsearch.training.onnx_export import require_onnx, write_onnx
from hpsearch.training.plain_torch import torch_source
from hpsearch.training.saved_model import METADATA_KEY, SavedModel, load_model, save_model

MODELS: list[dict[str, Any]] = [
    {"model": "cnn"},
    {"model": "cnn", "batch_norm": True, "kernel_size": 5, "activation": "gelu", "filters1": 8, "dropout": 0.0},
    {"model": "cnn", "activation": "leaky_relu", "kernel_size": 2},
    {"model": "lenet5"},
    {"model": "lenet5", "pooling": "max", "batch_norm": True, "activation": "silu", "dropout": 0.3},
]
OWN = """
import torch
import hpsearch

@hpsearch.model("twice", width=hpsearch.option(8, low=1))
def twice(*, input_shape, classes, width):
    channels, height, rest = input_shape
    return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(channels * height * rest, classes))
"""
METRICS = {
    "test_split_reads": 1,
    **{f"{part}_{name}": 0.5 for part in ("train", "test") for name in ("accuracy", "loss")},
    **{f"{part}_{name}_interval": [0.4, 0.6] for part in ("train", "test") for name in ("accuracy", "loss")},
    "interval_over": "images",
    "overfitting": "",
    "weakest": "",
    "train_less_test": [],
    "pictures": [],
    "versions": {},
    "device": "cpu",
    "seeds": [{part: {"accuracy": 0.5, "calibration_error": 0.1, "classes": [], "confusion": []} for part in ("train", "test")}],
}


def _model(settings: dict[str, Any], channels: int = 1) -> SavedModel:
    """A model with random weights and random statistics."""
    config = configure(seed=1, **settings)
    torch.manual_seed(2)
    module = build_model(config, (channels, 28, 28), 10)
    for name, tensor in module.state_dict().items():
        if "running_mean" in name:
            tensor.normal_()
        elif "running_var" in name:
            tensor.uniform_(0.5, 2)
    mean, std = (0.286, 0.4, 0.2)[:channels], (0.353, 0.3, 0.5)[:channels]
    classes = tuple(f"class {number}" for number in range(10))
    return SavedModel(module=module, config=config, classes=classes, input_shape=(channels, 28, 28), mean=mean, std=std)


def _images(channels: int = 1, number: int = 64) -> torch.Tensor:
    return torch.randint(0, 256, (number, channels, 28, 28), dtype=torch.uint8, generator=torch.Generator().manual_seed(3))


BARRIER = """
import os, sys

class Barrier:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "hpsearch":
            raise ImportError("hpsearch is not installed")

sys.meta_path.insert(0, Barrier())
import safetensors.torch

for folder in sorted(os.listdir()):
    os.chdir(folder)
    card = {}
    exec(open("snippet.py").read(), card)
    found = card["predict"](safetensors.torch.load_file("images.safetensors")["images"])
    safetensors.torch.save_file({"found": found}, "found.safetensors")
    os.chdir("..")
"""


def test_the_card_alone_tells_how_to_use_the_weights(tmp_path: Path) -> None:
    """Run a model's Python code where hpsearch cannot be imported."""
    models = [_model(settings, channels) for settings in MODELS for channels in (1, 3)]
    for number, model in enumerate(models):
        folder = tmp_path / str(number)
        folder.mkdir()
        save_model(folder / "model.safetensors", model)
        safetensors.torch.save_file({"images": _images(model.input_shape[0])}, folder / "images.safetensors")
        best = BestConfig(config=model.config, data=Data(), split_seed=1, provenance={})
        card = model_card(best, METRICS, model, source=torch_source(model.module), has_onnx=True)
        (code,) = re.findall(r"```python\n(from collections.*?)```", card, re.DOTALL)
        (folder / "snippet.py").write_text(code)
    done = subprocess.run([sys.executable, "-c", BARRIER], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert re.fullmatch(r"(class \d \d+\.\d%\n){10}", done.stdout)
    for number, model in enumerate(models):
        found = safetensors.torch.load_file(tmp_path / str(number) / "found.safetensors")["found"]
        expected = load_model(tmp_path / str(number)).probabilities(_images(model.input_shape[0]))
        assert (found - expected).abs().max() < 1e-6, model.config.model


@pytest.mark.parametrize("settings", [MODELS[0], MODELS[4]], ids=str)
def test_onnxruntime_says_the_same_of_any_number_of_pictures(settings: dict[str, Any], tmp_path: Path) -> None:
    import onnxruntime

    model, images = _model(settings), _images()
    assert write_onnx(tmp_path / "model.onnx", model, images) < 1e-4
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx")
    for number in (1, 5, 64):
        (found,) = session.run(["probabilities"], {"images": images[:number].numpy()})
        assert (torch.from_numpy(found) - model.probabilities(images[:number])).abs().max() < 1e-4
    assert json.loads(session.get_modelmeta().custom_metadata_map["classes"]) == list(model.classes)
    assert [path.name for path in tmp_path.iterdir()] == ["model.onnx"]


def test_an_onnx_file_that_says_something_else_is_not_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnx_file, "TOLERANCE", -1.0)
    with pytest.raises(Exception, match="onnxruntime and torch differ"):
        write_onnx(tmp_path / "model.onnx", _model(MODELS[0]), _images())
    assert list(tmp_path.iterdir()) == []


def test_without_the_extra_the_command_that_installs_it_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnx_file, "PACKAGES", ("onnx", "no_such_package"))
    with pytest.raises(UsageError) as caught:
        require_onnx()
    assert caught.value.message == "--onnx needs no_such_package"
    assert 'pip install "hpsearch[onnx]"' in caught.value.hint


def _rewritten(path: Path, **changes: Any) -> None:
    with safetensors.safe_open(path, framework="pt") as opened:
        about = json.loads(opened.metadata()[METADATA_KEY])
        weights = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118  # no mapping
    safetensors.torch.save_file(weights, path, metadata={METADATA_KEY: json.dumps({**about, **changes})})


def _with_metadata(path: Path, text: str) -> None:
    safetensors.torch.save_file(safetensors.torch.load_file(path), path, metadata={METADATA_KEY: text})


def _with_option(path: Path, name: str, value: Any) -> None:
    config = _model(MODELS[0]).config.to_dict()
    _rewritten(path, config={**config, "model": {**config["model"], name: value}})


def _with_weights(path: Path, change: Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]]) -> None:
    with safetensors.safe_open(path, framework="pt") as opened:
        metadata = opened.metadata()
    safetensors.torch.save_file(change(safetensors.torch.load_file(path)), path, metadata=metadata)


def _as_pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1000])


def _of_another_model(path: Path) -> None:
    _rewritten(path, config=configure(model="lenet5", seed=1).to_dict())


def _of_another_program(path: Path) -> None:
    safetensors.torch.save_file({"weight": torch.zeros(3)}, path)


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (_cut, "damaged or cut short"),
        (_of_another_model, "its weights do not fit the model lenet5"),
        (_of_another_program, "another program wrote it"),
        (lambda path: _rewritten(path, classes=None), "incomplete"),
        (lambda path: _rewritten(path, config={}), "incomplete"),
        (lambda path: _rewritten(path, input_shape=[1, 28]), "incomplete"),
        (lambda path: _rewritten(path, input_shape=[1, -28, 28]), "input_shape is"),
        (lambda path: _rewritten(path, input_shape=[1, 60_000, 60_000]), "its weights do not fit the model cnn"),
        (lambda path: _rewritten(path, input_shape=[1, 10**30, 28]), "input_shape is"),
        (lambda path: _rewritten(path, classes=[]), "classes is"),
        (lambda path: _rewritten(path, classes=["\udc00"] * 10), "incomplete or wrong"),
        (lambda path: _rewritten(path, mean=[0.1, 0.2]), "mean is"),
        (lambda path: _rewritten(path, mean=[float("nan")]), "mean is"),
        (lambda path: _rewritten(path, std=[0]), "std is"),
        (lambda path: _rewritten(path, std=[10**400]), "incomplete or wrong"),
        (lambda path: _with_option(path, "dropout", 7), "cnn: dropout must be"),
        (lambda path: _with_option(path, "dropout", [0.5]), "cnn: dropout must be"),
        (lambda path: _with_option(path, "activation", "evil"), "cnn: activation must be"),
        (lambda path: _with_option(path, "padding", 1), "cnn takes no 'padding'"),
        (lambda path: _with_option(path, "dense", 10**15), "cnn: dense must be"),
        (lambda path: _with_metadata(path, "[" * 100_000), "its metadata is damaged"),
        (lambda path: _with_metadata(path, "[]"), "its metadata is damaged"),
        (lambda path: _with_weights(path, lambda weights: {name: tensor[None].clone() for name, tensor in weights.items()}), "do not fit"),
        (lambda path: _with_weights(path, lambda weights: dict(list(weights.items())[1:])), "do not fit"),
        (
            lambda path: _with_weights(path, lambda weights: {**weights, "dense.bias": weights["dense.bias"] * math.nan}),
            "no finite numbers",
        ),
        (_as_pipe, "it is not a regular file"),
    ],
)
def test_a_file_that_is_not_the_model_it_should_be_is_refused(spoil: Any, words: str, tmp_path: Path) -> None:
    save_model(tmp_path / "model.safetensors", _model(MODELS[0]))
    spoil(tmp_path / "model.safetensors")
    with pytest.raises(DataError, match=words) as caught:
        load_model(tmp_path)
    assert len(caught.value.message.splitlines()) == 1


def test_a_model_of_a_component_needs_that_very_file(tmp_path: Path) -> None:
    source = tmp_path / "made" / "own.py"
    source.parent.mkdir()
    source.write_text(OWN)
    load_component_file(source)
    model = _model({"model": "twice"})
    folder = tmp_path / "final"
    folder.mkdir()
    save_model(folder / "model.safetensors", model)
    assert load_model(folder).classes == model.classes
    best = BestConfig(config=model.config, data=Data(), split_seed=1, provenance={})
    card = model_card(best, METRICS, model, source=torch_source(model.module), has_onnx=False)
    assert "It takes the component file `own.py`" in card
    assert "are made by the component file" in card
    source.rename(folder / "own.py")
    assert load_model(folder).classes == model.classes
    (folder / "own.py").write_text(OWN + "# changed\n")
    with pytest.raises(ComponentError, match=r"own\.py' is not the one that the model .* was made with"):
        load_model(folder)
    (folder / "own.py").unlink()
    with pytest.raises(ComponentError, match=r"the component file '.*own\.py' is missing"):
        load_model(folder)


def test_a_model_whose_output_is_not_finite_predicts_nothing(tmp_path: Path) -> None:
    model = _model(MODELS[0])
    save_model(tmp_path / "model.safetensors", model)
    _with_weights(tmp_path / "model.safetensors", lambda weights: {name: torch.full_like(tensor, 3e38) for name, tensor in weights.items()})
    with pytest.raises(DataError, match="must return finite logits"):
        load_model(tmp_path).probabilities(_images())
    with pytest.raises(DataError, match="the loss of the model cnn on 64 images is nan"):
        load_model(tmp_path).evaluate(_images(), torch.zeros(64, dtype=torch.int64))


TRAP = (
    OWN
    + """
from pathlib import Path
Path(__file__).with_name("marker").touch()
"""
)


@pytest.mark.parametrize("images", [_images().float() / 255, _images().permute(0, 2, 3, 1), _images()[0], _images(3)])
def test_images_of_another_type_or_shape_are_refused(images: torch.Tensor) -> None:
    with pytest.raises(DataError, match=r"takes images of type torch.uint8 and shape \(N, \*\(1, 28, 28\)\), but got torch"):
        _model({"model": "lenet5"}).probabilities(images)


def test_a_model_from_elsewhere_runs_no_code_without_trust(
    tmp_path: Path, nothing_run_before: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, marker = tmp_path / "own.py", tmp_path / "marker"
    source.write_text(TRAP)
    with monkeypatch.context() as elsewhere:
        elsewhere.setenv("XDG_STATE_HOME", str(tmp_path / "state of the author"))
        load_component_file(source)
        save_model(tmp_path / "model.safetensors", _model({"model": "twice"}))
    marker.unlink()
    monkeypatch.setattr(registration, "_registered", {})
    with pytest.raises(ComponentError, match=r"the model '.*' would run the program '.*own\.py'"):
        load_model(tmp_path)
    assert not marker.exists()
    assert load_model(tmp_path, trust=True).config.model.name == "twice"
    assert marker.exists()
    monkeypatch.setattr(registration, "_registered", {})
    assert load_model(tmp_path).config.model.name == "twice"

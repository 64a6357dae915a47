"""The model card of a final model: what it is, what it is worth, and how to use it without hpsearch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hpsearch.best_config import BestConfig
from hpsearch.domains import str_of


def model_card(best: BestConfig, metrics: Mapping[str, Any], model: Any) -> str:
    """The card as Markdown.

    Args:
        metrics: as `hpsearch.final.score_data` gives them.
        model: the `SavedModel`, for its layers' names, its classes and how it sees images.
    """
    first = metrics["seeds"][0]
    low, high = metrics["test_accuracy_interval"]
    config = best.config
    source = best.provenance
    origin = f"trial {source['trial']} of the study `{source['study']}`" if "trial" in source else "a config"
    settings = [
        f"| {kind} | {getattr(config, kind).name}: {_options(getattr(config, kind).options)} |"
        for kind in ("model", "optimizer", "schedule")
    ]
    classes = [
        f"| {train['name']} | {test['precision']:.3f} | {test['recall']:.3f} | {test['f1']:.3f} | {train['recall'] - test['recall']:+.3f} | {test['support']} |"
        for train, test in zip(first["train"]["classes"], first["test"]["classes"], strict=True)
    ]
    weights = "\n".join(f"{name}  {list(tensor.shape)}" for name, tensor in model.module.state_dict().items())
    lines = [
        f"# {config.model.name} on {best.data.dataset}",
        "",
        f"Trained by hpsearch from {origin}, on all training images, {config.epochs} epochs.",
        "",
        f"**Test accuracy {100 * metrics['test_accuracy']:.2f} %**, 95 % interval {100 * low:.2f} to {100 * high:.2f} % over "
        f"{metrics['interval_over']} ({len(metrics['seeds'])} seed{'s' if len(metrics['seeds']) > 1 else ''}). "
        f"Test split read {metrics['test_split_reads']} time{'s' if metrics['test_split_reads'] > 1 else ''}.",
        "",
        metrics["overfitting"],
        "",
        f"Loss {first['train_loss']:.4f} on the training images, {first['test_loss']:.4f} on the test images; "
        f"calibration error {first['test']['calibration_error']:.4f}.",
        "",
        *(f"* {sentence}" for sentence in first["test"]["weakest"]),
        "",
        "| class | precision | recall | F1 | recall, train less test | test images |",
        "| --- | --- | --- | --- | --- | --- |",
        *classes,
        "",
        "## How it was trained",
        "",
        "| what | setting |",
        "| --- | --- |",
        *settings,
        f"| trainer | epochs {config.epochs}, batch_size {config.batch_size}, label_smoothing {str_of(config.label_smoothing)}, "
        f"flip {str_of(config.flip)}, shift {config.shift}, seed {config.seed} |",
        "",
        "`config.toml` beside this file holds all of it; `hpsearch train config.toml --final` repeats it.",
        "",
        "## Use",
        "",
        "```python",
        "import hpsearch",
        "",
        'model = hpsearch.load_model("model.safetensors")',
        "probabilities = model.probabilities(images)  # uint8 [N, C, H, W]",
        "```",
        "",
        "Without hpsearch, the weights are read by safetensors alone:",
        "",
        "```python",
        "from safetensors.torch import load_file",
        "",
        'weights = load_file("model.safetensors")',
        "```",
        "",
        f"They belong to these layers; an image is seen as `(pixels / 255 - {list(model.mean)}) / {list(model.std)}`:",
        "",
        "```",
        weights,
        "```",
        "",
    ]
    return "\n".join(lines)


def _options(options: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {str_of(value)}" for name, value in options.items()) or "no options"

"""The model card of a final model: what it is, what it is worth, and how to use it with and without hpsearch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from hpsearch.analysis.final_score import reads_sentence, repeat_command
from hpsearch.config.best_config import BestConfig
from hpsearch.config.components import BUILT_IN
from hpsearch.formatting import many, str_of

PART_NAMES = {"test": "test images", "train": "training images"}


def model_card(best: BestConfig, metrics: Mapping[str, Any], model: Any, *, source: str | None, has_onnx: bool) -> str:
    """The card as Markdown.

    Args:
        metrics: what `metrics.json` holds.
        model: the `SavedModel`, for its layers' names, its classes and how it sees images.
        source: an expression that makes its layers of plain torch; None for one of a user's component.
        has_onnx: whether `model.onnx` lies beside it.
    """
    return "\n".join(
        [
            *_worth(best, metrics),
            *_classes(metrics),
            *_mistakes(metrics),
            *_training(best, metrics),
            *_use(model),
            *_without_hpsearch(best, model, source),
            *(_onnx(model) if has_onnx else ()),
        ]
    )


def _worth(best: BestConfig, metrics: Mapping[str, Any]) -> list[str]:
    config, provenance = best.config, best.provenance
    origin = (
        f"trial {provenance['trial']} of the study `{provenance['study']}`" if {"trial", "study"} <= set(provenance) else "a best config"
    )
    seeds = metrics["seeds"]
    low, high = metrics["test_accuracy_interval"]
    first = seeds[0]
    lines = [
        f"# {config.model.name} on {best.data.dataset}",
        "",
        f"Trained by hpsearch from {origin}: on all training images, {many(config.epochs, 'epoch')}, {many(len(seeds), 'seed')}.",
        "",
        f"**Test accuracy {100 * metrics['test_accuracy']:.2f} %**, 95 % interval {100 * low:.2f} to {100 * high:.2f} % over the "
        f"{metrics['interval_over']}; {reads_sentence(metrics)}.",
    ]
    if len(seeds) > 1:
        accuracies = ", ".join(f"{100 * each['test']['accuracy']:.2f}" for each in seeds)
        lines[-1] += f" The seeds had {accuracies} %; `model.safetensors` is the first of them, whichever is the best."
    rows = [
        [name, *(_with_interval(metrics, f"{part}_{key}", scale, digits) for part in ("train", "test"))]
        for name, key, scale, digits in (("accuracy, %", "accuracy", 100, 2), ("loss", "loss", 1, 4))
    ]
    rows.append(["calibration error, first seed", *(f"{first[part]['calibration_error']:.4f}" for part in ("train", "test"))])
    table = _table(["", "training images", "test images"], rows)
    return [*lines, "", *table, "", metrics["overfitting"], "", metrics["weakest"], ""]


def _with_interval(metrics: Mapping[str, Any], key: str, scale: float, digits: int) -> str:
    low, high = (scale * bound for bound in metrics[f"{key}_interval"])
    return f"{scale * metrics[key]:.{digits}f} ({low:.{digits}f} to {high:.{digits}f})"


def _classes(metrics: Mapping[str, Any]) -> list[str]:
    first = metrics["seeds"][0]
    lines = ["## Class by class", ""]
    differences = {each["name"]: each for each in metrics["train_less_test"]}
    for part, name in PART_NAMES.items():
        rows = []
        for each in first[part]["classes"]:
            row = [each["name"], *(f"{each[key]:.3f}" for key in ("precision", "recall", "f1"))]
            rows.append([*row, f"{differences[each['name']]['recall']:+.3f}", f"{each['support']:,}"])
        lines += [f"On the {name}:", ""]
        lines += [*_table(["class", "precision", "recall", "F1", "recall, train less test", "images"], rows), ""]
    for part, name in PART_NAMES.items():
        names = [each["name"] for each in first[part]["classes"]]
        rows = [[truth, *map(str, row)] for truth, row in zip(names, first[part]["confusion"], strict=True)]
        lines += [f"What the {name} of each class are taken for:", "", *_table(["truth", *names], rows), ""]
    return lines


def _mistakes(metrics: Mapping[str, Any]) -> list[str]:
    lines = []
    for part, name in PART_NAMES.items():
        file = f"mistakes-{part}.png"
        if file in metrics["pictures"]:
            lines += [
                f"The {name} that it is most sure of and wrong: the true class, what it is taken for, how sure.",
                "",
                f"![Most confident mistakes among the {name}]({file})",
                "",
            ]
    return ["## Mistakes", "", *lines] if lines else []


def _training(best: BestConfig, metrics: Mapping[str, Any]) -> list[str]:
    config = best.config
    chosen = [(kind, getattr(config, kind)) for kind in ("model", "optimizer", "schedule")]
    rows = [[kind, f"{each.name}: {_options(each.options)}"] for kind, each in chosen]
    trainer = {key: getattr(config, key) for key in ("epochs", "batch_size", "label_smoothing", "flip", "shift", "seed")}
    rows.append(["trainer", _options(trainer)])
    rows.append(["made with", ", ".join(f"{name} {number}" for name, number in metrics["versions"].items()) + f", on {metrics['device']}"])
    lines = ["## How it was trained", "", *_table(["what", "setting"], rows), ""]
    if best.files:
        names = " and ".join(f"`{file.path.name}`" for file in best.files)
        lines += [f"It takes the component file {names}, which lies beside this card and is checked by its SHA-256.", ""]
    if changed := best.provenance.get("changed_component_files"):
        lines += [f"Beware: {' and '.join(changed)} was changed after the config was made, and trusted by `--trust`.", ""]
    return [*lines, f"`config.toml` beside this card holds all of it; `{repeat_command(metrics)} -o DIR` repeats it.", ""]


def _use(model: Any) -> list[str]:
    channels, height, width = model.input_shape
    return [
        "## Use",
        "",
        "`hpsearch predict . picture.png` says what a picture is taken for, whatever its size and colours. From Python:",
        "",
        "```python",
        "import hpsearch",
        "",
        'model = hpsearch.load_model("model.safetensors")',
        f"probabilities = model.probabilities(images)  # uint8 [N, {channels}, {height}, {width}] to float32 [N, {len(model.classes)}]",
        "```",
        "",
    ]


def _without_hpsearch(best: BestConfig, model: Any, source: str | None) -> list[str]:
    lines = ["## Without hpsearch", ""]
    if source is None or best.config.model.name not in BUILT_IN.names("model"):
        weights = "\n".join(f"{name}  {list(tensor.shape)}" for name, tensor in model.module.state_dict().items())
        return [
            *lines,
            f"The layers of `{best.config.model.name}` are made by the component file; without it the weights are of no use. "
            "`safetensors.torch.load_file` reads them:",
            "",
            "```",
            weights,
            "```",
            "",
        ]
    channels, height, width = model.input_shape
    factor = [1 / (255 * deviation) for deviation in model.std]
    offset = [-mean / deviation for mean, deviation in zip(model.mean, model.std, strict=True)]
    return [
        *lines,
        "torch and safetensors are enough. The first two lines of `predict` turn pixels into shares of 255, less their mean, over their",
        "standard deviation.",
        "",
        "```python",
        "from collections import OrderedDict",
        "",
        "import torch",
        "from safetensors.torch import load_file",
        "from torch import nn",
        "",
        f"CLASSES = {list(model.classes)!r}",
        "",
        "",
        "def build():",
        f"    return {source}",
        "",
        "",
        "def predict(images):",
        f'    """Probabilities, float32 [N, {len(model.classes)}], of images, uint8 [N, {channels}, {height}, {width}]."""',
        f"    factor = torch.tensor({factor}).view(1, -1, 1, 1)",
        f"    offset = torch.tensor({offset}).view(1, -1, 1, 1)",
        "    with torch.no_grad():",
        "        return torch.softmax(model(images.float() * factor + offset), dim=1)",
        "",
        "",
        "model = build()",
        'model.load_state_dict(load_file("model.safetensors"))',
        "model.eval()",
        "",
        f"images = torch.zeros(1, {channels}, {height}, {width}, dtype=torch.uint8)  # yours",
        "for probabilities in predict(images):",
        '    print(CLASSES[probabilities.argmax()], f"{probabilities.max():.1%}")',
        "```",
        "",
    ]


def _onnx(model: Any) -> list[str]:
    channels, height, width = model.input_shape
    return [
        "## ONNX",
        "",
        f"`model.onnx` takes `images`, uint8 [N, {channels}, {height}, {width}], the pixels as they are, any number at a time: it normalises",
        f"them itself. It gives `probabilities`, float32 [N, {len(model.classes)}]; the classes' names are in its metadata under `classes`, as JSON.",
        "",
        "```python",
        "import onnxruntime",
        "",
        'session = onnxruntime.InferenceSession("model.onnx")',
        '(probabilities,) = session.run(None, {"images": images})',
        "```",
        "",
    ]


def _table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    rule = ["---", *["---:"] * (len(headings) - 1)] if len(headings) > 2 else ["---"] * len(headings)
    return [f"| {' | '.join(row)} |" for row in (headings, rule, *rows)]


def _options(options: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {str_of(value)}" for name, value in options.items()) or "no options"

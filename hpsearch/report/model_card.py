"""The model card of a final model.

It has the scores, the training, and the use of the model with and without hpsearch.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from hpsearch.analysis.final_score import reads_sentence, repeat_command
from hpsearch.config.best_config import BestConfig
from hpsearch.config.components import BUILT_IN
from hpsearch.config.registration import short_names
from hpsearch.formatting import many, str_of
from hpsearch.report.html import WEB
from hpsearch.report.trial_results import TRAINER_SETTINGS

SUBSETS = {"test": "test images", "train": "training images"}


def model_card(best: BestConfig, metrics: Mapping[str, Any], model: Any, *, source: str | None, has_onnx: bool) -> str:
    """Return the model card as Markdown.

    Args:
        best: the config of the final model.
        metrics: the content of `metrics.json`.
        model: the `SavedModel`. The card shows its layers, classes and normalisation.
        source: Python expression that builds the layers of the model with torch alone; None if there is no such expression.
        has_onnx: whether the folder of the card has a file `model.onnx`.

    Returns:
        The Markdown text.
    """
    # Nothing is escaped, because the card is Markdown and its code must run unchanged.
    environment = Environment(
        loader=FileSystemLoader(WEB), undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True
    )
    first = metrics["seeds"][0]
    return environment.get_template("model_card.md.j2").render(
        best=best,
        metrics=metrics,
        model=model,
        subsets=SUBSETS,
        recall_gaps={each["name"]: each["recall"] for each in metrics["train_less_test"]},
        confusion_rows={
            subset: [[each["name"], *row] for each, row in zip(first[subset]["classes"], first[subset]["confusion"], strict=True)]
            for subset in SUBSETS
        },
        files=list(short_names(best.files).values()),
        n_seeds=many(len(metrics["seeds"]), "seed"),
        settings=_settings(best, metrics),
        reads=reads_sentence(metrics),
        repeat_command=repeat_command(metrics),
        source=source if best.config.model.name in BUILT_IN.names("model") else None,
        factor=[1 / (255 * deviation) for deviation in model.std],
        offset=[-mean / deviation for mean, deviation in zip(model.mean, model.std, strict=True)],
        has_onnx=has_onnx,
        number=lambda value, digits: f"{value:.{digits}f}",
    )


def _settings(best: BestConfig, metrics: Mapping[str, Any]) -> list[list[str]]:
    config = best.config
    chosen = [(kind, getattr(config, kind)) for kind in ("model", "optimizer", "schedule")]
    versions = ", ".join(f"{name} {number}" for name, number in metrics["versions"].items())
    return [
        *([kind, f"{each.name}: {_options(each.options)}"] for kind, each in chosen),
        ["trainer", _options({name: getattr(config, name) for name in TRAINER_SETTINGS})],
        ["made with", f"{versions}, on {metrics['device']}"],
    ]


def _options(options: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {str_of(value)}" for name, value in options.items()) or "no options"

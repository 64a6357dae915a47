"""Chooses the number format of training: what the precision `auto` means in a new study, and what this processor is slow at."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from hpsearch.config.components import FASTER_IN_BFLOAT16, PRECISIONS
from hpsearch.config.study_file import StudyFile
from hpsearch.search.resources import bfloat16_instructions

GPU = Path("/dev/nvidia0")


def choose_precision(device: str) -> Mapping[str, str]:
    """Return what the precision `auto` means in a study that begins on this machine.

    Args:
        device: the device of the study: `auto`, `cpu`, `cuda` or `cuda:N`.

    Returns:
        The number format of each model that trains faster in another format than float32. On a GPU there is none: no gain was
        measured there yet.
    """
    on_gpu = device.startswith("cuda") or (device == "auto" and GPU.exists())
    return {} if on_gpu or not bfloat16_instructions() else dict.fromkeys(FASTER_IN_BFLOAT16, "bfloat16")


def possible_precisions(file: StudyFile) -> Mapping[str, tuple[str, ...]]:
    """Return the number formats in which trials of a study can train.

    Args:
        file: the study file, with the precision of its study.

    Returns:
        The formats, by model.
    """
    space = file.space
    given = [parameter for parameter in space if (parameter.owner, parameter.option) == ("trainer", "precision")]
    found = {}
    for model in space.names_of("model"):
        auto = space.auto_precision.get(model, "float32")
        values = [str(value) for parameter in given for value in parameter.distribution.listed] or ["auto"]
        formats = {auto if value == "auto" else value for value in values}
        found[model] = tuple(each for each in PRECISIONS if each in formats)
    return found


def show_precisions(possible: Mapping[str, tuple[str, ...]]) -> str:
    """Return the number formats of a study as text.

    Args:
        possible: the result of `possible_precisions`.

    Returns:
        Such as `float32`, or `cnn in bfloat16, lenet5 in float32`.
    """
    texts = {model: " or ".join(formats) for model, formats in possible.items()}
    return next(iter(texts.values())) if len(set(texts.values())) == 1 else ", ".join(f"{model} in {text}" for model, text in texts.items())


def slow_precision(precisions: Iterable[str], device: str) -> str:
    """Return a warning if this processor trains much more slowly in one of the number formats.

    Args:
        precisions: the number formats of the trainings.
        device: the device of the trainings: `auto`, `cpu`, `cuda` or `cuda:N`.

    Returns:
        The warning; empty if there is none.
    """
    on_gpu = device.startswith("cuda") or (device == "auto" and GPU.exists())
    if "bfloat16" not in precisions or on_gpu or bfloat16_instructions():
        return ""
    return "this processor has no instructions for bfloat16, so training in bfloat16 is many times slower here than in float32."

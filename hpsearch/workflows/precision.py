"""Chooses the number format of training: what the precision `auto` means in a new study, and what this processor is slow at."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from hpsearch.config.components import FASTER_IN_BFLOAT16, PRECISIONS
from hpsearch.config.space import PRECISION
from hpsearch.config.study_file import StudyFile
from hpsearch.search.resources import bfloat16_instructions
from hpsearch.storage.records import TrialRow
from hpsearch.workflows.repeat_study import FinalistsPlan, is_follow_up, read_plan

if TYPE_CHECKING:
    from hpsearch.workflows.supervisor import Search

DEVICES = Path("/dev")
GPUS = ("nvidia[0-9]*", "kfd", "dxg")
"""The devices of GPUs, of NVIDIA, AMD and Windows. To ask torch would take seconds."""


def choose_precision(device: str) -> Mapping[str, str]:
    """Return what the precision `auto` means in a study that begins on this machine.

    Args:
        device: the device of the study: `auto`, `cpu`, `cuda` or `cuda:N`.

    Returns:
        The number format of each model that trains faster in another format than float32. On a GPU there is none: no gain was
        measured there yet.
    """
    return {} if _on_gpu(device) or not bfloat16_instructions() else dict.fromkeys(FASTER_IN_BFLOAT16, "bfloat16")


def possible_precisions(file: StudyFile) -> Mapping[str, tuple[str, ...]]:
    """Return the number formats in which trials of a study can train.

    Args:
        file: the study file, with the precision of its study.

    Returns:
        The formats, by model.
    """
    found = {}
    for model in file.space.names_of("model"):
        auto = file.space.auto_precision.get(model, "float32")
        formats = {auto if value == "auto" else value for value in file.space.possible_values(PRECISION, model)}
        found[model] = tuple(each for each in PRECISIONS if each in formats)
    return found


def trained_precisions(trials: Iterable[TrialRow]) -> Mapping[str, tuple[str, ...]]:
    """Return the number formats in which trials have trained.

    Args:
        trials: the trials of a study.

    Returns:
        The formats, by model; empty before the first trial.
    """
    configs = [trial.config for trial in trials if trial.config is not None]
    pairs = {(config.model.name, config.precision) for config in configs}
    return {model: tuple(each for each in PRECISIONS if (model, each) in pairs) for model in sorted({model for model, _ in pairs})}


def show_precisions(formats: Mapping[str, tuple[str, ...]]) -> str:
    """Return the number formats of a study as text.

    Args:
        formats: the formats, by model.

    Returns:
        Such as `float32`, or `cnn in bfloat16, lenet5 in float32`.
    """
    texts = {model: " or ".join(each) for model, each in formats.items()}
    return next(iter(texts.values())) if len(set(texts.values())) == 1 else ", ".join(f"{model} in {text}" for model, text in texts.items())


def slow_search(search: Search) -> str:
    """Return a warning if this processor trains some trials of a search much more slowly than in float32.

    Args:
        search: the search, or the repeats of a follow-up study.

    Returns:
        The warning; empty if there is none.
    """
    plan = read_plan(search.study, search.file) if is_follow_up(search.study) else None
    if isinstance(plan, FinalistsPlan):  # a warm start may have brought trials of another format
        return slow_precision((config.precision for config in plan.configs.values()), search.workspace.device)
    return slow_precision(itertools.chain.from_iterable(possible_precisions(search.file).values()), search.workspace.device)


def slow_precision(precisions: Iterable[str], device: str) -> str:
    """Return a warning if this processor trains much more slowly in one of the number formats.

    Args:
        precisions: the number formats of the trainings.
        device: the device of the trainings: `auto`, `cpu`, `cuda` or `cuda:N`.

    Returns:
        The warning; empty if there is none.
    """
    if "bfloat16" not in precisions or _on_gpu(device) or bfloat16_instructions():
        return ""
    return "this processor has no instructions for bfloat16, so training in bfloat16 is many times slower here than in float32."


def _on_gpu(device: str) -> bool:
    return device.startswith("cuda") or (device == "auto" and any(any(DEVICES.glob(pattern)) for pattern in GPUS))

"""Train a stored trial again and compare each epoch with the record.

Training uses one thread, as in a worker, and stops after the last recorded epoch. Nothing is written.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

from hpsearch.analysis.metrics import difference_margin
from hpsearch.config.best_config import BestConfig
from hpsearch.config.components import Catalog
from hpsearch.config.epoch import Epoch
from hpsearch.config.registration import find_component_file, load_component_files
from hpsearch.config.train_config import resolve
from hpsearch.errors import ConfigError, StudyNotFoundError, UsageError
from hpsearch.storage.records import StudyRow, TrialRow, read_study, read_trial
from hpsearch.storage.workspace import Workspace
from hpsearch.workflows.export import best_config, recorded_files, why_unusable
from hpsearch.workflows.repeat_study import is_follow_up
from hpsearch.workflows.repeats import find_verdict

if TYPE_CHECKING:
    from hpsearch.training.data.split import Split

TIMES = ("seconds", "images_per_second")
"""Entries of an epoch that differ between runs."""

Kind = Literal["identical", "within the spread", "different"]


@dataclass(frozen=True, kw_only=True)
class ChangedCondition:
    """A condition that has changed since the trial was trained: a version, the device, the split or a component file."""

    name: str
    then: str
    now: str

    def __str__(self) -> str:
        return f"{self.name} {self.then} → {self.now}"


@dataclass(frozen=True, kw_only=True)
class EpochComparison:
    """One epoch of the trial, as recorded (`then`) and as trained now (`now`)."""

    then: Epoch
    now: Epoch

    @property
    def differing(self) -> tuple[str, ...]:
        """Names of the values that are not identical."""
        # In the stored form a number that is not finite is None, so two such numbers are equal.
        then, now = self.then.to_dict(), self.now.to_dict()
        return tuple(name for name in then if name not in TIMES and then[name] != now[name])


@dataclass(frozen=True, kw_only=True)
class Reproduction:
    """A trial that is ready to be trained again.

    Attributes:
        study: name of the study.
        best: config of the trial, with the components as they are now.
        differences: conditions that have changed.
        seed_margin: 95 % margin of the accuracy difference between two seeds, from the study's finalists; None without finalists.
    """

    study: str
    trial: TrialRow
    best: BestConfig
    split: Split
    device: str
    differences: tuple[ChangedCondition, ...]
    seed_margin: float | None

    def train(self) -> Iterator[EpochComparison]:
        """Train to the last recorded epoch. This sets torch to one thread.

        Yields:
            Each epoch, as recorded and as trained now.

        Raises:
            HpsearchError: the trial cannot be trained.
        """
        import torch

        from hpsearch.training.trainer import train

        torch.set_num_threads(1)  # a worker has one thread, and another number would change the order of sums
        with closing(train(self.best.config, self.split, device=self.device)) as training:
            for then, now in zip(self.trial.epochs, training, strict=False):
                yield EpochComparison(then=then, now=now)


@dataclass(frozen=True, kw_only=True)
class ReproductionResult:
    """The result of training a trial again.

    Attributes:
        kind: the verdict. `within the spread` is possible only if a condition has changed.
        differences: conditions that have changed.
        margin: 95 % margin of the validation accuracy difference between two runs of one config.
    """

    kind: Kind
    pairs: tuple[EpochComparison, ...]
    differences: tuple[ChangedCondition, ...]
    margin: float

    @property
    def is_reproduced(self) -> bool:
        """Whether the result is identical, or within the margin under changed conditions."""
        return self.kind != "different"

    @property
    def first_difference(self) -> EpochComparison | None:
        """The first epoch that is not identical."""
        return next((pair for pair in self.pairs if pair.differing), None)

    def to_dict(self) -> dict[str, Any]:
        """Return the result for JSON.

        Returns:
            The verdict, the changed conditions, and each epoch twice.
        """
        return {
            "verdict": self.kind,
            "reproduced": self.is_reproduced,
            "margin": self.margin,
            "differences": {each.name: [each.then, each.now] for each in self.differences},
            "epochs": [
                {"epoch": pair.then.number, "identical": not pair.differing, "then": pair.then.to_dict(), "now": pair.now.to_dict()}
                for pair in self.pairs
            ],
        }


def prepare_reproduction(name: str, number: int, workspace: Workspace, *, device: str | None = None, trust: bool = False) -> Reproduction:
    """Find a trial and load its components and images.

    Args:
        name: name of the study.
        number: number of the trial.
        workspace: the database and the folders of the study and the images.
        device: device name; None for the device of the trial, or for `auto` if this machine lacks that device.
        trust: whether to run component files that this user has not run before or that have changed.

    Returns:
        The trial, ready for training.

    Raises:
        StudyNotFoundError: the study or the trial does not exist.
        UsageError: the trial has not finished, or has no recorded epochs.
        ComponentError: a component file is missing, or it is not trusted and has changed or has not been run by this user before.
        DataError: the images are missing or damaged.
        ConfigError: this machine does not have the device, or the options of the components have changed.
    """
    study = workspace.open(read_only=True).load(name)
    row, trial = read_study(study), read_trial(study, number)
    _require_record(trial, name)
    best = best_config(trial, row)
    catalog, changed = _load_components(row, trust=trust)
    config = resolve(best.config.settings, catalog=catalog, seed=best.config.seed)

    from hpsearch.training.run_info import environment

    found = _device(str(trial.run.get("device")), device)
    split = _split(best, workspace, follow_up=is_follow_up(study))
    now = environment(split, found)
    return Reproduction(
        study=name,
        trial=trial,
        best=replace(best, config=config),
        split=split,
        device=str(found),
        differences=(*_differences(trial.run, now), *changed),
        seed_margin=_seed_margin(name, workspace),
    )


def compare_epochs(reproduction: Reproduction, pairs: Sequence[EpochComparison]) -> ReproductionResult:
    """Decide whether a trial is reproduced.

    Under changed conditions the validation accuracy of the last epoch decides, because this accuracy is the value of the trial. The
    margin comes from the seeds of the finalists. Without finalists the margin comes from the number of images alone.

    Args:
        reproduction: the trial.
        pairs: epochs of the trial, as recorded and as trained now.

    Returns:
        The result.
    """
    last = pairs[-1]
    margin = reproduction.seed_margin
    if margin is None:
        margin = difference_margin(last.then.val_accuracy, reproduction.best.data.validation_images)
    whole = len(pairs) == len(reproduction.trial.epochs)
    apart = abs(last.then.val_accuracy - last.now.val_accuracy)
    kind: Kind = "different"
    if whole and not any(pair.differing for pair in pairs):
        kind = "identical"
    elif whole and reproduction.differences and apart <= margin:
        kind = "within the spread"
    return ReproductionResult(kind=kind, pairs=tuple(pairs), differences=reproduction.differences, margin=margin)


def _require_record(trial: TrialRow, study: str) -> None:
    """Raise an error if a trial has no recorded result to compare with."""
    called = f"trial {trial.number} of '{study}'"
    if not trial.is_finished:
        waits = f"`hpsearch run {study}` continues it, or ends it." if trial.state == "paused" else "Wait until the trial has finished."
        raise UsageError(f"{called} is still {trial.state}", hint=waits)
    if trial.state == "fail":
        raise UsageError(f"{called} {why_unusable(trial)}", hint=f"`hpsearch run {study} --retry-failed` tries it again.")
    if trial.config is None or not trial.epochs:
        raise StudyNotFoundError(f"{called} has no whole epoch on record", hint="Only epochs that hpsearch trained can be reproduced.")


def _load_components(row: StudyRow, *, trust: bool) -> tuple[Catalog, list[ChangedCondition]]:
    """Return the components of the study, and the component files that have changed."""
    files, changed = recorded_files(row), []
    for name, recorded in files.items():
        then = recorded.sha256
        file = find_component_file([recorded.path], then, owner="the trial", beside="the study file", trust=trust, may_change=True)
        if file.sha256 != then:
            changed.append(ChangedCondition(name=name, then=f"{then[:12] or 'nothing'}…", now=f"{file.sha256[:12]}…"))
    return load_component_files(recorded.path for recorded in files.values()), changed


def _split(best: BestConfig, workspace: Workspace, *, follow_up: bool) -> Split:
    """Return the split of the trial. A run of a follow-up study has its own seed and excludes the validation images of the search."""
    from hpsearch.training.data.split import load_training_images, make_split, validation_indices

    data, count = load_training_images(best.data.dataset, folder=workspace.data), best.data.validation_images
    searched_on = validation_indices(data, validation_images=count, seed=best.split_seed) if follow_up else None
    seed = best.config.seed if follow_up else best.split_seed
    return make_split(data, validation_images=count, seed=seed, train_images=best.data.train_images, exclude_from_validation=searched_on)


def _seed_margin(name: str, workspace: Workspace) -> float | None:
    """Return the 95 % margin of the difference between two seeds, from the pooled variance of the study's finalists."""
    from scipy.stats import t as student_t

    verdict = find_verdict(name.partition(".")[0], workspace.open(read_only=True))
    if verdict is None:
        return None
    found = [(len(each.scores) - 1, each.deviation) for each in verdict.finalists if each.deviation is not None]
    freedom = sum(degrees for degrees, _ in found)
    if not freedom:
        return None
    variance = sum(degrees * deviation**2 for degrees, deviation in found) / freedom
    return float(student_t.ppf(0.975, df=freedom)) * math.sqrt(2 * variance)


def _device(then: str, wanted: str | None) -> Any:
    from hpsearch.training.device import resolve_device

    if wanted is not None:
        return resolve_device(wanted)
    try:
        return resolve_device(then)
    except ConfigError:
        return resolve_device("auto")


def _differences(then: Mapping[str, Any], now: Mapping[str, Any]) -> list[ChangedCondition]:
    """Return the recorded conditions that have changed."""
    old = {"split": f"{str(then.get('split_hash'))[:12]}…", "device": str(then.get("device")), **then.get("versions", {})}
    new = {"split": f"{now['split_hash'][:12]}…", "device": now["device"], **now["versions"]}
    if "processor" in then:
        old["processor"], new["processor"] = then["processor"], now["processor"]
    return [ChangedCondition(name=name, then=value, now=str(new.get(name))) for name, value in old.items() if value != new.get(name)]

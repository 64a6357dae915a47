"""The folder of a final model. This module decides whether training continues there, and which files hpsearch may remove."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from hpsearch.analysis.final_score import FORMAT, READS, HeldOutReading
from hpsearch.analysis.metrics import ClassMetrics
from hpsearch.config.best_config import BestConfig
from hpsearch.config.paths import FinalPaths, partial_files, write_atomically
from hpsearch.config.registration import component_hash, find_component_file, short_names
from hpsearch.errors import UsageError
from hpsearch.formatting import show_path

LOCK = ".training"
"""Name of the lock file of a training process. The file remains if the process is killed."""


class _Table(BaseModel):
    """A table of `metrics.json`. It may have more keys than hpsearch reads."""

    model_config = ConfigDict(extra="allow", strict=True)


_Interval = Annotated[list[float], Field(min_length=2, max_length=2)]


class _File(_Table):
    path: str
    sha256: str


class _Scores(_Table):
    accuracy: float
    calibration_error: float
    classes: list[ClassMetrics]
    confusion: list[list[int]]


class _Seed(_Table):
    train: _Scores
    test: _Scores


class _Record(_Table):
    """The record of a training that has begun."""

    format: Literal[1]
    finished: bool
    config: str
    dataset: str
    images: str
    component_files: list[_File]
    readings: list[HeldOutReading]


class _FinishedRecord(_Record):
    """The record of a finished training."""

    test_accuracy: float
    test_accuracy_interval: _Interval
    test_loss: float
    test_loss_interval: _Interval
    train_accuracy: float
    train_accuracy_interval: _Interval
    train_loss: float
    train_loss_interval: _Interval
    interval_over: str
    test_split_reads: int
    study_test_split_reads: int | None
    overfitting: str
    weakest: str
    train_less_test: list[dict[str, float | str]]
    seeds: Annotated[list[_Seed], Field(min_length=1)]
    pictures: list[str]
    device: str
    versions: dict[str, str]


class FinalFolder:
    """The folder of a final model. `metrics.json` is its record from the start of training.

    Args:
        paths: paths of the folder.
        best: the config that is trained.
        force: whether to start again if the folder holds another final training or other files.

    Raises:
        UsageError: the folder holds something else. Nothing was changed.
    """

    def __init__(self, paths: FinalPaths, best: BestConfig, *, force: bool) -> None:
        self.paths = paths
        self._best = best
        self._force = force
        self._record = _read_record(paths.metrics)
        self._require_usable()

    @property
    def finished(self) -> Mapping[str, Any] | None:
        """The content of `metrics.json` if the training of this config is finished, else None."""
        return self._record if self.is_resumed and self._record["finished"] else None

    @property
    def is_resumed(self) -> bool:
        """Whether the training continues an earlier training of this config in the folder."""
        return bool(self._record) and not self._force

    def begin(self, data_hash: str) -> None:
        """Prepare the folder for training. Models of the same training are kept.

        Args:
            data_hash: hash of the training images.

        Raises:
            UsageError: the models in the folder were trained on other images, or the folder cannot be created.
            ComponentError: a component file of the config was changed.
        """
        if self.is_resumed and self._record["images"] != data_hash:
            raise UsageError(
                f"{show_path(self.paths.folder)} was trained on other images",
                hint="Point --data at the same images, or choose another folder with -o.",
            )
        if self._record and self._force:
            self._remove_outputs()
        try:
            self.paths.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UsageError(
                f"cannot make the folder {show_path(self.paths.folder)}: {error.strerror}", hint="Choose another with -o."
            ) from error
        self._require_own_component_files()
        # Readings of the test split stay on record when training starts again.
        readings = self._record.get("readings", [])
        self._record = {
            "format": FORMAT,
            "finished": False,
            "config": self._best.config.digest,
            "dataset": self._best.data.dataset,
            "images": data_hash,
            "component_files": [{"path": name, "sha256": file.sha256} for file, name in short_names(self._best.files).items()],
            READS: len(readings),
            "readings": readings,
        }
        self._write_record()
        write_atomically(self.paths.config, self._best.to_toml())
        for file, name in short_names(self._best.files).items():  # a model cannot be loaded without its component file
            found = find_component_file([file.path], file.sha256, owner="the config", beside="the config", trust=False)
            write_atomically(self.paths.folder / name, found.path.read_bytes())
        self._force = False

    def add_reading(self, reading: HeldOutReading) -> tuple[HeldOutReading, ...]:
        """Record a reading of the test split, or replace the reading with the same id.

        Args:
            reading: the reading.

        Returns:
            All readings, the given reading last.
        """
        others = [each for each in self._record["readings"] if each["id"] != reading.id]
        readings = [*others, asdict(reading)]
        self._record |= {"readings": readings, READS: len(readings)}
        self._write_record()
        return tuple(HeldOutReading(**each) for each in readings)

    def finish(self, score: Mapping[str, Any]) -> Mapping[str, Any]:
        """Write the score. All other files must be written before this call.
        Args:
            score: entries of `FinalScore.to_dict`.

        Returns:
            The content of `metrics.json`.
        """
        # JSON turns tuples into lists, so return the values that a reader of the file gets.
        self._record = json.loads(json.dumps({**self._record, **score, "finished": True}))
        self._write_record()
        return self._record

    def _require_usable(self) -> None:
        """Raise an error if the folder holds another training or other files.

        With `force` both are accepted, unless a file of the user would be overwritten.
        """
        folder, record = self.paths.folder, self._record
        if folder.exists() and not folder.is_dir():
            raise UsageError(f"{show_path(folder)} is no folder", hint="Choose another with -o.")
        if record:
            same = (record["config"], record["dataset"]) == (self._best.config.digest, self._best.data.dataset)
            if not self._force and not same:
                raise UsageError(
                    f"{show_path(folder)} holds a final training of another config",
                    hint="Choose another folder with -o, or start again there with --force.",
                )
            return
        own = {LOCK, *(path.name for path in partial_files(self.paths.metrics))}
        if not folder.is_dir() or {path.name for path in folder.iterdir()} <= own:
            return
        if not self._force:
            raise UsageError(
                f"{show_path(folder)} exists and holds something other than a final training",
                hint="Choose another folder with -o, or add the files of the training there with --force.",
            )
        others = [path.name for path in self.paths.written if path.exists()]
        if others:
            raise UsageError(
                f"{show_path(folder)} holds {' and '.join(others)}, which no final training wrote",
                hint="Choose another folder with -o: --force removes only what hpsearch wrote.",
            )

    def _remove_outputs(self) -> None:
        """Remove the files that hpsearch wrote, and no other files."""
        for path in self.paths.written:
            if path != self.paths.metrics:  # `begin` replaces `metrics.json` and keeps its readings
                path.unlink(missing_ok=True)
            for partial in partial_files(path):
                partial.unlink()
        for file in self._record["component_files"]:
            path = self.paths.folder / file["path"]
            is_inside = path.resolve().is_relative_to(self.paths.folder.resolve())
            if is_inside and component_hash(path) == file["sha256"]:
                path.unlink()
        for folder in (*self.paths.seeds.glob("*"), self.paths.seeds):
            with suppress(OSError):  # the folder has files of the user
                folder.rmdir()

    def _require_own_component_files(self) -> None:
        for file, name in short_names(self._best.files).items():
            copy = self.paths.folder / name
            if copy.exists() and component_hash(copy) != file.sha256:
                raise UsageError(
                    f"{show_path(copy)} is not the component file that the config names", hint="Choose another folder with -o."
                )

    def _write_record(self) -> None:
        write_atomically(self.paths.metrics, json.dumps(self._record, indent=2) + "\n")


def _read_record(path: Path) -> dict[str, Any]:
    """Return the record in a `metrics.json`; empty if the file has no valid record."""
    try:
        text = path.read_text(encoding="utf-8")
        # From a JSON text, strict models also read dataclasses.
        (_FinishedRecord if _Record.model_validate_json(text).finished else _Record).model_validate_json(text)
        return dict(json.loads(text))
    except (OSError, RecursionError, ValueError):
        return {}

"""The paths of the files of studies, trials and final models, and the function that writes a file."""

from __future__ import annotations

import os
import re
import secrets
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hpsearch.errors import DiskError, StudyFileError
from hpsearch.formatting import show

STUDY_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,79}")
DEFAULT_RUNS = Path("runs")
FINALISTS, EXPLAIN = "finalists", "explain"
"""Kinds of follow-up studies. Their names are like `<study>.finalists`. A study file cannot use such a name, because of the dot."""


def check_study_name(name: str) -> str:
    """Return the name of a study if the name is allowed.

    The study's folder has the same name. Therefore the name must not be a path to another folder.

    Args:
        name: the name.

    Returns:
        The name.

    Raises:
        StudyFileError: the name is empty, too long, or has characters other than letters, digits, '-' and '_'.
    """
    if not STUDY_NAME.fullmatch(name):
        raise StudyFileError(
            f"name: must be 1 to 80 letters, digits, '-' or '_', beginning with a letter or digit, but got {show(name)}",
            hint="It names a folder as well as a study.",
        )
    return name


class _Inside:
    """An attribute of a class that has a `folder`: the path of the file or folder with this name in it."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __get__(self, owner: Any, kind: type) -> Path:
        return Path(owner.folder, self.name)


@dataclass(frozen=True)
class RunPaths:
    """The folder of all studies. This class does not create files or folders."""

    folder: Path = DEFAULT_RUNS

    database = _Inside("hpsearch.db")
    """The default SQLite database."""
    artifacts = _Inside("hpsearch.artifacts")
    """The folder of the artifact store that optuna-dashboard reads. The dot in its name keeps it apart from folders of studies."""

    def study(self, name: str) -> StudyPaths:
        """Return the paths of one study. A follow-up study has its folder inside the folder of the search.

        Args:
            name: the study's name.

        Returns:
            The paths.

        Raises:
            StudyFileError: the name is not allowed.
        """
        base, _, kind = name.partition(".")
        if kind in (FINALISTS, EXPLAIN):
            return StudyPaths(self.folder / check_study_name(base) / kind)
        return StudyPaths(self.folder / check_study_name(name))


@dataclass(frozen=True)
class StudyPaths:
    """The folder of one study."""

    folder: Path

    owner = _Inside("owner.json")
    """The file that says to which study the folder belongs."""
    logs = _Inside("logs")
    """The folder of the workers' logs."""
    report = _Inside("report.html")
    """The report of the study."""
    samples = _Inside("samples.png")
    """A grid of some training images."""

    def log(self, worker: str) -> Path:
        """Return the log of one worker.

        Args:
            worker: the worker's name.

        Returns:
            The path.
        """
        return self.logs / f"{worker}.log"

    def trial(self, number: int) -> TrialPaths:
        """Return the paths of one trial.

        Args:
            number: the trial's number, from 0.

        Returns:
            The paths.
        """
        return TrialPaths(self.folder / "trials" / f"{number:05d}")


@dataclass(frozen=True)
class TrialPaths:
    """The folder of one trial."""

    folder: Path

    checkpoint = _Inside("checkpoint")
    """The state from which training continues."""
    predictions = _Inside("predictions.npz")
    """The predicted class and confidence of every validation image, after the last epoch."""


@dataclass(frozen=True)
class FinalPaths:
    """The folder of a final model."""

    folder: Path

    config = _Inside("config.toml")
    """The best config that was trained."""
    metrics = _Inside("metrics.json")
    """The scores, and a record of each time that the test split was read.

    hpsearch writes this file before training, and completes it after all other files.
    """
    predictions = _Inside("predictions.csv")
    """The class and confidence of every training and test image."""
    card = _Inside("README.md")
    """The model card."""
    report = _Inside("report.html")
    """The report of the model."""
    onnx = _Inside("model.onnx")
    """The model as ONNX."""
    seeds = _Inside("seeds")
    """The folder that holds one folder for each seed."""

    def mistakes(self, part: str) -> Path:
        """Return the picture of the most confident mistakes.

        Args:
            part: `train` or `test`.

        Returns:
            The path.
        """
        return self.folder / f"mistakes-{part}.png"

    def model(self, number: int = 1) -> Path:
        """Return the path of the weights of one seed. The weights of the first seed are the final model.

        Args:
            number: the position of the seed, from 1.

        Returns:
            The path.
        """
        return (self.folder if number == 1 else self._seed(number)) / "model.safetensors"

    def checkpoint(self, number: int) -> Path:
        """Return the state from which the training of one seed continues.

        Args:
            number: the position of the seed, from 1.

        Returns:
            The path.
        """
        return self._seed(number) / "checkpoint"

    @property
    def written(self) -> list[Path]:
        """Every file that hpsearch can write in this folder, whether it exists or not."""
        top = [
            self.config,
            self.metrics,
            self.predictions,
            self.card,
            self.report,
            self.onnx,
            self.mistakes("train"),
            self.mistakes("test"),
        ]
        seeds = [self._seed(int(folder.name)) for folder in self.seeds.glob("[0-9]*") if folder.name.isdecimal()]
        of_seeds = [folder / name for folder in seeds for name in SEED_FILES]
        return [self.model(), *top, *of_seeds]

    def _seed(self, number: int) -> Path:
        return self.seeds / str(number)


SEED_FILES = ("model.safetensors", "checkpoint", "checkpoint.previous", "checkpoint.new", "predictions.npz")
"""Names of the files in the folder of a seed. Only version 0.1 wrote `checkpoint.new`."""


def lock_folder(database: Path) -> Path:
    """Return the folder of the locks of a SQLite database.

    The folder is beside the database. Two folders of runs with the same database therefore share the locks.

    Args:
        database: the database file.

    Returns:
        The folder of the locks.
    """
    return database.with_name(f"{database.name}.locks")


def bundled_studies() -> Path:
    """Return the folder of the study files that come with hpsearch.

    Returns:
        The folder in the installed package. In a checkout, the folder beside the package.
    """
    package = Path(__file__).resolve().parent.parent
    inside = package / "studies"
    return inside if inside.is_dir() else package.parent / "studies"


def write_atomically(path: Path, content: bytes | str, *, previous: Path | None = None) -> None:
    """Write a file completely or not at all.

    Even after a crash or a power cut, a reader sees the complete old content or the complete new content.
    Several processes may write the same file at once. The folder is created if it is missing. A device or a pipe is not replaced,
    but written to.

    Args:
        path: the file, or a link to it.
        content: the new content. A string is written as UTF-8.
        previous: path to which the old file is moved. If it is None, the old file is replaced.

    Raises:
        DiskError: the file cannot be written. The old content is not lost.
    """
    content = content.encode() if isinstance(content, str) else content
    temporary = None
    try:
        if path.exists() and not path.is_file():
            path.write_bytes(content)
            return
        path = path.resolve()
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        if previous is not None:
            path.replace(previous)
        temporary.replace(path)
        _sync_folder(path.parent)
    except OSError as error:
        raise DiskError(
            f"{path} cannot be written: {error.strerror or error}", hint="Make room there and run the same command again."
        ) from error
    finally:
        if temporary is not None:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)


def partial_files(path: Path) -> list[Path]:
    """Return the temporary files that interrupted writes of a file left beside the file.

    Args:
        path: the file.

    Returns:
        The temporary files, including files of version 0.1.
    """
    return list(path.parent.glob(f".{path.name}.*part"))


def _sync_folder(folder: Path) -> None:
    """Make a rename in a folder survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

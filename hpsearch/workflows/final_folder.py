"""The folder of a final model: whose it is, how far it is, and what may be removed from it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from hpsearch.analysis.final_score import FORMAT, READS, HeldOutReading
from hpsearch.config.best_config import BestConfig
from hpsearch.config.paths import FinalPaths, partial_files, write_atomically
from hpsearch.config.registration import component_hash, find_component_file
from hpsearch.errors import UsageError
from hpsearch.formatting import show_path

LOCK = ".training"
"""The lock file of who trains here; a kill leaves it behind."""


class FinalFolder:
    """What stands in the folder of a final model. `metrics.json` is its record from the first moment on.

    Args:
        force: begin anew where another final training stands, or where other files do.

    Raises:
        UsageError: the folder is somebody else's; nothing was touched.
    """

    def __init__(self, paths: FinalPaths, best: BestConfig, *, force: bool) -> None:
        self.paths = paths
        self._best = best
        self._force = force
        self._record = _read_record(paths.metrics)
        self._refuse()

    @property
    def finished(self) -> Mapping[str, Any] | None:
        """The score of this config that is there already."""
        record = self._record
        return record if record is not None and record["finished"] and self._is_same(record) and not self._force else None

    @property
    def goes_on(self) -> bool:
        """Whether training of this config was begun here."""
        return self._record is not None and not self._force

    def begin(self, data_hash: str) -> None:
        """Make the folder this config's; what it has of the same training is gone on with.

        Args:
            data_hash: the hash of the images that are trained on.

        Raises:
            UsageError: what is there was trained on other images.
        """
        record = self._record
        if record is not None and not self._force and record["images"] != data_hash:
            raise UsageError(
                f"{show_path(self.paths.folder)} was trained on other images",
                hint="Point --data at the same, or choose another folder with -o.",
            )
        if record is not None and self._force:
            self._forget(record)
        try:
            self.paths.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UsageError(
                f"cannot make the folder {show_path(self.paths.folder)}: {error.strerror}", hint="Choose another with -o."
            ) from error
        self._refuse_other_component_files()
        # Readings outlive even a new beginning: they were readings of the test split.
        readings = record["readings"] if record is not None else []
        files = [{"path": file.path.name, "sha256": file.sha256} for file in self._best.files]
        self._record = {
            "format": FORMAT,
            "finished": False,
            "config": self._best.config.digest,
            "dataset": self._best.data.dataset,
            "images": data_hash,
            "component_files": files,
            READS: len(readings),
            "readings": readings,
        }
        self._write_record()
        write_atomically(self.paths.config, self._best.to_toml())
        for file in self._best.files:  # the model of a user's component is of use only with the component's file
            found = find_component_file([file.path], file.sha256, owner="the config", beside="the config")
            write_atomically(self.paths.folder / file.path.name, found.path.read_bytes())
        self._force = False

    def note(self, reading: HeldOutReading) -> tuple[HeldOutReading, ...]:
        """Put a reading on record, or what is known of it since; returns all of them."""
        record = self._begun()
        others = [each for each in record["readings"] if each["id"] != reading.id]
        record["readings"] = [*others, reading.to_dict()]
        record[READS] = len(record["readings"])
        self._write_record()
        return tuple(HeldOutReading(**each) for each in record["readings"])

    def finish(self, score: Mapping[str, Any]) -> Mapping[str, Any]:
        """Write the score, the last of the files; returns all that `metrics.json` holds."""
        # As a reader of the file will have it: JSON knows no tuples.
        self._record = json.loads(json.dumps({**self._begun(), **score, "finished": True}))
        self._write_record()
        return self._begun()

    def _refuse(self) -> None:
        folder, record = self.paths.folder, self._record
        if folder.exists() and not folder.is_dir():
            raise UsageError(f"{show_path(folder)} is no folder", hint="Choose another with -o.")
        if record is not None:
            if not self._force and not self._is_same(record):
                raise UsageError(
                    f"{show_path(folder)} holds a final training of another config",
                    hint="Choose another folder with -o, or begin anew there with --force.",
                )
            return
        if not folder.is_dir() or {path.name for path in folder.iterdir()} <= {
            LOCK,
            *(path.name for path in partial_files(self.paths.metrics)),
        }:
            return
        if not self._force:
            raise UsageError(
                f"{show_path(folder)} exists and holds something else than a final training",
                hint="Choose another folder with -o, or write beside what is there with --force.",
            )
        strangers = [path.name for path in self.paths.written if path.exists()]
        if strangers:
            raise UsageError(
                f"{show_path(folder)} holds {' and '.join(strangers)}, which no final training wrote",
                hint="Choose another folder with -o: --force removes only what hpsearch wrote.",
            )

    def _is_same(self, record: Mapping[str, Any]) -> bool:
        return bool(record["config"] == self._best.config.digest and record["dataset"] == self._best.data.dataset)

    def _forget(self, record: Mapping[str, Any]) -> None:
        """Remove what hpsearch wrote, and nothing else."""
        for path in self.paths.written:
            if path != self.paths.metrics:  # which the new beginning replaces: its readings are kept
                path.unlink(missing_ok=True)
            for partial in partial_files(path):
                partial.unlink()
        for file in record["component_files"]:
            path = self.paths.folder / Path(file["path"]).name
            if component_hash(path) == file["sha256"]:
                path.unlink()
        for folder in (*self.paths.seeds.glob("*"), self.paths.seeds):
            with suppress(OSError):  # somebody's own files are in it
                folder.rmdir()

    def _refuse_other_component_files(self) -> None:
        for file in self._best.files:
            copy = self.paths.folder / file.path.name
            if copy.exists() and component_hash(copy) != file.sha256:
                raise UsageError(
                    f"{show_path(copy)} is not the component file that the config names", hint="Choose another folder with -o."
                )

    def _begun(self) -> dict[str, Any]:
        assert self._record is not None, "begin comes first"
        return self._record

    def _write_record(self) -> None:
        write_atomically(self.paths.metrics, json.dumps(self._begun(), indent=2) + "\n")


def _read_record(path: Path) -> dict[str, Any] | None:
    """What a `metrics.json` of a final training holds; None where there is none."""
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    keys = ("finished", "config", "dataset", "images", "component_files", "readings")
    ours = isinstance(record, dict) and record.get("format") == FORMAT and all(key in record for key in keys)
    return record if ours else None

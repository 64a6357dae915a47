"""Writes a note, six small plots and some files of a study into the records of optuna-dashboard.

So optuna-dashboard shows the note, the plots and the files even if it is started without hpsearch. In this module `digest`
means a hash of the content.
"""

from __future__ import annotations

import hashlib
import io
import json
import uuid
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import optuna
from optuna.artifacts import ArtifactMeta
from PIL import Image

from hpsearch import __version__
from hpsearch.config.paths import write_atomically
from hpsearch.report.blocks import Gallery
from hpsearch.report.dashboard.note import markdown, with_block
from hpsearch.report.dashboard.plots import plots
from hpsearch.report.sections.summary import answer
from hpsearch.report.study_results import StudyResults
from hpsearch.storage.database import Store
from hpsearch.storage.optuna_internals import get_study_id
from hpsearch.storage.records import StudyKey
from hpsearch.training.data.image_grid import captioned_grid

REPORT, SAMPLES, MISTAKES = "report.html", "samples.png", "mistakes.png"
KINDS = {REPORT: "text/html", SAMPLES: "image/png", MISTAKES: "image/png"}
MISTAKES_COLUMNS = 6
"""Images in a row of the grid of misclassified images. The dashboard shows the grid as wide as a card."""
NOTE_TRIES = 3
"""Maximum number of attempts to write the note.

A person may save the note in the meantime. Then hpsearch reads the note again and puts its block into the new text.
"""


def state_of(results: StudyResults) -> str:
    """Return a hash of everything that a sync depends on. If the hash has changed, a sync is needed.

    Args:
        results: the results of the study.

    Returns:
        The hash, as hexadecimal text.
    """
    ended = [(trial.number, trial.state) for trial in results.trials if trial.is_finished]
    files = [path.stat().st_mtime_ns if path.exists() else 0 for path in (results.paths.report, results.paths.samples)]
    return _digest(repr((__version__, ended, files)).encode())


def last_synced(study: optuna.Study, store: Store) -> str:
    """Return the hash that the last sync stored.

    Args:
        study: the stored study.
        store: the storage of the study.

    Returns:
        The hash from `state_of`; empty if there was no sync.
    """
    return str(_system(study, store).get(StudyKey.SYNCED, {}).get("state", ""))


def sync(study: optuna.Study, store: Store, results: StudyResults, artifacts: Path) -> None:
    """Write the note, plots and artifacts of a study that have changed. The caller must hold the sync lock.

    Args:
        study: the stored study.
        store: the storage of the study.
        results: the results of the study.
        artifacts: the folder of the artifact store.

    Raises:
        DiskError: a file cannot be written.
    """
    import optuna_dashboard

    state = state_of(results)
    synced: dict[str, str] = dict(_system(study, store).get(StudyKey.SYNCED, {}))
    files = {name: content for name, content in _files(results).items() if content is not None}
    addresses = {name: _keep(study, store, artifacts, name, content) for name, content in files.items()}
    for name, figure in plots(results).items():
        digest = _digest(figure.to_json().encode())
        if synced.get(name) != digest:
            optuna_dashboard.save_plotly_graph_object(study, figure, graph_object_id=name)
            synced[name] = digest
    _write_note(study, results, addresses)
    store.storage.set_study_system_attr(get_study_id(study), StudyKey.SYNCED, {**synced, "state": state})


def delete_artifacts(study: optuna.Study, store: Store, artifacts: Path) -> None:
    """Remove the files of a study from the artifact store.

    Args:
        study: the stored study, which is about to be deleted.
        store: the storage of the study.
        artifacts: the folder of the artifact store.
    """
    for meta in _metas(study, store):
        (artifacts / meta.artifact_id).unlink(missing_ok=True)


def _files(results: StudyResults) -> Mapping[str, bytes | None]:
    return {
        REPORT: results.paths.report.read_bytes() if results.paths.report.exists() else None,
        SAMPLES: results.samples,
        MISTAKES: _mistakes_grid(results.misclassified) if results.misclassified is not None and results.misclassified.pictures else None,
    }


def _mistakes_grid(gallery: Gallery) -> bytes:
    images = [Image.open(io.BytesIO(picture.png)) for picture in gallery.pictures]
    return captioned_grid(images, [picture.caption for picture in gallery.pictures], columns=MISTAKES_COLUMNS)


def _write_note(study: optuna.Study, results: StudyResults, addresses: Mapping[str, str]) -> None:
    from optuna_dashboard import get_note, save_note

    words = {REPORT: "Report", SAMPLES: "Training images", MISTAKES: "Misclassified images"}
    block = markdown(results.name, answer(results), {words[name]: address for name, address in addresses.items()})
    for _ in range(NOTE_TRIES):
        before = get_note(study)
        after = with_block(before, block)
        if after == before:
            return
        if get_note(study) == before:
            save_note(study, after)
            return


def _keep(study: optuna.Study, store: Store, artifacts: Path, name: str, content: bytes) -> str:
    """Put a file into the artifact store and return the address of the file in the dashboard.

    An older file with the same name is replaced.
    """
    known = next((meta for meta in _metas(study, store) if meta.filename == name), None)
    meta = known or ArtifactMeta(artifact_id=str(uuid.uuid4()), filename=name, mimetype=KINDS[name], encoding=None)
    path = artifacts / meta.artifact_id
    if not path.exists() or path.read_bytes() != content:
        write_atomically(path, content)
    if known is None:
        store.storage.set_study_system_attr(get_study_id(study), f"{StudyKey.ARTIFACT}{meta.artifact_id}", json.dumps(asdict(meta)))
    return f"/artifacts/{get_study_id(study)}/{meta.artifact_id}"


def _metas(study: optuna.Study, store: Store) -> list[ArtifactMeta]:
    values = [json.loads(value) for key, value in _system(study, store).items() if key.startswith(StudyKey.ARTIFACT)]
    return [ArtifactMeta(**value) for value in values if value is not None]


def _system(study: optuna.Study, store: Store) -> dict[str, Any]:
    return store.storage.get_study_system_attrs(get_study_id(study))


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]

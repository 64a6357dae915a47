"""The folder of a study in the folder of runs. A file in it says whose folder it is, because several storages may share one folder of runs."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path

from hpsearch.config.paths import StudyPaths, write_atomically
from hpsearch.errors import DiskError, UsageError
from hpsearch.formatting import show, show_path
from hpsearch.storage.database import Store
from hpsearch.storage.postgres import PostgresServer
from hpsearch.storage.records import read_identity
from hpsearch.storage.workspace import Workspace


@dataclass(frozen=True, kw_only=True)
class FolderOwner:
    """The study to which a folder belongs. Follow-up studies lie in the folder of their search.

    Attributes:
        study: name of the study.
        identity: identity of the study; empty if it has none.
        storage: path of the SQLite file relative to the folder of runs, or the URL of a server without user and password.
    """

    study: str
    identity: str
    storage: str


def claim_folder(name: str, workspace: Workspace, store: Store) -> None:
    """Write into the folder of a study whose it is. The folder is made if it is missing.

    Args:
        name: name of the study, or of its follow-up study.
        workspace: the database and the folder of runs.
        store: the open database.

    Raises:
        UsageError: the folder belongs to another study.
        DiskError: the folder cannot be written.
    """
    require_own_folder(name, workspace, store)
    paths, owner = _folder_of_search(name, workspace), _owner(name, workspace, store)
    if _read_owner(paths) != owner:
        write_atomically(paths.owner, json.dumps(asdict(owner), indent=2) + "\n")


def require_own_folder(name: str, workspace: Workspace, store: Store) -> None:
    """Raise an error if the folder of a study belongs to another study. A folder without an owner belongs to who asks first.

    Args:
        name: name of the study, which may not exist yet, or of its follow-up study.
        workspace: the database and the folder of runs.
        store: the open database.

    Raises:
        UsageError: the folder belongs to another study, or is no folder.
    """
    paths = _folder_of_search(name, workspace)
    if os.path.lexists(paths.folder) and not paths.folder.is_dir():
        raise UsageError(f"{show_path(paths.folder)} is in the way: it is no folder", hint="Move it, or choose another folder with --runs.")
    found = _read_owner(paths)
    if found is None or _is_same(found, _owner(name, workspace, store), workspace):
        return
    storage = found.storage if _is_url(found.storage) else show_path(Path(os.path.normpath(workspace.runs / found.storage)))
    raise UsageError(
        f"{show_path(paths.folder)} has the files of another study: {show(found.study)} in {storage}",
        hint=f"Choose another folder with --runs. If that study is gone for good, delete {show_path(paths.owner)}.",
    )


def results_folder(name: str, workspace: Workspace, store: Store) -> StudyPaths:
    """Return the folder from which the results of a study can be read.

    Args:
        name: name of the study.
        workspace: the database and the folder of runs.
        store: the open database.

    Returns:
        The folder of the study. If it belongs to another study, a folder that does not exist: then the files of the study are missing.
    """
    paths = workspace.paths.study(name)
    try:
        require_own_folder(name, workspace, store)
    except UsageError:
        return StudyPaths(paths.folder.with_name(f"{name}.missing"))  # no study has a name with a dot
    return paths


def delete_folder(name: str, workspace: Workspace) -> None:
    """Delete the folder of a study. If it is a symbolic link, delete the folder to which it leads, then the link.

    Args:
        name: name of the study, or of a follow-up study.
        workspace: the folder of runs.

    Raises:
        UsageError: the folder is a link to a folder that does not say whose it is.
        DiskError: a file cannot be deleted.
    """
    paths = workspace.paths.study(name)
    folder = paths.folder
    if folder.is_symlink() and _read_owner(_folder_of_search(name, workspace)) is None:
        raise UsageError(
            f"{show_path(folder)} is a link to {show_path(folder.resolve())}, which may hold other files too",
            hint="Delete both yourself, then run the same command again.",
        )
    if not folder.is_dir():
        return
    place = folder.resolve()
    try:
        # The owner is deleted last, so that the folder says whose it is until it is empty.
        for path in sorted(place.iterdir(), key=lambda path: path.name == paths.owner.name):
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink()
        if folder.is_symlink():
            folder.unlink()
        place.rmdir()
    except OSError as error:
        raise DiskError(
            f"{show_path(folder)} cannot be deleted: {show(os.fsdecode(error.filename))}: {error.strerror}",
            hint="The study is still in the storage. Remove the cause, then run the same command again.",
        ) from error


def _folder_of_search(name: str, workspace: Workspace) -> StudyPaths:
    return workspace.paths.study(name.partition(".")[0])


def _owner(name: str, workspace: Workspace, store: Store) -> FolderOwner:
    study = name.partition(".")[0]
    identity = read_identity(store.load(study)) if study in store.study_names() else ""
    if isinstance(workspace.database, PostgresServer):
        return FolderOwner(study=study, identity=identity, storage=workspace.database.display_url)
    # The path is relative, so that a folder of runs can be moved or copied together with the database in it.
    return FolderOwner(study=study, identity=identity, storage=os.path.relpath(workspace.database.path.resolve(), workspace.runs.resolve()))


def _read_owner(paths: StudyPaths) -> FolderOwner | None:
    if not paths.owner.is_file():
        return None
    try:
        return FolderOwner(**{key: str(value) for key, value in json.loads(paths.owner.read_bytes()).items()})
    except (ValueError, TypeError, AttributeError) as error:
        raise UsageError(
            f"{show_path(paths.owner)} is damaged, so it does not say whose folder it is",
            hint="If the files in it are this study's, delete it.",
        ) from error


def _is_same(found: FolderOwner, asking: FolderOwner, workspace: Workspace) -> bool:
    """Return whether a folder belongs to the study that asks."""
    if found.study != asking.study:
        return False
    if found.storage == asking.storage:
        return True  # a storage has one study of a name, so an earlier study of that name is gone
    if not asking.identity or found.identity != asking.identity:
        return False
    if _is_url(found.storage):
        return _is_url(asking.storage)  # a server may have several addresses
    # The database was moved. If its file is still there, one of the two is a copy.
    before = workspace.runs / found.storage
    return not before.exists() or (not _is_url(asking.storage) and before.samefile(workspace.runs / asking.storage))


def _is_url(storage: str) -> bool:
    return "://" in storage

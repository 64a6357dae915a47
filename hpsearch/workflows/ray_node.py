"""Supervises one worker on a node of a cluster, as a run on one machine supervises its workers."""

from __future__ import annotations

import os
import tempfile
import uuid
from pathlib import Path

from hpsearch.search.worker_order import NodeOrder
from hpsearch.search.worker_pool import WorkerCount
from hpsearch.storage.study_folder import claim_folder
from hpsearch.storage.workspace import Workspace
from hpsearch.workflows.run import check_workspace, find_study_file
from hpsearch.workflows.supervisor import Search


def supervise_worker(order: NodeOrder) -> int:
    """Supervise one worker of a run on another machine until nothing is left to do.

    Args:
        order: the order of the run.

    Returns:
        The number of worker processes that died.

    Raises:
        HpsearchError: the worker gave up.
    """
    with tempfile.TemporaryDirectory(prefix="hpsearch") as folder:
        if order.folder.is_dir():  # without it, relative paths begin in the current folder of the node
            os.chdir(order.folder)
        component_folder = _write_component_files(order, Path(folder))
        workspace = Workspace(
            storage=order.storage,
            runs=order.runs,
            data=order.data,
            device=order.device,
            wait_for_server=True,
            component_folder=component_folder,
        )
        store = workspace.open(trimmed=True)
        file = find_study_file(order.study, workspace)
        check_workspace(file, workspace)
        claim_folder(file.name, workspace, store)
        search = Search(
            file=file,
            workspace=workspace,
            store=store,
            study=store.load(file.name),
            identity=order.identity,
            budget=file.budget.model_copy(update={"trials": order.trials, "epochs": order.epochs, "time": order.time}),
            workers=WorkerCount(count=1, reason="one worker of a cluster"),
        )
        # If Ray restarts the task on another node, the worker there needs another name.
        unique = order.model_copy(update={"worker": f"{order.worker}-{uuid.uuid4().hex[:4]}"})
        deaths = 0
        for snapshot in search.run(only_trial=order.only_trial, order=unique):
            deaths = snapshot.deaths
        return deaths


def _write_component_files(order: NodeOrder, folder: Path) -> Path:
    """Write the component files below a folder. Return the folder that replaces the folder of the study file."""
    # A component file may lie above the folder of the study file, for example `../own.py`.
    levels_up = max((name.split(os.sep).count(os.pardir) for name in order.component_files), default=0)
    study_folder = folder.joinpath(*["down"] * levels_up)
    for name, content in order.component_files.items():
        path = Path(os.path.normpath(study_folder / name))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return study_folder

"""What a node of a cluster does for one worker of a run elsewhere: all that a run on one machine does."""

from __future__ import annotations

import os
import sys
import tempfile
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hpsearch.search.worker_pool import WorkerCount
from hpsearch.storage.records import read_study
from hpsearch.storage.workspace import Workspace
from hpsearch.workflows.run import check_workspace, find_study_file
from hpsearch.workflows.supervisor import RunContext, Search


def supervise_worker(order: Mapping[str, Any]) -> int:
    """Supervise one worker until there is nothing left to do; returns how many worker processes died.

    Args:
        order: what `Search._order` says, and the number of the worker.

    Raises:
        HpsearchError: the worker gave up.
    """
    with tempfile.TemporaryDirectory(prefix="hpsearch") as folder:
        if Path(order["folder"]).is_dir():  # where relative paths mean the same
            os.chdir(order["folder"])
        # A component file may lie above the study file.
        ups = max((name.split(os.sep).count(os.pardir) for name in order["files"]), default=0)
        beside = Path(folder).joinpath(*["down"] * ups)
        for name, content in order["files"].items():
            path = Path(os.path.normpath(beside / name))
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        workspace = Workspace(
            storage=order["storage"],
            runs=Path(order["runs"]),
            data=None if order["data"] is None else Path(order["data"]),
            device=order["device"],
            wait_for_server=True,
            component_folder=beside,
        )
        store = workspace.open(trimmed=True)
        file = find_study_file(order["study"], workspace)
        check_workspace(file, workspace)
        search = Search(
            file=file,
            workspace=workspace,
            store=store,
            study=store.load(file.name),
            budget=file.budget.model_copy(update={"trials": order["trials"], "time": order["time"]}),
            workers=WorkerCount(count=1, reason="its part of a cluster"),
            earlier=0,
            changed=(),
            requeued=(),
            retried=(),
        )
        context = RunContext(
            run=order["run"],
            elapsed=read_study(search.study).run_seconds.get(order["run"], 0.0),
            # A task that is begun again on another node is another worker.
            worker=f"worker-{order['run']}-{order['worker']}-{uuid.uuid4().hex[:4]}",
            command=(sys.executable, *order["command"]),
        )
        deaths = 0
        for snapshot in search.run(only_trial=order["only"], context=context):
            deaths = snapshot.deaths
        return deaths

"""The command train: an exported configuration, and the final model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hpsearch.cli.console import print_json, warn
from hpsearch.cli.options import JsonOption
from hpsearch.cli.show_model import print_final, print_validation
from hpsearch.cli.workspace_options import TrainingWorkspace
from hpsearch.config.best_config import read_best_config
from hpsearch.errors import UsageError
from hpsearch.search.worker_pool import train_like_a_worker
from hpsearch.workflows.precision import slow_precision


def train(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A configuration that `hpsearch export` wrote.", show_default=False)],
    *,
    final: Annotated[bool, typer.Option("--final", help="Train on all training images, then read the test split once.")] = False,
    seeds: Annotated[
        int, typer.Option("--seeds", metavar="N", min=1, max=100, help="Number of models, each with another seed; with --final.")
    ] = 1,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="DIR", help="The folder of the final model. [default: FILE's name and -final]"),
    ] = None,
    force: Annotated[
        bool,
        typer.Option("--force", help="Start again in a folder that holds something else. Only files that hpsearch wrote are removed."),
    ] = False,
    onnx: Annotated[bool, typer.Option("--onnx", help="Also write model.onnx, checked with onnxruntime; with --final.")] = False,
    trust: Annotated[bool, typer.Option("--trust", help="Run component files that you have not run before, or that have changed.")] = False,
    workspace: TrainingWorkspace,
    json: JsonOption = False,
) -> None:
    """Train a configuration and measure it on its validation split. With --final, make the final model; that is the last step.

    --final writes model.safetensors, config.toml, metrics.json, predictions.csv, images of the mistakes, a report and a model card. The
    same command continues after a stop. Each reading of the test split is counted, in the folder and in the study of the configuration.
    """
    only_final = {"--seeds": seeds != 1, "--output": output is not None, "--force": force, "--onnx": onnx}
    given = [name for name, is_given in only_final.items() if is_given]
    if given and not final:
        raise UsageError(f"{' and '.join(given)} {'needs' if len(given) == 1 else 'need'} --final", hint="Add --final, or leave it out.")
    train_like_a_worker()
    best = read_best_config(file, trust=trust)
    for name in best.changed_files:
        warn(f"{name} was changed since the config was made; --trust accepts it")
    warn(slow_precision([best.config.precision], workspace.device))
    from hpsearch.cli.train_model import train_final, train_on_split  # loads torch, so the environment must be set before

    if not final:
        found = train_on_split(best, data=workspace.data, device=workspace.device)
        print_json(found) if json else print_validation(found)
        return
    folder = output or file.parent / f"{file.stem}-final"
    metrics = train_final(best, folder, workspace, seeds=seeds, force=force, with_onnx=onnx)
    print_json(metrics) if json else print_final(metrics, folder)

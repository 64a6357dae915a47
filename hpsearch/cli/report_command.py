"""The command report: a study, or several side by side, as one page of HTML. No torch."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hpsearch.cli.console import say
from hpsearch.cli.options import RunsOption, StorageOption
from hpsearch.config.paths import DEFAULT_RUNS


def report(
    studies: Annotated[list[str], typer.Argument(metavar="STUDY...", help="Names of studies, or study files.", show_default=False)],
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="FILE", help="Where to write it. [default: report.html in the first study's folder]"),
    ] = None,
    open_: Annotated[bool, typer.Option("--open", help="Show it in the browser.")] = False,
    pdf: Annotated[bool, typer.Option("--pdf", help="Print it to a PDF beside it; needs Chromium.")] = False,
    storage: StorageOption = None,
    runs: RunsOption = DEFAULT_RUNS,
) -> None:
    """Write a report: the answer first, then the evidence, as one HTML file that needs no network.

    Several studies are shown side by side, with a note wherever they cannot be compared.
    """
    from hpsearch.storage.workspace import Workspace
    from hpsearch.workflows.run import study_name
    from hpsearch.workflows.write_report import print_to_pdf, read_studies, write_report

    workspace = Workspace(storage=storage, runs=runs)
    names = list(dict.fromkeys(map(study_name, studies)))
    page = output or workspace.paths.study(names[0]).report
    write_report(read_studies(names, workspace), page)
    say(f"Wrote {page} ({page.stat().st_size / 1e6:.1f} MB).")
    if pdf:
        print_to_pdf(page, page.with_suffix(".pdf"))
        say(f"Wrote {page.with_suffix('.pdf')}.")
    if open_:
        typer.launch(page.resolve().as_uri())

"""The command report: one study, or several studies side by side, as an HTML file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hpsearch.cli.console import say
from hpsearch.cli.workspace_options import StoredWorkspace
from hpsearch.storage.study_folder import require_own_folder
from hpsearch.workflows.run import study_name
from hpsearch.workflows.write_report import print_to_pdf, read_studies, write_report


def report(
    studies: Annotated[list[str], typer.Argument(metavar="STUDY...", help="Names of studies, or study files.", show_default=False)],
    *,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="FILE", help="The file to write. [default: report.html in the folder of the first study]"),
    ] = None,
    open_: Annotated[bool, typer.Option("--open", help="Open the report in the browser.")] = False,
    pdf: Annotated[bool, typer.Option("--pdf", help="Also print the report to a PDF beside it; needs Chromium.")] = False,
    workspace: StoredWorkspace,
) -> None:
    """Write an HTML report: the answer first, then the evidence. The file needs no network.

    Several studies are shown side by side. The report says where they cannot be compared.
    """
    names = list(dict.fromkeys(map(study_name, studies)))
    if output is None:
        require_own_folder(names[0], workspace, workspace.open(read_only=True))
    page = output or workspace.paths.study(names[0]).report
    write_report(read_studies(names, workspace), page)
    say(f"Wrote {page} ({page.stat().st_size / 1e6:.1f} MB).")
    if pdf:
        print_to_pdf(page, page.with_suffix(".pdf"))
        say(f"Wrote {page.with_suffix('.pdf')}.")
    if open_:
        typer.launch(page.resolve().as_uri())

"""Writes the report of stored studies as HTML, and as PDF with a browser."""

from __future__ import annotations

import logging
import os
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

from hpsearch.config.paths import write_atomically
from hpsearch.errors import ComponentError, DiskError, HpsearchError, StorageError, StudyFileError, UsageError
from hpsearch.report.study_report import study_report
from hpsearch.report.study_results import StudyResults, read_results
from hpsearch.storage.database import Store
from hpsearch.storage.records import read_study
from hpsearch.storage.study_folder import results_folder
from hpsearch.storage.workspace import Workspace
from hpsearch.workflows.export import require_own_files
from hpsearch.workflows.repeats import find_explanation, intact_verdict
from hpsearch.workflows.run import find_study_file

log = logging.getLogger("hpsearch")

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
"""Names of Chromium and Chrome on the PATH."""
PRINTING_SECONDS = 180
"""Maximum seconds for printing a report. A slow machine needs half a minute for a large report."""


def read_studies(names: Sequence[str], workspace: Workspace) -> list[StudyResults]:
    """Read the results of some studies.

    Args:
        names: names of the studies.
        workspace: the database and the folders of the studies.

    Returns:
        The results in the order of the names.

    Raises:
        StudyNotFoundError: there is no such study.
    """
    store = workspace.open(read_only=True)
    try:
        return [read_study_results(name, workspace, store) for name in names]
    finally:
        store.dispose()


def read_study_results(name: str, workspace: Workspace, store: Store) -> StudyResults:
    """Read the results of a study, its finalists and its ablation.

    Args:
        name: name of the study.
        workspace: the folders of the study.
        store: the database.

    Returns:
        The results.

    Raises:
        StudyNotFoundError: there is no such study.
    """
    try:
        require_own_files(read_study(store.load(name)))
        explanation = find_explanation(find_study_file(name, workspace), store)
    except (ComponentError, StudyFileError):
        explanation = None  # the rest can be shown without the component files
    except StorageError as error:
        log.warning("the explanation is left out: %s", error.message)
        explanation = None
    return read_results(
        store.load(name), results_folder(name, workspace, store), verdict=intact_verdict(name, store), explanation=explanation
    )


def write_report(studies: Sequence[StudyResults], output: Path) -> None:
    """Write the report of some studies as one HTML file.

    Args:
        studies: results of the studies.
        output: the HTML file.

    Raises:
        UsageError: the file cannot be written.
    """
    page = study_report(studies, at=datetime.now())
    try:
        write_atomically(output, page)
    except DiskError as error:
        raise UsageError(error.message, hint="Choose another file with -o.") from error


def print_to_pdf(page: Path, output: Path) -> None:
    """Print a page to a PDF with Chromium.

    Args:
        page: the HTML file.
        output: the PDF.

    Raises:
        UsageError: there is no browser, or it cannot print the page.
    """
    browser = next((found for name in BROWSERS if (found := shutil.which(name))), None)
    if browser is None:
        raise UsageError(
            "--pdf needs Chromium or Chrome, but none is on the PATH",
            hint="`apt-get install chromium`, or print the HTML from any browser.",
        )
    with tempfile.TemporaryDirectory() as profile:
        command = [
            browser,
            "--headless",
            "--disable-gpu",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
        ]
        command += [f"--user-data-dir={profile}", "--no-first-run", "--no-pdf-header-footer", f"--print-to-pdf={output.resolve()}"]
        # Chromium offers no sandbox to root. The page needs no sandbox, because hpsearch wrote it and it uses no network.
        command += ["--no-sandbox"] if hasattr(os, "geteuid") and os.geteuid() == 0 else []
        try:
            done = subprocess.run(
                [*command, page.resolve().as_uri()], capture_output=True, text=True, timeout=PRINTING_SECONDS, check=False
            )
        except subprocess.TimeoutExpired as error:
            raise HpsearchError(
                f"{browser} did not print {page} within {PRINTING_SECONDS} seconds", hint="Print it from the browser."
            ) from error
    if done.returncode or not output.exists():
        last = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
        raise UsageError(f"{browser} did not print {page}: {last}", hint="Print it from the browser.")

"""The command doctor: check this machine."""

from __future__ import annotations

import sys
from dataclasses import asdict

from hpsearch.cli.console import print_result
from hpsearch.cli.options import JsonOption
from hpsearch.cli.workspace_options import DataWorkspace
from hpsearch.report.blocks import Table, prose_column, text_column
from hpsearch.workflows.doctor import check_machine


def doctor(*, workspace: DataWorkspace, json: JsonOption = False) -> None:
    """Check what a search needs: Python, packages, data, storage and device. Each is ok, or the output says how to fix it."""
    findings = check_machine(workspace)
    rows = tuple(
        (finding.what, "ok" if finding.ok else "FIX", finding.says + (f"\n→ {finding.fix}" if finding.fix else "")) for finding in findings
    )
    table = Table(columns=(text_column("what"), text_column(""), prose_column("found")), rows=rows)
    print_result([asdict(finding) for finding in findings], [table], as_json=json)
    if not all(finding.ok for finding in findings):
        sys.exit(1)

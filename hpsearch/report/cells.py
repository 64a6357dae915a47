"""Cells of CSV that no spreadsheet takes for a formula."""

from __future__ import annotations

import csv
import io
import sys
from typing import Any

FORMULA_BEGINS = "=+-@\t\r"
"""What a cell begins with that a spreadsheet would compute (OWASP, CSV Injection)."""


def escape_cell(value: Any) -> Any:
    """The value, or a text with an apostrophe before it that makes it stay a text."""
    return f"'{value}" if isinstance(value, str) and value[:1] in FORMULA_BEGINS and value else value


def escape_csv(text: str) -> str:
    """A whole CSV file with all its cells made harmless; numbers stay numbers."""
    csv.field_size_limit(sys.maxsize)
    written = io.StringIO()
    writer = csv.writer(written)
    for row in csv.reader(io.StringIO(text, newline="")):
        writer.writerow([cell if _is_number(cell) else escape_cell(cell) for cell in row])
    return written.getvalue()


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True

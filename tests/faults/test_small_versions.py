"""The rules that `benchmarks/faults.py` counts by the hundred, a few times each."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.faults import EXPERIMENTS, Setting

# Those left out measure speed, or are rules of their own beside this file.
SMALL = ("kills", "real_kills", "identical", "launchers", "full_disk", "damaged")


@pytest.mark.slow
@pytest.mark.parametrize("name", SMALL)
def test_a_small_version_holds(name: str, tmp_path: Path) -> None:
    rows = list(EXPERIMENTS[name](Setting(quick=True, seed=7, folder=tmp_path)))
    assert rows
    assert [row for row in rows if not row.ok] == []

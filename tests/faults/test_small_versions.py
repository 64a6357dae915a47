"""Rules of the fault experiments: each holds in a small version; `benchmarks/faults.py` runs them at full size."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.fault_experiments import EXPERIMENTS, Setting


@pytest.mark.slow
@pytest.mark.parametrize("name", EXPERIMENTS)
def test_small_experiment_finds_no_fault(name: str, tmp_path: Path) -> None:
    rows = list(EXPERIMENTS[name](Setting(quick=True, seed=7, folder=tmp_path)))
    assert rows
    assert [row for row in rows if not row.ok] == []

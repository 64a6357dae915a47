"""Rules of what a notebook is offered: figures and a data frame of a study by name."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pandas
import plotly.graph_objects as go
import pytest

import hpsearch
from hpsearch import figures
from hpsearch.errors import StudyNotFoundError, UsageError
from tests.support.stored_study import leave_predictions

NEEDS_MORE = {"finalists": "has no finalists", "ablation": "has no ablation", "importances": "no model of 'small' has 10 complete trials"}
ARGUMENTS: dict[str, tuple[str, ...]] = {"slice_of": ("epochs",), "contour": ("cnn", "epochs", "cnn.filters1")}


@pytest.fixture
def runs(finished_search: tuple[Path, subprocess.CompletedProcess[str]], tmp_path: Path) -> Path:
    shutil.copytree(finished_search[0] / "runs", tmp_path / "runs")
    for number in range(8):
        leave_predictions(tmp_path / "runs" / "small" / "trials" / f"{number:05d}" / "predictions.npz", seed=number)
    return tmp_path / "runs"


@pytest.mark.parametrize("name", sorted(set(figures.__all__) - set(NEEDS_MORE)))
def test_each_figure_of_a_study_is_had_by_name(runs: Path, name: str) -> None:
    figure: Any = getattr(hpsearch.workflows.notebook, name)("small", *ARGUMENTS.get(name, ()), runs=runs)
    assert isinstance(figure, go.Figure)
    assert figure.data


@pytest.mark.parametrize("name", sorted(NEEDS_MORE))
def test_what_a_study_has_not_got_is_said(runs: Path, name: str) -> None:
    with pytest.raises(UsageError, match=NEEDS_MORE[name]):
        getattr(figures, name)("small", runs=runs)


def test_a_wrong_name_is_answered_with_the_nearest(runs: Path) -> None:
    with pytest.raises(StudyNotFoundError, match="Did you mean 'small'"):
        figures.history("smal", runs=runs)
    with pytest.raises(UsageError, match="Did you mean 'epochs'"):
        figures.slice_of("small", "epoch", runs=runs)
    with pytest.raises(UsageError, match="Did you mean 'cnn'"):
        figures.contour("small", "cn", "epochs", "cnn.filters1", runs=runs)


def test_trials_are_a_data_frame_with_a_column_a_parameter(runs: Path) -> None:
    frame = hpsearch.trials("small", runs=runs)
    assert isinstance(frame, pandas.DataFrame)
    assert len(frame) == 8
    assert frame.set_index("trial").loc[0, "params.sgd.lr"] == 0.05


def test_without_pandas_the_command_to_install_it_is_said(runs: Path) -> None:
    code = f"""
import sys
sys.modules["pandas"] = None
import hpsearch
hpsearch.trials("small", runs={str(runs)!r})
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert 'pip install "hpsearch[notebook]"' in done.stderr

"""The wheel carries the studies, and works where there is no checkout."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


def _run(command: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    env = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    return subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, timeout=500, check=False)


@pytest.mark.slow
def test_the_wheel_installed_elsewhere_writes_and_checks_studies(tmp_path: Path) -> None:
    built = _run([sys.executable, "-m", "build", "--wheel", "--outdir", str(tmp_path / "dist"), str(ROOT)], tmp_path)
    assert built.returncode == 0, built.stdout + built.stderr
    (wheel,) = (tmp_path / "dist").glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    assert {f"hpsearch/studies/{path.name}" for path in (ROOT / "studies").glob("*.*")} <= set(names)
    assert "hpsearch/report/web/model_card.md.j2" in names
    assert not [name for name in names if name.startswith(("tests/", "docs/", "benchmarks/"))]

    venv.create(tmp_path / "elsewhere", with_pip=True)
    python = str(tmp_path / "elsewhere" / "bin" / "python")
    installed = _run([python, "-m", "pip", "install", "--quiet", "--no-deps", str(wheel)], tmp_path)
    assert installed.returncode == 0, installed.stderr
    # What the wheel depends on is taken from this environment: torch is too large to install once more.
    paths = _run([python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"], tmp_path).stdout.strip()
    (Path(paths) / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    folder = tmp_path / "empty"
    folder.mkdir()
    command = str(tmp_path / "elsewhere" / "bin" / "hpsearch")
    where = _run([python, "-c", "import hpsearch; print(hpsearch.__file__)"], folder).stdout
    assert where.startswith(str(tmp_path)), where
    for study in ("quickstart", "own-network"):
        written = _run([command, "init", f"{study}.toml", "--from", study], folder)
        assert written.returncode == 0, written.stderr
        checked = _run([command, "check", f"{study}.toml"], folder)
        assert checked.returncode == 0, checked.stderr
        assert checked.stdout.startswith(f"{study}: ")

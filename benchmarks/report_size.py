"""Claims: the report of 2,000 trials with 20 epochs each takes at most 20 s and 12 MB; that of 500 trials is below 8 MB and paints within 2 s.

    python benchmarks/report_size.py

The studies are made up (`tests/stored_study.py`) and stored in SQLite; the report is written by the command, in a process of its own.
"""

from __future__ import annotations

import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from tests.support.browser import NAMES, QUIET
from tests.support.stored_study import every_third_pruned, leave_predictions, stored_study

EPOCHS = 20
REPEATS = 3


def main() -> None:
    from hpsearch.storage.database import open_store

    print(f"{platform.machine()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}, Python {platform.python_version()}")
    print("| trials | seconds to write, best of 3 | of a core | MB | first paint, s | all figures drawn, s |")
    print("| --- | --- | --- | --- | --- | --- |")
    for trials in (16, 500, 2000):
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            runs = folder / "runs"
            runs.mkdir()
            store = open_store(f"sqlite:///{runs / 'hpsearch.db'}", create=True)
            stored_study(folder, trials=trials, epochs=EPOCHS, state=every_third_pruned, storage=store.storage)
            store.dispose()
            for number in range(trials):
                leave_predictions(runs / "small" / "trials" / f"{number:05d}" / "predictions.npz", images=10_000)
            taken, busy = min(write(folder) for _ in range(REPEATS))
            page = runs / "small" / "report.html"
            painted, drawn = look(page)
            print(f"| {trials:,} | {taken:.1f} | {busy:.1f} | {page.stat().st_size / 1e6:.2f} | {painted:.2f} | {drawn:.1f} |", flush=True)


def write(folder: Path) -> tuple[float, float]:
    """Seconds of `hpsearch report`, start and all: by the clock, and of a core."""
    begin, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    command = [sys.executable, "-m", "hpsearch", "report", "small"]
    subprocess.run(command, cwd=folder, env={**os.environ, "PYTHONPATH": str(ROOT)}, check=True, capture_output=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.perf_counter() - begin, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def look(page: Path) -> tuple[float, float]:
    """Seconds until a browser paints the page's beginning, and until it has drawn every figure for print."""
    import shutil

    from playwright.sync_api import sync_playwright

    browser = next(path for name in NAMES if (path := shutil.which(name)))
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=browser, args=[*QUIET, "--no-sandbox"])
        tab = started.new_page()
        tab.goto(page.as_uri())
        painted = tab.evaluate("performance.getEntriesByName('first-contentful-paint')[0].startTime / 1000")
        begin = time.perf_counter()
        tab.evaluate("dispatchEvent(new Event('beforeprint'))")
        while not tab.evaluate("[...document.querySelectorAll('.plot')].every((box) => box.dataset.drawn)"):
            time.sleep(0.05)
        drawn = time.perf_counter() - begin
        started.close()
    return float(painted), drawn


if __name__ == "__main__":
    main()

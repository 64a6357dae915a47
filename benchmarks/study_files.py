"""Claim: whatever a study file holds, it is read or refused with a reason, within a second.

Changes the shipped study files at random, reads each, and prints how many were accepted and
refused, the slowest, and the text and traceback of any that broke. Takes a minute or two.

    python benchmarks/study_files.py [COUNT] [SEED]
"""

from __future__ import annotations

import random
import sys
import time
import traceback
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from hpsearch.config.study_file import parse_study_file, shipped_study_files
from hpsearch.errors import UsageError
from tests.support.bad_study_files import MISTAKES, VALID
from tests.support.mutated_files import mutated

COUNT, SEED = 25_000, 1
SLOW = 1.0


def main() -> int:
    """Read so many study files; 1 if any broke or was slow."""
    count, seed = (int(given) for given in [*sys.argv[1:], *map(str, (COUNT, SEED)[len(sys.argv) - 1 :])])
    shipped = [path.read_text(encoding="utf-8") for path in shipped_study_files()]
    valid = [VALID, *(text for text in shipped if "use " not in text)]
    wrong = [mistake.text for mistake in MISTAKES if len(mistake.text) < 5_000]
    generator = random.Random(seed)
    outcomes: Counter[str] = Counter()
    slowest, slowest_text = 0.0, ""
    for number in range(count):
        text = mutated(generator.choice(valid if number % 4 else wrong), generator)
        started = time.perf_counter()
        try:
            parse_study_file(text, path=Path("study.toml"))
            outcomes["accepted"] += 1
        except UsageError:
            outcomes["refused"] += 1
        except Exception:  # whatever else it raises is what this looks for, and is printed
            outcomes["broke"] += 1
            print(f"--- file {number}\n{text}\n{traceback.format_exc()}")
        seconds = time.perf_counter() - started
        if seconds > slowest:
            slowest, slowest_text = seconds, text
    print(f"{count:,} study files, seed {seed}: {', '.join(f'{n:,} {word}' for word, n in sorted(outcomes.items()))}")
    print(f"slowest: {1000 * slowest:.1f} ms, {len(slowest_text):,} characters")
    return int(outcomes["broke"] > 0 or slowest > SLOW)


if __name__ == "__main__":
    sys.exit(main())

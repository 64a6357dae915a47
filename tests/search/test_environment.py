"""Rules of the environment in which a command trains."""

from __future__ import annotations

import os
import subprocess
import sys

from hpsearch.search.worker_pool import WORKER_ENVIRONMENT

SHOW = """
import os
print("begun")
from hpsearch.search.environment import train_like_a_worker
train_like_a_worker()
print(os.environ["MALLOC_MMAP_THRESHOLD_"], os.environ["OMP_NUM_THREADS"])
"""


def test_a_command_that_trains_begins_again_with_a_workers_environment_once() -> None:
    bare = {key: value for key, value in os.environ.items() if key not in WORKER_ENVIRONMENT}
    for environment, times in ((bare, 2), ({**bare, **WORKER_ENVIRONMENT}, 1)):
        done = subprocess.run([sys.executable, "-c", SHOW], env=environment, capture_output=True, text=True, check=True)
        assert done.stdout == "begun\n" * times + "2000000000 1\n"

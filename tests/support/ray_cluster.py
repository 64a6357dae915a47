"""A Ray cluster of two nodes on this machine, in a process of its own: `python -m tests.support.ray_cluster`.

It prints its address when it is ready. A line on standard input kills the second node. The cluster
ends when standard input ends.
"""

from __future__ import annotations

import os
import secrets
import signal
import subprocess
import sys
from pathlib import Path

import psutil

from tests.support.small_study import ROOT

START_SECONDS = 120.0


class RayCluster:
    """Starts and ends the cluster.

    Args:
        folder: where Ray keeps its logs.
        environment: of the nodes; they do not inherit the driver's.

    Attributes:
        address: for `--address`.
        environment: variables that a client needs: the cluster asks for a token.
        folder: where Ray keeps its logs.
    """

    def __init__(self, folder: Path, **environment: str) -> None:
        self.folder = folder
        self.environment = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.support.ray_cluster", str(folder)],
            env={**os.environ, **self.environment, **environment, "PYTHONPATH": str(ROOT), "RAY_USAGE_STATS_ENABLED": "0"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            start_new_session=True,
        )
        assert self._process.stdout is not None
        self.address = ""
        for line in self._process.stdout:  # Ray prints other lines too
            if line.startswith("ready "):
                self.address = line.split()[1]
                break
        assert self.address, "the cluster did not start"

    def kill_a_node(self) -> None:
        """Kill the second node with everything on it, and wait until that is done."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write("kill\n")
        self._process.stdin.flush()
        assert any(line == "killed\n" for line in self._process.stdout)

    def close(self) -> None:
        """End the cluster and all its processes."""
        family = psutil.Process(self._process.pid).children(recursive=True)
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            self._process.wait(30)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        assert self._process.stdout is not None
        self._process.stdout.close()
        for each in family:
            if each.is_running():
                each.kill()


def main(folder: str) -> None:
    """Start the cluster and follow the commands on standard input."""
    from ray.cluster_utils import Cluster

    # A socket's path may have about 100 characters.
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 2, "include_dashboard": False, "temp_dir": folder})
    second = cluster.add_node(num_cpus=1)
    cluster.wait_for_nodes()
    print(f"ready {cluster.address}", flush=True)
    for _ in sys.stdin:
        raylets = [process.process.pid for process in second.all_processes.get("raylet", [])]
        family = [child for pid in raylets for child in psutil.Process(pid).children(recursive=True)]
        for pid in raylets:
            os.kill(pid, signal.SIGKILL)
        for child in family:  # all processes of a lost node are gone too
            if child.is_running():
                child.kill()
        cluster.remove_node(second, allow_graceful=False)
        print("killed", flush=True)
    cluster.shutdown()


if __name__ == "__main__":
    main(sys.argv[1])

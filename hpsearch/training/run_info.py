"""Under which conditions a run trains: all that its figures depend on besides its config, by name."""

from __future__ import annotations

import platform
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from hpsearch import __version__
from hpsearch.training.data.split import Split

PACKAGES = ("torch", "torchvision", "optuna", "numpy")
CPU_FILE = Path("/proc/cpuinfo")


def environment(split: Split, device: torch.device) -> dict[str, Any]:
    """Split hash, device, processor and versions as plain data; where all are the same, a run repeats bit for bit."""
    return {
        "split_hash": split.hash,
        "device": str(device),
        "processor": processor(device),
        "versions": {
            "hpsearch": __version__,
            "python": platform.python_version(),
            **{package: version(package) for package in PACKAGES},
        },
    }


def processor(device: torch.device) -> str:
    """The name of what a device computes on: libraries choose their algorithms, and so the last bits, by it."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    try:
        lines = CPU_FILE.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:  # no Linux
        lines = []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    # A virtual machine may name a family alone, whose members differ in what they can do.
    return f"{next(names, platform.processor() or platform.machine())}, {torch.backends.cpu.get_cpu_capability()}"

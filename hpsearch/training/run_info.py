"""Describes the environment of a run: everything except the config that affects the results."""

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
    """Return split hash, device, processor and versions. If all these values are the same, a run repeats bit for bit.

    Args:
        split: the split of the run.
        device: the device of the run.

    Returns:
        Plain values for JSON.
    """
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
    """Return the name of the processor. The processor affects the last bits, because libraries choose algorithms for it.

    Args:
        device: the device of the run.

    Returns:
        The name of the GPU, or the name of the CPU with its instruction set.
    """
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    try:
        lines = CPU_FILE.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:  # not Linux
        lines = []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    # A virtual machine may report only a family of processors. Processors of one family can have different instruction sets.
    return f"{next(names, platform.processor() or platform.machine())}, {torch.backends.cpu.get_cpu_capability()}"

"""The one module that imports torchvision; it mends the import where torch has no CUDA.

It downloads files; `files.py` verifies and reads them.
"""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType

import torch

_MISSING_OPERATOR = "operator torchvision::nms does not exist"

# A library's definitions live as long as the object.
_schemas: list[torch.library.Library] = []


def _import_datasets() -> ModuleType:
    """torchvision.datasets, also where PyPI's torchvision meets a CPU-only torch.

    There torchvision's binary part does not load, and the import fails over the schemas of two
    operators for object detection. With the schemas defined the data sets work.
    """
    try:
        from torchvision import datasets
    except RuntimeError as error:
        if _MISSING_OPERATOR not in str(error):
            raise
        for name in [name for name in sys.modules if name.split(".")[0] == "torchvision"]:
            del sys.modules[name]
        library = torch.library.Library("torchvision", "DEF")  # type: ignore[no-untyped-call]
        for operator in ("nms", "qnms"):
            library.define(f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")  # type: ignore[no-untyped-call]
        _schemas.append(library)
        from torchvision import datasets
    return datasets  # type: ignore[no-any-return]  # torchvision has no types


_datasets = _import_datasets()


def download(name: str, root: Path) -> None:
    """Download a data set's files into `<root>/<name>/raw/`; `name` is that of torchvision's class."""
    getattr(_datasets, name)(root, download=True)

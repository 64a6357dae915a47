"""Downloads data sets with torchvision, and fixes its import for a torch without CUDA.

No other module imports torchvision. `files.py` verifies and reads the files.
"""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType

import torch

_MISSING_OPERATOR = "operator torchvision::nms does not exist"

# torch removes the definitions of a library when the library object is deleted. This list keeps it.
_schemas: list[torch.library.Library] = []


def _import_datasets() -> ModuleType:
    """Import torchvision.datasets, even if torchvision comes from PyPI and torch has no CUDA.

    In that case torchvision's binary part does not load. The import then fails, because two
    operators for object detection have no schema. After the schemas are defined, the data sets work.
    """
    try:
        from torchvision import datasets
    except RuntimeError as error:
        if _MISSING_OPERATOR not in str(error):
            raise
        for name in [name for name in sys.modules if name.split(".")[0] == "torchvision"]:
            del sys.modules[name]
        library = torch.library.Library("torchvision", "DEF")  # type: ignore[no-untyped-call]  # torch has no types for it
        for operator in ("nms", "qnms"):
            library.define(f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")  # type: ignore[no-untyped-call]  # as above
        _schemas.append(library)
        from torchvision import datasets
    return datasets  # type: ignore[no-any-return]  # torchvision has no types


_datasets = _import_datasets()


def download(name: str, root: Path) -> None:
    """Download the files of a data set into `<root>/<name>/raw/`.

    Args:
        name: the name of torchvision's class.
        root: the folder of all data sets.
    """
    getattr(_datasets, name)(root, download=True)

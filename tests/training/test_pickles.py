"""A checkpoint that contains a program is refused, and the program never runs."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest
import torch

from hpsearch.training.checkpoint import RunIdentity, _sealed, load


class _Trap:
    """Writes a file when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self._marker = marker

    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (self._marker,)


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("protocol", [2, 4])
def test_a_pickle_in_a_checkpoint_is_never_run(tmp_path: Path, protocol: int) -> None:
    marker, path = tmp_path / "marker", tmp_path / "checkpoint"
    content = {"identity": {"owner": "", "config": "", "split": ""}, "content": _Trap(marker)}
    torch.save(content, tmp_path / "payload", pickle_protocol=protocol)
    for payload in ((tmp_path / "payload").read_bytes(), pickle.dumps(content, protocol=protocol)):
        path.write_bytes(_sealed(payload))
        assert load(path, RunIdentity(owner="", config="", split="")) is None
        assert not marker.exists()

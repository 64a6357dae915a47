"""The recorded environment of a run."""

from __future__ import annotations

import json

import torch

from hpsearch.training.data.split import Split
from hpsearch.training.run_info import environment


def test_conditions_are_plain_data_that_name_split_device_processor_and_versions(small: Split) -> None:
    found = environment(small, torch.device("cpu"))
    assert json.loads(json.dumps(found)) == found
    assert set(found) == {"split_hash", "device", "processor", "versions"}
    assert (found["split_hash"], found["device"]) == (small.hash, "cpu")
    assert found["versions"]["torch"] == torch.__version__.partition("+")[0] or found["versions"]["torch"] == torch.__version__
    assert len(found["processor"].partition(",")[0]) > 1

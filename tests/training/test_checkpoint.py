"""Checkpoints: a run continues bit for bit, and a damaged checkpoint or that of another run is never loaded."""

from __future__ import annotations

import errno
import io
import os
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hpsearch.errors import CheckpointError, DiskError
from hpsearch.training import checkpoint as checkpoints
from hpsearch.training.checkpoint import RunIdentity, load, previous, remove, save
from hpsearch.training.data.split import Split
from hpsearch.training.trainer import predictions_path, train

from .conftest import Configure
from .test_trainer import LIVELY, measured, run

ME = RunIdentity(owner="study 1 / trial 2", config="c", split="s")


def content(value: float) -> dict[str, Any]:
    return {"epochs": [], "model": {"weight": torch.full((50,), value)}}


def value_of(loaded: dict[str, Any] | None) -> float | None:
    return None if loaded is None else float(loaded["model"]["weight"][0])


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "a folder with 'quotes'" / "checkpoint"


@pytest.fixture
def stored(path: Path) -> Path:
    """A checkpoint with the content 2, and the previous one with the content 1."""
    save(path, ME, content(1))
    save(path, ME, content(2))
    return path


@pytest.mark.parametrize("stop", [1, 2, 3])
@pytest.mark.parametrize("optimizer", ["sgd", "adam", "nadam"])
def test_a_stopped_run_goes_on_bit_for_bit(small: Split, configure: Configure, path: Path, stop: int, optimizer: str) -> None:
    own = {"optimizer_momentum": 0.9} if optimizer == "sgd" else {}
    config = configure(
        **{**{key: value for key, value in LIVELY.items() if not key.startswith("optimizer")}, "optimizer": optimizer, **own}
    )
    whole = measured(run(config, small))
    stopped = train(config, small, checkpoint=path, device="cpu")
    first = [next(stopped) for _ in range(stop)]
    stopped.close()
    again = run(config, small, checkpoint=path)
    assert again[:stop] == first
    assert measured(again) == whole


def test_a_run_stopped_many_times_goes_on_bit_for_bit(small: Split, configure: Configure, path: Path) -> None:
    config = configure(**LIVELY)
    for stop in (1, 2, 3, 4):
        stopped = train(config, small, checkpoint=path, device="cpu")
        for _ in range(stop):
            next(stopped)
        stopped.close()
    assert measured(run(config, small, checkpoint=path)) == measured(run(config, small))


def test_a_finished_run_is_told_again_without_training(small: Split, configure: Configure, path: Path) -> None:
    config = configure(epochs=2, model="lenet5")
    first = run(config, small, checkpoint=path)
    written = path.stat().st_mtime_ns
    assert run(config, small, checkpoint=path) == first
    assert path.stat().st_mtime_ns == written


def test_an_epoch_is_on_disk_before_it_is_yielded(small: Split, configure: Configure, path: Path) -> None:
    config = configure(epochs=2, model="lenet5")
    for epoch in train(config, small, checkpoint=path, owner="me", device="cpu"):
        loaded = load(path, RunIdentity(owner="me", config=config.digest, split=small.hash))
        assert loaded is not None
        assert [each["number"] for each in loaded["epochs"]][-1] == epoch.number
        assert predictions_path(path).exists() == (epoch.number == 2)


KILLED = """
import sys, torch
torch.set_num_threads(1)
from pathlib import Path
from hpsearch.config.components import BUILT_IN
from hpsearch.config.train_config import resolve
from hpsearch.training.data.split import load_split
from hpsearch.training.trainer import train
split = load_split(validation_images=200, seed=5, train_images=500, folder=Path(sys.argv[1]))
config = resolve({("trainer", "model"): "lenet5", ("trainer", "epochs"): 400}, catalog=BUILT_IN, seed=3)
for epoch in train(config, split, checkpoint=Path(sys.argv[2]), device="cpu"):
    print(epoch.number, epoch.weights_hash, flush=True)
"""


def test_a_killed_process_leaves_a_checkpoint_that_goes_on(data_root: Path, small: Split, configure: Configure, path: Path) -> None:
    process = subprocess.Popen([sys.executable, "-c", KILLED, str(data_root), str(path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    seen = [process.stdout.readline().split() for _ in range(3)]
    time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    seen += [line.split() for line in process.stdout.read().splitlines() if len(line.split()) == 2]
    process.wait()
    process.stdout.close()
    going_on = train(configure(model="lenet5", epochs=400), small, checkpoint=path, device="cpu")
    again = [next(going_on) for _ in seen]
    assert [[str(epoch.number), epoch.weights_hash] for epoch in again] == seen


def test_the_last_two_are_kept(stored: Path) -> None:
    save(stored, ME, content(3))
    assert value_of(load(stored, ME)) == 3
    assert value_of(load(previous(stored), ME)) == 2
    assert len(list(stored.parent.iterdir())) == 2


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(draw=st.data())
def test_no_flipped_bit_is_ever_loaded(stored: Path, draw: st.DataObject) -> None:
    good = stored.read_bytes()
    workspace = draw.draw(st.integers(0, len(good) - 1))
    bad = bytearray(good)
    bad[workspace] ^= 1 << draw.draw(st.integers(0, 7))
    stored.write_bytes(bad)
    try:
        assert value_of(load(stored, ME)) == 1
    finally:
        stored.write_bytes(good)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(draw=st.data())
def test_no_cut_file_is_ever_loaded(stored: Path, draw: st.DataObject) -> None:
    good = stored.read_bytes()
    stored.write_bytes(good[: draw.draw(st.integers(0, len(good) - 1))])
    try:
        assert value_of(load(stored, ME)) == 1
    finally:
        stored.write_bytes(good)


def test_a_damaged_one_falls_back_to_the_one_before_and_says_so(stored: Path, caplog: pytest.LogCaptureFixture) -> None:
    stored.write_bytes(b"")
    assert value_of(load(stored, ME)) == 1
    assert f"the checkpoint {stored} is damaged" in caplog.text


def test_two_damaged_ones_fall_back_to_the_start(small: Split, configure: Configure, path: Path, caplog: pytest.LogCaptureFixture) -> None:
    config = configure(epochs=2, model="lenet5")
    first = run(config, small, checkpoint=path)
    for damaged in (path, previous(path)):
        damaged.write_bytes(damaged.read_bytes()[:-1])
    assert measured(run(config, small, checkpoint=path)) == measured(first)
    assert caplog.text.count("is damaged") == 2


def test_a_run_goes_on_from_the_one_before_bit_for_bit(small: Split, configure: Configure, path: Path) -> None:
    config = configure(**LIVELY)
    whole = measured(run(config, small))
    stopped = train(config, small, checkpoint=path, device="cpu")
    for _ in range(3):
        next(stopped)
    stopped.close()
    path.write_bytes(b"damaged")
    assert measured(run(config, small, checkpoint=path)) == whole


def test_a_damaged_one_never_pushes_out_the_good_one_before_it(stored: Path) -> None:
    stored.write_bytes(b"damaged")
    save(stored, ME, content(3))
    stored.write_bytes(b"damaged again")
    assert value_of(load(stored, ME)) == 1


@pytest.mark.parametrize("step", range(3))
def test_a_crash_between_two_steps_of_saving_leaves_a_good_one(stored: Path, monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    steps = iter(range(10))
    rename = Path.replace

    def crash(self: Path, target: Path) -> Path:
        if next(steps) == step:
            raise KeyboardInterrupt
        return rename(self, target)

    monkeypatch.setattr(Path, "replace", crash)
    if step < 2:
        with pytest.raises(KeyboardInterrupt):
            save(stored, ME, content(3))
    else:
        save(stored, ME, content(3))
    monkeypatch.undo()
    assert value_of(load(stored, ME)) == (3 if step == 2 else 2)


def test_a_full_disk_leaves_the_older_one_and_says_what_to_do(stored: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(DiskError, match=r"cannot be written: No space left on device\nMake room there"):
        save(stored, ME, content(3))
    assert value_of(load(stored, ME)) == 2
    assert len(list(stored.parent.iterdir())) == 2


@pytest.mark.parametrize("field", ["owner", "config", "split"])
@pytest.mark.parametrize("damage", [False, True])
def test_a_checkpoint_of_another_run_is_refused(stored: Path, field: str, damage: bool) -> None:
    if damage:
        stored.write_bytes(b"")
    with pytest.raises(CheckpointError, match=f"belongs to another run: its {field} is '.+', but 'another' was expected"):
        load(stored, RunIdentity(**{**vars(ME), field: "another"}))


def test_another_owner_or_config_is_refused_by_the_trainer(small: Split, configure: Configure, path: Path) -> None:
    config = configure(epochs=1, model="lenet5")
    run(config, small, checkpoint=path, owner="study 1 / trial 1")
    with pytest.raises(CheckpointError, match="owner"):
        train(config, small, checkpoint=path, owner="study 1 / trial 2")
    with pytest.raises(CheckpointError, match="config"):
        train(configure(epochs=1, model="lenet5", seed=4), small, checkpoint=path, owner="study 1 / trial 1")


def test_nothing_but_tensors_and_plain_values_is_unpickled(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    save(path, ME, {"epochs": [], "model": Path("an object")})
    assert load(path, ME) is None
    assert "holds something else than tensors and plain values" in caplog.text


def test_remove_leaves_no_checkpoint_and_keeps_the_predictions(small: Split, configure: Configure, path: Path) -> None:
    run(configure(epochs=2, model="lenet5"), small, checkpoint=path)
    remove(path)
    assert list(path.parent.iterdir()) == [predictions_path(path)]
    remove(path)


def test_a_missing_checkpoint_is_no_checkpoint(path: Path) -> None:
    assert load(path, ME) is None
    assert checkpoints.FORMAT == b"hpsearch-checkpoint 1"


WHOLE = {"identity": vars(ME), "content": content(1)}


@pytest.mark.parametrize(
    "stored",
    [
        [1],
        None,
        torch.zeros(3),
        {"content": {}},
        {"identity": [1], "content": {}},
        {"identity": {"owner": "study 1"}, "content": {}},
        {"identity": {**vars(ME), "config": 1}, "content": {}},
        {"identity": vars(ME)},
        {"identity": vars(ME), "content": [1]},
    ],
)
def test_a_sealed_checkpoint_of_another_structure_is_as_good_as_damaged(stored: Any, path: Path) -> None:
    save(path, ME, content(1))
    path.replace(previous(path))
    payload = io.BytesIO()
    torch.save(stored, payload)
    path.write_bytes(checkpoints._sealed(payload.getvalue()))
    assert value_of(load(path, ME)) == 1


def _archive() -> bytes:
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as written:
        written.writestr("archive/data.pkl", b"\x80\x02}q.")
    return archive.getvalue()


@pytest.mark.parametrize("payload", [b"", b"garbage", _archive()], ids=["empty", "text", "archive"])
def test_a_sealed_checkpoint_that_torch_did_not_write_is_as_good_as_damaged(payload: bytes, path: Path) -> None:
    path.parent.mkdir()
    path.write_bytes(checkpoints._sealed(payload))
    assert load(path, ME) is None


@pytest.mark.parametrize(
    "change", [{"model": {}}, {"model": [1]}, {"epochs": 5}, {"epochs": [{"x": 1}]}, {"optimizer": {}}, {"schedule": None}]
)
def test_a_checkpoint_whose_content_does_not_fit_is_refused(small: Split, configure: Configure, path: Path, change: dict[str, Any]) -> None:
    config = configure(**LIVELY)
    begun = train(config, small, checkpoint=path, device="cpu")
    next(begun)
    begun.close()
    identity = RunIdentity(owner="", config=config.digest, split=small.hash)
    stored = load(path, identity)
    assert stored is not None
    save(path, identity, {**stored, **change})
    with pytest.raises(CheckpointError, match="does not fit the config") as caught:
        train(config, small, checkpoint=path, device="cpu")
    assert len(caught.value.message.splitlines()) == 1

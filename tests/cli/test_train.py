"""Rules of the commands train and predict, as real processes."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy
import optuna
import pytest
from PIL import Image

from hpsearch.cli.train_model import train_on_split
from hpsearch.config.best_config import read_best_config
from hpsearch.config.study_file import parse_study_file
from hpsearch.errors import TrainingError
from hpsearch.search.worker_pool import WORKER_ENVIRONMENT
from hpsearch.storage.database import open_store
from hpsearch.storage.records import TrialKey, read_study, read_trial, write_study
from hpsearch.storage.workspace import Workspace
from hpsearch.workflows.export import best_config
from tests.support.synthetic_data import STRIPES, write_best_config
from tests.support.synthetic_data import command as hpsearch

ROOT = Path(__file__).resolve().parents[2]
PLAIN = {key: value for key, value in os.environ.items() if key not in (*WORKER_ENVIRONMENT, "OPTUNA_STORAGE", "HPSEARCH_DATA")}


def started(folder: Path, *arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "hpsearch", *arguments]
    environment = {**PLAIN, "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(command, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def assert_refused(done: subprocess.CompletedProcess[str], *says: str) -> None:
    assert (done.returncode, done.stdout) == (2, ""), done.stderr
    errors = [line for line in done.stderr.splitlines() if not line.startswith(("  hint: ", "Final training", "warning: "))]
    assert len(errors) == 1, done.stderr
    assert errors[0].startswith("error: ")
    assert [words for words in says if words not in done.stderr] == [], done.stderr


def until(happens: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 120
    while not happens():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.fixture(scope="session")
def final(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished final model of two seeds."""
    folder = tmp_path_factory.mktemp("final model")
    write_best_config(folder)
    done = hpsearch(folder, "train", "best.toml", "--final", "--seeds", "2", "--onnx")
    assert done.returncode == 0, done.stderr
    return folder


def test_training_on_validation_says_all_of_it(tmp_path: Path) -> None:
    write_best_config(tmp_path)
    done = hpsearch(tmp_path, "train", "best.toml")
    assert done.returncode == 0, done.stderr
    for words in ("Validation accuracy", "95 % interval", "calibration error", "points apart", "precision", "predicted classes"):
        assert words in done.stdout
    assert "epoch 2/2" in done.stderr
    assert {path.name for path in tmp_path.iterdir()} == {"best.toml", "stripes.py"}
    data = json.loads(hpsearch(tmp_path, "train", "best.toml", "--json").stdout)
    assert data["validation"]["n_images"] == 50
    assert data["epochs"][-1]["val_accuracy"] == data["validation"]["accuracy"]
    assert f"Validation accuracy {100 * data['validation']['accuracy']:.2f} % of 50 images" in done.stdout


def test_training_that_diverges_has_no_metrics(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_best_config(tmp_path, ('"adam"', '"sgd"'), ("lr = 0.003", "lr = 1e30"))
    with pytest.raises(TrainingError, match="the loss of lenet5 diverged in epoch 1\nTake another trial, or a lower lr"):
        train_on_split(read_best_config(tmp_path / "best.toml"), data=None, device="cpu")
    assert "epoch 1/2: training 0.0000 (loss nan), validation 0.0000 (loss nan)" in capsys.readouterr().err


def test_training_runs_in_the_environment_of_a_worker(tmp_path: Path) -> None:
    write_best_config(tmp_path)
    spy = "import os, json\n" + STRIPES + '\nopen("seen.json", "w").write(json.dumps(dict(os.environ)))\n'
    (tmp_path / "stripes.py").write_text(spy)
    with started(tmp_path, "train", "best.toml", "--trust") as training:
        training.communicate(timeout=120)
    assert training.returncode == 0
    seen = json.loads((tmp_path / "seen.json").read_text())
    assert {key: seen.get(key) for key in WORKER_ENVIRONMENT} == WORKER_ENVIRONMENT


def test_a_finished_final_model_is_shown_and_the_test_split_not_read_again(final: Path) -> None:
    before = (final / "best-final" / "metrics.json").read_bytes()
    done = hpsearch(final, "train", "best.toml", "--final", "--seeds", "2")
    assert done.returncode == 0, done.stderr
    assert "is finished: nothing was trained, and the test split was not read again" in done.stderr
    assert "test split read once" in done.stdout
    assert (final / "best-final" / "metrics.json").read_bytes() == before
    again = hpsearch(final, "train", "best.toml", "--final", "--seeds", "2", "--json")
    assert json.loads(again.stdout) == json.loads(before)
    assert not list((final / "best-final").glob(".*"))


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
def test_final_training_that_is_ended_goes_on_to_the_same_model(number: signal.Signals, final: Path, tmp_path: Path) -> None:
    write_best_config(tmp_path)
    command = ("train", "best.toml", "--final", "--seeds", "2")
    process = started(tmp_path, *command)
    until(lambda: (tmp_path / "best-final" / "seeds" / "2" / "checkpoint").exists(), process)
    process.send_signal(number)
    _, noted = process.communicate(timeout=60)
    assert process.returncode == (-number if number == signal.SIGKILL else 128 + number)
    if number != signal.SIGKILL:
        # The checkpoint is there a moment before its epoch is shown.
        assert re.search(r"\nStopped seed [12] of 2, after epoch [12] of 2\. The same command continues\.\n", noted), noted
    assert json.loads((tmp_path / "best-final" / "metrics.json").read_text())["test_split_reads"] == 0
    done = hpsearch(tmp_path, *command)
    assert done.returncode == 0, done.stderr
    assert "goes on in best-final" in done.stderr
    for name in ("model.safetensors", "seeds/2/model.safetensors", "predictions.csv"):
        assert (tmp_path / "best-final" / name).read_bytes() == (final / "best-final" / name).read_bytes(), name


def test_the_study_counts_the_readings(tmp_path: Path) -> None:
    write_best_config(tmp_path)
    text = 'name = "striped"\nuse = ["stripes.py"]\n[data]\ndataset = "stripes"\nvalidation_images = 50\n[budget]\ntrials = 1\n[space]\nepochs = 1\nmodel = "lenet5"\n'
    file = parse_study_file(text, path=tmp_path / "striped.toml")
    store = open_store(f"sqlite:///{tmp_path}/runs/hpsearch.db", create=True)
    study = store.create(file.name)
    write_study(study, text=file.text, path=file.path, comparable=file.comparable)
    config = file.space.config({}, seed=1)
    trial = study.ask()
    trial.set_user_attr(TrialKey.RUN, json.dumps({"config": config.to_dict(), "fingerprint": file.space.fingerprint}))
    study.tell(trial, 0.5)
    (tmp_path / "best.toml").write_text(best_config(read_trial(study, 0), read_study(study)).to_toml())
    store.dispose()

    first = hpsearch(tmp_path, "train", "best.toml", "--final", "-o", "one")
    second = hpsearch(tmp_path, "train", "best.toml", "--final", "-o", "two")
    assert "test split read once, once for the study 'striped'" in first.stdout, first.stderr
    assert "test split read once, 2 times for the study 'striped'" in second.stdout, second.stderr
    readings = read_study(Workspace(runs=tmp_path / "runs").open().load("striped")).held_out_readings
    assert [reading["folder"] for reading in readings] == ["one", "two"]
    assert {reading["config"] for reading in readings} == {config.digest}
    assert readings[0]["accuracy"] == json.loads((tmp_path / "one" / "metrics.json").read_text())["test_accuracy"]
    shown = hpsearch(tmp_path, "show", "striped")
    assert "Test split read 2 times" in shown.stdout, shown.stderr
    assert len(json.loads(hpsearch(tmp_path, "show", "striped", "--json").stdout)["test_readings"]) == 2

    alone = hpsearch(tmp_path, "train", "best.toml", "--final", "-o", "three", "--runs", "elsewhere")
    assert alone.returncode == 0
    assert "The study 'striped' is out of reach" in alone.stderr
    assert "test split read once.\n" in alone.stdout


def test_a_study_of_another_program_counts_no_reading(tmp_path: Path) -> None:
    from hpsearch.cli.train_model import _held_out_log

    path = write_best_config(tmp_path, ("[provenance]", '[provenance]\nstudy = "foreign"\ntrial = 0'))
    foreign = optuna.create_study(study_name="foreign", storage=f"sqlite:///{tmp_path}/study.db")
    foreign.add_trial(optuna.create_trial(value=1.0))
    workspace = Workspace(storage=f"sqlite:///{tmp_path}/study.db", runs=tmp_path)
    assert _held_out_log(read_best_config(path), workspace) is None


@pytest.fixture
def from_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that somebody else made, with a config whose component file leaves a marker when it runs."""
    monkeypatch.setitem(PLAIN, "XDG_STATE_HOME", str(tmp_path / "state"))
    folder = tmp_path / "download"
    folder.mkdir()
    program = STRIPES + "from pathlib import Path\nPath('marker').touch()\n"
    write_best_config(
        folder, (hashlib.sha256(STRIPES.encode()).hexdigest(), hashlib.sha256(program.encode()).hexdigest()), ("epochs = 2", "epochs = 1")
    )
    (folder / "stripes.py").write_text(program)
    shutil.copy(folder / "best.toml", folder / "other.toml")
    final = folder / "final"
    final.mkdir()
    shutil.copy(folder / "best.toml", final / "config.toml")
    shutil.copy(folder / "stripes.py", final)
    (final / "predictions.csv").write_text("split,index,truth,guess,confidence\ntest,0,across,across,0.5\n")
    return folder


@pytest.mark.parametrize(
    "arguments",
    [("train", "best.toml"), ("train", "best.toml", "--final"), ("compare", "best.toml", "other.toml"), ("compare", "final", ".")],
)
def test_a_config_from_elsewhere_runs_no_code_without_trust(arguments: tuple[str, ...], from_elsewhere: Path) -> None:
    assert_refused(hpsearch(from_elsewhere, *arguments), "the config would run the program", "stripes.py'", "allow it with --trust")
    assert not (from_elsewhere / "marker").exists()


def test_what_was_allowed_once_is_not_asked_again(from_elsewhere: Path) -> None:
    assert hpsearch(from_elsewhere, "train", "best.toml", "--trust").returncode == 0
    assert (from_elsewhere / "marker").exists()
    done = hpsearch(from_elsewhere, "train", "best.toml")
    assert done.returncode == 0, done.stderr


def test_a_config_of_an_own_study_is_trained_without_a_question(stripes_search: Path, tmp_path: Path) -> None:
    assert hpsearch(stripes_search, "export", "stripes", "-o", str(tmp_path / "best.toml")).returncode == 0
    done = hpsearch(tmp_path, "train", "best.toml")
    assert done.returncode == 0, done.stderr


def test_a_changed_component_file_is_refused_and_taken_by_trust(tmp_path: Path) -> None:
    write_best_config(tmp_path)
    (tmp_path / "stripes.py").write_text(STRIPES + "# changed\n")
    assert_refused(hpsearch(tmp_path, "train", "best.toml"), "stripes.py", "is not the one that the config was made with", "--trust")
    done = hpsearch(tmp_path, "train", "best.toml", "--trust", "--final", "-o", "final")
    assert done.returncode == 0, done.stderr
    assert "warning: stripes.py was changed since the config was made" in done.stderr
    assert "Beware: stripes.py was changed" in (tmp_path / "final" / "README.md").read_text()
    written = read_best_config(tmp_path / "final" / "config.toml")
    assert written.provenance["changed_component_files"] == ["stripes.py"]
    (tmp_path / "stripes.py").unlink()
    assert_refused(
        hpsearch(tmp_path, "train", "best.toml", "--trust"), "the component file 'stripes.py' is missing", "Put it beside best.toml"
    )


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("[trainer]", "[trainer", "is not valid TOML"),
        ("lr = 0.003", "lr = inf", "lr must be"),
        ('dataset = "stripes"', 'dataset = "strips"', "unknown data set 'strips'"),
    ],
)
def test_a_best_config_that_makes_no_sense_is_refused(old: str, new: str, says: str, tmp_path: Path) -> None:
    write_best_config(tmp_path, (old, new))
    assert_refused(hpsearch(tmp_path, "train", "best.toml"), says)


def test_a_folder_that_is_not_its_own_is_refused(final: Path, tmp_path: Path) -> None:
    write_best_config(tmp_path, ("epochs = 2", "epochs = 1"))
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.md").write_text("my own")
    assert_refused(
        hpsearch(tmp_path, "train", "best.toml", "--final", "-o", "mine"), "holds something other than a final training", "--force"
    )
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["notes.md"]
    other = str(final / "best-final")
    assert_refused(hpsearch(tmp_path, "train", "best.toml", "--final", "-o", other), "another config", "--force")
    assert_refused(hpsearch(tmp_path, "train", "best.toml", "--final", "-o", "best.toml"), "is no folder")
    assert_refused(hpsearch(tmp_path, "train", "best.toml", "--force", "--onnx"), "--force and --onnx need --final")


def test_predict_says_what_it_sees_and_what_it_did(final: Path, tmp_path: Path) -> None:
    pixels = numpy.zeros((28, 28), dtype=numpy.uint8)
    pixels[::4] = 160
    Image.fromarray(pixels).save(tmp_path / "grey.png")
    Image.fromarray(pixels).resize((112, 140), Image.Resampling.NEAREST).convert("RGB").save(tmp_path / "colour.jpg")
    model = str(final / "best-final")
    done = hpsearch(tmp_path, "predict", model, "grey.png", "colour.jpg")
    assert done.returncode == 0, done.stderr
    grey, colour = done.stdout.splitlines()
    assert grey.startswith("grey.png: across, ")
    assert colour.endswith("(made grey, scaled from 112 × 140 to 28 × 28)")
    data = json.loads(hpsearch(tmp_path, "predict", f"{model}/model.safetensors", "grey.png", "--json").stdout)
    assert data[0]["class"] == "across"
    assert 0.5 < data[0]["confidence"] <= 1
    (tmp_path / "no.png").write_text("no picture")
    assert_refused(hpsearch(tmp_path, "predict", model, "grey.png", "no.png"), "'no.png' cannot be read as a picture")
    assert_refused(hpsearch(tmp_path, "predict", model, "gone.png"), "there is no picture 'gone.png'")
    assert_refused(hpsearch(tmp_path, "predict", str(tmp_path), "grey.png"), "cannot read the model", "no such file")


def test_a_model_cut_short_is_refused(final: Path, tmp_path: Path) -> None:
    whole = (final / "best-final" / "model.safetensors").read_bytes()
    (tmp_path / "cut.safetensors").write_bytes(whole[: len(whole) // 2])
    assert_refused(
        hpsearch(tmp_path, "predict", "cut.safetensors", "any.png"), "'cut.safetensors' is not a model of hpsearch: it is damaged"
    )

"""Fault experiments that the tests run in a small version and `benchmarks/faults.py` at full size.

Each experiment yields rows: what was done, what must hold, and what was found.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import re
import shutil
import signal
import sqlite3
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from tests.support.db_snapshot import (
    RUN_TIMEOUT,
    FinishedTrials,
    StoredTrial,
    count_studies,
    repeated_epochs,
    run_to_end,
    stored_trials,
    tracebacks,
    wait_until,
)
from tests.support.fake_trainer import EPOCH_LOG, EPOCH_SECONDS
from tests.support.forkserver import Forked, ForkServer
from tests.support.postgres_server import Postgres
from tests.support.small_study import NO_IMAGES, STUDY

REAL_STUDY = """
name = "small"
seed = 3

[data]
validation_images = 500
train_images = {images}

[budget]
trials = 8

[sampler]
startup_trials = 4

[pruner]
kind = "median"
startup_trials = 2
warmup_epochs = 1

[space]
model = {{ choices = ["cnn", "lenet5"] }}
optimizer = {{ choices = ["sgd", "adam"] }}
epochs = {{ int = [{epochs}] }}
dropout = {{ float = [0.0, 0.5] }}

[space.cnn]
filters1 = 8
filters2 = 16
dense = 32

[space.sgd]
lr = {{ float = [1e-2, 2e-1], log = true }}
momentum = {{ float = [0.5, 0.95] }}

[space.adam]
lr = {{ float = [3e-4, 1e-2], log = true }}
"""


@dataclass(frozen=True, kw_only=True)
class Row:
    """One line of the table of results."""

    fault: str
    count: str
    wanted: str
    found: str
    ok: bool


@dataclass(frozen=True, kw_only=True)
class Setting:
    """The size, the seed and the place of the experiments.

    Attributes:
        server: holds the databases of all studies; without one, each study has a SQLite file.
    """

    quick: bool
    seed: int
    folder: Path
    server: Postgres | None = None

    def of(self, full: int, quick: int) -> int:
        """Return the full count, or the quick one."""
        return quick if self.quick else full

    def random(self, *names: object) -> random.Random:
        """Return a random generator for one purpose."""
        return random.Random("/".join(map(str, (self.seed, *names))))

    def study(self, name: str, text: str = STUDY, **changes: str) -> Path:
        """Make a folder with a study file; `trials="20"` replaces the value of a key."""
        folder = self.folder / name
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        for key, value in changes.items():
            text, times = re.subn(f"(?m)^{key} = .*$", f"{key} = {value}", text, count=1)
            assert times, f"the study has no key {key}"
        (folder / "small.toml").write_text(text)
        (folder / "no_images.py").write_text(NO_IMAGES)
        if self.server is not None:
            (folder / "storage").write_text(self.server.database())
        return folder

    def copy(self, folder: Path, name: str) -> Path:
        """Copy a folder with its study, whose processes have ended. On a server, the copy has a database of its own."""
        copied = folder.with_name(name)
        shutil.rmtree(copied, ignore_errors=True)
        shutil.copytree(folder, copied)
        if self.server is not None:
            original = (folder / "storage").read_text().rpartition("/")[2]
            self.server.end_connections(original)
            (copied / "storage").write_text(self.server.database(template=original))
        return copied


# 1. Kills


@dataclass
class Kills:
    """A series of kills.

    Attributes:
        history: checks the study after each kill.
        done: number of kills of each kind.
        workers: number of workers that were killed or lost their supervisor.
        stopped: number of commands that gave up.
        wrong: exit codes that no command should have.
    """

    forkserver: ForkServer
    folder: Path
    history: FinishedTrials
    draw: random.Random
    done: dict[str, int] = field(default_factory=lambda: {"worker": 0, "supervisor": 0, "everything": 0})
    workers: int = 0
    stopped: int = 0
    wrong: list[int] = field(default_factory=list)

    @property
    def count(self) -> int:
        """The number of kills so far."""
        return sum(self.done.values())

    def kill_until_done(self, most: int, life: float, epochs: tuple[float, ...], command: tuple[str, ...]) -> bool:
        """Start a command again and again and kill its processes, until it is done or `most` kills are done. Return whether it is done."""
        supervisor: Forked | None = None
        while self.count < most and len(self.wrong) <= 5:
            if supervisor is None or supervisor.poll() is not None:
                if supervisor is not None and supervisor.returncode == 0:
                    return True
                if supervisor is not None and supervisor.returncode != -signal.SIGKILL:
                    self.stopped += supervisor.returncode == 1
                    self.wrong += [supervisor.returncode or 0] if supervisor.returncode != 1 else []
                environment = {EPOCH_SECONDS: str(self.draw.choice(epochs)), EPOCH_LOG: str(self.folder / "notes")}
                supervisor = self.forkserver.start(self.folder, *command, "--workers", "2", output=self.folder / "output", **environment)
            time.sleep(self.draw.uniform(0, life))
            self._kill(supervisor)
        return False

    def _kill(self, supervisor: Forked) -> None:
        kind = self.draw.choices(("worker", "supervisor", "everything"), (6, 2, 2))[0]
        alive = self.forkserver.alive()
        workers = [pid for pid, arguments in alive.items() if arguments[0] == "worker"]
        victims = [self.draw.choice(workers)] if kind == "worker" and workers else [supervisor.pid] if kind == "supervisor" else list(alive)
        if not victims or (kind == "worker" and not workers) or not self.forkserver.kill(*victims):
            return
        self.done[kind] += 1
        # The workers of a killed supervisor end by themselves, sometimes while the next run begins.
        self.workers += len(workers) if kind != "worker" else 1
        if kind == "supervisor" and self.draw.random() < 0.5 and not wait_until(lambda: not self.forkserver.alive(), 5.0):
            self.wrong.append(5)
        self.history.compare(self.folder)

    def end_all(self) -> None:
        """Kill everything."""
        self.forkserver.kill(*self.forkserver.alive())
        wait_until(lambda: not self.forkserver.alive())

    def row(self, fault: str, trials: list[StoredTrial], budget: int, code: int) -> Row:
        """Return the line of the table: what is left after the last run, and whether it is as it must be."""
        states = {state: sum(trial.state == state for trial in trials) for state in ("COMPLETE", "PRUNED", "FAIL", "RUNNING", "WAITING")}
        odd = [trial.number for trial in trials if [e["number"] for e in trial.epochs] != [step for step, _ in trial.reports]]
        odd += [trial.number for trial in trials if [e["number"] for e in trial.epochs] != list(range(1, len(trial.epochs) + 1))]
        begun, again, furthest = repeated_epochs(self.folder / "notes")
        faults = tracebacks(self.folder)
        found = (
            f"{len(self.history.lost)} lost or changed, {states['RUNNING']} RUNNING, {states['WAITING']} WAITING, "
            f"{len(trials)} of {budget} trials ({states['FAIL']} failed), {len(odd)} with epochs twice or missing; "
            f"{again} of {begun:,} epochs begun again, {furthest} a trial and kill at most; {faults} tracebacks; "
            f"runs that gave up: {self.stopped}; last run's exit code {code}"
        )
        ok = not (self.history.lost or odd or states["RUNNING"] or states["WAITING"] or states["FAIL"] or self.wrong or faults)
        return Row(
            fault=fault,
            count=f"{self.count} ({', '.join(f'{number} {kind}' for kind, number in self.done.items())})",
            wanted="0 lost, 0 twice, 0 RUNNING, 0 failed, exactly N trials, ≤ 1 epoch a kill",
            found=found,
            ok=ok and len(trials) == budget and code == 0 and furthest <= 1 and again <= self.workers,
        )


def kill_at_random(forkserver: ForkServer, folder: Path, setting: Setting, count: int, life: float, epochs: tuple[float, ...]) -> Row:
    """Kill processes `count` times, let the study end, and check what is left."""
    kills = Kills(forkserver, folder, FinishedTrials(), setting.random("kills", folder.name))
    budget = setting.of(100, 20) if len(epochs) > 1 else 12
    while kills.count < count and len(kills.wrong) <= 5:
        if kills.kill_until_done(count, life, epochs, ("run", "small.toml", "--trials", str(budget))):
            budget += 50
    kills.end_all()
    code = run_to_end(forkserver, folder, "--trials", str(budget), **{EPOCH_SECONDS: "0", EPOCH_LOG: str(folder / "notes")})
    trainer = "fake trainer" if len(epochs) > 1 else "real trainer"
    return kills.row(f"kill -9, {trainer}", kills.history.compare(folder), budget, code)


def follow_up_kills(setting: Setting) -> Iterator[Row]:
    """Experiment 1 over the follow-up studies: each is killed until it is done, and has the result of a study that was never killed."""
    with ForkServer() as forkserver:
        searched = setting.study("searched", epochs="{ int = [2, 4] }")
        run_to_end(forkserver, searched)
        for command, options in (("finalists", ("--top", "3", "--seeds", "6")), ("explain", ("--seeds", "3"))):
            wanted = _result_of(forkserver, setting, setting.copy(searched, f"{command}-whole"), command, options)
            count, killed = setting.of(150 if setting.server is None else 60, 8), 0
            for number in range(count):  # more rounds than it takes
                if killed >= count:
                    break
                folder = setting.copy(searched, f"{command}-{number}")
                kills = Kills(forkserver, folder, FinishedTrials(f"small.{command}"), setting.random("kills", folder.name))
                kills.kill_until_done(count - killed, 1.0, (0.01, 0.05, 0.2), (command, "small.toml", *options))
                kills.end_all()
                killed += kills.count
                found = _result_of(forkserver, setting, folder, command, options)
                trials = kills.history.compare(folder)
                runs = {(trial.attributes["candidate"], trial.attributes["repeat"]) for trial in trials if trial.state == "COMPLETE"}
                pruned = sum(trial.state == "PRUNED" for trial in trials)
                row = kills.row(f"kill -9, {command}", trials, len(runs) + pruned, 0)
                yield replace(
                    row, ok=row.ok and found == wanted, found=f"{row.found}; result {'the same' if found == wanted else 'CHANGED'}"
                )


def _result_of(forkserver: ForkServer, setting: Setting, folder: Path, command: str, options: tuple[str, ...]) -> object:
    """Run a follow-up study to its end and return the part of its result that no order of the runs may change."""
    output = folder / "result"
    code = forkserver.start(folder, command, "small.toml", *options, "--json", "--workers", "2", output=output).wait(RUN_TIMEOUT)
    text = output.read_text()
    assert code == 0, text
    result = json.loads(text[text.index("{\n") : text.rindex("}") + 1])
    return result["winner"] if command == "finalists" else result["steps"]


def kills(setting: Setting) -> Iterator[Row]:
    """Experiment 1: kill workers, supervisors and everything, with the fake trainer."""
    with ForkServer() as forkserver:
        folder = setting.study("kills", epochs="{ int = [2, 6] }")
        yield kill_at_random(
            forkserver, folder, setting, setting.of(500 if setting.server is None else 150, 15), 1.5, (0.0, 0.01, 0.05, 0.2)
        )


def halving_kills(setting: Setting) -> Iterator[Row]:
    """Experiment 1 over a study that pauses and promotes trials."""
    asha = 'kind = "asha"\nrungs = [0.12, 0.25, 0.5]'
    with ForkServer() as forkserver:
        folder = setting.study("halving-kills", STUDY.replace('kind = "none"', asha), epochs="{ int = [3, 9] }")
        yield kill_at_random(
            forkserver, folder, setting, setting.of(300 if setting.server is None else 150, 15), 1.5, (0.0, 0.01, 0.05, 0.2)
        )


def real_kills(setting: Setting) -> Iterator[Row]:
    """Experiment 1 with the real trainer."""
    with ForkServer("real") as forkserver:
        folder = setting.study("real-kills", REAL_STUDY.format(images=2000, epochs="3, 5"))
        yield kill_at_random(forkserver, folder, setting, setting.of(30, 4), 3.0, (0.0,))


# 2. Identical after kills


def identical(setting: Setting) -> Iterator[Row]:
    """Experiment 2: a study resumed after kills equals a study that was never killed."""
    count = setting.of(20, 3)
    for pruner, trainer in (("none", "fake"), ("median", "real"), ("percentile", "fake"), ("asha", "fake")):
        if setting.quick and pruner == "median":
            continue
        keys = {"none": "", "asha": "\nrungs = [0.12, 0.25, 0.5]"}.get(pruner, "\nstartup_trials = 3\nwarmup_epochs = 1")
        text = STUDY.replace('kind = "none"', f'kind = "{pruner}"{keys}')
        if trainer == "real":
            text = REAL_STUDY.format(images=1000, epochs="2, 4")
        trials = "10" if trainer == "real" else str(setting.of(40, 12))
        with ForkServer(trainer) as forkserver:
            yield _identical(forkserver, setting, text, trials, pruner, trainer, count)


def _identical(forkserver: ForkServer, setting: Setting, text: str, trials: str, pruner: str, trainer: str, count: int) -> Row:
    draw = setting.random("identical", pruner)
    whole, broken = (setting.study(f"{pruner}-{name}", text, trials=trials) for name in ("whole", "broken"))
    seconds = {EPOCH_SECONDS: "0.03"}
    run_to_end(forkserver, whole, "--workers", "1", **seconds, **{EPOCH_LOG: str(whole / "notes")})
    begun = len((whole / "notes").read_text().splitlines())
    # Spread the kills over all epochs, so that the study lasts until the last kill.
    points = sorted(draw.sample(range(1, begun), min(count, begun - 1)))
    points += [draw.choice(points) for _ in range(count - len(points))]
    notes, killed = broken / "notes", 0

    def noted() -> list[str]:
        return sorted(set(notes.read_text().splitlines())) if notes.exists() else []

    for point in sorted(points):
        run = forkserver.start(
            broken, "run", "small.toml", "--workers", "1", output=broken / "output", **seconds, **{EPOCH_LOG: str(notes)}
        )
        before = notes.stat().st_size if notes.exists() else 0
        wait_until(
            lambda point=point, before=before, run=run: run.poll() is not None or (len(noted()) >= point and notes.stat().st_size > before)
        )
        time.sleep(draw.uniform(0, 0.12 if trainer == "fake" else 0.4))
        killed += forkserver.kill(*forkserver.alive()) > 0
        wait_until(lambda: not forkserver.alive())
    code = run_to_end(forkserver, broken, "--workers", "1", **seconds)
    pairs = list(zip(stored_trials(whole), stored_trials(broken), strict=False))
    same = sum(one.measured() == other.measured() for one, other in pairs)
    hashes = {
        hashlib.sha256(json.dumps([t.measured() for t in stored_trials(each)], default=str).encode()).hexdigest()[:12]
        for each in (whole, broken)
    }
    pruned = sum(one.state == "PRUNED" for one, _ in pairs)
    return Row(
        fault=f"resumed after kills, pruner {pruner}, {trainer}",
        count=f"{killed} kills",
        wanted="the table of trials and the weights' hashes of the run never killed",
        found=f"{same} of {trials} trials identical, {pruned} of them pruned; tables {' and '.join(sorted(hashes))}",
        ok=same == int(trials) and len(hashes) == 1 and killed == count and code == 0,
    )


# 5. Launchers at once


def launchers(setting: Setting) -> Iterator[Row]:
    """Experiment 5: several launchers at once make one study with an exact budget."""
    rounds = setting.of(20 if setting.server else 10, 2)
    with ForkServer() as forkserver:
        joined, exact, failed = 0, 0, ""
        for number in range(rounds):
            folder = setting.study(f"eight-{number}")
            runs = [
                forkserver.start(
                    folder, "run", "small.toml", "--workers", "1", "--trials", "16", output=folder / "output", **{EPOCH_SECONDS: "0.02"}
                )
                for _ in range(8)
            ]
            joined += sum(run.wait(RUN_TIMEOUT) == 0 for run in runs)
            exact += count_studies(folder) == 1 and [trial.state for trial in stored_trials(folder)] == ["COMPLETE"] * 16
            if joined < 8 * (number + 1) and not failed:
                failed = next((line for line in (folder / "output").read_text().splitlines() if line.startswith("error")), "?")
        yield Row(
            fault="eight launchers on an empty store",
            count=f"{rounds} rounds",
            wanted=f"{8 * rounds} of {8 * rounds} join one study",
            found=f"{joined} ended well; {exact} rounds with one study of exactly 16 trials{'; ' + failed if failed else ''}",
            ok=joined == 8 * rounds and exact == rounds,
        )
        exact, sizes = 0, []
        for number in range(rounds):
            size = setting.random("budget", number).randint(1, 20)
            folder = setting.study(f"two-{number}", trials=str(size))
            two = [
                forkserver.start(folder, "run", "small.toml", "--workers", "2", output=folder / "output", **{EPOCH_SECONDS: "0.02"})
                for _ in "ab"
            ]
            codes = [run.wait(RUN_TIMEOUT) for run in two]
            exact += codes == [0, 0] and [trial.state for trial in stored_trials(folder)] == ["COMPLETE"] * size
            sizes.append(len(stored_trials(folder)) - size)
        yield Row(
            fault="two launchers, a budget of N (1 to 20)",
            count=f"{rounds} rounds",
            wanted="exactly N",
            found=f"{exact} of {rounds} exact; at most {max(sizes)} too many",
            ok=exact == rounds,
        )


# 6. A disk that fills


@contextmanager
def small_disk(folder: Path, size: str) -> Iterator[bool]:
    """Mount a file system of the given size at the folder; yield False where that is impossible."""
    folder.mkdir(parents=True, exist_ok=True)
    mounted = shutil.which("mount") and os.geteuid() == 0
    done = mounted and subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)], capture_output=True, check=False
    )
    try:
        yield bool(done and done.returncode == 0)
    finally:
        if done and done.returncode == 0:
            subprocess.run(["umount", "-l", str(folder)], check=False)


def full_disk(setting: Setting) -> Iterator[Row]:
    """Experiment 6: the disk is full at a random byte of a checkpoint, the database or a log."""
    count, draw = setting.of(20, 3), setting.random("disk")
    for trainer in ("fake", "real") if not setting.quick else ("fake",):
        outcomes: list[str] = []
        with ForkServer(trainer) as forkserver:
            for number in range(count if trainer == "fake" else setting.of(10, 1)):
                text = STUDY if trainer == "fake" else REAL_STUDY.format(images=1000, epochs="2, 3")
                folder = setting.study(f"disk-{trainer}-{number}", text)
                with small_disk(folder / "runs", "64m") as mounted:
                    if not mounted:
                        yield Row(fault="a disk that fills", count="0", wanted="-", found="no tmpfs can be mounted here: skipped", ok=True)
                        return
                    outcomes.append(_fill(forkserver, folder, draw, trainer))
        good, enough = outcomes.count("ok"), outcomes.count("enough")
        bad = sorted({*outcomes} - {"ok", "enough"})
        yield Row(
            fault=f"a disk that fills, {trainer}",
            count=f"{len(outcomes)}",
            wanted="exit 1 with one clear line; continues; the database is sound",
            found=f"{good} of {len(outcomes) - enough} so, and {enough} had just enough room{'; else: ' + '; '.join(bad) if bad else ''}",
            ok=good + enough == len(outcomes) and good > 0,
        )


def _fill(forkserver: ForkServer, folder: Path, draw: random.Random, trainer: str) -> str:
    """Run with little room, then with enough; return `ok`, `enough` if the first run fitted, or what went wrong."""
    runs = folder / "runs"
    run_to_end(forkserver, folder, "--workers", "1", "--trials", "1")
    history = FinishedTrials()
    history.compare(folder)
    room = draw.randint(0, 160_000 if trainer == "fake" else 1_500_000)
    filler = runs / "filler"
    with filler.open("wb") as file:
        free = os.statvfs(runs).f_bavail * os.statvfs(runs).f_frsize
        file.write(bytes(max(0, free - room)))
    (folder / "output").write_text("")
    code = run_to_end(forkserver, folder, "--workers", "2")
    output = (folder / "output").read_text()
    errors = [line for line in output.splitlines() if line.startswith("error:")]
    wrong = []
    if code == 0:
        return "enough" if len(stored_trials(folder)) == 8 else "exit 0, but not all trials are there"
    if code != 1 or len(errors) != 1 or "Traceback" in output or "hint:" not in output:
        wrong.append(f"exit {code}, {errors or output[-200:]!r}")
    filler.unlink()
    again = run_to_end(forkserver, folder, "--workers", "2")
    trials = history.compare(folder)
    if again != 0 or [trial.state for trial in trials if trial.state not in ("COMPLETE", "PRUNED")] or len(trials) != 8:
        wrong.append(f"then exit {again} and {[trial.state for trial in trials]}")
    if history.lost:
        wrong.append("a finished trial changed")
    with closing(sqlite3.connect(runs / "hpsearch.db")) as connection:
        sound = connection.execute("PRAGMA integrity_check").fetchone()[0]
    if sound != "ok":
        wrong.append(sound)
    return " and ".join(wrong) or "ok"


# 7. Damaged checkpoints


def damaged(setting: Setting) -> Iterator[Row]:
    """Experiment 7: no damaged checkpoint is loaded."""
    import logging

    import torch

    from hpsearch.training.checkpoint import RunIdentity, load, save

    log = logging.getLogger("hpsearch")
    path, draw = setting.study("damaged") / "checkpoint", setting.random("damaged")
    me = RunIdentity(owner="small/0", config="c", split="s")
    save(path, me, {"epochs": [{"number": 1}], "model": {"weight": torch.arange(300.0)}})
    good = path.read_bytes()
    assert load(path, me) is not None
    step = setting.of(1, 40)

    def is_taken(content: bytes) -> bool:
        path.write_bytes(content)
        # Hide thousands of warnings; other tests in this process need the logger as it was.
        log.disabled = True
        try:
            return load(path, me) is not None
        finally:
            log.disabled = False

    cuts = range(0, len(good), step)
    taken = sum(is_taken(good[:cut]) for cut in cuts)
    yield Row(
        fault="a checkpoint cut short", count=f"{len(cuts)}, every {step} bytes", wanted="0 loaded", found=f"{taken} loaded", ok=not taken
    )
    flips, taken = setting.of(5000, 300), 0
    for _ in range(flips):
        bad = bytearray(good)
        for index in draw.sample(range(len(good)), draw.choice((1, 1, 1, 2, 8))):
            bad[index] ^= draw.randint(1, 255)
        taken += is_taken(bytes(bad))
    yield Row(fault="bytes of a checkpoint flipped", count=f"{flips}", wanted="0 loaded", found=f"{taken} loaded", ok=not taken)


EXPERIMENTS: dict[str, Callable[[Setting], Iterator[Row]]] = {
    "kills": kills,
    "real_kills": real_kills,
    "follow_up_kills": follow_up_kills,
    "halving_kills": halving_kills,
    "identical": identical,
    "launchers": launchers,
    "full_disk": full_disk,
    "damaged": damaged,
}

"""The progress that is shown on stderr during a training.

A terminal shows progress bars. Each trial or epoch that has ended gets a line, on a terminal and in a log.
"""

from __future__ import annotations

from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.text import Text

from hpsearch.analysis.leaderboard import describe_progress, describe_settings
from hpsearch.cli.console import stderr
from hpsearch.config.epoch import Epoch
from hpsearch.config.sections import Budget
from hpsearch.formatting import many, show_duration, show_loss
from hpsearch.storage.records import TrialRow
from hpsearch.workflows.supervisor import Snapshot

BAR_WIDTH = 16
PACE_SECONDS = 24 * 3600.0
"""The remaining time is estimated from the trials or epochs that ended within this time.

The time is long, because a single trial may take an hour.
"""


class _View(Progress):
    """Progress bars on stderr inside a `with` block. If stderr is not a terminal, there are no bars."""

    def __init__(self) -> None:
        console = stderr()
        super().__init__(
            BarColumn(BAR_WIDTH),
            TimeElapsedColumn(),
            TextColumn("elapsed,"),
            TimeRemainingColumn(),
            TextColumn("left"),
            TextColumn("{task.description}", markup=False),
            console=console,
            disable=not console.is_terminal,
            speed_estimate_period=PACE_SECONDS,
            transient=True,
        )

    def _say(self, text: str, *, style: str = "") -> None:
        self.console.print(Text(text, style=style), soft_wrap=True)


class SearchView(_View):
    """Shows the search of a study.

    One bar counts the trials of the study, or its epochs if the budget is counted in epochs alone. Each running trial has a bar for its
    epochs.

    Args:
        budget: the budget of the search.
    """

    def __init__(self, budget: Budget) -> None:
        super().__init__()
        self._budget = budget
        self._deaths = 0
        self._search: TaskID | None = None
        self._running: dict[int, TaskID] = {}

    def show(self, snapshot: Snapshot) -> None:
        """Show the study as it is now.

        Args:
            snapshot: the state of the study, and the trials that ended since the last snapshot.
        """
        progress, best = snapshot.progress, snapshot.progress.best
        for trial in progress.ended:
            if trial.state == "pruned" and not trial.epochs:
                continue  # most trials of a search that pauses trials; their number is shown
            is_best = best is not None and trial.number == best.number
            style = {"complete": "green" if is_best else "", "pruned": "dim", "fail": "red"}[trial.state]
            self._say(_trial_line(trial, is_best=is_best), style=style)
        if snapshot.deaths > self._deaths:
            self._deaths = snapshot.deaths
            self._say("A worker died. Its trial goes back to the queue, and another worker continues it.", style="yellow")
        trained = round(progress.epochs)
        total = max(self._budget.max_trials, progress.total if self._budget.trials else trained)
        done = progress.finished if self._budget.trials else trained
        text = f"{done} of {total} trials" if self._budget.trials else f"{done} of {total} epochs, {many(progress.finished, 'trial')}"
        text += "".join(f", {progress.counts[state]} {state}" for state in ("paused", "pruned") if progress.counts.get(state))
        if best is not None:
            text += f", best {best.value:.4f} (trial {best.number}, {best.model})"
        if self._search is None:
            self._search = self.add_task(text, total=total, completed=done)
        self.update(self._search, description=text, total=total, completed=done)
        running = {trial.number: trial for trial in progress.running}
        for number in self._running.keys() - running.keys():
            self.remove_task(self._running.pop(number))
        for number, trial in running.items():
            done = len(trial.epochs)
            epochs = trial.config.epochs if trial.config else None
            if number not in self._running:
                self._running[number] = self.add_task("", total=epochs, completed=done)
            last = f", {trial.epochs[-1].val_accuracy:.4f}" if trial.epochs else ""
            text = f"trial {number}, {trial.model}, epoch {done}/{epochs or '?'}{last}"
            self.update(self._running[number], description=text, total=epochs, completed=done)


class TrainingView(_View):
    """Shows the epochs of a training. If there are several seeds, they are trained one after another.

    Args:
        epochs: number of epochs of each seed.
        seeds: number of seeds.
        label: a name that is shown before each epoch; empty shows no name.
    """

    def __init__(self, *, epochs: int, seeds: int = 1, label: str = "") -> None:
        super().__init__()
        self._epochs, self._seeds, self._label = epochs, seeds, label
        self._task = self.add_task("first epoch", total=epochs * seeds)
        self.position = "before the first epoch"
        """The last epoch that has ended, as text."""

    def show(self, epoch: Epoch, *, seed: int = 1, note: str = "") -> None:
        """Show an epoch.

        Args:
            epoch: the epoch that ended.
            seed: number of the seed that the epoch belongs to, from 1.
            note: text that is added at the end of the line.
        """
        prefix = f"{self._label}, " if self._label else ""
        prefix += f"seed {seed} of {self._seeds}, " if self._seeds > 1 else ""
        self.position = f"{prefix}after epoch {epoch.number} of {self._epochs}"
        has_validation = epoch.val_accuracy == epoch.val_accuracy  # NaN in a final training, which has no validation split
        validation = f", validation {epoch.val_accuracy:.4f} (loss {show_loss(epoch.val_loss)})" if has_validation else ""
        self._say(
            f"{prefix}epoch {epoch.number}/{self._epochs}: training {epoch.train_accuracy:.4f} (loss {show_loss(epoch.train_loss)}){validation}, "
            f"{epoch.images_per_second:,.0f} images/s, {show_duration(epoch.seconds)}{note}"
        )
        text = f"{prefix}epoch {epoch.number} of {self._epochs} done, {epoch.images_per_second:,.0f} images/s"
        self.update(self._task, description=text, completed=(seed - 1) * self._epochs + epoch.number)


def _trial_line(trial: TrialRow, *, is_best: bool) -> str:
    value = "" if trial.value is None else f"{trial.value:.4f}"
    ends = {"pruned": f"pruned after {describe_progress(trial)}", "fail": f"failed: {trial.end.get('reason', '')}"}
    notes = [ends.get(trial.state, ""), trial.origin, "diverged" if trial.end.get("diverged") else "", "best so far" if is_best else ""]
    text = f"trial {trial.number:<4} {trial.model:<8} {value:<7} {show_duration(trial.seconds):>7}  {describe_settings(trial)}"
    said = ", ".join(part for part in notes if part)
    return f"{text}  ({said})" if said else text

"""What a person sees while a search runs: a live view on a terminal, plain lines elsewhere."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.console import Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from hpsearch.analysis.leaderboard import describe_settings
from hpsearch.cli.console import stderr

if TYPE_CHECKING:
    from hpsearch.storage.records import TrialRow
    from hpsearch.workflows.supervisor import Snapshot


class ProgressView:
    """Shows one look at a study after another.

    Args:
        total: trials of the budget.
    """

    def __init__(self, *, total: int) -> None:
        self._console = stderr()
        self._total = total
        self._ended_here = 0
        self._live: Live | None = None
        self._deaths = 0

    @contextmanager
    def on_screen(self) -> Iterator[None]:
        """Keep the view on the terminal for the length of a block."""
        if not self._console.is_terminal:
            yield
            return
        with Live(console=self._console, refresh_per_second=4, transient=True) as self._live:
            yield
        self._live = None

    def update(self, look: Snapshot) -> None:
        """Show the study as it is now."""
        best = look.progress.best
        for trial in look.progress.ended:
            self._ended_here += 1
            self._console.print(_line(trial, is_best=best is not None and trial.number == best.number), soft_wrap=True)
        if look.deaths > self._deaths:
            self._deaths = look.deaths
            self._console.print(Text("a worker died; its trial goes back to the queue and another worker takes over", style="yellow"))
        if self._live is not None:
            self._live.update(self._picture(look))

    def _picture(self, look: Snapshot) -> RenderableType:
        from hpsearch.formatting import show_duration

        progress, best = look.progress, look.progress.best
        parts = [f"{progress.finished} of {self._total} trials", f"{progress.counts.get('pruned', 0)} pruned"]
        if best is not None:
            parts.append(f"best {best.value:.4f} (trial {best.number}, {best.model})")
        parts.append(show_duration(look.elapsed))
        if self._ended_here:
            parts.append(f"about {show_duration(look.elapsed / self._ended_here * max(0, self._total - progress.finished))} left")
        bar = Table.grid(padding=(0, 2))
        bar.add_row(ProgressBar(total=self._total, completed=progress.finished, width=20), Text(" · ".join(parts)))
        rows = Table.grid(padding=(0, 2))
        for trial in progress.running:
            epochs = trial.config.epochs if trial.config else "?"
            last = f"{trial.epochs[-1].val_accuracy:.4f}" if trial.epochs else ""
            rows.add_row(Text(f"trial {trial.number}", style="dim"), trial.model, f"epoch {len(trial.epochs)}/{epochs}", last)
        return Group(bar, rows)


def _line(trial: TrialRow, *, is_best: bool) -> Text:
    from hpsearch.formatting import show_duration

    value = "" if trial.value is None else f"{trial.value:.4f}"
    words = {"complete": "", "pruned": f"pruned after epoch {len(trial.epochs)}", "fail": f"failed: {trial.end.get('reason', '')}"}
    style = {"complete": "green" if is_best else "", "pruned": "dim", "fail": "red"}[trial.state]
    notes = [words[trial.state], trial.origin, "diverged" if trial.end.get("diverged") else "", "best so far" if is_best else ""]
    text = f"trial {trial.number:<4} {trial.model:<8} {value:<7} {show_duration(trial.seconds):>7}  {describe_settings(trial)}"
    said = ", ".join(part for part in notes if part)
    return Text(f"{text}  ({said})" if said else text, style=style)

"""What a person sees while a config is trained: a live view on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.console import RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from hpsearch.cli.console import note, stderr

if TYPE_CHECKING:
    from hpsearch.config.epoch import Epoch


class TrainingView:
    """Shows one epoch after another, of one seed after another.

    Args:
        epochs: of each seed.
        seeds: how many there are.
    """

    def __init__(self, *, epochs: int, seeds: int = 1) -> None:
        self._console = stderr()
        self._epochs = epochs
        self._seeds = seeds
        self._live: Live | None = None
        self._last: tuple[int, Epoch] | None = None
        self._since = time.monotonic()
        self._begin = self._since

    @contextmanager
    def on_screen(self) -> Iterator[None]:
        """Keep the view on the terminal for the length of a block."""
        if not self._console.is_terminal:
            yield
            return
        with Live(console=self._console, get_renderable=self._picture, refresh_per_second=4, transient=True) as self._live:
            yield
        self._live = None

    @property
    def where(self) -> str:
        """How far it is, in words."""
        if self._last is None:
            return "before the first epoch"
        number, epoch = self._last
        return f"{self._of_seed(number)}after epoch {epoch.number} of {self._epochs}"

    def show(self, number: int, epoch: Epoch) -> None:
        """Show an epoch of a seed, by the seed's number from 1."""
        self._last, self._since = (number, epoch), time.monotonic()
        text = _line(epoch, self._epochs, self._of_seed(number))
        if self._live is None:
            note(text)
        else:
            self._live.console.print(Text(text), soft_wrap=True)

    def _of_seed(self, number: int) -> str:
        return f"seed {number} of {self._seeds}, " if self._seeds > 1 else ""

    def _picture(self) -> RenderableType:
        from hpsearch.formatting import show_duration

        total, now = self._epochs * self._seeds, time.monotonic()
        done, parts = 0, []
        if self._last is None:
            parts.append("first epoch")
        else:
            number, epoch = self._last
            done = (number - 1) * self._epochs + epoch.number
            left = max(0.0, (total - done) * epoch.seconds - (now - self._since))
            going_on = min(done + 1, total)
            parts.append(f"{self._of_seed((going_on - 1) // self._epochs + 1)}epoch {(going_on - 1) % self._epochs + 1} of {self._epochs}")
            parts.append(f"{epoch.images_per_second:,.0f} images/s")
            parts.append(f"about {show_duration(left)} left")
        parts.append(show_duration(now - self._begin))
        row = Table.grid(padding=(0, 2))
        row.add_row(ProgressBar(total=total, completed=done, width=20), Text(" · ".join(parts)))
        return row


def _line(epoch: Epoch, epochs: int, prefix: str) -> str:
    from hpsearch.formatting import show_duration

    has_validation = epoch.val_accuracy == epoch.val_accuracy
    validation = f", validation {epoch.val_accuracy:.4f} (loss {epoch.val_loss:.4f})" if has_validation else ""
    return (
        f"{prefix}epoch {epoch.number}/{epochs}: training {epoch.train_accuracy:.4f} (loss {epoch.train_loss:.4f}){validation}, "
        f"{epoch.images_per_second:,.0f} images/s, {show_duration(epoch.seconds)}"
    )

"""Live progress of a run in the terminal: one bar for the rounds, one line per thing worth knowing."""

from __future__ import annotations

from collections.abc import Mapping
from types import TracebackType
from typing import Any, Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from semc.reporting.reasons import in_words
from server.events import Event
from server.receipts import SiteState


class LiveProgress:
    """Shows events as they come; a context manager.

    Args:
        console: Where to; standard error, so that results can be piped.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self._progress = Progress(
            TextColumn("[bold]{task.description}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TextColumn("{task.fields[note]}"),
            TimeElapsedColumn(),
            console=console,
        )
        self._task = self._progress.add_task("waiting for the sites", total=None, note="")
        self._answered = 0
        self._sites = 0

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    def show(self, event: Mapping[str, Any]) -> None:
        """Show one event."""
        match event["event"]:
            case Event.STARTED:
                self._sites = len(event["sites"])
                self._progress.update(
                    self._task, total=event["rounds"], description="waiting for the sites", note=""
                )
            case Event.PRETRAINING:
                note = f"{event['done']}/{event['of']} steps"
                self._progress.update(self._task, description="training the initial weights", note=note)
            case Event.JOINED:
                self._console.print(f"joined: {event['site']}")
            case Event.NOT_JOINED:
                who = event["site"] or "a site"
                self._console.print(f"not joined: {who} {event['state']} ({in_words(event['reason'])})")
            case Event.ROUND:
                self._answered = 0
                self._progress.update(self._task, description=f"round {event['round']}", note="")
            case Event.CLOSING:
                self._answered = 0
                self._progress.update(self._task, description="final evaluation", note="")
            case Event.REPLY:
                self._answered += 1
                self._progress.update(self._task, note=f"{self._answered}/{self._sites} sites")
                if event["state"] != SiteState.IN:
                    where = f"round {event['round']}: {event['site']}"
                    self._console.print(f"{where} {event['state']} ({in_words(event['reason'])})")
            case Event.AGGREGATED:
                self._progress.update(self._task, completed=event["round"])
            case Event.EVALUATED:
                self._console.print(
                    f"round {event['round']}: {event['measured_on']} macro-F1 {event['mean_macro_f1']:.3f}, "
                    f"worst {event['worst_macro_f1']:.3f} at {event['worst_site']}"
                )
            case _:
                pass

"""Live progress of a run in the terminal: one bar for the rounds, one line per thing worth knowing."""

from __future__ import annotations

from collections.abc import Mapping
from types import TracebackType
from typing import Any, Final, Self

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
        line = _line(event)
        if line is not None:
            self._console.print(line)
        match event["event"]:
            case Event.STARTED:
                self._sites = len(event["sites"])
                self._progress.update(
                    self._task, total=event["rounds"], description="waiting for the sites", note=""
                )
            case Event.PRETRAINING:
                note = f"{event['done']}/{event['of']} steps"
                self._progress.update(self._task, description="training the initial weights", note=note)
            case Event.ROUND:
                self._answered = 0
                self._progress.update(self._task, description=f"round {event['round']}", note="")
            case Event.CLOSING:
                self._answered = 0
                self._progress.update(self._task, description="final evaluation", note="")
            case Event.REPLY:
                self._answered += 1
                self._progress.update(self._task, note=f"{self._answered}/{self._sites} sites")
            case Event.RESUMED | Event.AGGREGATED:
                self._progress.update(self._task, completed=event["round"])
            case _:
                pass


_LINES: Final[Mapping[str, str]] = {
    Event.JOINED: "joined: {site}",
    Event.NOT_JOINED: "not joined: {site} {state} ({why})",
    Event.RESUMED: "going on after round {round}",
    Event.CHECKPOINT_DAMAGED: "checkpoint {checkpoint} is damaged; using the one before it",
    Event.REPLY_DAMAGED: "round {round}: the kept answer of {site} is damaged; asking again",
    Event.REPEAT: "round {round}: {site} lost at {stage} ({why}); asking again",
    Event.REPLY: "round {round}: {site} {state} at {stage} ({why})",
    Event.EVALUATED: "round {round}: {measured_on} macro-F1 {mean_macro_f1:.3f}, "
    "worst {worst_macro_f1:.3f} at {worst_site}",
}
"""What is worth a line that stays; a bar says the rest."""


def _line(event: Mapping[str, Any]) -> str | None:
    """Return the line an event is worth, None for most."""
    template = _LINES.get(event["event"])
    if template is None or event.get("state") == SiteState.IN:
        return None
    words = {"why": in_words(str(event.get("reason", "")))}
    return template.format_map({**event, **words, "site": event.get("site") or "a site"})

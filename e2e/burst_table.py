"""The demo's table: what clients see, how many replicas serve them, and why that changes."""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from rich.console import Console

from e2e.load import Load, percentile
from e2e.models import Model

COLUMNS: Final = ("time", "sent/s", "answered/s", "open", "TTFT p95", "per token p95", "replicas")
WIDTHS: Final = (6, 8, 12, 6, 10, 15, 10)


@dataclass(frozen=True)
class Span:
    """How long to show something, and how often.

    at_least_s, at_most_s  seconds; in between it ends as soon as there is enough to see
    """

    every_s: float
    at_least_s: float
    at_most_s: float


class BurstTable:
    """One line every few seconds, and one for each decision the operator takes from now on."""

    def __init__(self, console: Console, model: Model) -> None:
        self._console = console
        self._model = model
        self._start_s: float | None = None
        self._told = {decision["time"] for decision in model.status().get("decisions", [])}
        self._sent = 0

    async def show(self, load: Load, span: Span, enough: Callable[[int], bool]) -> None:
        """Print lines until the span is over or `enough` is true of the ready replicas."""
        start_s = time.monotonic()
        if self._start_s is None:
            self._start_s = start_s
            self._print_row(COLUMNS, "bold")
        while True:
            await asyncio.sleep(span.every_s)
            status = await asyncio.to_thread(self._model.status)
            ready = int(status.get("readyReplicas") or 0)
            self._tell_decisions(status.get("decisions", []))
            self._tell_load(load, span.every_s, f"{ready}/{status.get('replicas') or 0}")
            passed_s = time.monotonic() - start_s
            if passed_s > span.at_most_s or (passed_s >= span.at_least_s and enough(ready)):
                return

    def _tell_decisions(self, decisions: list[dict[str, Any]]) -> None:
        for decision in sorted(decisions, key=lambda one: str(one["time"])):
            if decision["time"] not in self._told:
                self._told.add(decision["time"])
                arrow = "[green]▲" if decision["to"] > decision["from"] else "[yellow]▼"
                self._console.print(
                    f"  {arrow} {decision['from']} → {decision['to']} replicas[/]"
                    f" {decision.get('reason', '')}: {decision['because']}",
                    soft_wrap=True,
                )

    def _tell_load(self, load: Load, every_s: float, replicas: str) -> None:
        sent, self._sent = load.sent - self._sent, load.sent
        recent = load.since(2 * every_s)
        first_s = percentile((answer.first_token_s for answer in recent), 0.95)
        token_s = percentile((answer.per_token_s for answer in recent), 0.95)
        row = (
            f"{time.monotonic() - (self._start_s or 0):.0f} s",
            f"{sent / every_s:.1f}",
            f"{len(load.since(every_s)) / every_s:.1f}",
            str(load.open_requests),
            "-" if first_s is None else f"{first_s:.2f} s",
            "-" if token_s is None else f"{token_s * 1000:.0f} ms",
            replicas,
        )
        self._print_row(row, "red" if load.failures else "")

    def _print_row(self, cells: tuple[str, ...], style: str) -> None:
        line = "".join(cell.rjust(width) for cell, width in zip(cells, WIDTHS, strict=True))
        self._console.print(line, style=style or None)

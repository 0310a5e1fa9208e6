"""The demo's table: what clients see, how many replicas serve them, and why that changes."""

import asyncio
import time
from collections.abc import Callable
from typing import Any, Final

from rich.console import Console

from e2e.load import Load, percentile
from e2e.models import Model

EVERY_S: Final = 3.0
COLUMNS: Final = ("time", "sent/s", "answered/s", "open", "TTFT p95", "per token p95", "replicas")
WIDTHS: Final = (6, 8, 12, 6, 10, 15, 10)


class BurstTable:
    """One line every few seconds, and one for each decision the operator takes."""

    def __init__(self, console: Console, model: Model, load: Load) -> None:
        self._console = console
        self._model = model
        self._load = load
        self._start_s = time.monotonic()
        self._told = {decision["time"] for decision in model.status().get("decisions", [])}
        self._sent = 0
        self._print_row(COLUMNS, "bold")

    async def show(
        self, at_least_s: float, at_most_s: float, enough: Callable[[int], bool]
    ) -> None:
        """Print lines until `at_least_s` have passed and `enough` is true of the ready replicas."""
        start_s = time.monotonic()
        while True:
            await asyncio.sleep(EVERY_S)
            status = await asyncio.to_thread(self._model.status)
            ready = int(status.get("readyReplicas") or 0)
            self._tell_decisions(status.get("decisions", []))
            self._tell_load(ready, int(status.get("replicas") or 0))
            passed_s = time.monotonic() - start_s
            if passed_s > at_most_s or (passed_s >= at_least_s and enough(ready)):
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

    def _tell_load(self, ready: int, ordered: int) -> None:
        sent, self._sent = self._load.sent - self._sent, self._load.sent
        recent = self._load.since(2 * EVERY_S)
        first_s = percentile((answer.first_token_s for answer in recent), 0.95)
        token_s = percentile((answer.per_token_s for answer in recent), 0.95)
        failed = len(self._load.failures)
        row = (
            f"{time.monotonic() - self._start_s:.0f} s",
            f"{sent / EVERY_S:.1f}",
            f"{len(self._load.since(EVERY_S)) / EVERY_S:.1f}",
            str(self._load.open_requests),
            "-" if first_s is None else f"{first_s:.2f} s",
            "-" if token_s is None else f"{token_s * 1000:.0f} ms",
            f"{ready}/{ordered}",
        )
        self._print_row(row, "red" if failed else "")

    def _print_row(self, cells: tuple[str, ...], style: str) -> None:
        line = "".join(cell.rjust(width) for cell, width in zip(cells, WIDTHS, strict=True))
        self._console.print(line, style=style or None)

"""Check the engine on an NVIDIA GPU, and measure it: one command, no network, 10 minutes at most.

    python serving_image/benchmarks/gpu_check.py --output results.json

Kernels against references, tokens against transformers', quantized linears, then attention alone,
linears and whole models with random weights against the bandwidth measured on the same card.
Sections run in processes of their own: one that crashes or overruns costs only itself, and results
are written as they come. `--device cpu --quick` runs everything small, to try the script.
"""

import argparse
import json
import multiprocessing
import os
import sys
import time
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

_ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(_ROOT), str(_ROOT / "serving_image"), str(Path(__file__).parent)]

from benchmarks.gpu.sections import STAGES, Row, Section, Setting, Skipped  # noqa: E402 (after the path)

KILL_AFTER_S = 5.0


def main() -> int:
    """Run the sections asked for; return 0 if nothing failed."""
    options = _parser().parse_args()
    # Threads that spin while they wait would slow everything on a busy CPU; read by torch.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    # Asking CUDA how many devices there are would make it useless to the sections' processes.
    os.environ.setdefault("PYTORCH_NVML_BASED_CUDA_CHECK", "1")
    import torch  # noqa: F401 (once, for all sections)
    import transformers

    transformers.utils.logging.disable_progress_bar()

    setting = Setting(device=options.device, quick=options.quick)
    deadline_s = time.monotonic() + options.seconds
    report = Report(options.output, {"argv": sys.argv[1:], "commit": options.commit})
    for stage in STAGES:
        chosen = [s for s in stage if not options.only or s.name in options.only]
        run_stage(chosen, setting, deadline_s, report)
        setting = replace(setting, ceilings=report.ceilings())
    report.summarize()
    return 1 if report.failures else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    option = parser.add_argument
    option("--output", type=Path, default=Path("gpu_check.json"), help="[%(default)s]")
    option("--device", default="cuda", help="cuda, or cpu to try the script [%(default)s]")
    option("--quick", action="store_true", help="tiny sizes: tries the script, measures nothing")
    option("--seconds", type=float, default=540.0, help="for everything [%(default)g]")
    option("--commit", default="unknown", help="written into the results")
    option(
        "--only", nargs="*", metavar="SECTION", help=", ".join(s.name for g in STAGES for s in g)
    )
    return parser


class Report:
    """What was measured so far, printed and written as it comes."""

    def __init__(self, path: Path, about: Mapping[str, Any]) -> None:
        self._path = path
        self._began_s = time.monotonic()
        self._data: dict[str, Any] = {
            **about,
            "date": time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime()),
            "sections": {},
        }

    def add(self, section: str, row: Row) -> None:
        """Take one row of a section."""
        self._section(section)["rows"].append(row)
        self._write()
        self._say(section, "  ".join(f"{key}={_short(value)}" for key, value in row.items()))

    def end(self, section: str, seconds: float, **problem: str) -> None:
        """Note that a section ended, with `skipped` or `error` where it did not end well."""
        self._section(section).update({"seconds": round(seconds, 1), **problem})
        self._write()
        for kind, text in problem.items():
            self._say(section, f"{kind.upper()}: {text}")

    def ceilings(self) -> dict[str, float]:
        """Return the measured ceilings by name."""
        rows = self._data["sections"].get("ceilings", {}).get("rows", ())
        return {row["ceiling"]: row["value"] for row in rows if "ceiling" in row}

    @property
    def failures(self) -> list[str]:
        """List checks that failed and sections that broke."""
        sections: Mapping[str, Any] = self._data["sections"]
        broken = [f"{name}: {s['error'].splitlines()[-1]}" for name, s in sections.items()
                  if "error" in s]  # fmt: skip
        return broken + [
            f"{name}: {row}" for name, section in sections.items() for row in section["rows"]
            if row.get("ok") is False
        ]  # fmt: skip

    def summarize(self) -> None:
        """Print what passed, what failed and what was skipped."""
        sections: Mapping[str, Any] = self._data["sections"]
        passed = sum(row.get("ok") is True for s in sections.values() for row in s["rows"])
        print(f"\n{passed} checks passed, {len(self.failures)} failed")
        for failure in self.failures:
            print(f"FAILED {failure}")
        for name, section in sections.items():
            if "skipped" in section:
                print(f"SKIPPED {name}: {section['skipped']}")
        self._data["failures"] = self.failures
        self._write()

    def _section(self, name: str) -> dict[str, Any]:
        found: dict[str, Any] = self._data["sections"].setdefault(name, {"rows": []})
        return found

    def _write(self) -> None:
        draft = self._path.with_suffix(".part")
        draft.write_text(json.dumps(self._data, indent=1) + "\n")
        draft.replace(self._path)

    def _say(self, section: str, text: str) -> None:
        print(f"[{time.monotonic() - self._began_s:5.1f}] {section}: {text}", flush=True)


@dataclass
class _Running:
    section: Section
    process: Any
    began_s: float
    ends_s: float


def run_stage(
    sections: Sequence[Section], setting: Setting, deadline_s: float, report: Report
) -> None:
    """Run sections side by side, each in a process of its own, until their time is over."""
    # Forked, so that torch is imported once; nothing touches CUDA before.
    context = multiprocessing.get_context("fork")
    running: dict[Connection, _Running] = {}
    for section in sections:
        now_s = time.monotonic()
        ends_s = min(now_s + section.budget_s, deadline_s)
        if ends_s - now_s < KILL_AFTER_S:
            report.end(section.name, 0.0, skipped="no time left")
            continue
        receiver, sender = context.Pipe(duplex=False)
        process = context.Process(target=_work, args=(section, setting, sender), daemon=True)
        process.start()
        sender.close()
        running[receiver] = _Running(section, process, now_s, ends_s)
    while running:
        for connection in wait(list(running), timeout=0.5):
            assert isinstance(connection, Connection)
            _take(connection, running, report)
        for connection, one in list(running.items()):
            if time.monotonic() > one.ends_s:
                one.process.kill()
                seconds = time.monotonic() - one.began_s
                report.end(one.section.name, seconds, skipped=f"the rest: over {seconds:.0f} s")
                del running[connection]


def _take(connection: Connection, running: dict[Connection, _Running], report: Report) -> None:
    """Take one message of a section: a row, or how it ended."""
    one = running[connection]
    seconds = time.monotonic() - one.began_s
    try:
        kind, value = connection.recv()
    except EOFError:
        one.process.join(KILL_AFTER_S)
        kind, value = "error", f"the process ended with {one.process.exitcode}"
    if kind == "row":
        report.add(one.section.name, value)
        return
    report.end(one.section.name, seconds, **({} if kind == "done" else {kind: value}))
    del running[connection]


def _work(section: Section, setting: Setting, sender: Connection) -> None:
    """Run one section; in its own process."""
    try:
        for row in section.rows(setting):
            sender.send(("row", row))
        sender.send(("done", ""))
    except Skipped as reason:
        sender.send(("skipped", str(reason)))
    except Exception:
        sender.send(("error", traceback.format_exc(limit=-6)))
    sender.close()
    sys.stdout.flush()
    os._exit(0)


def _short(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


if __name__ == "__main__":
    sys.exit(main())

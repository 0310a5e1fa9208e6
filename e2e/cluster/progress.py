"""Say what takes time while it takes it, and run commands whose failure explains itself."""

import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path


class CannotContinue(Exception):
    """What went wrong and what to do about it, as one message for a person."""


def say(text: str) -> None:
    """Print one line of progress on standard error; standard output is for results."""
    print(text, file=sys.stderr, flush=True)


@contextmanager
def step(what: str) -> Iterator[None]:
    """Announce a piece of work and, when it has ended, how many seconds it took."""
    say(f"{what} ...")
    start_s = time.monotonic()
    yield
    say(f"{what}: done in {time.monotonic() - start_s:.1f} s")


def run(
    command: Sequence[str | Path],
    *,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    input_text: str | None = None,
    timeout_s: float = 600,
) -> str:
    """Run a command to its end and return its standard output.

    Raises CannotContinue with the last lines of the output when the command fails.
    """
    words = [str(word) for word in command]
    try:
        done = subprocess.run(
            words, cwd=cwd, env=env, input=input_text, capture_output=True, text=True,
            timeout=timeout_s, check=False,
        )  # fmt: skip
    except FileNotFoundError as error:
        raise CannotContinue(f"the program {words[0]} is missing") from error
    except subprocess.TimeoutExpired as error:
        raise CannotContinue(f"`{' '.join(words)}` did not end within {timeout_s:g} s") from error
    if done.returncode != 0:
        said = (done.stderr or done.stdout)[-2000:].strip()
        raise CannotContinue(f"`{' '.join(words)}` failed:\n{said}")
    return done.stdout


def run_long(
    command: Sequence[str | Path],
    log: Path,
    *,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    timeout_s: float = 3600,
    every_s: float = 20,
) -> None:
    """Run a command that takes minutes: its output goes to `log`, its newest line to the reader.

    Raises CannotContinue with the last lines of the output when the command fails.
    """
    words = [str(word) for word in command]
    log.parent.mkdir(parents=True, exist_ok=True)
    start_s = time.monotonic()
    with log.open("wb") as sink:
        running = subprocess.Popen(
            words, cwd=cwd, env=env, stdin=subprocess.DEVNULL, stdout=sink,
            stderr=subprocess.STDOUT,
        )  # fmt: skip
        with running:
            while _still_runs(running, every_s):
                elapsed_s = time.monotonic() - start_s
                say(f"  {elapsed_s:4.0f} s  {_tail(log).rpartition(chr(10))[2][:100]}")
                if elapsed_s > timeout_s:
                    running.kill()
    if running.returncode != 0:
        raise CannotContinue(f"`{' '.join(words)}` failed:\n{_tail(log)}\n(whole output: {log})")


def _still_runs(running: "subprocess.Popen[bytes]", within_s: float) -> bool:
    try:
        running.wait(within_s)
    except subprocess.TimeoutExpired:
        return True
    return False


def _tail(log: Path, at_most_bytes: int = 2000) -> str:
    return log.read_bytes()[-at_most_bytes:].decode(errors="replace").strip()

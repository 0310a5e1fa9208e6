"""Runs helm on the chart, and finds objects in what it renders."""

import os
import shutil
import subprocess
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import yaml

CHART = Path(__file__).resolve().parents[2] / "charts" / "llm-operator"

Object = dict[str, Any]


class RenderError(Exception):
    """Helm refused; the text is what a person would read."""


class Helm:
    """The helm program, kept away from any cluster.

    program     path of helm
    kubeconfig  an empty one, so that no cluster of this machine's user is ever asked
    """

    def __init__(self, program: Path, kubeconfig: Path) -> None:
        self._program = program
        self._environ = os.environ | {"KUBECONFIG": str(kubeconfig)}

    def run(self, *words: str) -> str:
        """Return what helm prints; raise RenderError with its complaint."""
        done = subprocess.run(
            [str(self._program), *words],
            env=self._environ,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        if done.returncode != 0:
            raise RenderError(done.stderr or done.stdout)
        return done.stdout

    @cache  # noqa: B019  one Helm lives as long as the tests
    def render(
        self, *sets: str, release: str = "llm-operator", string: bool = False
    ) -> tuple[Object, ...]:
        """Return the objects of the chart under `--set`, or `--set-string`, for each of `sets`."""
        flag = "--set-string" if string else "--set"
        flags = [word for setting in sets for word in (flag, setting)]
        text = self.run(
            "template", release, str(CHART), "--namespace", "llm-operator-system", *flags
        )
        return tuple(found for found in yaml.safe_load_all(text) if found)

    def notes(self, folder: Path, *sets: str) -> str:
        """Return NOTES.txt as an install would print it: `helm template` leaves it out.

        folder  an empty one, for a copy of the chart in which the notes are an object
        """
        chart = folder / CHART.name
        shutil.copytree(CHART, chart)
        (chart / "NOTES.txt").write_text((chart / "templates" / "NOTES.txt").read_text())
        carrier = 'kind: Notes\ntext: {{ tpl (.Files.Get "NOTES.txt") . | quote }}\n'
        (chart / "templates" / "notes.yaml").write_text(carrier)
        flags = [word for setting in sets for word in ("--set", setting)]
        text = self.run(
            "template", "llm-operator", str(chart), "--namespace", "llms", *flags,
            "--show-only", "templates/notes.yaml",
        )  # fmt: skip
        return str(yaml.safe_load(text)["text"])


def of_kind(objects: Iterable[Object], kind: str) -> list[Object]:
    """Return the objects of one kind."""
    return [found for found in objects if found["kind"] == kind]


def the(objects: Iterable[Object], kind: str, name: str) -> Object:
    """Return the one object of this kind and name."""
    [found] = [o for o in of_kind(objects, kind) if o["metadata"]["name"] == name]
    return found


def pods(objects: Iterable[Object]) -> Iterator[tuple[str, Object]]:
    """Yield the name and the pod spec of everything that makes a pod."""
    for found in objects:
        if found["kind"] == "Pod":
            yield found["metadata"]["name"], found["spec"]
        elif template := found.get("spec", {}).get("template"):
            yield found["metadata"]["name"], template["spec"]

import os
from pathlib import Path

import pytest

from e2e.cluster import go_programs
from e2e.cluster.progress import CannotContinue
from e2e.cluster.target import Images, images, target

KUBECTL = """#!/bin/sh
[ "$1 $2" = "config current-context" ] && echo kind-mine
"""


@pytest.fixture
def environ(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """A machine with kubectl and helm whose current context is kind-mine."""
    for name in ("kubectl", "helm"):
        (tmp_path / name).write_text(KUBECTL)
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    return {"CLUSTER": "current", "PATH": f"{tmp_path}:/usr/bin:/bin", "KUBECONFIG": "/k"}


@pytest.mark.parametrize(
    ("named", "message"),
    [
        pytest.param({}, "CONTEXT is not set", id="no context is named"),
        pytest.param({"CONTEXT": "prod"}, "CONTEXT is 'prod'", id="another context is named"),
    ],
)
def test_a_context_that_was_not_named_is_not_touched(
    environ: dict[str, str], named: dict[str, str], message: str
) -> None:
    with pytest.raises(CannotContinue, match=f"{message}.*CONTEXT=kind-mine; nothing was touched"):
        target(environ | named)


def test_the_named_current_context_is_used_in_every_command(environ: dict[str, str]) -> None:
    found = target(environ | {"CONTEXT": "kind-mine"})

    assert (found.embedded, found.context, found.kubeconfig) == (False, "kind-mine", Path("/k"))


def test_images_of_a_foreign_cluster_come_from_its_user(environ: dict[str, str]) -> None:
    named = environ | {"CONTEXT": "kind-mine"}
    with pytest.raises(CannotContinue, match=r"CONTROL_IMAGE=.* ENGINE_IMAGE="):
        images(target(named))

    given = target(named | {"CONTROL_IMAGE": "c:1", "ENGINE_IMAGE": "e:1"})
    assert images(given) == Images(control="c:1", engine="e:1")


def test_without_root_the_embedded_cluster_is_refused_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 65534)
    monkeypatch.setattr(go_programs, "run_long", lambda *_a, **_k: pytest.fail("it builds first"))

    with pytest.raises(CannotContinue, match=r"run it as root \(sudo\).*CLUSTER=current"):
        target({})


def test_an_unknown_kind_of_cluster_is_refused() -> None:
    with pytest.raises(CannotContinue, match="CLUSTER is 'kind'"):
        target({"CLUSTER": "kind"})

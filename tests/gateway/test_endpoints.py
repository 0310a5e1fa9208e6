from typing import Any

import pytest

from llm_operator.api.names import DEPLOYMENT_LABEL
from llm_operator.cluster.watch import Changed, Deleted, Snapshot
from llm_operator.gateway.endpoints import ClusterView, slice_of

T1, T2 = "2026-01-01T00:00:00Z", "2026-01-02T00:00:00Z"


def a_deployment(
    name: str = "m", namespace: str = "a", created: str = T1, served: str | None = None, **meta: Any
) -> dict[str, Any]:
    metadata = {"name": name, "namespace": namespace, "creationTimestamp": created, **meta}
    return {"metadata": metadata, "spec": {"model": {"servedName": served} if served else {}}}


def an_endpoint(address: str = "10.0.0.1", **conditions: bool) -> dict[str, Any]:
    return {"addresses": [address], "conditions": conditions}


def a_slice(
    *endpoints: dict[str, Any],
    of: str | None = "m",
    namespace: str = "a",
    name: str = "s",
    ports: list[dict[str, Any]] | None = None,
) -> dict[str, Any]:
    labels = {DEPLOYMENT_LABEL: of} if of else {}
    return {
        "metadata": {"name": name, "namespace": namespace, "labels": labels},
        "ports": [{"name": "http", "port": 8000}] if ports is None else ports,
        "endpoints": list(endpoints),
    }


def a_view(deployments: list[dict[str, Any]], slices: list[dict[str, Any]]) -> ClusterView:
    view = ClusterView()
    view.deployments.see(Snapshot(tuple(deployments)))
    view.slices.see(Snapshot(tuple(slices)))
    return view


@pytest.mark.parametrize(
    ("endpoint", "urls"),
    [
        pytest.param(an_endpoint(ready=True), ("http://10.0.0.1:8000",), id="ready"),
        pytest.param(an_endpoint(), ("http://10.0.0.1:8000",), id="unknown counts as ready"),
        pytest.param(an_endpoint(ready=False), (), id="not ready"),
        pytest.param(an_endpoint(ready=False, serving=True, terminating=True), (), id="draining"),
        pytest.param(an_endpoint(ready=True, terminating=True), (), id="terminating wins"),
        pytest.param(an_endpoint("fd00::1"), ("http://[fd00::1]:8000",), id="IPv6"),
        pytest.param({"addresses": ["10.0.0.1"]}, ("http://10.0.0.1:8000",), id="no conditions"),
    ],
)
def test_which_endpoints_are_usable(endpoint: dict[str, Any], urls: tuple[str, ...]) -> None:
    part = slice_of(a_slice(endpoint))
    assert part is not None
    assert part.urls == urls


@pytest.mark.parametrize(
    "raw",
    [
        pytest.param(a_slice(an_endpoint(), of=None), id="without our label"),
        pytest.param(a_slice(an_endpoint(), ports=[]), id="without ports"),
        pytest.param(a_slice(an_endpoint(), ports=[{"name": "x", "port": 1}]), id="no port http"),
        pytest.param(a_slice(an_endpoint(), ports=[{"name": "http"}]), id="a port without number"),
        pytest.param({"metadata": {"name": "s", "namespace": "a"}}, id="without anything"),
    ],
)
def test_other_slices_are_passed_over(raw: dict[str, Any]) -> None:
    assert slice_of(raw) is None


def test_a_model_without_replicas_is_still_a_model() -> None:
    served = a_view([a_deployment()], []).served()
    assert {name: model.urls for name, model in served.items()} == {"m": ()}
    assert served["m"].created_s == 1767225600


def test_all_slices_of_a_deployment_count_and_none_of_its_namesake() -> None:
    view = a_view(
        [a_deployment(namespace="a", served="x"), a_deployment(namespace="b", served="y")],
        [
            a_slice(an_endpoint("10.0.0.1"), an_endpoint("10.0.0.2"), name="s1"),
            a_slice(an_endpoint("10.0.0.2"), an_endpoint("10.0.0.3"), name="s2"),
            a_slice(an_endpoint("10.9.9.9"), namespace="b"),
        ],
    )
    hosts = {name: [u[7:-5] for u in model.urls] for name, model in view.served().items()}
    assert hosts == {"x": ["10.0.0.1", "10.0.0.2", "10.0.0.3"], "y": ["10.9.9.9"]}


@pytest.mark.parametrize(
    ("deployments", "winner"),
    [
        pytest.param(
            [a_deployment(namespace="b", created=T1), a_deployment(namespace="a", created=T2)],
            "b",
            id="the first created, whatever the namespace",
        ),
        pytest.param(
            [a_deployment(namespace="b"), a_deployment(namespace="a")],
            "a",
            id="at the same second, the first namespace",
        ),
        pytest.param(
            [
                a_deployment(namespace="b", created=T1, deletionTimestamp=T2),
                a_deployment(namespace="a", created=T2),
            ],
            "a",
            id="one that is being deleted has given its name up",
        ),
    ],
)
def test_who_gets_a_name_that_two_want(deployments: list[dict[str, Any]], winner: str) -> None:
    slices = [a_slice(an_endpoint(f"host-{space}"), namespace=space) for space in ("a", "b")]
    assert a_view(deployments, slices).served()["m"].urls == (f"http://host-{winner}:8000",)


def test_changes_are_followed_and_a_new_list_drops_what_vanished() -> None:
    view = a_view([a_deployment()], [a_slice(an_endpoint("10.0.0.1"))])
    view.slices.see(Changed(a_slice(an_endpoint("10.0.0.2"))))
    assert view.served()["m"].urls == ("http://10.0.0.2:8000",)
    view.slices.see(Deleted(a_slice()))
    assert view.served()["m"].urls == ()
    view.deployments.see(Changed(a_deployment(name="n")))
    assert set(view.served()) == {"m", "n"}
    view.deployments.see(Snapshot((a_deployment(name="n"),)))
    assert set(view.served()) == {"n"}


def test_the_picture_is_complete_with_both_lists() -> None:
    view = ClusterView()
    assert not view.complete
    view.slices.see(Snapshot(()))
    assert not view.complete
    view.deployments.see(Snapshot(()))
    assert view.complete

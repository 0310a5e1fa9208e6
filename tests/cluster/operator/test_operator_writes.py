"""Writes on a real API server: never blind, never twice, never on something that is not ours."""

import copy
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from llm_operator.api.parsing import Metadata, parse_metadata
from llm_operator.cluster.carry_out import NameTaken, Stale, Writer
from llm_operator.cluster.connection import connect
from llm_operator.cluster.objects import Objects
from llm_operator.cluster.store import Store
from llm_operator.cluster.work_queue import Key
from llm_operator.reconcile.decision import Apply, Delete, Scale, SetDeletionCost
from llm_operator.reconcile.drift import signed
from llm_operator.reconcile.identity import child_metadata
from llm_operator.reconcile.notes import Note, NoteReason
from tests.cluster.operator.kube import Kube
from tests.cluster.operator.model import Model

pytestmark = pytest.mark.cluster

Json = dict[str, Any]


@asynccontextmanager
async def a_writer(kubeconfig: Path) -> AsyncIterator[tuple[Writer, Store]]:
    async with connect(kubeconfig) as client:
        store = Store()
        yield Writer(Objects(client), store, "test-process"), store


@pytest.fixture
def model(kube: Kube, namespace: str) -> Model:
    """An LLMDeployment that no operator looks at."""
    return Model(kube, namespace, "written").applied()


def owner_of(model: Model) -> Metadata:
    return parse_metadata(model.seen())


def a_service(model: Model, port: int = 80) -> Json:
    metadata = child_metadata(owner_of(model), "written-engine", "engine")
    spec = {"ports": [{"name": "http", "port": port}], "selector": {"a": "b"}}
    return signed({"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": spec})


def a_deployment(model: Model) -> Json:
    labels = {"app": "x"}
    spec = {
        "replicas": 1,
        "selector": {"matchLabels": labels},
        "template": {
            "metadata": {"labels": labels},
            "spec": {"containers": [{"name": "engine", "image": "i"}]},
        },
    }
    metadata = child_metadata(owner_of(model), "written-engine", "engine")
    return signed(
        {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": metadata, "spec": spec}
    )


async def test_what_is_created_is_in_the_store_at_once(kubeconfig: Path, model: Model) -> None:
    async with a_writer(kubeconfig) as (writer, store):
        await writer.carry_out(owner_of(model), Apply(a_service(model), None))
        [service] = store.family(Key(model.namespace, model.name))
    assert service["metadata"]["uid"] == (model.child("services") or {})["metadata"]["uid"]


async def test_a_decision_on_an_old_version_is_refused_and_the_new_one_is_read(
    kubeconfig: Path, model: Model
) -> None:
    async with a_writer(kubeconfig) as (writer, store):
        await writer.carry_out(owner_of(model), Apply(a_service(model), None))
        [old] = store.family(Key(model.namespace, model.name))
        old = copy.deepcopy(old)
        model.kube.merge(model.child_path("services"), {"metadata": {"labels": {"who": "else"}}})
        with pytest.raises(Stale):
            await writer.carry_out(owner_of(model), Apply(a_service(model, 81), old))
        seen = model.child("services") or {}
        assert seen["spec"]["ports"][0]["port"] == 80
        [fresh] = store.family(Key(model.namespace, model.name))
        assert fresh["metadata"]["resourceVersion"] == seen["metadata"]["resourceVersion"]
        await writer.carry_out(owner_of(model), Apply(a_service(model, 81), fresh))
    assert (model.child("services") or {})["spec"]["ports"][0]["port"] == 81


async def test_an_old_version_is_not_deleted(kubeconfig: Path, model: Model) -> None:
    async with a_writer(kubeconfig) as (writer, store):
        await writer.carry_out(owner_of(model), Apply(a_service(model), None))
        [old] = store.family(Key(model.namespace, model.name))
        old = copy.deepcopy(old)
        model.kube.merge(model.child_path("services"), {"metadata": {"labels": {"who": "else"}}})
        with pytest.raises(Stale):
            await writer.carry_out(owner_of(model), Delete(old))
        assert model.child("services")
        [fresh] = store.family(Key(model.namespace, model.name))
        await writer.carry_out(owner_of(model), Delete(fresh))
        assert model.child("services") is None
        await writer.carry_out(owner_of(model), Delete(fresh))  # gone already is success
        assert list(store.family(Key(model.namespace, model.name))) == []


async def test_what_is_there_unseen_is_read_and_not_overwritten(
    kubeconfig: Path, model: Model
) -> None:
    async with a_writer(kubeconfig) as (writer, _):
        await writer.carry_out(owner_of(model), Apply(a_service(model), None))
    async with a_writer(kubeconfig) as (writer, store):
        with pytest.raises(Stale):
            await writer.carry_out(owner_of(model), Apply(a_service(model, 81), None))
        assert len(list(store.family(Key(model.namespace, model.name)))) == 1
    assert (model.child("services") or {})["spec"]["ports"][0]["port"] == 80


async def test_an_object_of_somebody_else_is_left_alone(kubeconfig: Path, model: Model) -> None:
    theirs = a_service(model, 1234)
    del theirs["metadata"]["ownerReferences"]
    model.kube.apply(model.child_path("services"), theirs)
    async with a_writer(kubeconfig) as (writer, _):
        with pytest.raises(NameTaken, match="written-engine"):
            await writer.carry_out(owner_of(model), Apply(a_service(model), None))
    assert (model.child("services") or {})["spec"]["ports"][0]["port"] == 1234


async def test_scaling_touches_nothing_but_the_number(kubeconfig: Path, model: Model) -> None:
    async with a_writer(kubeconfig) as (writer, store):
        await writer.carry_out(owner_of(model), Apply(a_deployment(model), None))
        before = model.child("deployments") or {}
        await writer.carry_out(owner_of(model), Scale(before, 4))
        after = model.child("deployments") or {}
        assert after["spec"] == {**before["spec"], "replicas": 4}
        [kept] = store.family(Key(model.namespace, model.name))
        assert kept["spec"]["replicas"] == 4


async def test_the_cost_of_a_pod_that_is_gone_is_stale_and_makes_no_pod(
    kubeconfig: Path, model: Model
) -> None:
    async with a_writer(kubeconfig) as (writer, _):
        with pytest.raises(Stale):
            await writer.carry_out(owner_of(model), SetDeletionCost("gone", "no-such-uid", 1))
    assert model.kube.list(f"/api/v1/namespaces/{model.namespace}/pods") == []


async def test_a_report_on_a_successor_of_the_same_name_is_refused(
    kubeconfig: Path, model: Model
) -> None:
    dead = model.seen()
    model.kube.delete(model.path)
    model.applied()
    async with a_writer(kubeconfig) as (writer, store):
        with pytest.raises(Stale):
            await writer.report(dead, {"observedGeneration": 9})
        assert store.deployment(Key(model.namespace, model.name)) is not None
    assert "status" not in model.seen()


async def test_a_report_on_a_spec_that_has_changed_is_refused(
    kubeconfig: Path, model: Model
) -> None:
    old = model.seen()
    model.applied(quantization="Int8")
    async with a_writer(kubeconfig) as (writer, store):
        with pytest.raises(Stale):
            await writer.report(old, {"observedGeneration": 1})
        fresh = store.deployment(Key(model.namespace, model.name))
        assert fresh is not None
        await writer.report(fresh, {"observedGeneration": 2})
    assert model.seen()["status"]["observedGeneration"] == 2


async def test_the_same_event_is_recorded_once(kubeconfig: Path, model: Model) -> None:
    note = Note(NoteReason.NOT_READY, "ModelNotFound: no such folder")
    async with a_writer(kubeconfig) as (writer, _):
        for _ in range(3):
            await writer.tell(owner_of(model), note)
    events = model.events("NotReady")
    assert 1 <= len(events) <= 2, "a minute may have turned"
    assert events[0]["note"] == note.message
    assert events[0]["type"] == "Warning"

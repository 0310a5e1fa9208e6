"""The operator is killed, paused, cut off, doubled: what was asked for comes about all the same."""

import json
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from e2e.cluster.api_server import ApiServer
from tests.cluster.operator.kube import GROUP, Kube, eventually
from tests.cluster.operator.model import Model
from tests.cluster.operator.process import Operator
from tests.cluster.operator.proxy import Proxy
from tests.cluster.operator.writes import writes_since

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(300)]

Account = Callable[..., Path]


def _written(api: ApiServer, namespace: str, at_least: int) -> bool:
    return len(writes_since(api.audit_log, 0, namespace)) >= at_least


def holder(kube: Kube, namespace: str) -> str:
    path = f"/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases/llm-operator"
    lease = kube.get(path)
    return str(lease["spec"].get("holderIdentity") or "") if lease else ""


def test_sigterm_gives_the_lease_back_and_the_next_one_leads_at_once(
    kube: Kube, namespace: str, account: Account, tmp_path: Path
) -> None:
    kubeconfig = account(namespace)
    with (
        Operator(kubeconfig, tmp_path, namespace) as first,
        Operator(kubeconfig, tmp_path, namespace) as second,
    ):
        eventually(lambda: holder(kube, namespace), 40)
        first.wait_until_ready()
        second.wait_until_ready()
        leader, other = (first, second) if first.metric("llm_operator_leader") else (second, first)
        assert other.metric("llm_operator_leader") == 0
        model = Model(kube, namespace, "passed-on").applied()
        eventually(model.jobs)
        assert leader.terminate(within_s=5) == 0
        other.wait_until_it_leads(within_s=5)
        assert "Traceback" not in leader.log_text()
        model.launched()


def test_a_leader_that_is_killed_is_succeeded_and_nothing_is_doubled(
    kube: Kube, namespace: str, account: Account, api: ApiServer, tmp_path: Path
) -> None:
    kubeconfig = account(namespace)
    model = Model(kube, namespace, "survivor").applied()
    for writes in (1, 3):
        with Operator(kubeconfig, tmp_path, namespace) as operator:
            eventually(partial(_written, api, namespace, writes), within_s=60)
            operator.kill()
    with Operator(kubeconfig, tmp_path, namespace) as operator:
        operator.wait_until_it_leads(within_s=60)
        model.serving()
        for plural in ("deployments", "services", "poddisruptionbudgets"):
            assert model.child(plural)
        assert len(model.all_of("services")) == 1
        assert len(model.all_of("deployments", "/apis/apps/v1")) == 1
        assert len(model.pods("engine")) == 1
        eventually(lambda: model.jobs() == [])


def test_a_leader_that_was_paused_writes_nothing_once_another_leads(
    kube: Kube, namespace: str, account: Account, api: ApiServer, tmp_path: Path
) -> None:
    kubeconfig = account(namespace)
    model = Model(kube, namespace, "paused").applied()
    with Operator(kubeconfig, tmp_path, namespace) as first:
        first.wait_until_it_leads().wait_until_ready()
        model.serving()
        with Operator(kubeconfig, tmp_path, namespace) as second:
            second.wait_until_ready()
            first.pause()
            second.wait_until_it_leads(within_s=30)
            model.applied(scaling={"minReplicas": 2, "maxReplicas": 2})
            eventually(lambda: (model.child("deployments") or {})["spec"]["replicas"] == 2)
            eventually(lambda: len(model.pods("engine")) == 2)
            time.sleep(3)  # until the second is at rest
            resumed_s = time.time()
            first.resume()
            time.sleep(6)
            assert first.metric("llm_operator_leader") == 0
            assert second.metric("llm_operator_leader") == 1
            assert writes_since(api.audit_log, resumed_s, namespace) == []
            assert (model.child("deployments") or {})["spec"]["replicas"] == 2


def test_a_right_that_is_missing_is_named(
    kube: Kube, namespace: str, account: Account, tmp_path: Path
) -> None:
    kubeconfig = account(namespace, without=("patch", "deployments"))
    model = Model(kube, namespace, "forbidden").applied()
    with Operator(kubeconfig, tmp_path, namespace) as operator:
        operator.wait_until_it_leads()
        model.end_inspection()
        model.wait_for("Ready", "False Forbidden", within_s=20)
        assert "deployments" in model.message("Ready")
        assert "patch" in model.message("Ready")
        account(namespace)  # the right is granted
        eventually(lambda: model.child("deployments"), within_s=60)
        eventually(lambda: model.says("Ready") != "False Forbidden", within_s=20)


def test_an_api_server_that_falls_silent_costs_the_lease_and_nothing_else(
    kube: Kube, namespace: str, account: Account, tmp_path: Path
) -> None:
    model = Model(kube, namespace, "cut-off").applied()
    with Proxy(kube.url) as proxy:
        kubeconfig = proxy.through(account(namespace))
        with Operator(kubeconfig, tmp_path, namespace) as operator:
            operator.wait_until_it_leads()
            model.serving()
            proxy.silent()
            eventually(lambda: operator.metric("llm_operator_leader") == 0, within_s=20)
            assert operator.ask("/healthz")[0] == 200, "a restart would not help"
            kube.delete(model.child_path("services"))
            proxy.cut()
            proxy.flowing()
            operator.wait_until_it_leads(within_s=40)
            eventually(lambda: model.child("services"), within_s=40)
            assert model.says("Ready") == "True Serving"
            assert operator.process.poll() is None, "it lives on"


def test_an_operator_that_was_away_catches_up(
    kube: Kube, namespace: str, account: Account, tmp_path: Path
) -> None:
    kubeconfig = account(namespace)
    model = Model(kube, namespace, "away").applied()
    with Operator(kubeconfig, tmp_path, namespace) as operator:
        operator.wait_until_it_leads()
        model.serving()
        operator.terminate(within_s=5)
    kube.delete(model.child_path("services"))
    model.applied(scaling={"minReplicas": 3, "maxReplicas": 3})
    with Operator(kubeconfig, tmp_path, namespace) as operator:
        operator.wait_until_it_leads()
        eventually(lambda: model.child("services"), within_s=15)
        eventually(lambda: (model.child("deployments") or {})["spec"]["replicas"] == 3)


def test_the_catalogue_is_applied_and_what_a_person_changed_stays_theirs(
    kube: Kube, namespace: str, account: Account, tmp_path: Path
) -> None:
    catalogue = tmp_path / "catalogue.yaml"
    catalogue.write_text(
        "nvidia-x:\n  resourceName: nvidia.com/gpu\n  memory: 24Gi\n  price: {perHour: '1.00'}\n"
    )
    path = f"{GROUP}/acceleratorclasses/nvidia-x"
    flags = ("--catalogue", str(catalogue))
    with Operator(account(namespace), tmp_path, namespace, *flags) as operator:
        eventually(lambda: kube.get(path), within_s=60)
        operator.terminate(within_s=5)
    kube.merge(f"{path}?fieldManager=somebody", {"spec": {"price": {"perHour": "0.70"}}})
    with Operator(account(namespace), tmp_path, namespace, *flags) as operator:
        operator.wait_until_it_leads()
        eventually(lambda: "left alone" in operator.log_text())
    assert (kube.get(path) or {})["spec"]["price"]["perHour"] == "0.70"


def test_without_a_valid_account_it_waits_and_says_so(api: ApiServer, tmp_path: Path) -> None:
    with Operator(_of_nobody(api.kubeconfig, tmp_path), tmp_path, "default") as operator:
        eventually(lambda: "401" in operator.log_text(), 40)
        assert operator.ask("/readyz")[0] == 503
        assert operator.ask("/healthz")[0] == 200
        assert operator.process.poll() is None


def _of_nobody(kubeconfig: Path, folder: Path) -> Path:
    config = json.loads(kubeconfig.read_text())
    config["users"][0]["user"]["token"] = "wrong"
    copy = folder / "nobody.kubeconfig"
    copy.write_text(json.dumps(config))
    return copy

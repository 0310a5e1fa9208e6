"""The store agrees with the cluster, whatever is lost, doubled or late on the way."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from llm_operator.cluster.kinds import LLM_DEPLOYMENT, SERVICE
from llm_operator.cluster.store import Store
from llm_operator.cluster.work_queue import Key

Json = dict[str, Any]
KEY = Key("ns", "chat")


def a_service(version: int, name: str = "chat-engine", **labels: str) -> Json:
    return {
        "kind": "Service",
        "metadata": {
            "name": name,
            "namespace": "ns",
            "resourceVersion": str(version),
            "labels": {"llm-operator.dev/deployment": "chat", **labels},
            "managedFields": [{"manager": "x"}],
        },
    }


def a_model(version: int, name: str = "chat", created: str = "2026-01-01T00:00:00Z") -> Json:
    return {
        "kind": "LLMDeployment",
        "metadata": {
            "name": name,
            "namespace": "ns",
            "resourceVersion": str(version),
            "creationTimestamp": created,
        },
        "spec": {"model": {"servedName": "served"}},
    }


def versions(store: Store) -> list[int]:
    return [int(obj["metadata"]["resourceVersion"]) for obj in store.family(KEY)]


def test_a_child_is_found_by_its_label() -> None:
    store = Store()
    assert store.told(a_service(1)) == KEY
    assert versions(store) == [1]


def test_a_child_without_the_label_is_found_by_its_owner() -> None:
    obj = a_service(1)
    obj["metadata"]["labels"] = {}
    obj["metadata"]["ownerReferences"] = [
        {"kind": "LLMDeployment", "name": "chat", "controller": True}
    ]
    assert Store().told(obj) == KEY


def test_an_older_version_never_replaces_a_newer_one() -> None:
    store = Store()
    store.told(a_service(5))
    store.told(a_service(3))
    store.listed(SERVICE, [a_service(4)], "4")
    assert versions(store) == [5]


def test_what_a_newer_list_lacks_is_gone() -> None:
    store = Store()
    store.told(a_service(5))
    store.listed(SERVICE, [], "9")
    assert versions(store) == []


def test_what_came_after_the_list_stays() -> None:
    store = Store()
    store.told(a_service(12))
    store.listed(SERVICE, [], "9")
    assert versions(store) == [12]


def test_a_late_list_does_not_bring_back_what_was_deleted() -> None:
    store = Store()
    store.told(a_service(5))
    store.gone(a_service(8))
    store.listed(SERVICE, [a_service(5)], "6")
    assert versions(store) == []
    store.told(a_service(9))
    assert versions(store) == [9], "a new one of the same name"


def test_a_late_deletion_does_not_take_a_new_object() -> None:
    store = Store()
    store.told(a_service(9))
    store.gone(a_service(8))
    assert versions(store) == [9]


def test_what_only_a_list_has_shown_makes_the_watch_owe_us() -> None:
    now_s = [0.0]
    store = Store(lambda: now_s[0])
    store.told(a_service(1))
    assert store.watch_lag_s() == 0
    now_s[0] = 10.0
    store.listed(SERVICE, [a_service(2)], "2")
    now_s[0] = 40.0
    store.listed(SERVICE, [a_service(3)], "3")
    assert store.watch_lag_s() == 30
    store.told(a_service(3))
    assert store.watch_lag_s() == 0


def test_names_are_held_by_the_oldest() -> None:
    store = Store()
    store.told(a_model(1, "young", "2026-01-02T00:00:00Z"))
    store.told(a_model(2, "old", "2026-01-01T00:00:00Z"))
    owner = store.name_owner("served")
    assert owner is not None
    assert owner.name == "old"
    store.gone(a_model(3, "old"))
    owner = store.name_owner("served")
    assert owner is not None
    assert owner.name == "young"
    store.missing(LLM_DEPLOYMENT, "ns", "young")
    assert store.name_owner("served") is None


def test_managed_fields_are_not_kept() -> None:
    store = Store()
    store.told(a_service(1))
    [kept] = store.family(KEY)
    assert "managedFields" not in kept["metadata"]


@given(
    st.lists(
        st.tuples(st.sampled_from(["told", "written", "gone", "listed"]), st.integers(1, 30)),
        max_size=40,
    )
)
def test_after_a_list_of_the_present_the_store_is_the_present(
    history: list[tuple[str, int]],
) -> None:
    """Whatever came before, in whatever order: one complete newer list settles it."""
    store = Store()
    for what, version in history:
        if what == "listed":
            store.listed(SERVICE, [a_service(version)], str(version))
        else:
            getattr(store, what)(a_service(version))
    store.listed(SERVICE, [a_service(40), a_service(41, "other")], "50")
    assert versions(store) == [40, 41]
    store.listed(SERVICE, [], "60")
    assert versions(store) == []
    assert len(store) == 0

"""The memory of the scaling law: what it keeps, what it refuses, when it is worth writing."""

import json
from dataclasses import replace

import pytest

from llm_operator.scaling import ScalingState
from llm_operator.scaling.state import Want
from tests.scaling.builders import LEARNED, START_S

KNOWN = ScalingState(
    at_s=START_S,
    wants=(Want(START_S - 20, 4), Want(START_S, 2)),
    active_at_s=START_S - 5,
    ready=3,
    ready_at_s=START_S - 100,
    learned=LEARNED,
)


def test_it_is_small_json_and_reads_back_the_same() -> None:
    text = json.dumps(KNOWN.as_status())
    assert len(text) < 1500
    again = ScalingState.from_status(json.loads(text))
    assert again.as_status() == KNOWN.as_status()
    assert again.resumed


@pytest.mark.parametrize(
    "value",
    [
        None,
        "",
        [],
        {},
        {"at": "yesterday"},
        KNOWN.as_status() | {"at": -1},
        KNOWN.as_status() | {"at": float("nan")},
        KNOWN.as_status() | {"ready": True},
        KNOWN.as_status() | {"wants": [[1, 2, 3]]},
        KNOWN.as_status() | {"learned": {"pools": [[1, 2]]}},
        KNOWN.as_status() | {"learned": None},
    ],
    ids=lambda value: str(value)[:30],
)
def test_what_it_does_not_understand_is_a_fresh_memory(value: object) -> None:
    assert ScalingState.from_status(value) == ScalingState()


def test_time_that_nobody_watched_is_taken_out() -> None:
    later, watched_s = KNOWN.looked_at(START_S + 3000)
    assert watched_s is None
    assert later.wants[0] == Want(START_S + 2980, 4)
    assert later.active_at_s == START_S + 2995
    soon, watched_s = KNOWN.looked_at(START_S + 5)
    assert (watched_s, soon.wants) == (5, KNOWN.wants)


def test_only_the_first_look_after_a_restart_is_unwatched() -> None:
    for at_s in (None, START_S - 5):
        first, watched_s = replace(KNOWN, at_s=at_s, resumed=True).looked_at(START_S)
        assert watched_s is None
        assert first.looked_at(START_S + 5)[1] == 5


def test_an_older_want_for_no_more_is_forgotten() -> None:
    state = KNOWN.wanting(3, START_S, stabilization_s=60)
    assert state.wants == (Want(START_S - 20, 4), Want(START_S, 3))
    assert state.most_wanted == 4
    assert state.wanting(5, START_S, 60).wants == (Want(START_S, 5),)
    assert state.wanting(1, START_S + 60, 60).most_wanted == 1


def test_only_what_would_lose_a_decision_is_worth_writing() -> None:
    later = replace(KNOWN, at_s=START_S + 30, active_at_s=START_S + 20)
    assert not later.worth_writing(KNOWN)
    assert replace(KNOWN, wants=(Want(START_S, 2),)).worth_writing(KNOWN)
    assert replace(KNOWN, active_at_s=START_S + 90).worth_writing(KNOWN)
    longer = replace(KNOWN, learned=replace(LEARNED, output_tokens=80.0))
    assert longer.worth_writing(KNOWN)

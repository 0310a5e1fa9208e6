import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_engine.server.stop_strings import StopStrings


def read(stops: list[str], pieces: list[str]) -> tuple[str, bool]:
    search = StopStrings(stops)
    text = "".join(search.push(piece) for piece in pieces)
    return text + search.flush(), search.found


@pytest.mark.parametrize(
    ("stops", "pieces", "text", "found"),
    [
        pytest.param([], ["a", "b"], "ab", False, id="without stop strings everything passes"),
        pytest.param(["X"], ["aXb"], "a", True, id="text ends before the stop string"),
        pytest.param(["END"], ["aE", "N", "Db"], "a", True, id="a stop string over three pieces"),
        pytest.param(["END"], ["aE", "N"], "aEN", False, id="a beginning that never ends is text"),
        pytest.param(
            ["aab"], ["aa", "ab"], "a", True, id="the longest overlap is held, not the first"
        ),
        pytest.param(["cd", "bc"], ["abcd"], "a", True, id="the earliest of several counts"),
        pytest.param(["b"], ["ab", "c"], "a", True, id="nothing follows a stop string"),
    ],
)
def test_stop_strings(stops: list[str], pieces: list[str], text: str, found: bool) -> None:
    assert read(stops, pieces) == (text, found)


def test_certain_text_is_not_held_back() -> None:
    search = StopStrings(["\n\n"])
    assert [search.push("a"), search.push("\n"), search.push("b")] == ["a", "", "\nb"]


@given(
    stop=st.text("ab", min_size=1, max_size=4),
    pieces=st.lists(st.text("abc", max_size=5), max_size=12),
)
def test_borders_of_pieces_do_not_matter(stop: str, pieces: list[str]) -> None:
    whole = "".join(pieces)
    assert read([stop], pieces) == (whole.split(stop)[0], stop in whole)

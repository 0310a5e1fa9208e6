from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llm_operator.gateway.relay import MOST_PENDING_BYTES, WholeEvents


@settings(deadline=None)
@given(st.binary(max_size=200), st.lists(st.integers(0, 200), max_size=10))
def test_no_byte_is_lost_or_changed(text: bytes, cuts: list[int]) -> None:
    edges = [0, *sorted(min(cut, len(text)) for cut in cuts), len(text)]
    events = WholeEvents()
    sent = b"".join(events.cut(text[a:b]) for a, b in pairwise(edges))
    assert sent + events.pending == text


@pytest.mark.parametrize("mark", [b"\n\n", b"\r\n\r\n"])
@settings(deadline=None)
@given(data=st.data())
def test_what_is_sent_always_ends_with_an_event(mark: bytes, data: st.DataObject) -> None:
    text = b"".join(b"data: %d%b" % (n, mark) for n in range(8))
    edges = sorted({0, len(text), *data.draw(st.lists(st.integers(0, len(text))))})
    events = WholeEvents()
    for a, b in pairwise(edges):
        sent = events.cut(text[a:b])
        assert sent == b"" or sent.endswith(mark)
    assert events.pending == b""


def test_what_is_no_event_stream_is_not_hoarded() -> None:
    events = WholeEvents()
    piece = b"x" * 100_000
    sent = sum(len(events.cut(piece)) for _ in range(30))
    assert sent >= 30 * len(piece) - MOST_PENDING_BYTES - len(piece)

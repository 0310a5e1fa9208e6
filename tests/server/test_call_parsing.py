"""From generated text to calls, wherever the pieces are cut."""

from collections.abc import Callable, Collection
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_engine.server.tools.calls import BareCalls, Call, CallParser, TaggedCalls

F = '<tool_call>\n{"name": "f", "arguments": {"x": 1}}\n</tool_call>'
G = '<tool_call>{"name": "g", "arguments": {}}</tool_call>'
CALL_F, CALL_G = Call("f", '{"x": 1}'), Call("g", "{}")
BARE_F = '{"name": "f", "parameters": {"x": 1}}'
BARE_G = '{"name": "g", "arguments": {}}'

Parser = Callable[[Collection[str]], CallParser]


def read(parser: CallParser, pieces: list[str]) -> tuple[str, list[Call]]:
    spoken = [*map(parser.push, pieces), parser.finish()]
    return "".join(one.text for one in spoken), [call for one in spoken for call in one.calls]


CASES = [
    pytest.param(TaggedCalls, "Hello <b> there.", "Hello <b> there.", [], id="tags: only text"),
    pytest.param(TaggedCalls, F, "", [CALL_F], id="tags: one call"),
    pytest.param(TaggedCalls, f"{F}\n{G}\n", "", [CALL_F, CALL_G], id="tags: two calls"),
    pytest.param(TaggedCalls, f"Wait. {F}", "Wait. ", [CALL_F], id="tags: text, then a call"),
    pytest.param(TaggedCalls, F[:-12], "", [CALL_F], id="tags: no closing tag"),
    pytest.param(TaggedCalls, F[:-20], F[:-20], [], id="tags: cut in the middle"),
    pytest.param(TaggedCalls, "<tool_", "<tool_", [], id="tags: half a tag"),
    pytest.param(
        TaggedCalls,
        "<tool_call>{</tool_call>",
        "<tool_call>{</tool_call>",
        [],
        id="tags: no JSON between them",
    ),
    pytest.param(
        TaggedCalls,
        F.replace('"f"', '"unknown"'),
        F.replace('"f"', '"unknown"'),
        [],
        id="tags: an unknown function",
    ),
    pytest.param(BareCalls, "Hello {x}.", "Hello {x}.", [], id="bare: only text"),
    pytest.param(BareCalls, BARE_F, "", [CALL_F], id="bare: one call"),
    pytest.param(BareCalls, f"{BARE_F}; {BARE_G}", "", [CALL_F, CALL_G], id="bare: two calls"),
    pytest.param(BareCalls, f"\n\n{BARE_F}\n", "", [CALL_F], id="bare: blanks around it"),
    pytest.param(BareCalls, '{"a": {}} x', '{"a": {}} x', [], id="bare: some other object"),
    pytest.param(BareCalls, '{"name": "f", ', '{"name": "f", ', [], id="bare: cut in the middle"),
    pytest.param(BareCalls, f"{BARE_F} and so", " and so", [CALL_F], id="bare: a call, then text"),
]


@pytest.mark.parametrize("size", [1, 3, 1000], ids=["letters", "threes", "whole"])
@pytest.mark.parametrize(("parser", "text", "shown", "calls"), CASES)
def test_calls_are_found(
    parser: Parser, text: str, shown: str, calls: list[Call], size: int
) -> None:
    pieces = [text[at : at + size] for at in range(0, len(text), size)]
    assert read(parser({"f", "g"}), pieces) == (shown, calls)


FRAGMENTS = st.sampled_from(
    [
        "<tool_call>",
        "</tool_call>",
        "<tool",
        "{",
        "}",
        '"',
        "\n",
        " ",
        "; ",
        "é",
        "x",
        BARE_F,
        BARE_G,
        F,
    ]
)


@given(parts=st.lists(FRAGMENTS, max_size=12), cuts=st.lists(st.integers(0, 400), max_size=8))
@pytest.mark.parametrize("parser", [TaggedCalls, BareCalls])
def test_where_pieces_are_cut_changes_nothing_and_text_without_calls_is_never_lost(
    parser: Parser, parts: list[str], cuts: list[int]
) -> None:
    text = "".join(parts)
    borders = sorted({0, len(text), *(cut for cut in cuts if cut < len(text))})
    pieces = [text[a:b] for a, b in pairwise(borders)]
    shown, calls = read(parser({"f", "g"}), pieces)
    assert (shown, calls) == read(parser({"f", "g"}), [text])
    if not calls:
        assert shown == text or (parser is BareCalls and not text.strip(" \n;"))

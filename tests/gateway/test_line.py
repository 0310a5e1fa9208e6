from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from llm_operator.gateway.holding import Held, Line

MOST_REQUESTS, MOST_BYTES = 4, 100


class LineStory(RuleBasedStateMachine):
    """A line beside a plain list, whatever happens to both."""

    def __init__(self) -> None:
        super().__init__()
        self.line: Line[int] = Line(MOST_REQUESTS, MOST_BYTES)
        self.expected: list[Held[int]] = []
        self.beyond = 0  # requests that came back to the front, past the bounds
        self.number = 0

    def held(self, body_bytes: int) -> Held[int]:
        self.number += 1
        return Held(self.number, body_bytes, float(self.number))

    @rule(body_bytes=st.integers(0, 60))
    def join(self, body_bytes: int) -> None:
        held = self.held(body_bytes)
        room = len(self.expected) < MOST_REQUESTS
        room = room and sum(h.body_bytes for h in self.expected) + body_bytes <= MOST_BYTES
        assert self.line.join(held) == room
        if room:
            self.expected.append(held)

    @rule(body_bytes=st.integers(0, 60))
    def rejoin(self, body_bytes: int) -> None:
        held = self.held(body_bytes)
        self.line.rejoin(held)
        self.expected.insert(0, held)
        self.beyond += 1

    @rule(place=st.integers(0, 5))
    def leave(self, place: int) -> None:
        if place < len(self.expected):
            held = self.expected.pop(place)
            self.line.leave(held)
            self.line.leave(held)  # leaving twice is leaving once

    @invariant()
    def it_is_the_same_line(self) -> None:
        assert list(self.line) == self.expected
        assert len(self.line) <= MOST_REQUESTS + self.beyond
        assert self.line.body_bytes == sum(h.body_bytes for h in self.expected)
        assert self.line.first() is (self.expected[0] if self.expected else None)


TestLine = LineStory.TestCase
TestLine.settings = settings(max_examples=50, stateful_step_count=30, deadline=None)

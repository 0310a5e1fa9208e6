"""Log-probabilities as texts: which piece of an answer each of them belongs to."""

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from llm_engine.sampling.sampled import TokenLogprob
from llm_engine.server.backend import Tokenizer


@dataclass(frozen=True)
class Word:
    """A token as a reader sees it; `raw` may hold a part of a character.

    logprob  None for the first token of a prompt, which follows nothing
    """

    raw: bytes
    logprob: float | None

    @property
    def text(self) -> str:
        """The text; a part of a character shows as U+FFFD."""
        return self.raw.decode(errors="replace")


@dataclass(frozen=True)
class WordLogprob:
    """One token among the most probable ones at its place.

    offset  where its text begins, in characters from the beginning of the answer
    """

    word: Word
    top: tuple[Word, ...]
    offset: int


class LogprobQueue:
    """Holds log-probabilities back until the text that they belong to is shown.

    Text may be held back behind its tokens (half a character, the beginning of a stop string), and
    text after a stop string is never shown: then neither are its tokens.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._waiting: deque[WordLogprob] = deque()
        self._offset = 0

    def add(self, logprobs: Iterable[TokenLogprob]) -> None:
        """Take the log-probabilities of the next tokens."""
        for logprob in logprobs:
            word = self._word(logprob.token, logprob.logprob)
            top = tuple(self._word(token, value) for token, value in logprob.top)
            self._waiting.append(WordLogprob(word, top, self._offset))
            self._offset += len(word.text)

    def add_prompt(self, tokens: Sequence[int], logprobs: Iterable[TokenLogprob]) -> None:
        """Take the tokens of an echoed prompt, with the log-probabilities of all but the first."""
        self._waiting.append(WordLogprob(self._word(tokens[0], None), (), self._offset))
        self._offset += len(self._waiting[-1].word.text)
        self.add(logprobs)

    def due(self, shown_characters: int) -> tuple[WordLogprob, ...]:
        """Take out those whose text begins within what has been shown of the answer."""
        due = []
        while self._waiting and self._waiting[0].offset < shown_characters:
            due.append(self._waiting.popleft())
        return tuple(due)

    def rest(self) -> tuple[WordLogprob, ...]:
        """Take out all: the text has ended."""
        rest = tuple(self._waiting)
        self._waiting.clear()
        return rest

    def _word(self, token: int, logprob: float | None) -> Word:
        return Word(self._tokenizer.token_bytes(token), logprob)

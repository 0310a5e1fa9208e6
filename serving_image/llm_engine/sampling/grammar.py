"""Texts that must follow a grammar: which tokens may come next. No torch.

llguidance does the work. Its limits bound what a grammar may cost, at compiling and at each token.
"""

import json
import threading
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from llguidance import LLMatcher, LLParserLimits, LLTokenizer

JSON_OPTIONS: Final[Mapping[str, str | bool]] = {
    # Between the parts of a JSON text; without a bound a model may write blanks to the end.
    "whitespace_pattern": r"\n?[ \t]{0,20}",
    # "Exactly one" as "at least one": pydantic writes oneOf where the branches exclude each other.
    "coerce_one_of": True,
}


def json_grammar(schema: Mapping[str, Any]) -> str:
    """Return the grammar of JSON texts that satisfy a schema; raises ValueError."""
    from llguidance import LLMatcher

    options = {**schema, "x-guidance": JSON_OPTIONS}
    return LLMatcher.grammar_from_json_schema(json.dumps(options))


def regex_grammar(regex: str) -> str:
    """Return the grammar of texts that a regular expression matches as a whole."""
    from llguidance import LLMatcher

    return LLMatcher.grammar_from_regex(regex)


def choice_grammar(texts: list[str]) -> str:
    """Return the grammar of a choice among these texts."""
    return "start: " + " | ".join(json.dumps(text, ensure_ascii=False) for text in texts)


def limits() -> "LLParserLimits":
    """Return what a grammar may cost; about 100 ms to compile and 20 ms for a token at worst."""
    from llguidance import LLParserLimits

    return LLParserLimits(
        initial_lexer_fuel=200_000,
        step_lexer_fuel=100_000,
        step_max_items=20_000,
        max_lexer_states=50_000,
        max_grammar_size=50_000,
        verbose_errors=False,
    )


class Matcher:
    """The place of one text in its grammar.

    failure  why the grammar can lead no further: it has become too costly; None while it can
    """

    def __init__(self, matcher: "LLMatcher") -> None:
        self._matcher = matcher

    @property
    def failure(self) -> str | None:
        """Why the grammar can lead no further, or None."""
        return self._matcher.get_error().partition("\n")[0] or None

    @property
    def is_complete(self) -> bool:
        """Whether the text is whole and nothing may follow."""
        return self._matcher.is_stopped()

    def allowed(self) -> bytes | None:
        """Return one bit per token of the vocabulary, lowest first; None once it has failed."""
        mask = self._matcher.compute_bitmask()
        return None if self._matcher.is_error() else mask

    def accept(self, token: int) -> None:
        """Move on by a token."""
        self._matcher.consume_token(token)


class Grammars:
    """Compiles grammars for the vocabulary of one model. Thread-safe.

    tokenizer_json  the tokenizer in the format of the `tokenizers` package
    vocabulary      rows of logits; may exceed what the tokenizer knows
    end_tokens      what may follow a complete text
    """

    def __init__(self, tokenizer_json: str, vocabulary: int, end_tokens: frozenset[int]) -> None:
        self._tokenizer_json = tokenizer_json
        self._vocabulary = vocabulary
        self._end_tokens = sorted(end_tokens)
        self._lock = threading.Lock()
        self._tokenizer: LLTokenizer | None = None

    def matcher(self, grammar: str) -> Matcher:
        """Return a matcher at the beginning of a text; raises ValueError for a bad grammar."""
        from llguidance import LLMatcher

        matcher = LLMatcher(self._vocabulary_tree(), grammar, log_level=0, limits=limits())
        if matcher.is_error():
            raise ValueError(f"the grammar is refused: {matcher.get_error()}")
        return Matcher(matcher)

    def _vocabulary_tree(self) -> "LLTokenizer":
        """Build it at first use: it takes up to a second, and most servers never need it."""
        from llguidance import LLTokenizer

        with self._lock:
            if self._tokenizer is None:
                ends = self._end_tokens or None
                self._tokenizer = LLTokenizer(self._tokenizer_json, self._vocabulary, ends)
            return self._tokenizer

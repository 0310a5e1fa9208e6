"""Compile one grammar and say what is wrong with it: a process that may be killed at any moment.

Usage: python -m llm_engine.server.structured.check_main BUDGET_SECONDS < GRAMMAR

Writes nothing where the grammar is sound, else why it is refused.
"""

import math
import resource
import sys
import time
from typing import Final

from llguidance import LLMatcher, LLTokenizer

from llm_engine.sampling.grammar import limits

MOST_MEMORY_BYTES: Final = 2 << 30


def main() -> None:
    """Check the grammar on stdin; the kernel ends us when the budget of CPU time is spent."""
    budget_s = math.ceil(time.process_time()) + int(sys.argv[1])  # our own start is not counted
    resource.setrlimit(resource.RLIMIT_CPU, (budget_s, budget_s))
    resource.setrlimit(resource.RLIMIT_AS, (MOST_MEMORY_BYTES, MOST_MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    grammar = sys.stdin.buffer.read().decode()
    # The first mask too: some flaws show only there. Its cost hardly depends on the vocabulary.
    matcher = LLMatcher(LLTokenizer("byte"), grammar, log_level=0, limits=limits())
    if not matcher.is_error():
        matcher.compute_bitmask()
    sys.stdout.write(matcher.get_error())


if __name__ == "__main__":
    main()

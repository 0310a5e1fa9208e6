"""Refuses grammars that do not compile, or not in time, before the engine sees them.

Each is compiled in a process of its own, which the kernel ends when its budget is spent: a grammar
that hangs or takes all memory harms nobody else.
"""

import asyncio
import hashlib
import sys
from collections import OrderedDict
from typing import Final

from llm_engine.server.errors import ApiError

COMPILE_BUDGET_S: Final = 2
"""CPU time; wall time too where a core is free."""
_LONGEST_WAIT_S: Final = 30.0
"""Where the machine is so busy that the budget of CPU time is not even begun."""
_AT_ONCE: Final = 2
_REMEMBERED: Final = 1024
_LONGEST_ANSWER: Final = 500


class GrammarChecker:
    """Remembers the grammars that were sound: most callers send the same few again and again.

    budget_s  CPU seconds that compiling may take, a whole number
    """

    def __init__(self, budget_s: int = COMPILE_BUDGET_S) -> None:
        self._budget_s = budget_s
        self._sound: OrderedDict[bytes, None] = OrderedDict()
        self._turns = asyncio.Semaphore(_AT_ONCE)

    async def check(self, grammar: str, param: str) -> None:
        """Return when the grammar is sound; raises `ApiError` (400) that names the field."""
        key = hashlib.sha256(grammar.encode()).digest()
        if key in self._sound:
            self._sound.move_to_end(key)
            return
        async with self._turns:
            flaw = await self._flaw(grammar)
        if flaw:
            raise ApiError(400, f"{param}: {flaw}", param=param, code="invalid_grammar")
        self._sound[key] = None
        if len(self._sound) > _REMEMBERED:
            self._sound.popitem(last=False)

    async def _flaw(self, grammar: str) -> str:
        """Compile the grammar elsewhere; return what is wrong with it, or nothing."""
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "llm_engine.server.structured.check_main", str(self._budget_s)),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
        )
        try:
            async with asyncio.timeout(_LONGEST_WAIT_S):
                answer, _ = await process.communicate(grammar.encode())
        except TimeoutError:
            return self._too_costly()
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        if process.returncode != 0:
            return self._too_costly()
        return answer.decode(errors="replace")[:_LONGEST_ANSWER]

    def _too_costly(self) -> str:
        return f"compiling it takes more than {self._budget_s} s or too much memory"

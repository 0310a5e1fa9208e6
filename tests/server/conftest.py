from collections.abc import AsyncIterator

import pytest

from tests.server.fake_engine import FakeEngine
from tests.server.served import Served, serving


@pytest.fixture
async def served() -> AsyncIterator[Served]:
    async with serving(FakeEngine()) as served:
        yield served

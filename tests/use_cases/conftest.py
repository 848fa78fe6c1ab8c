"""What the tests of the use cases run on."""

from collections.abc import AsyncIterator

import pytest
from rigs.desk_rig import Rig, desk_over

from payment_service.adapters.memory.payment_store import MemoryPaymentStore


@pytest.fixture
async def rig() -> AsyncIterator[Rig]:
    async with desk_over(MemoryPaymentStore()) as rig:
        yield rig

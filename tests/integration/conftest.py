"""What tests of more than one worker share."""

from collections.abc import AsyncIterator

import pytest
from rigs.keyed_site import Shop, shop_on

from payment_service.adapters.postgres import statement
from payment_service.core.use_cases import perform_effects, reconcile


@pytest.fixture
def soon_looked_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """Look-ups at short intervals."""
    monkeypatch.setattr(statement, "LOOK_AGAIN_S", 0.1)
    monkeypatch.setattr(reconcile, "LOOKUP_DELAYS_S", (0.1,) * 8)
    monkeypatch.setattr(perform_effects, "POLL_S", 0.1)


@pytest.fixture
async def shop(database_url: str, soon_looked_up: None) -> AsyncIterator[Shop]:
    async with shop_on(database_url) as opened:
        yield opened

"""The simulator as its users meet it: the real process, asked by Stripe's own SDK."""

from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest
import pytest_asyncio
from aiohttp import ClientSession, TCPConnector
from rigs.sim_api import Api
from servers.provider_sim import ProviderSim

SETTLE_MS = 150


@pytest.fixture(scope="session")
def shared_sim(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ProviderSim]:
    """One for all tests that leave it running and well."""
    with ProviderSim(tmp_path_factory.mktemp("sim"), settle_ms=SETTLE_MS) as sim:
        yield sim


@pytest.fixture
def own_sim(tmp_path: Path) -> Iterator[Callable[..., ProviderSim]]:
    """Makes one that this test may kill; its options are the command's."""
    made: list[ProviderSim] = []

    def make(**options: object) -> ProviderSim:
        sim = ProviderSim(tmp_path, **options)
        made.append(sim)
        sim.start()
        return sim

    yield make
    for sim in made:
        sim.stop()


@pytest_asyncio.fixture
async def api(shared_sim: ProviderSim) -> AsyncIterator[Api]:
    async with ClientSession() as session:
        yield Api(shared_sim, session)


@pytest_asyncio.fixture
async def session() -> AsyncIterator[ClientSession]:
    """A connection a request: a simulator that was killed in between leaves no stale one."""
    async with ClientSession(connector=TCPConnector(force_close=True)) as session:
        yield session

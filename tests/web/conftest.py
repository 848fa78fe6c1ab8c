"""The site over a PaymentRequests that only records."""

from collections.abc import AsyncIterator

import pytest
from aiohttp.test_utils import TestClient, TestServer
from rigs.web_site import Client, RecordedRequests, services_with

from payment_service.web.site import build_site


@pytest.fixture
def requests() -> RecordedRequests:
    return RecordedRequests()


@pytest.fixture
async def client(requests: RecordedRequests) -> AsyncIterator[Client]:
    async with TestClient(TestServer(build_site(services_with(requests)))) as opened:
        yield opened

"""The pages beside the payments': table rows for an admin, and the mock provider's approval."""

from collections.abc import AsyncIterator

import pytest
from rigs.web_site import ADMIN, ANN, Client, RecordedRequests, ask, opened, services_with


@pytest.fixture
async def pages() -> AsyncIterator[Client]:
    rows = {"pay_1": {"status": "PENDING", "sequence": 1}}
    client = await opened(
        services_with(RecordedRequests(), table_row=rows.get, approve_mock=lambda object_id: object_id == "mock_pi_1")
    )
    yield client
    await client.close()


async def test_a_row_is_for_an_admin_alone(pages: Client) -> None:
    status, envelope = await ask(pages, "GET", "/tables/payments/pay_1", **ADMIN)
    assert (status, envelope["data"]) == (200, {"status": "PENDING", "sequence": 1})
    assert (await ask(pages, "GET", "/tables/payments/pay_2", **ADMIN))[0] == 404
    assert (await ask(pages, "GET", "/tables/payments/pay_1", **ANN))[0] == 403
    assert (await ask(pages, "GET", "/tables/payments/pay_1"))[0] == 401


async def test_the_mocks_page_approves_what_waits(pages: Client) -> None:
    status, envelope = await ask(pages, "GET", "/mock/approve/mock_pi_1")
    assert (status, envelope["data"]) == (200, {"approved": True})
    assert (await ask(pages, "GET", "/mock/approve/mock_pi_2"))[1]["code"] == "NOT_FOUND"


async def test_without_a_mock_there_is_no_page(client: Client) -> None:
    assert (await ask(client, "GET", "/mock/approve/mock_pi_1"))[0] == 404

"""Workers that charge orders at a provider simulator, which is the judge of what money moved."""

import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

from rigs.books import audit
from rigs.judge import judge, unsettled
from rigs.worker import PARTITIONS, Installation, Message
from servers.provider_sim import ProviderSim

USER = "user-1"
SHORT_LEASES = {"LEASE_S": "4", "PROVIDER_DEADLINE_S": "3"}


def order(number: int, name: str = "order", **more: object) -> Message:
    """In partition `number % PARTITIONS`."""
    body = {
        "topic": "order.created", "orderId": f"{name}-{number}", "userId": USER, "totalAmount": "12.50",
        "currency": "USD", "paymentMethodId": "tok_visa", **more,
    }  # fmt: skip
    return Message(json.dumps(body).encode(), number % PARTITIONS)


@contextmanager
def simulator(folder: Path, latency_ms: int = 300) -> Iterator[ProviderSim]:
    folder.mkdir()
    with ProviderSim(folder, latency_ms=latency_ms) as sim:
        yield sim


@asynccontextmanager
async def installation(
    tmp_path: Path, broker: str, database_url: str, sim: ProviderSim, **env: str
) -> AsyncIterator[Installation]:
    charging = {"AUTO_PROCESS_ORDERS": "true", "MOCK_PROVIDER_URL": sim.url, **SHORT_LEASES, **env}
    async with Installation(tmp_path, broker, database_url, **charging) as site:
        await site.make_order_topic()
        yield site


async def all_charged(site: Installation, sim: ProviderSim, count: int, wait_s: float = 120.0) -> None:
    """Every order has its payment, its one charge, and was told of; nothing would be read or sent again."""
    charged = "select count(*) from payment_service.payments where status = 'SUCCEEDED'"
    await site.until(lambda: site.rows(charged)[0][0] == count, f"{count} payments are charged", wait_s)
    assert unsettled(site) == 0
    await site.all_committed()
    await site.until_told(count)
    assert judge(site, sim) == {"charge": count}
    books = await audit(site)
    heard = {tuple(word for word, _ in books.events(name) if word != "payment.unknown") for name in books.payments}
    assert heard == {("payment.created", "payment.processed")}

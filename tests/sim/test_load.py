"""How many calls the simulator takes, so that it is known what a measurement of the service may ask of it. Prints."""

import asyncio
import time
from collections.abc import Callable

import pytest
from rigs.provider_rig import call_for
from servers.provider_sim import ProviderSim

from payment_service.adapters.providers.mock_remote import to_request

pytestmark = pytest.mark.bench
Make = Callable[..., ProviderSim]


async def send_all(sim: ProviderSim, count: int, connections: int) -> float:
    """Seconds for `count` charges over so many connections. Plain sockets: the caller must not be the bottleneck."""
    numbers = iter(range(count))

    async def caller() -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", sim.port)
        for number in numbers:
            body = to_request(call_for(f"pay_{number}", token="tok_visa"))
            writer.write(b"POST /mock/send HTTP/1.1\r\nHost: sim\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
            head = await reader.readuntil(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 200"), head
            length = int(head.lower().split(b"content-length:")[1].split(b"\r\n")[0])
            await reader.readexactly(length)
        writer.close()

    started = time.perf_counter()
    await asyncio.gather(*(caller() for _ in range(connections)))
    return time.perf_counter() - started


@pytest.mark.parametrize(
    ("latency_ms", "count", "connections"), [(0, 20_000, 64), (300, 10_000, 1000), (300, 10_000, 2000)]
)
async def test_calls_a_second(own_sim: Make, latency_ms: int, count: int, connections: int) -> None:
    sim = own_sim(latency_ms=latency_ms)
    took_s = await send_all(sim, count, connections)
    assert len(sim.movements()) == count
    print(f"\n{latency_ms} ms latency, {connections} connections: {count / took_s:,.0f} calls/s")  # noqa: T201

"""What provider-sim can serve at most: prepared requests over plain sockets, so that asking costs next to nothing.

Part of `make bench-charges`: the simulator is Python on the same machine, and no program that charges through it can
be faster than it.
"""

import asyncio
import time
from collections.abc import Callable, Iterator, Sequence
from typing import cast
from urllib.parse import urlsplit

import orjson
from rigs.provider_rig import call_for

from payment_service.adapters.providers.mock_remote import to_request

CONNECTIONS = 64
WAIT_S = 120.0
_LENGTH = b"content-length: "


class _Caller(asyncio.Protocol):
    """One connection: a request when the last answer is whole."""

    def __init__(self, requests: Iterator[tuple[int, bytes]], heard: Callable[[int, bytes], None]) -> None:
        self._requests = requests
        self._heard = heard
        self._buffer = b""
        self._number = 0
        self._transport: asyncio.Transport | None = None
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is none by its class
        self._next()

    def _next(self) -> None:
        assert self._transport is not None
        self._number, request = next(self._requests, (0, b""))
        if request:
            self._transport.write(request)
        else:
            self._transport.close()

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        head, ends, body = self._buffer.partition(b"\r\n\r\n")
        at = head.lower().find(_LENGTH)
        if not ends or len(body) < int(head[at + len(_LENGTH) :].split(b"\r\n", 1)[0]):
            return
        if not head.startswith(b"HTTP/1.1 200 "):
            self.ended.set_exception(ValueError((head + body).decode()))
            return
        self._buffer = b""
        self._heard(self._number, body)
        self._next()

    def connection_lost(self, error: Exception | None) -> None:
        if not self.ended.done():
            self.ended.set_result(None)


async def _ask_all(url: str, requests: Sequence[bytes]) -> tuple[list[bytes], float]:
    """(the answers, in the order of the requests; the seconds they took)."""
    address = urlsplit(url)
    answers = [b""] * len(requests)
    waiting = iter(enumerate(requests))
    started_s = time.perf_counter()
    async with asyncio.timeout(WAIT_S):
        opened = [
            await asyncio.get_running_loop().create_connection(
                lambda: _Caller(waiting, answers.__setitem__), address.hostname, address.port
            )
            for _ in range(CONNECTIONS)
        ]
        await asyncio.gather(*(caller.ended for _, caller in opened))
    assert all(answers), "a connection ended too early"
    return answers, time.perf_counter() - started_s


def _http(path: str, kind: str, body: bytes, key: str = "-") -> bytes:
    return (
        f"POST {path} HTTP/1.1\r\nHost: sim\r\nAuthorization: Bearer sk_test_bench\r\nIdempotency-Key: {key}\r\n"
        f"Content-Type: {kind}\r\nContent-Length: {len(body)}\r\n\r\n".encode()
        + body
    )


async def most_mock_charges_per_s(url: str, charges: int) -> float:
    """The provider's object made and paid, as the service asks for it."""
    calls = [call_for(f"pay_most_{number}", token="tok_visa") for number in range(charges)]
    bodies = [to_request(call) for call in calls]
    made, first_s = await _ask_all(url, [_http("/mock/create_object", "application/json", body) for body in bodies])
    paid = [
        _http("/mock/send", "application/json", orjson.dumps({**orjson.loads(body), "object_id": object_id}))
        for body, object_id in zip(bodies, (orjson.loads(answer)["object_id"] for answer in made), strict=True)
    ]
    _, second_s = await _ask_all(url, paid)
    return charges / (first_s + second_s)


async def most_stripe_charges_per_s(url: str, charges: int) -> float:
    """A PaymentIntent made and confirmed."""
    form = "application/x-www-form-urlencoded"
    makes = [
        _http(
            "/v1/payment_intents", form,
            b"amount=1000&currency=usd&automatic_payment_methods[enabled]=true"
            b"&automatic_payment_methods[allow_redirects]=never&metadata[payment_id]=pay_most_%d" % number,
            f"most:{number}:object",
        )
        for number in range(charges)
    ]  # fmt: skip
    made, first_s = await _ask_all(url, makes)
    confirms = [
        _http(
            f"/v1/payment_intents/{orjson.loads(answer)['id']}/confirm", form,
            b"payment_method_data[type]=card&payment_method_data[card][token]=tok_visa&use_stripe_sdk=true",
            f"most:{number}:charge",
        )
        for number, answer in enumerate(made)
    ]  # fmt: skip
    _, second_s = await _ask_all(url, confirms)
    return charges / (first_s + second_s)

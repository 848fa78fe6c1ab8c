"""The door for webhooks: nothing happens before the signature is right, and 200 means durable."""

import asyncio
from collections.abc import Mapping
from ipaddress import ip_network
from types import SimpleNamespace
from typing import Any

import pytest
from multidict import CIMultiDict
from rigs.counted import CountedMetrics
from rigs.settable_clock import SettableClock
from rigs.web_site import NOW_S, Client, RecordedRequests, ask, opened, services_with
from servers.waiting import until

from payment_service.adapters.providers.mock_webhooks import MockWebhooks, signature_of
from payment_service.core.errors import Unavailable
from payment_service.core.use_cases.receive_webhook import WebhookInbox
from payment_service.core.webhooks import ReceivedWebhook
from payment_service.web.client_address import client_address, parse_address
from payment_service.web.rate_limits import Quota, Windows
from payment_service.web.webhook_gate import ACCEPTING_MAX, QUOTA, WINDOW_S, WebhookGate

SECRET = "whsec_of_this_test"
BODY = b'{"id":"evt_1","type":"charge.succeeded","created":1800000000,"data":{"payment_id":"pay_1","object_id":"o"}}'
PATH = "/api/v1/webhooks"
PROXIES = (ip_network("127.0.0.0/8"), ip_network("10.0.0.0/8"))


class Log:
    """A WebhookLog in a list."""

    def __init__(self) -> None:
        self.kept: list[ReceivedWebhook] = []
        self.away = False
        self.gate: asyncio.Event | None = None
        self.inside = 0

    async def append(self, webhook: ReceivedWebhook) -> str:
        self.inside += 1
        if self.gate is not None:
            await self.gate.wait()
        if self.away:
            raise Unavailable("nowhere", retry_after_s=5.0)
        self.kept.append(webhook)
        return "kafka"


class Site:
    def __init__(self, **settings: Any) -> None:
        self.log, self.clock, self.metrics = Log(), SettableClock(NOW_S), CountedMetrics()
        inbox = WebhookInbox({"MOCK": MockWebhooks(SECRET)}, self.log, self.clock, self.metrics)
        failures = Windows(Quota(QUOTA, settings.pop("failures_max", 5), WINDOW_S))
        self.gate = WebhookGate(inbox, failures, self.clock, **settings)

    async def open(self) -> Client:
        return await opened(services_with(RecordedRequests(), clock=self.clock, webhooks=self.gate))


def signed(body: bytes = BODY, at_s: float = NOW_S) -> Mapping[str, str]:
    return {"Mock-Signature": signature_of(SECRET, body, int(at_s))}


async def test_a_signed_event_is_taken_by_every_path_and_kept_as_it_came() -> None:
    site = Site()
    client = await site.open()
    for path in (PATH, f"{PATH}/mock", f"{PATH}/MOCK"):
        assert await ask(client, "POST", path, BODY, **signed()) == (200, {"success": True, "data": {"received": True}})
    assert [one.body for one in site.log.kept] == [BODY] * 3
    assert (site.log.kept[0].event_id, site.log.kept[0].payment_id) == ("evt_1", "pay_1")
    assert site.metrics.counts["webhooks_received", "MOCK", "charge.succeeded", "kafka"] == 3
    await client.close()


@pytest.mark.parametrize(
    ("path", "headers", "status", "code"),
    [
        (PATH, {}, 400, "INVALID_SIGNATURE"),
        (f"{PATH}/mock", {}, 400, "INVALID_SIGNATURE"),
        (PATH, {"Mock-Signature": "t=1,v1=00"}, 400, "INVALID_SIGNATURE"),
        (PATH, signed(at_s=NOW_S - 301), 400, "INVALID_SIGNATURE"),
        (PATH, signed(at_s=NOW_S + 301), 400, "INVALID_SIGNATURE"),
        (PATH, signed(BODY + b" "), 400, "INVALID_SIGNATURE"),
        (f"{PATH}/stripe", {}, 400, "INVALID_SIGNATURE"),
        (f"{PATH}/stripe", signed(), 400, "INVALID_SIGNATURE"),
        (f"{PATH}/stripe", {"Stripe-Signature": "t=1,v1=00"}, 422, "PROVIDER_NOT_CONFIGURED"),
        (PATH, {"Stripe-Signature": "t=1,v1=00"}, 422, "PROVIDER_NOT_CONFIGURED"),
        (f"{PATH}/other", signed(), 404, "NOT_FOUND"),
    ],
)
async def test_anything_else_has_no_effect(path: str, headers: Mapping[str, str], status: int, code: str) -> None:
    site = Site()
    client = await site.open()
    answered, envelope = await ask(client, "POST", path, BODY, **headers)
    assert (answered, envelope["code"], site.log.kept, site.log.inside) == (status, code, [], 0)
    assert (await ask(client, "GET", PATH))[0] == 405
    await client.close()


async def test_a_large_body_is_refused_and_a_strange_id_of_ours_is_none() -> None:
    site = Site()
    client = await site.open()
    large = BODY + b" " * 262_144
    assert (await ask(client, "POST", PATH, large, **signed(large)))[1]["code"] == "PAYLOAD_TOO_LARGE"
    odd = BODY.replace(b"pay_1", b"pay \\u0000; drop")
    assert (await ask(client, "POST", PATH, odd, **signed(odd)))[0] == 200
    assert (site.log.kept[0].payment_id, site.log.kept[0].body) == (None, odd)
    nameless = BODY.replace(b"evt_1", b"")
    assert (await ask(client, "POST", PATH, nameless, **signed(nameless)))[0] == 400
    await client.close()


async def test_503_when_it_can_be_stored_nowhere() -> None:
    site = Site()
    client = await site.open()
    site.log.away = True
    answer = await client.post(PATH, data=BODY, headers=dict(signed()))
    assert (answer.status, answer.headers["Retry-After"]) == (503, "5")
    site.log.away = False
    assert (await client.post(PATH, data=BODY, headers=dict(signed()))).status == 200
    await client.close()


async def test_only_failures_are_counted_and_by_the_address_that_our_proxy_saw() -> None:
    site = Site(failures_max=3, trusted=PROXIES)
    client = await site.open()
    for number in range(20):
        headers = {"X-Forwarded-For": f"1.1.1.{number}, 9.9.9.9", **signed()}
        assert (await client.post(PATH, data=BODY, headers=headers)).status == 200
    for number in range(3):  # what the sender writes into the header is no other address
        headers = {"X-Forwarded-For": f"1.1.1.{number}, 9.9.9.9"}
        assert (await client.post(PATH, data=BODY, headers=headers)).status == 400
    blocked = await client.post(PATH, data=BODY, headers={"X-Forwarded-For": "9.9.9.9", **signed()})
    assert (blocked.status, blocked.headers["Retry-After"]) == (429, str(int(WINDOW_S)))
    others = {"X-Forwarded-For": "9.9.9.9, 8.8.8.8", **signed()}
    assert (await client.post(PATH, data=BODY, headers=others)).status == 200
    site.clock.pass_s(WINDOW_S)
    again = {"X-Forwarded-For": "9.9.9.9", **signed(at_s=NOW_S + WINDOW_S)}
    assert (await client.post(PATH, data=BODY, headers=again)).status == 200
    await client.close()


def test_a_subscriber_is_one_address() -> None:
    gate = Site(failures_max=1).gate
    gate.failed(parse_address("2001:db8::1"))
    with pytest.raises(Unavailable):
        gate.check(parse_address("2001:db8::ffff"))
    gate.check(parse_address("2001:db8:0:1::1"))


async def test_the_allow_list() -> None:
    site = Site(allowed=(ip_network("3.18.12.0/24"),), trusted=PROXIES)
    client = await site.open()
    for forwarded, status in (
        ("3.18.12.63", 200), ("::ffff:3.18.12.63", 200), ("3.18.12.63:443", 200), ("3.18.12.63, 10.1.1.1", 200),
        ("3.18.13.1", 403), ("3.18.12.63, 4.4.4.4", 403), ("nonsense", 403), ("", 403),
    ):  # fmt: skip
        answer = await client.post(PATH, data=BODY, headers={"X-Forwarded-For": forwarded, **signed()})
        assert answer.status == status, forwarded
    assert (await ask(client, "POST", PATH, BODY, **signed()))[1]["code"] == "IP_NOT_ALLOWED"
    await client.close()


@pytest.mark.parametrize(
    ("remote", "forwarded", "trusted", "address"),
    [
        ("9.9.9.9", ["1.1.1.1"], (), "9.9.9.9"),
        ("9.9.9.9", ["1.1.1.1"], PROXIES, "9.9.9.9"),
        ("10.0.0.1", [], PROXIES, "10.0.0.1"),
        ("10.0.0.1", ["1.1.1.1"], PROXIES, "1.1.1.1"),
        ("10.0.0.1", ["6.6.6.6, 1.1.1.1, 10.2.2.2"], PROXIES, "1.1.1.1"),
        ("10.0.0.1", ["6.6.6.6", "1.1.1.1"], PROXIES, "1.1.1.1"),
        ("10.0.0.1", ["[2001:db8::1]:80"], PROXIES, "2001:db8::1"),
        ("10.0.0.1", ["6.6.6.6, unknown"], PROXIES, "None"),
        ("10.0.0.1", [", ".join(["10.1.1.1"] * 5000)], PROXIES, "10.1.1.1"),
        (None, [], PROXIES, "None"),
    ],
)
def test_the_client_s_address(remote: str | None, forwarded: list[str], trusted: Any, address: str) -> None:
    headers = CIMultiDict([("X-Forwarded-For", line) for line in forwarded])
    request: Any = SimpleNamespace(remote=remote, headers=headers)
    assert str(client_address(request, trusted)) == address


async def test_so_many_are_taken_at_once_and_the_next_is_asked_to_come_again() -> None:
    site = Site()
    site.log.gate = asyncio.Event()

    def received() -> Any:
        headers = {"mock-signature": signed()["Mock-Signature"]}
        return site.gate.receive("MOCK", None, headers, BODY)

    waiting = [asyncio.ensure_future(received()) for _ in range(ACCEPTING_MAX)]
    await until(lambda: site.log.inside == ACCEPTING_MAX, "all are on their way")
    with pytest.raises(Unavailable) as busy:
        await received()
    assert busy.value.code == "SERVICE_UNAVAILABLE"
    site.log.gate.set()
    await asyncio.gather(*waiting)
    await received()


async def test_without_any_providers_secret_nothing_is_believed() -> None:
    client = await opened(services_with(RecordedRequests()))
    assert (await ask(client, "POST", PATH, BODY, **signed()))[1]["code"] == "PROVIDER_NOT_CONFIGURED"
    assert (await ask(client, "POST", PATH, BODY))[1]["code"] == "INVALID_SIGNATURE"
    await client.close()

"""What webhooks make us ask of a provider is bounded as everything else is, and says what it would have said."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import pytest
from aiohttp import ClientSession, web
from aiohttp.test_utils import TestServer
from rigs.counted import CountedMetrics
from rigs.provider_rig import call_for
from rigs.settable_clock import SettableClock

from payment_service.adapters.guarded import GuardedProvider, GuardLimits
from payment_service.adapters.guarded_webhooks import GuardedReader
from payment_service.adapters.providers.paypal_api import PaypalApi
from payment_service.adapters.providers.paypal_webhooks import PaypalWebhooks
from payment_service.adapters.providers.stripe_api import StripeApi
from payment_service.adapters.providers.stripe_webhooks import StripeWebhooks
from payment_service.core.errors import Malformed, Refused, Unavailable
from payment_service.core.ports import Answer, ProviderCall
from payment_service.core.resilience import BreakerRule, RateRule
from payment_service.core.terms import DisputeState, Verdict
from payment_service.core.webhooks import DisputeNews, Notice

NOTICE = Notice("SCRIPTED", "evt_1", "charge.succeeded", 1, "pay_1", "pi_1", None, (), refetch=True)
FRESH = replace(NOTICE, refetch=False)
AWAY = Unavailable("cannot be asked", code="PROVIDER_UNAVAILABLE")
TOO_MANY = Unavailable("too many", code="RATE_LIMITED")


@dataclass
class Reader:
    says: list[Notice | Exception] = field(default_factory=list)
    asks_to_verify: bool = False
    asked: int = 0

    async def verify(self, headers: Mapping[str, str], body: bytes, now_ms: int) -> Notice:
        return await self.refetch(NOTICE)

    def read(self, body: bytes) -> Notice:
        return NOTICE

    async def refetch(self, notice: Notice) -> Notice:
        self.asked += 1
        said = self.says.pop(0) if self.says else FRESH
        if isinstance(said, Exception):
            raise said
        return said


class Provider:
    name = "SCRIPTED"

    async def create_object(self, call: ProviderCall) -> Answer:
        return Answer(Verdict.APPROVED)

    send = lookup = create_object


def guarded(
    *says: Notice | Exception, rate: RateRule | None = None, failures_max: int = 3, asks_to_verify: bool = False
) -> tuple[GuardedReader, Reader, GuardedProvider, CountedMetrics]:
    reader, metrics = Reader(list(says), asks_to_verify), CountedMetrics()
    limits = GuardLimits(10, 5.0, 0.01, rate, BreakerRule(failures_max, 10.0, 60.0))
    guard = GuardedProvider(Provider(), limits, SettableClock(), metrics, jitter=lambda: 0.0)
    return GuardedReader(reader, guard), reader, guard, metrics


async def test_a_refetch_is_a_request_like_any_other() -> None:
    reader, inner, guard, metrics = guarded(rate=RateRule(1.0, 1.0))
    assert await reader.refetch(NOTICE) is FRESH
    assert metrics.counts["provider_calls", "SCRIPTED", "REFETCH", Verdict.APPROVED] == 1
    with pytest.raises(Unavailable) as held_back:
        await reader.refetch(NOTICE)
    assert (held_back.value.code, inner.asked) == ("PROVIDER_UNAVAILABLE", 1), "the rate of look-ups is used up"
    assert (await guard.lookup(call_for("pay_1"))).code == "PROVIDER_UNAVAILABLE", "it is the same one"
    assert (await guard.send(call_for("pay_1"))).verdict is Verdict.APPROVED, "a charge has its own"


async def test_a_provider_that_cannot_be_asked_opens_the_breaker_for_everybody() -> None:
    reader, inner, guard, _ = guarded(AWAY, AWAY, AWAY)
    for _ in range(3):
        with pytest.raises(Unavailable):
            await reader.refetch(NOTICE)
    assert not guard.available
    assert (await guard.send(call_for("pay_1"))).verdict is Verdict.NOT_SENT
    with pytest.raises(Unavailable):
        await reader.refetch(NOTICE)
    assert inner.asked == 3


async def test_too_many_requests_slow_it_down_and_are_tried_again() -> None:
    reader, inner, guard, _ = guarded(TOO_MANY, rate=RateRule(25.0, 25.0))
    with pytest.raises(Unavailable, match="too many"):
        await reader.refetch(NOTICE)
    assert (inner.asked, guard.available) == (1, True), "its bucket is empty now, and it is well"
    assert guard.gauges()["provider_rate_per_s"]() == 12.5
    reader, inner, _, _ = guarded(TOO_MANY)
    assert await reader.refetch(NOTICE) is FRESH
    assert inner.asked == 2


@pytest.mark.parametrize("error", [Refused("no", code="INVALID_SIGNATURE"), Malformed("no event"), ValueError("bug")])
async def test_what_the_reader_says_comes_out_as_it_is(error: Exception) -> None:
    reader, _, guard, _ = guarded(error, asks_to_verify=True)
    with pytest.raises(type(error)) as raised:
        await reader.verify({}, b"{}", 0)
    assert raised.value is error
    assert guard.available
    assert await reader.verify({}, b"{}", 0) is FRESH


async def test_only_a_check_that_asks_the_provider_is_counted_and_apart_from_look_ups() -> None:
    reader, inner, _, metrics = guarded(rate=RateRule(1.0, 1.0))
    for _ in range(5):
        assert await reader.verify({}, b"{}", 0) is FRESH
    assert (inner.asked, metrics.counts["provider_calls", "SCRIPTED", "VERIFY_WEBHOOK", Verdict.APPROVED]) == (5, 0)
    reader, inner, guard, metrics = guarded(rate=RateRule(1.0, 1.0), asks_to_verify=True)
    assert await reader.verify({}, b"{}", 0) is FRESH
    with pytest.raises(Unavailable):
        await reader.verify({}, b"{}", 0)
    assert inner.asked == 1
    assert (await guard.lookup(call_for("pay_1"))).verdict is Verdict.APPROVED, "strangers do not use that up"
    assert reader.read(b"{}") is NOTICE


@pytest.mark.parametrize("status", [400, 401, 403, 500])
@pytest.mark.parametrize("name", ["STRIPE", "PAYPAL"])
async def test_a_question_that_the_provider_refuses_us_does_not_stop_charges(name: str, status: int) -> None:
    """A key that may not read disputes, say: each of their webhooks asks again and again, and none of the answers says
    that the provider is ill."""

    async def handler(request: web.Request) -> web.Response:
        if request.path == "/v1/oauth2/token":
            return web.json_response({"access_token": "t", "expires_in": 1000})
        return web.json_response({}, status=status)

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", handler)
    async with TestServer(app) as server, ClientSession() as session:
        url = f"http://127.0.0.1:{server.port}"
        stripe = StripeWebhooks(["whsec_1"], StripeApi("sk_test_1", url, 5, lambda: session), live=False)
        paypal = PaypalWebhooks(PaypalApi("c", "s", url, 5, lambda: session, SettableClock()), "WH1", None)
        _, _, guard, _ = guarded()
        reader = GuardedReader(stripe if name == "STRIPE" else paypal, guard)
        kind = "charge.dispute.created" if name == "STRIPE" else "CUSTOMER.DISPUTE.CREATED"
        dispute = DisputeNews("dp_1", DisputeState.OPEN, 1, "USD", None)
        notice = replace(NOTICE, provider=name, type=kind, news=(dispute,))
        for _ in range(3):
            if name == "PAYPAL" and status == 403:
                assert (await reader.refetch(notice)).review, "a person hears of it"
                continue
            with pytest.raises(Unavailable):
                await reader.refetch(notice)
        assert guard.available is (status < 500)


async def test_nor_does_a_check_that_is_refused_us_and_its_sender_comes_again() -> None:
    refused = [Unavailable("our key may not", code="PROVIDER_KEY_REFUSED") for _ in range(3)]
    reader, _, guard, _ = guarded(*refused, asks_to_verify=True)
    for _ in range(3):
        with pytest.raises(Unavailable) as raised:
            await reader.verify({}, b"{}", 0)
        assert raised.value.code == "PROVIDER_UNAVAILABLE"
    assert guard.available

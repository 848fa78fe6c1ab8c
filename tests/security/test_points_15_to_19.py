"""Points 15-19 of the security check-list: repeated requests, webhooks, what providers say, whom we ask, what happens
when they are away. OWASP API Security 2023 (A), ASVS 5.0 (V)."""

import ast
import asyncio
import time
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from rigs.counted import CountedMetrics
from rigs.desk_rig import desk_over
from rigs.keyed_site import VISA, is_the_same, shop_on
from rigs.order_service import OrderService
from rigs.provider_rig import call_for
from rigs.settable_clock import SettableClock
from rigs.web_site import BOB, NOW_S
from rigs.webhook_rig import PAID, webhook_rig
from rigs.whole_site import signed, whole_site

from payment_service.adapters.guarded import BREAKER, GuardedProvider, GuardLimits
from payment_service.adapters.memory.payment_store import MemoryPaymentStore
from payment_service.adapters.orders_api import OrdersApi
from payment_service.adapters.outbound import CONNECTIONS_MAX, Outbound
from payment_service.adapters.providers.paypal_signatures import check_cert_url
from payment_service.adapters.providers.stripe import StripeProvider
from payment_service.adapters.providers.stripe_api import StripeApi
from payment_service.core.errors import Refused, Unavailable
from payment_service.core.payment import status_of
from payment_service.core.ports import Answer
from payment_service.core.terms import Kind, Status, Verdict
from payment_service.web.services import BODY_BYTES_MAX

ROOT = Path(__file__).resolve().parents[2]

# --- 15 --------------------------------------------------------------------------------------------------------


async def test_15_a_repeated_request_is_answered_and_not_done_again(database_url: str) -> None:
    """The same answer word for word; 422 for another body, 409 while the first is under way, each user and route apart;
    a key that is none is refused. Two workers, one PostgreSQL."""
    async with shop_on(database_url) as shop:
        path = await shop.created("o1")
        first, early = await asyncio.gather(
            shop.a.post(f"{path}/process", VISA, key="k"), shop.b.post(f"{path}/process", VISA, key="k")
        )
        assert {first.status, early.status} in ({200}, {200, 409})
        assert "IDEMPOTENCY_IN_PROGRESS" in (first.code, early.code) or first.body == early.body
        done = first if first.status == 200 else early
        again = await shop.b.post(f"{path}/process", VISA, key="k")
        assert again.replayed and (again.status, again.body) == (200, done.body)
        other = await shop.b.post(f"{path}/process", {"paymentMethodId": "tok_no"}, key="k")
        assert (other.status, other.code) == (422, "IDEMPOTENCY_MISMATCH")
        refund = await shop.a.post(f"{path}/refund", {"amount": 1}, key="k")
        assert refund.status == 200 and not refund.replayed
        assert is_the_same(refund, await shop.b.post(f"{path}/refund", {"amount": 1}, key="k"))
        bobs = await shop.a.post("/payments", {"orderId": "o2", "amount": 1}, key="k", user="bob")
        assert bobs.status == 201 and not bobs.replayed
        for key in ("", '"', "a b", "k" * 256, '"a"b"', "ü"):
            refused = await shop.a.post(f"{path}/refund", {"amount": 1}, key=key)
            assert (refused.status, refused.code) == (422, "VALIDATION_ERROR"), key
        assert shop.moved() == {"CHARGE": 1, "REFUND": 1}


# --- 16 --------------------------------------------------------------------------------------------------------

EVENT = b'{"id":"evt_1","type":"charge.succeeded","created":1800000000,"data":{"payment_id":"pay_1","object_id":"o"}}'


@pytest.mark.parametrize(
    ("path", "headers", "body", "status", "code"),
    [
        ("", {}, EVENT, 400, "INVALID_SIGNATURE"),
        ("", {"Mock-Signature": "t=1,v1=00"}, EVENT, 400, "INVALID_SIGNATURE"),
        ("", signed(EVENT, NOW_S - 301), EVENT, 400, "INVALID_SIGNATURE"),
        ("", signed(EVENT, NOW_S + 301), EVENT, 400, "INVALID_SIGNATURE"),
        ("", signed(EVENT, secret="whsec_of_another_endpoint"), EVENT, 400, "INVALID_SIGNATURE"),
        ("", signed(EVENT), EVENT.replace(b"pay_1", b"pay_2"), 400, "INVALID_SIGNATURE"),
        ("", signed(b"{}"), b"{}", 400, "MALFORMED_JSON"),
        ("/stripe", signed(EVENT), EVENT, 400, "INVALID_SIGNATURE"),
        ("/stripe", {"Stripe-Signature": "t=1,v1=00"}, EVENT, 422, "PROVIDER_NOT_CONFIGURED"),
        ("/nobody", signed(EVENT), EVENT, 404, "NOT_FOUND"),
        ("", signed(EVENT), b"x" * (BODY_BYTES_MAX + 1), 413, "PAYLOAD_TOO_LARGE"),
    ],
)
async def test_16_only_a_providers_own_fresh_event_is_taken(
    path: str, headers: dict[str, str], body: bytes, status: int, code: str
) -> None:
    """A 10, V 4.1.5. What is refused leaves nothing behind."""
    async with whole_site() as site:
        got, envelope = await site.ask("POST", f"/api/v1/webhooks{path}", body, {}, **headers)
        assert (got, envelope["code"]) == (status, code)
        assert site.webhooks.kept == []
        assert (await site.ask("POST", "/api/v1/webhooks", EVENT, {}, **signed(EVENT)))[0] == 200
        assert [one.event_id for one in site.webhooks.kept] == ["evt_1"]


async def test_16_a_replayed_event_does_nothing_twice(database_url: str) -> None:
    async with webhook_rig(database_url) as rig:
        await rig.create()
        await rig.start()
        event = rig.notice("evt_1", PAID)
        await rig.swept(event)
        before = (await rig.payment()).version
        await rig.swept(event, event)
        assert await rig.is_in(Status.SUCCEEDED) and (await rig.payment()).version == before
        assert rig.rows() == [("evt_1", "PROCESSED", rig.rows()[0][2])]


# --- 17 --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"amount_minor": 1}, "AMOUNT_DIFFERS"),
        ({"amount_minor": 105000}, "AMOUNT_DIFFERS"),
        ({"currency": "JPY"}, "CURRENCY_DIFFERS:1050 JPY"),
    ],
)
async def test_17_a_yes_about_something_else_is_for_a_person(change: dict[str, Any], reason: str) -> None:
    """A 10: amount and currency of a provider's answer are compared with ours."""
    async with desk_over(MemoryPaymentStore()) as rig:
        said = {"amount_minor": 1050, "currency": "USD", **change}
        rig.provider.answers[Kind.CHARGE] = Answer(Verdict.APPROVED, "tx_1", "obj_1", **said)
        await rig.create()
        payment = (await rig.process()).payment
        assert reason in payment.review
        assert status_of(payment) is not Status.FAILED, "money moved: it is never told as a no"


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (200, b""), (200, b"null"), (200, b"[]"), (200, b'{"object":"balance"}'),
        (200, b'{"id":7,"status":"succeeded"}'),
        (200, b'{"id":"pi_1","object":"payment_intent","status":"a_new_word"}'), (302, b""), (204, b""), (500, b"{}"),
    ],
)  # fmt: skip
async def test_17_an_answer_that_is_none_is_never_a_yes_or_a_no(status: int, body: bytes) -> None:
    """Over a real socket, through Stripe's adapter: UNKNOWN, which only the provider's truth leaves."""

    async def answer(request: web.Request) -> web.Response:
        return web.Response(status=status, body=body, headers={"Location": "/elsewhere", "Content-Type": "text/x"})

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", answer)
    outbound = Outbound()
    async with TestServer(app) as server:
        api = StripeApi("sk_test_1", f"http://127.0.0.1:{server.port}", 5, outbound.session)
        said = await StripeProvider(api, live=False).send(call_for("pay_1", token="pm_card_visa", object_id="pi_1"))
    await outbound.close()
    assert said.verdict is Verdict.UNKNOWN, said


# --- 18 --------------------------------------------------------------------------------------------------------

PAYPAL = "https://api-m.paypal.com"
CERT = "/v1/notifications/certs/CERT-360caa42-fca2a594-1d93a270"


@pytest.mark.parametrize(
    "url",
    [
        "http://api.paypal.com" + CERT, "https://api.paypal.com:8443" + CERT, "https://evil.example" + CERT,
        "https://api.paypal.com.evil.example" + CERT, "https://api.paypal.com@evil.example" + CERT,
        "https://evil.example/#api.paypal.com" + CERT, "https://127.0.0.1" + CERT, "https://[::1]" + CERT,
        "https://169.254.169.254/latest/meta-data", "https://api.paypal.com/../../admin", "file:///etc/passwd",
        "https://api.paypal.com/v1/notifications/certs/../../oauth2/token", f"https://api.paypal.com{CERT}?x=1",
    ],
)  # fmt: skip
def test_18_a_certificate_comes_from_paypal_alone(url: str) -> None:
    """A 7, V 1.3.6, 13.2.4: its address is written by whoever sends a webhook; judged before anything is asked."""
    check_cert_url("https://api.paypal.com" + CERT, PAYPAL)
    with pytest.raises(Refused):
        check_cert_url(url, PAYPAL)


def test_18_no_request_of_ours_follows_a_redirect() -> None:
    """V 15.3.2: every call of a session in adapters/ says so; there is no other way out."""
    found = 0
    for file in sorted((ROOT / "adapters").rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and _is_request(node.func):
                found += 1
                said = {it.arg: it.value for it in node.keywords}.get("allow_redirects")
                assert isinstance(said, ast.Constant) and said.value is False, f"{file.name}:{node.lineno}"
    assert found >= 6


def _is_request(function: ast.Attribute) -> bool:
    """`something.session().get(…)`, `sessions().post(…)`."""
    made = function.value
    name = getattr(made.func, "attr", getattr(made.func, "id", "")) if isinstance(made, ast.Call) else ""
    return function.attr in {"get", "post", "request", "put", "patch", "head", "delete"} and "session" in name


async def test_18_a_redirecting_service_is_not_followed() -> None:
    outbound = Outbound()
    async with OrderService(mood="redirect") as service:
        service.has("o1")
        orders = OrdersApi(service.url, None, outbound.session, SettableClock(), CountedMetrics())
        with pytest.raises(Unavailable):
            await orders.find("o1", None)
        assert not [path for _, path, _ in service.requests if "elsewhere" in path]
    await outbound.close()


async def test_18_what_a_caller_names_is_never_asked() -> None:
    """`returnUrl` is for the shopper's browser: this service does not go there, private address or not."""
    asked: list[str] = []

    async def noted(request: web.Request) -> web.Response:
        asked.append(request.path)
        return web.Response()

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", noted)
    async with TestServer(app) as server, whole_site() as site:
        url = f"http://127.0.0.1:{server.port}/back"
        path = await site.created("order-1")
        body = {"paymentMethodId": "tok_threeDSecure", "returnUrl": url}
        assert (await site.ask("POST", f"{path}/process", body))[0] == 200
        for address in (
            "file:///etc/passwd",
            "gopher://127.0.0.1",
            "javascript:alert(1)",
            "//evil.example",
            "https://",
        ):
            assert (await site.ask("POST", f"{path}/process", {**body, "returnUrl": address}))[0] == 422, address
    assert asked == []


# --- 19 --------------------------------------------------------------------------------------------------------


async def test_19_a_provider_that_is_away_keeps_reads_up_and_is_left_alone() -> None:
    """V 13.2.6, 16.5.2: every call has an end, the breaker opens, and nobody else waits."""

    class Silent:
        name = "MOCK"
        asked = 0

        async def create_object(self, call: Any) -> Answer:
            self.asked += 1
            await asyncio.get_running_loop().create_future()
            raise AssertionError

        send = lookup = create_object

    deadline_s, silent = 0.05, Silent()
    async with whole_site() as site:
        providers: Any = site.rig.desk.effects.providers
        limits = GuardLimits(100, deadline_s, breaker=BREAKER)
        providers["MOCK"] = GuardedProvider(silent, limits, site.clock, CountedMetrics())
        codes = []
        for number in range(30):
            path = await site.created(f"order-{number}")
            started = time.monotonic()
            status, envelope = await site.ask("POST", f"{path}/process", {"paymentMethodId": "tok_visa"})
            codes.append(envelope.get("code", status))
            assert time.monotonic() - started < 5
            assert (await site.ask("GET", path))[0] == 200
        assert codes[-1] == "PROVIDER_UNAVAILABLE", codes
        assert silent.asked < 30, "the breaker keeps the rest away"
        assert (await site.ask("GET", "/health"))[0] == (await site.ask("GET", "/api/v1/payments", who=BOB))[0] == 200


async def test_19_connections_and_waits_are_bounded() -> None:
    outbound = Outbound()
    session = outbound.session()
    assert session.connector is not None and session.connector.limit == CONNECTIONS_MAX
    assert session.timeout.total is not None and session.timeout.connect is not None
    await outbound.close()

"""Stripe's webhooks: whose they are, what each event tells, what is asked again. Each case with its negative twin."""

import json
from dataclasses import replace
from typing import Any

import pytest
import stripe
from aiohttp import ClientSession, web
from aiohttp.test_utils import TestServer
from hypothesis import given
from hypothesis import strategies as st
from rigs.stripe_recorded import event, names, recorded

from payment_service.adapters.providers.stripe_api import StripeApi
from payment_service.adapters.providers.stripe_events import notice_of
from payment_service.adapters.providers.stripe_webhooks import StripeWebhooks, check_signature
from payment_service.core.errors import Malformed, Refused, Unavailable
from payment_service.core.terms import DisputeState
from payment_service.core.webhooks import AttemptNews, AuthorizationEnded, DisputeNews, MethodNews, News, RefundNews

NOW_S = 1_795_560_300
OLD, NEW = "whsec_old", "whsec_new"
BODY = event("succeeded")


def signed(body: bytes = BODY, secret: str = NEW, at_s: int = NOW_S) -> str:
    """By Stripe's own SDK."""
    header: str = stripe.WebhookSignature.generate_signature_header(body.decode(), secret, at_s)  # type: ignore[attr-defined,unused-ignore]
    return header


def reader(base: str = "http://127.0.0.1:1", session: ClientSession | None = None) -> StripeWebhooks:
    def sessions() -> ClientSession:
        assert session is not None, "nothing is asked here"
        return session

    return StripeWebhooks([OLD, NEW], StripeApi("sk_test_1", base, 5, sessions), live=False)


# --- whose it is -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "header",
    [
        signed(),
        signed(secret=OLD),
        signed(at_s=NOW_S - 299),
        signed(at_s=NOW_S + 299),
        signed() + ",v0=6ffbb59b2300aae63f272406069a9788598b792a944a07aba816edb039989a39",
        signed(secret="whsec_rolled_out") + "," + signed().split(",")[1],
        signed().replace(",", " , "),
    ],
)
async def test_a_signature_of_ours_is_taken(header: str) -> None:
    notice = await reader().verify({"stripe-signature": header}, BODY, NOW_S * 1000)
    assert (notice.event_id, notice.type) == ("evt_3Succeeded", "payment_intent.succeeded")
    assert notice.created_at_ms == 1_795_560_300_000


@pytest.mark.parametrize(
    ("header", "body"),
    [
        ("", BODY),
        (signed(secret="whsec_of_somebody_else"), BODY),
        (signed(), BODY.replace(b"1000", b"9000")),
        (signed(), BODY + b" "),
        (signed(at_s=NOW_S - 301), BODY),
        (signed(at_s=NOW_S + 301), BODY),
        (signed().replace("v1=", "v0="), BODY),
        (signed().replace(f"t={NOW_S}", f"t={NOW_S + 1}"), BODY),
        (f"t={NOW_S - 1000}," + signed(), BODY),
        (signed().split(",")[0], BODY),
        (signed().split(",")[1], BODY),
        ("t=,v1=" + signed().partition("v1=")[2], BODY),
        ("t=²,v1=00", BODY),
        ("t=" + "9" * 5000 + ",v1=00", BODY),
        (f"t={NOW_S}," + ",".join(f"v1={n:064x}" for n in range(30)) + "," + signed().split(",")[1], BODY),
        (f"t={NOW_S},v1=é", BODY),
    ],
)
async def test_any_other_is_refused(header: str, body: bytes) -> None:
    with pytest.raises(Refused) as refused:
        await reader().verify({"stripe-signature": header}, body, NOW_S * 1000)
    assert refused.value.code == "INVALID_SIGNATURE"


@given(st.text(max_size=80), st.binary(max_size=40))
def test_no_header_and_no_body_breaks_the_check(header: str, body: bytes) -> None:
    with pytest.raises(Refused):
        check_signature(header, body, [NEW], NOW_S)


@pytest.mark.parametrize(
    "body",
    [
        b"", b"[]", b"null", b"\xff", b"[" * 100_000, b'{"object": "event"}', event("thin"),
        BODY.replace(b'"object": "event"', b'"object": "v2.core.event"'),
        BODY.replace(b'"created": 1795560300', b'"created": "now"'),
        BODY.replace(b'"evt_3Succeeded"', b'"../evt"'),
        json.dumps({**json.loads(BODY), "data": {"object": None}}).encode(),
    ],
)  # fmt: skip
async def test_what_is_signed_and_is_no_event_is_malformed(body: bytes) -> None:
    text = body.decode("latin-1")
    header = signed(text.encode()) if text.encode() == body else ""
    with pytest.raises(Malformed if header else Refused):
        await reader().verify({"stripe-signature": header}, body, NOW_S * 1000)
    with pytest.raises(Malformed):
        reader().read(body)


# --- what it tells ---------------------------------------------------------------------------------------------------


def told(news: News) -> str:
    match news:
        case AttemptNews(kind, answer, number):
            words = [kind, answer.verdict, answer.code, answer.provider_id, answer.amount_minor, number]
        case RefundNews(answer, number):
            words = ["REFUND", answer.verdict, answer.code, answer.provider_id, answer.amount_minor, number]
        case DisputeNews(dispute_id, state, amount_minor, currency, reason):
            words = ["DISPUTE", dispute_id, state, amount_minor, currency, reason]
        case MethodNews(method_id, detached, brand, last4, month, year):
            words = ["METHOD", method_id, "detached" if detached else "", brand, last4, month, year]
        case AuthorizationEnded():
            words = ["ENDED"]
        case _:
            words = [type(news).__name__]
    return " ".join(str(word) for word in words if word not in (None, ""))


EVENTS = """
created                | -
requires_action        | -
processing             | CHARGE PENDING ch_3Recorded
capturable             | AUTHORIZE APPROVED ch_3Recorded 1000
succeeded              | CHARGE APPROVED ch_3Recorded 1000
captured_in_part       | AUTHORIZE APPROVED ch_3Recorded 1000 + CAPTURE APPROVED ch_3Recorded 700
payment_failed         | CHARGE DECLINED CARD_DECLINED ch_3RecordedDeclined 1
canceled               | VOID APPROVED OBJECT_CANCELLED
charge_captured        | CAPTURE APPROVED ch_3Recorded 700
charge_expired         | ENDED
charge_refunded        | - ask
charge_succeeded       | -
refund_created         | REFUND APPROVED re_3Recorded 400 1
refund_failed          | REFUND DECLINED REFUND_FAILED re_3Recorded 400 1
refund_of_the_dashboard | REFUND PENDING re_3Dashboard 400
dispute_created        | DISPUTE du_1Recorded OPEN 1000 USD fraudulent
dispute_won            | DISPUTE du_1Recorded WON 1000 USD fraudulent
dispute_lost           | DISPUTE du_1Recorded LOST 1000 USD fraudulent
dispute_inquiry_closed | DISPUTE du_1Recorded WON 1000 USD fraudulent
dispute_prevented      | DISPUTE du_1Recorded OPEN 1000 USD fraudulent (prevented)
method_detached        | METHOD pm_1RecordedMethod detached visa 4242 12 2034
method_updated         | METHOD pm_1RecordedMethod visa 1111 12 2036
of_a_connected_account | CHARGE APPROVED ch_3Recorded 1000 ?ACCOUNT_DIFFERS
in_live_mode           | CHARGE APPROVED ch_3Recorded 1000 ?ACCOUNT_DIFFERS
of_tomorrow            | -
"""
ROWS = [tuple(cell.strip() for cell in line.split("|")) for line in EVENTS.strip().splitlines()]


@pytest.mark.parametrize(("name", "said"), ROWS)
def test_an_event(name: str, said: str) -> None:
    notice = notice_of(event(name), live=False)
    words = [" + ".join(told(news) for news in notice.news) or "-", "ask" if notice.refetch else ""]
    assert " ".join([*(word for word in words if word), *(f"?{it}" for it in notice.review)]) == said


def test_the_table_names_every_recorded_event() -> None:
    assert {f"event_{name}" for name, _ in ROWS} == {*names("event_")} - {"event_thin"}


def test_ids_say_which_payment_object_and_charge_it_is_about() -> None:
    def ids(name: str) -> tuple[str | None, str | None, str | None]:
        notice = notice_of(event(name), live=False)
        return notice.payment_id, notice.object_id, notice.charge_id

    assert ids("succeeded") == ids("charge_captured") == ids("refund_created")
    assert ids("succeeded") == ("pay_recorded", "pi_3Recorded", "ch_3Recorded")
    assert ids("refund_of_the_dashboard") == ids("dispute_created") == (None, "pi_3Recorded", "ch_3Recorded")
    assert ids("method_detached")[1:] == (None, None)


def test_a_decline_in_the_shoppers_browser_ends_nothing() -> None:
    body = json.loads(event("payment_failed"))
    intent = body["data"]["object"]
    intent["metadata"]["collected_by"] = "browser"
    assert len(notice_of(json.dumps(body).encode(), live=False).news) == 1, "this one was confirmed by us"
    intent["last_payment_error"]["payment_method"]["metadata"] = {}
    assert notice_of(json.dumps(body).encode(), live=False).news == ()
    del intent["metadata"]["collected_by"]
    assert len(notice_of(json.dumps(body).encode(), live=False).news) == 1


def test_no_secret_is_in_a_notice() -> None:
    for name, _ in ROWS:
        assert "secret" not in repr(notice_of(event(name), live=False))


JSON: st.SearchStrategy[Any] = (
    st.none() | st.booleans() | st.integers() | st.text(max_size=6) | st.just({}) | st.just([])
)


@given(st.sampled_from([name for name, _ in ROWS]), st.dictionaries(st.text(max_size=12), JSON, max_size=3), st.data())
def test_whatever_an_events_object_holds_it_is_read(name: str, changed: dict[str, Any], data: st.DataObject) -> None:
    body = json.loads(event(name))
    thing = body["data"]["object"]
    field = data.draw(st.sampled_from(sorted(thing)))
    body["data"]["object"] = {**thing, **changed, field: data.draw(JSON)}
    notice = notice_of(json.dumps(body).encode(), live=True)
    for news in notice.news:
        told(news).encode()


# --- asked again -----------------------------------------------------------------------------------------------------


async def test_it_is_asked_for_what_the_event_is_about() -> None:
    asked: list[str] = []

    async def handler(request: web.Request) -> web.Response:
        asked.append(request.path_qs)
        name = {
            "/v1/payment_intents/pi_3Recorded": "intent_canceled",
            "/v1/refunds/re_3Dashboard": "refund_failed",
            "/v1/refunds": "refund_list",
        }.get(request.path)
        if name is None:
            return web.json_response({"error": {"code": "resource_missing"}}, status=404)
        return web.json_response(recorded(name).body)

    app = web.Application()
    app.router.add_get("/{path:.*}", handler)
    async with TestServer(app) as server, ClientSession() as session:
        webhooks = reader(f"http://127.0.0.1:{server.port}", session)

        async def fresh(name: str) -> list[str]:
            asked.clear()
            notice = await webhooks.refetch(webhooks.read(event(name)))
            assert not notice.refetch
            assert notice.payment_id == ("pay_recorded" if notice.object_id is not None else None) or notice.review
            return [told(news) for news in notice.news]

        assert await fresh("succeeded") == ["VOID APPROVED OBJECT_CANCELLED"]
        assert await fresh("charge_captured") == ["VOID APPROVED OBJECT_CANCELLED"]
        assert asked == ["/v1/payment_intents/pi_3Recorded"]
        assert await fresh("refund_of_the_dashboard") == ["REFUND DECLINED REFUND_FAILED re_3Recorded 400 1"]
        assert asked == ["/v1/refunds/re_3Dashboard", "/v1/payment_intents/pi_3Recorded"]
        assert len(await fresh("charge_refunded")) == 3
        assert asked == ["/v1/refunds?limit=100&payment_intent=pi_3Recorded"]
        assert await fresh("dispute_created") == [], "Stripe knows no such dispute"
        assert (await fresh("method_detached"), asked) == (["METHOD pm_1RecordedMethod detached visa 4242 12 2034"], [])
        unknown = replace(webhooks.read(event("succeeded")), object_id="pi_gone")
        gone = await webhooks.refetch(unknown)
        assert (gone.news, gone.review) == ((), ("OBJECT_MISSING",))


@pytest.mark.parametrize("status", [401, 429, 500])
async def test_when_stripe_cannot_be_asked_it_is_asked_later(status: int) -> None:
    async def handler(request: web.Request) -> web.Response:
        return web.json_response({}, status=status)

    app = web.Application()
    app.router.add_get("/{path:.*}", handler)
    async with TestServer(app) as server, ClientSession() as session:
        for base in (f"http://127.0.0.1:{server.port}", "http://127.0.0.1:1"):
            webhooks = reader(base, session)
            for name in ("succeeded", "charge_refunded", "dispute_created"):
                with pytest.raises(Unavailable):
                    await webhooks.refetch(webhooks.read(event(name)))


@pytest.mark.parametrize(
    "odd", [{"amount": None}, {"amount": -1}, {"currency": None}, {"currency": "isk", "amount": 150}]
)
def test_a_dispute_of_an_amount_that_is_none_of_ours_is_a_dispute(odd: dict[str, Any]) -> None:
    """In a currency that is never the payment's, so that it is asked for again and a person looks."""
    body = json.loads(event("dispute_created"))
    body["data"]["object"] |= odd
    (told,) = notice_of(json.dumps(body).encode(), live=False).news
    assert isinstance(told, DisputeNews)
    assert (told.dispute_id, told.state, told.amount_minor, told.currency) == ("du_1Recorded", DisputeState.OPEN, 0, "")

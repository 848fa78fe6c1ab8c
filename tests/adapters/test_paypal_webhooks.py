"""Who sent a webhook of PayPal: every reason not to believe it, and each time the twin that is believed."""

import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from aiohttp import ClientSession, web
from aiohttp.test_utils import TestServer
from rigs.paypal_recorded import event, recorded
from rigs.paypal_signer import WEBHOOK_ID, Signer
from rigs.settable_clock import SettableClock

from payment_service.adapters.providers.paypal_api import PaypalApi
from payment_service.adapters.providers.paypal_events import dispute_news, notice_of, order_news
from payment_service.adapters.providers.paypal_signatures import (
    CERT_TTL_S,
    Certificates,
    check_cert_url,
    signer_name,
    trusted_roots,
)
from payment_service.adapters.providers.paypal_webhooks import PaypalWebhooks
from payment_service.adapters.providers.stripe_fields import Fields
from payment_service.core.errors import Malformed, Refused, Unavailable
from payment_service.core.terms import DisputeState, Kind, Verdict
from payment_service.core.webhooks import Approved, AttemptNews, DisputeNews, News, RefundNews

BODY = event("capture_completed")
CERT = "/v1/notifications/certs/CERT-1"
LIVE, SANDBOX = "https://api-m.paypal.com", "https://api-m.sandbox.paypal.com"


def now_ms() -> int:
    return time.time_ns() // 1_000_000


@dataclass
class Paypal:
    """What PayPal serves: certificates, and its opinion of a webhook."""

    url: str
    signer: Signer
    reader: PaypalWebhooks
    postback: PaypalWebhooks
    served: dict[str, web.Response] = field(default_factory=dict)
    fetched: list[str] = field(default_factory=list)
    shown: list[bytes] = field(default_factory=list)
    opinion: Any = None

    def serve(self, body: bytes, path: str = CERT, status: int = 200, **headers: str) -> str:
        self.served[path] = web.Response(body=body, status=status, headers=headers)
        return self.url + path


@pytest.fixture(scope="module")
def signer() -> Signer:
    return Signer()


@pytest.fixture(scope="module")
def roots(signer: Signer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    path: Path = tmp_path_factory.mktemp("paypal") / "roots.pem"
    path.write_bytes(signer.root)
    yield path
    trusted_roots.cache_clear()


@pytest_asyncio.fixture
async def paypal(signer: Signer, roots: Path) -> AsyncIterator[Paypal]:
    async def rest(request: web.Request) -> web.Response:
        path = request.path
        if path == "/v1/oauth2/token":
            return web.json_response({"access_token": "t", "expires_in": 1000})
        if path == "/v1/notifications/verify-webhook-signature":
            made.shown.append(await request.read())
            return web.json_response(*made.opinion[:1], status=made.opinion[1])
        made.fetched.append(path)
        found = made.served.get(path)
        if found is None:
            raise web.HTTPNotFound
        return web.Response(
            body=found.body, status=found.status, headers={"Location": found.headers.get("Location", "")}
        )

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", rest)
    async with TestServer(app) as server, ClientSession() as session:
        url = f"http://127.0.0.1:{server.port}"
        api = PaypalApi("client", "secret", url, 5, lambda: session, SettableClock())
        certificates = Certificates(url, roots, lambda: session)
        made = Paypal(url, signer, PaypalWebhooks(api, WEBHOOK_ID, certificates), PaypalWebhooks(api, WEBHOOK_ID, None))
        yield made


async def believed(paypal: Paypal, headers: dict[str, str], body: bytes = BODY, at_ms: int | None = None) -> str:
    try:
        notice = await paypal.reader.verify(headers, body, at_ms or now_ms())
    except (Refused, Unavailable, Malformed) as error:
        return error.code
    return notice.type


NO = "INVALID_SIGNATURE"
YES = "PAYMENT.CAPTURE.COMPLETED"


async def test_a_signed_event_is_believed_and_its_certificate_fetched_once(paypal: Paypal) -> None:
    url = paypal.serve(paypal.signer.leaf())
    for _ in range(3):
        assert await believed(paypal, paypal.signer.headers(url, BODY)) == YES
    assert paypal.fetched == [CERT]
    tomorrow = now_ms() + int(CERT_TTL_S * 1000) + 1000
    later = paypal.signer.headers(url, BODY, at=datetime.fromtimestamp(tomorrow / 1000, UTC))
    assert await believed(paypal, later, at_ms=tomorrow) == YES
    assert paypal.fetched == [CERT, CERT], "it is not kept for ever"


async def test_what_was_changed_on_the_way_is_not_believed(paypal: Paypal) -> None:
    url = paypal.serve(paypal.signer.leaf())
    signed = paypal.signer.headers(url, BODY)
    assert await believed(paypal, signed) == YES
    assert await believed(paypal, signed, BODY + b" ") == NO
    other_id = paypal.signer.headers(url, BODY, webhook_id="ANOTHERWEBHOOK")
    assert await believed(paypal, other_id) == NO
    for name, value in (
        ("transmission_id", "another"), ("transmission_sig", "AAAA"), ("transmission_sig", "no base64!"),
        ("transmission_time", datetime.now(UTC).isoformat()), ("auth_algo", "SHA1withRSA"),
    ):  # fmt: skip
        assert await believed(paypal, paypal.signer.headers(url, BODY, **{name: value})) == NO, name
    for missing in signed:
        assert await believed(paypal, {name: it for name, it in signed.items() if name != missing}) == NO, missing
        assert await believed(paypal, {**signed, missing: "x" * 5000}) == NO
        assert await believed(paypal, {**signed, missing: "ü"}) == NO


@pytest.mark.parametrize(
    ("ago", "expected"),
    [
        (timedelta(0), YES), (timedelta(days=3), YES), (timedelta(days=3, hours=2), NO), (timedelta(seconds=-200), YES),
        (timedelta(seconds=-400), NO),
    ],
)  # fmt: skip
async def test_an_event_of_another_time_is_not_believed(paypal: Paypal, ago: timedelta, expected: str) -> None:
    url = paypal.serve(paypal.signer.leaf())
    assert await believed(paypal, paypal.signer.headers(url, BODY, at=datetime.now(UTC) - ago)) == expected


@pytest.mark.parametrize("moment", ["yesterday", "2026-11-24T12:00:00", "", "9999999999999"])
async def test_a_time_that_is_none(paypal: Paypal, moment: str) -> None:
    url = paypal.serve(paypal.signer.leaf())
    assert await believed(paypal, paypal.signer.headers(url, BODY, transmission_time=moment)) == NO


# --- the certificate -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "base", "good"),
    [
        (f"https://api.paypal.com{CERT}", LIVE, True),
        (f"https://api-m.paypal.com{CERT}", LIVE, True),
        (f"https://api-m.paypal.com:443{CERT}", LIVE, True),
        (f"https://api.sandbox.paypal.com{CERT}", SANDBOX, True),
        (f"https://api.sandbox.paypal.com{CERT}", LIVE, False),
        (f"https://api.paypal.com{CERT}", SANDBOX, False),
        (f"http://api.paypal.com{CERT}", LIVE, False),
        (f"https://api.paypal.com:8443{CERT}", LIVE, False),
        (f"https://api.paypal.com:x{CERT}", LIVE, False),
        (f"https://evil.test{CERT}", LIVE, False),
        (f"https://api.paypal.com.evil.test{CERT}", LIVE, False),
        (f"https://evilpaypal.com{CERT}", LIVE, False),
        (f"https://evil.paypal.com{CERT}", LIVE, False),
        (f"https://api.paypal.com@evil.test{CERT}", LIVE, False),
        (f"https://user@api.paypal.com{CERT}", LIVE, False),
        (f"https://api.paypal.com\\@evil.test{CERT}", LIVE, False),
        (f"https://api.paypal.com{CERT}?x=1", LIVE, False),
        (f"https://api.paypal.com{CERT}#x", LIVE, False),
        (f"https://api.paypal.com{CERT}/../../x", LIVE, False),
        ("https://api.paypal.com/v1/notifications/certs/", LIVE, False),
        ("https://api.paypal.com/v1/oauth2/authorize", LIVE, False),
        ("https://api.paypal.com/v1/notifications/certs/CERT-%2e%2e", LIVE, False),
        (f"//api.paypal.com{CERT}", LIVE, False),
        (f"file://{CERT}", LIVE, False),
        ("https://[::1", LIVE, False),
        (f"http://127.0.0.1:12111{CERT}", "http://127.0.0.1:12111", True),
        (f"http://127.0.0.1:12112{CERT}", "http://127.0.0.1:12111", False),
        (f"https://127.0.0.1:12111{CERT}", "http://127.0.0.1:12111", False),
        (f"https://api.paypal.com{CERT}", "http://127.0.0.1:12111", False),
    ],
)
def test_a_certificate_is_fetched_from_paypal_alone(url: str, base: str, good: bool) -> None:
    if good:
        check_cert_url(url, base)
    else:
        with pytest.raises(Refused):
            check_cert_url(url, base)


async def test_nothing_is_fetched_from_elsewhere(paypal: Paypal) -> None:
    headers = paypal.signer.headers(f"https://evil.test{CERT}", BODY)
    assert await believed(paypal, headers) == NO
    assert paypal.fetched == []


async def test_a_certificate_that_proves_nothing(paypal: Paypal) -> None:
    now, stranger = datetime.now(UTC), Signer()
    stranger.key = paypal.signer.key
    for name, pem in {
        "expired": paypal.signer.leaf(since=now - timedelta(days=400)),
        "not yet valid": paypal.signer.leaf(since=now + timedelta(days=2)),
        "another name": paypal.signer.leaf("www.paypal.com"),
        "the name of the live mode": paypal.signer.leaf("messageverificationcerts.paypal.com"),
        "a name that looks alike": paypal.signer.leaf("messageverificationcerts.sandbox.paypal.com.evil.test"),
        "another authority": stranger.leaf(),
        "a root instead": paypal.signer.root,
        "no certificate": b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
        "nothing": b"",
        "too large": paypal.signer.leaf() + b"\n" * 100_000,
    }.items():
        paypal.fetched.clear()
        url = paypal.serve(pem)
        assert await believed(paypal, paypal.signer.headers(url, BODY)) == NO, name
        assert paypal.fetched == [CERT]
    url = paypal.serve(paypal.signer.leaf() + stranger.root)
    assert await believed(paypal, paypal.signer.headers(url, BODY)) == YES, "what else is in the bundle does no harm"


async def test_a_redirect_is_not_followed_and_a_missing_one_not_waited_for(paypal: Paypal) -> None:
    other = paypal.serve(paypal.signer.leaf(), "/v1/notifications/certs/CERT-2")
    assert await believed(paypal, paypal.signer.headers(other, BODY)) == YES
    paypal.fetched.clear()
    url = paypal.serve(b"", status=302, Location=other)
    assert await believed(paypal, paypal.signer.headers(url, BODY)) == NO
    assert await believed(paypal, paypal.signer.headers(f"{paypal.url}{CERT}-missing", BODY)) == NO
    assert paypal.fetched == [CERT, f"{CERT}-missing"]


async def test_while_the_certificate_cannot_be_had_paypal_is_asked_to_come_again(paypal: Paypal) -> None:
    url = paypal.serve(b"", status=503)
    assert await believed(paypal, paypal.signer.headers(url, BODY)) == "PROVIDER_UNAVAILABLE"
    paypal.serve(paypal.signer.leaf())
    assert await believed(paypal, paypal.signer.headers(url, BODY)) == YES


def test_each_mode_has_its_own_signer_and_the_well_known_authorities_are_there() -> None:
    assert signer_name(LIVE) == "messageverificationcerts.paypal.com"
    assert signer_name(SANDBOX) == "messageverificationcerts.sandbox.paypal.com"
    assert trusted_roots(None) is not None


def test_a_file_without_certificates_stops_the_start(tmp_path: Path) -> None:
    empty = tmp_path / "empty.pem"
    empty.write_text("nothing")
    with pytest.raises(ValueError, match="empty"):
        Certificates(SANDBOX, empty, Signer)  # type: ignore[arg-type]


# --- the postback ----------------------------------------------------------------------------------------------------


async def test_the_postback_shows_the_event_byte_for_byte(paypal: Paypal) -> None:
    body = BODY.replace(b'"10.00"', b'"10.00"  ')
    headers = paypal.signer.headers(paypal.url + CERT, body)
    paypal.opinion = ({"verification_status": "SUCCESS"}, 200)
    assert (await paypal.postback.verify(headers, body, now_ms())).type == YES
    assert b'"webhook_event":' + body + b"}" in paypal.shown[0]
    assert f'"webhook_id":"{WEBHOOK_ID}"'.encode() in paypal.shown[0]
    assert paypal.fetched == [], "PayPal itself looks at the certificate"


@pytest.mark.parametrize(
    ("opinion", "error"),
    [
        (({"verification_status": "FAILURE"}, 200), Refused), (({}, 400), Refused), (({}, 422), Refused),
        (({"verification_status": "LATER"}, 200), Unavailable), (({}, 200), Unavailable), (({}, 503), Unavailable),
        (({}, 403), Unavailable), (({}, 429), Unavailable),
    ],
)  # fmt: skip
async def test_what_paypal_may_think_of_it(paypal: Paypal, opinion: Any, error: type[Exception]) -> None:
    paypal.opinion = opinion
    with pytest.raises(error):
        await paypal.postback.verify(paypal.signer.headers(paypal.url + CERT, BODY), BODY, now_ms())


async def test_nothing_that_is_no_event_is_shown_to_paypal(paypal: Paypal) -> None:
    paypal.opinion = ({"verification_status": "SUCCESS"}, 200)
    for body in (b'{}},"webhook_event":{}', b"[]", b"", b"\xff", b'{"a":1} {"b":2}'):
        with pytest.raises(Malformed):
            await paypal.postback.verify(paypal.signer.headers(paypal.url + CERT, body), body, now_ms())
    with pytest.raises(Refused):
        await paypal.postback.verify(paypal.signer.headers(f"https://evil.test{CERT}", BODY), BODY, now_ms())
    assert paypal.shown == []


# --- what it is about ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "about", "refetch"),
    [
        ("order_approved", ("5O190127TN364715T", None, "pay_recorded"), True),
        ("capture_completed", ("5O190127TN364715T", "3C679366HH908993F", "pay_recorded"), True),
        ("authorization_voided", ("5O190127TN364715T", "0VF52814937998046", "pay_recorded"), True),
        ("capture_refunded", (None, "3C679366HH908993F", "pay_recorded"), True),
        ("dispute_created", (None, "3C679366HH908993F", "pay_recorded"), True),
        ("of_tomorrow", (None, None, None), False),
        ("payout", (None, None, None), False),
    ],
)
def test_an_event_says_what_to_ask_for(name: str, about: tuple[str | None, ...], refetch: bool) -> None:
    notice = notice_of(event(name))
    assert notice.event_id == "WH-58D329510W468432D-8HN650336L201105X"
    assert notice.created_at_ms == 1_795_521_720_123
    assert (notice.object_id, notice.charge_id, notice.payment_id) == about
    assert notice.refetch is refetch
    assert bool(notice.news) is (name == "dispute_created"), "and nothing of it is news"


@pytest.mark.parametrize("body", [b"", b"[]", b"{}", b"\xff", b"[" * 100_000, b'{"id":"WH-1","event_type":"X"}'])
def test_what_is_no_event(body: bytes) -> None:
    with pytest.raises(Malformed):
        notice_of(body)


def heard(news: News) -> str:
    match news:
        case AttemptNews():
            said = f"{news.kind} {news.answer.verdict} {news.answer.amount_minor} #{news.number}"
        case RefundNews():
            said = f"REFUND {news.answer.verdict} {news.answer.amount_minor} #{news.number}"
        case _:
            said = type(news).__name__
    return said


@pytest.mark.parametrize(
    ("name", "news"),
    [
        ("order_created", []),
        ("order_approved", ["Approved"]),
        ("order_capture_completed", ["CHARGE APPROVED 1000 #None"]),
        ("order_capture_pending", ["CHARGE PENDING 1000 #None"]),
        ("order_capture_declined", ["CHARGE DECLINED 1000 #None"]),
        # Money that went back and is in no refund, a reversal say: a person looks.
        ("order_capture_refunded", ["CHARGE APPROVED 1000 #None", "REFUND APPROVED None #None"]),
        ("order_capture_partially_refunded", ["CHARGE APPROVED 1000 #None", "REFUND APPROVED None #None"]),
        ("order_capture_of_tomorrow", ["CHARGE UNKNOWN None #None"]),
        ("order_authorization_created", ["AUTHORIZE APPROVED 1000 #None"]),
        ("order_authorization_denied", ["AUTHORIZE DECLINED 1000 #None"]),
        ("order_authorization_voided", ["VOID APPROVED None #None"]),
        ("order_authorization_captured", ["AUTHORIZE APPROVED 1000 #None", "CAPTURE APPROVED 700 #1"]),
        ("order_authorization_captured_otherwise", ["AUTHORIZE APPROVED 1000 #None", "CAPTURE APPROVED 700 #None"]),
        ("order_refund_completed",
         ["CHARGE APPROVED 1000 #None", "REFUND APPROVED 400 #None", "REFUND APPROVED 400 #1"]),
        ("order_refund_of_another_call", ["CHARGE APPROVED 1000 #None", "REFUND APPROVED 400 #2"]),
    ],
)  # fmt: skip
def test_an_order_tells_everything_that_became_of_it(name: str, news: list[str]) -> None:
    told = order_news(Fields(recorded(name).body))
    assert [heard(one) for one in told] == news
    assert isinstance(told[0], Approved) if name == "order_approved" else True
    for one in told:
        if isinstance(one, AttemptNews) and one.kind is Kind.VOID:
            assert one.answer.object_closed
            assert one.answer.verdict is Verdict.APPROVED


@pytest.mark.parametrize(
    ("name", "state", "reason"),
    [
        ("open", DisputeState.OPEN, "MERCHANDISE_OR_SERVICE_NOT_RECEIVED"),
        ("waiting", DisputeState.OPEN, "MERCHANDISE_OR_SERVICE_NOT_RECEIVED"),
        ("won", DisputeState.WON, "MERCHANDISE_OR_SERVICE_NOT_RECEIVED"),
        ("payout", DisputeState.WON, "MERCHANDISE_OR_SERVICE_NOT_RECEIVED"),
        ("lost", DisputeState.LOST, "MERCHANDISE_OR_SERVICE_NOT_RECEIVED"),
        ("of_tomorrow", DisputeState.OPEN, "MERCHANDISE_OR_SERVICE_NOT_RECEIVED (SETTLED_BY_COIN)"),
    ],
)
def test_a_dispute_as_it_stands(name: str, state: DisputeState, reason: str) -> None:
    told = dispute_news(Fields(recorded(f"dispute_{name}").body))
    assert told == (DisputeNews("PP-D-12345", state, 500, "USD", reason),)
    assert dispute_news(Fields({"dispute_id": "PP-D-1"})) == ()

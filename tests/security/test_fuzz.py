"""Whatever a stranger sends: nothing but the documented errors comes out, and what is taken is whole.

Codecs of order events, of our own events and of the state are fuzzed beside their tests in tests/codecs.
"""

import asyncio
import json
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import jwt
import orjson
import pytest
from aiohttp import ClientSession
from hypothesis import example, given, settings
from hypothesis import strategies as st
from multidict import MultiDict
from rigs import paypal_recorded, stripe_recorded
from rigs.settable_clock import SettableClock
from rigs.web_site import NOW_S, RULES, SECRET

from payment_service.adapters.providers.mock_webhooks import MockWebhooks, signature_of
from payment_service.adapters.providers.paypal_api import PaypalApi
from payment_service.adapters.providers.paypal_signatures import Certificates, check_cert_url, transmission_of
from payment_service.adapters.providers.paypal_webhooks import PaypalWebhooks
from payment_service.adapters.providers.stripe_api import StripeApi
from payment_service.adapters.providers.stripe_webhooks import StripeWebhooks
from payment_service.adapters.sealing import AesGcmCipher
from payment_service.codecs.methods import decode_method_secrets
from payment_service.codecs.orders import decode_order, says_no
from payment_service.codecs.published import decode_published
from payment_service.codecs.webhooks import decode_webhook
from payment_service.core.card_data import card_data_in, hide_card_numbers
from payment_service.core.errors import Malformed, Refused, Unavailable
from payment_service.core.webhooks import Notice, WebhookReader
from payment_service.web.bodies import METADATA_DEPTH_MAX, CreateBody, parse_object, read_flag, read_list_query
from payment_service.web.client_address import parse_address
from payment_service.web.idempotency import LENGTH_MAX, read_key
from payment_service.web.tokens import TokenVerifier

EXAMPLES = 100
"""Of each test: all of this file takes less than 15 s on two cores."""
fuzzed = settings(max_examples=EXAMPLES)
MOCK_SECRET, STRIPE_SECRET = "whsec_mock_of_this_test", "whsec_stripe_of_this_test"
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=12), inner, max_size=4),
    max_leaves=12,
)


def as_bytes(value: Any) -> bytes:
    """JSON as others may write it: also what our own writer refuses."""
    return json.dumps(value).encode("utf-8", "surrogatepass")


def code_of(do: Callable[[], object]) -> str:
    """The word with which it is refused; empty when it is not."""
    try:
        do()
    except Refused as error:
        return error.code
    return ""


class Nothing(Exception):
    """What is asked outside this test."""


def no_session() -> ClientSession:
    raise Nothing


def readers() -> dict[str, WebhookReader]:
    paypal = PaypalApi("client", "secret", "https://api-m.paypal.com", 5, no_session, SettableClock(NOW_S))
    certificates = Certificates("https://api-m.paypal.com", None, no_session)
    return {
        "MOCK": MockWebhooks(MOCK_SECRET),
        "STRIPE": StripeWebhooks([STRIPE_SECRET], StripeApi("sk_test_1", "http://127.0.0.1:1", 5, no_session), False),
        "PAYPAL": PaypalWebhooks(paypal, "WH-1", certificates),
    }


READERS = readers()
MOCK_EVENT = orjson.dumps(
    {
        "id": "evt_1", "type": "refund.failed", "created": 1, "data": {
            "payment_id": "pay_1", "object_id": "o", "provider_id": "x", "charge_id": "c", "amount_minor": 1,
            "currency": "USD", "key": "pay_1:refund:1",
        },
    }
)  # fmt: skip
EVENTS = {
    "MOCK": [MOCK_EVENT, MOCK_EVENT.replace(b"refund.failed", b"dispute.opened")],
    "STRIPE": [stripe_recorded.event(name.removeprefix("event_")) for name in stripe_recorded.names("event_")],
    "PAYPAL": [paypal_recorded.event(name.removeprefix("event_")) for name in paypal_recorded.names("event_")],
}


def changed(data: st.DataObject, value: Any) -> Any:
    """The same with something in it replaced, removed or added, at a place of Hypothesis's choice."""
    if not isinstance(value, dict | list) or not value or data.draw(st.integers(0, 3)) == 0:
        return data.draw(JSON)
    names = list(value) if isinstance(value, dict) else list(range(len(value)))
    name = data.draw(st.sampled_from(names))
    made: Any = dict(value) if isinstance(value, dict) else list(value)
    if isinstance(made, dict) and data.draw(st.integers(0, 5)) == 0:
        del made[name]
    else:
        made[name] = changed(data, value[name])
    return made


# --- webhooks --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("provider", READERS)
@fuzzed
@given(data=st.data())
def test_a_changed_event_is_a_notice_or_malformed(provider: str, data: st.DataObject) -> None:
    body = data.draw(st.sampled_from(EVENTS[provider]))
    value = changed(data, changed(data, orjson.loads(body)))
    with suppress(Malformed):
        notice = READERS[provider].read(as_bytes(value))
        assert isinstance(notice, Notice) and isinstance(notice.event_id, str) and isinstance(notice.type, str)
        ids = (notice.payment_id, notice.object_id, notice.charge_id)
        assert all(isinstance(it, str | None) for it in ids)


@pytest.mark.parametrize("provider", READERS)
@fuzzed
@given(body=st.binary(max_size=80) | JSON.map(as_bytes))
@example(body=b"[" * 2000)
@example(body=b'{"id":' + b"9" * 5000 + b"}")
@example(body=b'{"id":"\\ud800","type":"x","created":1e999}')
def test_any_body_is_a_notice_or_malformed(provider: str, body: bytes) -> None:
    with suppress(Malformed):
        READERS[provider].read(body)


HEADERS = st.dictionaries(
    st.sampled_from(
        [
            "mock-signature", "stripe-signature", "paypal-transmission-id", "paypal-transmission-time",
            "paypal-transmission-sig", "paypal-cert-url", "paypal-auth-algo",
        ]
    ),
    st.text(max_size=60)
    | st.from_regex(r"\A(t=[0-9]{1,12},)?(v1=[0-9a-fé]{0,70},?){0,7}\Z")
    | st.sampled_from(["SHA256withRSA", "2027-01-15T08:00:00Z", "https://api.paypal.com/v1/notifications/certs/CERT-1"]),
)  # fmt: skip


@pytest.mark.parametrize("provider", READERS)
@fuzzed
@given(headers=HEADERS, body=st.binary(max_size=40))
def test_nobody_signs_by_chance(provider: str, headers: dict[str, str], body: bytes) -> None:
    """And nothing is fetched for it, but a certificate at PayPal's own address, which this test does not have."""

    async def verify() -> None:
        with suppress(Nothing):
            await READERS[provider].verify(headers, body, int(NOW_S * 1000))
            return
        check_cert_url(headers["paypal-cert-url"], "https://api-m.paypal.com")
        transmission_of(headers, int(NOW_S * 1000))
        raise Refused("asked for at the right place", code="INVALID_SIGNATURE")

    assert code_of(lambda: asyncio.run(verify())) == "INVALID_SIGNATURE"


@fuzzed
@given(body=st.binary(max_size=60) | JSON.map(as_bytes))
def test_what_the_provider_signed_is_read_or_malformed(body: bytes) -> None:
    header = {"mock-signature": signature_of(MOCK_SECRET, body, int(NOW_S))}
    with suppress(Malformed):
        assert isinstance(asyncio.run(READERS["MOCK"].verify(header, body, int(NOW_S * 1000))), Notice)


# --- tokens and headers ----------------------------------------------------------------------------------------

CLAIMS = st.dictionaries(
    st.sampled_from(["sub", "userId", "exp", "nbf", "iat", "iss", "aud", "roles", "jti"]),
    JSON | st.just(NOW_S + 60) | st.just("user-1"),
)


@fuzzed
@given(token=st.text(max_size=200) | st.from_regex(r"\A[A-Za-z0-9_-]{0,60}(\.[A-Za-z0-9_-]{0,60}){0,4}\Z"))
def test_no_text_is_a_token(token: str) -> None:
    verifier = TokenVerifier(RULES, SettableClock(NOW_S))
    assert code_of(lambda: verifier.bearer(token)) == code_of(lambda: verifier.internal(token)) == "UNAUTHORIZED"


@fuzzed
@given(claims=CLAIMS)
def test_signed_claims_are_a_caller_or_refused(claims: dict[str, Any]) -> None:
    try:
        token = jwt.encode(claims, SECRET, algorithm="HS256")
    except (TypeError, ValueError):  # what the issuing library does not write
        return
    verifier = TokenVerifier(RULES, SettableClock(NOW_S))
    code = code_of(lambda: verifier.bearer(token))
    if code:
        assert code == "UNAUTHORIZED"
        return
    caller = verifier.bearer(token)
    assert isinstance(claims["exp"], int | float) and claims["exp"] > NOW_S
    assert caller.user_id and caller.user_id.isprintable() and len(caller.user_id) <= 128
    assert all(isinstance(role, str) for role in caller.roles)


@fuzzed
@given(values=st.lists(st.text(max_size=300), min_size=1, max_size=2))
@example(values=['"a\\"b"'])
@example(values=['"' + "k" * LENGTH_MAX + '"'])
def test_an_idempotency_key_is_plain_text_or_refused(values: list[str]) -> None:
    code = code_of(lambda: read_key(values))
    if code:
        assert code == "VALIDATION_ERROR"
        return
    key = read_key(values)
    assert len(values) == 1 and 0 < len(key) <= LENGTH_MAX
    assert key.isascii() and key.isprintable()


@fuzzed
@given(text=st.text(max_size=60) | st.from_regex(r"\A\[?[0-9a-fA-F:.%]{0,45}\]?(:[0-9]{0,6})?\Z"))
def test_an_address_is_one_or_none(text: str) -> None:
    parse_address(text)


# --- queries and bodies ----------------------------------------------------------------------------------------

QUERY_NAMES = [
    "status", "provider", "userId", "limit", "offset", "sortBy", "sortOrder", "startDate", "endDate", "minAmount",
    "maxAmount", "sync", "surprise",
]  # fmt: skip


@fuzzed
@given(
    pairs=st.lists(
        st.tuples(
            st.sampled_from(QUERY_NAMES),
            st.text(max_size=30)
            | st.integers().map(str)
            | st.floats().map(str)
            | st.datetimes().map(str)
            | st.dates().map(str),
        ),
        max_size=6,
    )
)
@example(pairs=[("limit", "9" * 5000)])
@example(pairs=[("startDate", "9999-12-31T23:59:59-14:00"), ("endDate", "0001-01-01")])
def test_a_query_is_a_filter_or_refused(pairs: list[tuple[str, str]]) -> None:
    query = MultiDict(pairs)
    with suppress(Refused):
        asked = read_list_query(query)
        assert 1 <= asked.limit <= 100 and 0 <= asked.offset <= 10_000
    with suppress(Refused):
        read_flag(query, "sync")


@fuzzed
@given(body=st.binary(max_size=80) | JSON.map(as_bytes))
def test_a_body_is_an_object_that_can_be_stored_or_refused(body: bytes) -> None:
    with suppress(Refused, Malformed):
        fields = parse_object(body)
        assert b"\\u0000" not in orjson.dumps(fields)
        card_data_in(fields)


@fuzzed
@given(depth=st.integers(1, 200), inner=JSON)
def test_metadata_of_any_depth_is_judged(depth: int, inner: Any) -> None:
    value = inner
    for _ in range(depth):
        value = {"a": value}
    try:
        value = orjson.loads(json.dumps(value))  # as it comes: no integer is longer than 64 bits
        body = CreateBody.model_validate({"orderId": "o", "amount": 1, "metadata": value})
    except ValueError:
        return
    assert depth <= METADATA_DEPTH_MAX and body.metadata == value


@fuzzed
@given(text=st.text(alphabet="0123456789 -x", max_size=60))
def test_no_card_number_is_left_when_they_are_hidden(text: str) -> None:
    hidden = hide_card_numbers(text)
    assert hide_card_numbers(hidden) == hidden


# --- codecs ----------------------------------------------------------------------------------------------------

CIPHER = AesGcmCipher(b"k" * 32)
DECODERS: dict[str, Callable[[bytes], object]] = {
    "published": decode_published,
    "method secrets": decode_method_secrets,
    "order": lambda body: decode_order(body, "o1"),
    "webhook": lambda body: decode_webhook(b"MOCK:evt_1", body, CIPHER),
    "webhook key": lambda body: decode_webhook(body, body, CIPHER),
}


@pytest.mark.parametrize("name", DECODERS)
@fuzzed
@given(body=st.binary(max_size=80) | JSON.map(as_bytes))
@example(body=b'{"success":true,"data":{"order":{"id":"o1","userId":"u","totalAmount":1e999,"currency":"USD"}}}')
def test_any_bytes_are_decoded_or_malformed(name: str, body: bytes) -> None:
    with suppress(Malformed, *((Unavailable,) if name.startswith("webhook") else ())):
        DECODERS[name](body)
    says_no(body)


def test_this_file_is_quick() -> None:
    """A pathological text is not found by chance: the patterns that strangers' texts meet, at their longest."""
    started = time.monotonic()
    for text in ("4" * 20_000, "4 " * 10_000, "4-" * 10_000, "0" * 20_000, '"' + "\\" * 20_000, "a" * 20_000 + "!"):
        hide_card_numbers(text)
        with suppress(Refused):
            read_key([text])
        parse_address(text)
    assert time.monotonic() - started < 2

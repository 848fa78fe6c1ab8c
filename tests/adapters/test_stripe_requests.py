"""What Stripe is asked, exactly; its amounts; and whether its own OpenAPI takes every request (stripe-mock)."""

from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from typing import Any

import pytest
import pytest_asyncio
from aiohttp import ClientSession
from iso4217 import Currency
from rigs.stripe_recorded import recorded_call
from servers.stripe_mock import HOW_TO_GET, is_there, stripe_mock_for_tests

from payment_service.adapters.providers.stripe import StripeProvider
from payment_service.adapters.providers.stripe_amounts import from_stripe, to_stripe
from payment_service.adapters.providers.stripe_api import Reply, StripeApi
from payment_service.adapters.providers.stripe_requests import (
    Request,
    create_request,
    lookup_request,
    refunds_request,
    send_request,
)
from payment_service.core.money import EXPONENTS
from payment_service.core.ports import Answer, ProviderCall
from payment_service.core.terms import Kind, Verdict


def asked(request: Request | Answer) -> Request:
    assert isinstance(request, Request), request
    return request


# --- amounts ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("minor", "currency", "theirs"),
    [
        (1099, "USD", 1099),
        (500, "JPY", 500),
        (1500, "ISK", 150_000),
        (7, "UGX", 700),
        (12_340, "KWD", 12_340),
        (12_345, "KWD", None),
        (500, "MGA", 5),
        (550, "MGA", None),
        (100, "HUF", 100),
        (1000, "IQD", None),
        (1000, "CLF", None),
        (1000, "XXX", None),
    ],
)
def test_amounts_in_stripes_units(minor: int, currency: str, theirs: int | None) -> None:
    assert to_stripe(minor, currency) == theirs
    if theirs is not None:
        assert from_stripe(theirs, currency) == minor


def test_every_amount_that_can_be_sent_comes_back_as_it_was() -> None:
    for currency in EXPONENTS:
        for minor in (1, 10, 99, 100, 1000, 123_450, 999_999_999_999):
            sent = to_stripe(minor, currency)
            assert sent is None or from_stripe(sent, currency) == minor


def test_stripes_zero_decimal_currencies_are_ours_but_for_the_named_exceptions() -> None:
    listed = "BIF CLP DJF GNF JPY KMF KRW MGA PYG RWF UGX VND VUV XAF XOF XPF"  # docs.stripe.com/currencies
    for currency in listed.split():
        one = 10 ** Currency(currency).exponent
        assert to_stripe(one, currency) == (100 if currency == "UGX" else 1)


def test_an_amount_that_stripe_cannot_write_is_a_no_and_nothing_is_sent() -> None:
    call = replace(recorded_call(), currency="KWD", amount_minor=12_345)
    for answer in (create_request(call), send_request(replace(call, kind=Kind.REFUND))):
        assert isinstance(answer, Answer)
        assert (answer.verdict, answer.code) == (Verdict.DECLINED, "AMOUNT_NOT_POSSIBLE")


# --- requests --------------------------------------------------------------------------------------------------------


def test_the_object_is_made_without_a_means_of_payment() -> None:
    call = replace(recorded_call(object_id=None), description="Two books")
    request = asked(create_request(call))
    assert (request.method, request.path) == ("post", "/v1/payment_intents")
    assert request.params == {
        "amount": 1000,
        "currency": "usd",
        "capture_method": "automatic",
        "automatic_payment_methods": {"enabled": "true", "allow_redirects": "never"},
        "metadata": {"payment_id": "pay_recorded", "order_id": "order-of-pay_recorded"},
        "description": "Two books",
    }
    assert request.key is not None and request.key.startswith("pay_recorded:object:1:")
    back = asked(create_request(replace(call, return_url="https://shop.test/back")))
    assert back.params["automatic_payment_methods"]["allow_redirects"] == "always"
    assert asked(create_request(recorded_call(Kind.AUTHORIZE))).params["capture_method"] == "manual"
    front = asked(create_request(replace(call, method_token=None)))
    assert front.params["metadata"]["collected_by"] == "browser"


def test_the_key_of_an_object_is_another_only_when_a_later_attempt_asks_for_it_differently() -> None:
    first = recorded_call(object_id=None)
    second = replace(first, number=2, method_token="pm_other", key="pay_recorded:charge:2")
    assert asked(create_request(second)) == asked(create_request(first))
    for other in (replace(first, return_url="https://a.test"), replace(first, method_token=None)):
        assert asked(create_request(other)).key != asked(create_request(first)).key
    dearer = asked(create_request(replace(first, amount_minor=2000)))
    assert dearer.key == asked(create_request(first)).key, "a key used for another amount has to be an error there"


@pytest.mark.parametrize(
    ("call", "path", "params"),
    [
        (
            recorded_call(token="pm_card_visa"),
            "/v1/payment_intents/pi_3Recorded/confirm",
            {"payment_method": "pm_card_visa", "use_stripe_sdk": "true"},
        ),
        (
            replace(recorded_call(number=3), return_url="https://shop.test/back"),
            "/v1/payment_intents/pi_3Recorded/confirm",
            {
                "payment_method_data": {
                    "type": "card",
                    "card": {"token": "tok_visa"},
                    "metadata": {"payment_id": "pay_recorded", "number": "3"},
                },
                "return_url": "https://shop.test/back",
            },
        ),
        (recorded_call(Kind.CAPTURE), "/v1/payment_intents/pi_3Recorded/capture", {"amount_to_capture": 1000}),
        (recorded_call(Kind.VOID), "/v1/payment_intents/pi_3Recorded/cancel", {}),
        (
            recorded_call(Kind.REFUND, 2),
            "/v1/refunds",
            {
                "amount": 1000,
                "payment_intent": "pi_3Recorded",
                "metadata": {"payment_id": "pay_recorded", "number": "2"},
            },
        ),
        (
            recorded_call(Kind.REFUND, 2, object_id=None, charge_id="ch_1"),
            "/v1/refunds",
            {"amount": 1000, "charge": "ch_1", "metadata": {"payment_id": "pay_recorded", "number": "2"}},
        ),
    ],
)
def test_what_is_done_with_it(call: ProviderCall, path: str, params: dict[str, Any]) -> None:
    request = asked(send_request(call))
    assert (request.method, request.path, request.params, request.key) == ("post", path, params, call.key)
    assert "tok_visa" not in repr(request)


def test_a_charge_without_a_means_of_payment_only_reads() -> None:
    assert asked(send_request(recorded_call(token=None))) == Request("get", "/v1/payment_intents/pi_3Recorded")
    assert asked(lookup_request(recorded_call(Kind.VOID))) == Request("get", "/v1/payment_intents/pi_3Recorded")


def test_an_id_stays_inside_its_path() -> None:
    assert asked(lookup_request(recorded_call(object_id="pi_1/../../v1/customers?x"))).path == (
        "/v1/payment_intents/pi_1%2F..%2F..%2Fv1%2Fcustomers%3Fx"
    )


@pytest.mark.parametrize("kind", list(Kind))
def test_without_an_object_there_is_nothing_to_ask_and_it_is_unknown(kind: Kind) -> None:
    for answer in (
        send_request(recorded_call(kind, object_id=None)),
        lookup_request(recorded_call(kind, object_id=None)),
    ):
        assert isinstance(answer, Answer) and answer.verdict is Verdict.UNKNOWN


# --- as Stripe's OpenAPI has it --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def mock_url() -> Iterator[str]:
    if not is_there():
        pytest.skip(HOW_TO_GET)
    with stripe_mock_for_tests() as url:
        yield url


@pytest_asyncio.fixture
async def mock_api(mock_url: str) -> AsyncIterator[StripeApi]:
    async with ClientSession() as session:
        yield StripeApi("sk_test_123", mock_url, 20, lambda: session)


@pytest.mark.parametrize(
    "request_of",
    [
        lambda: create_request(replace(recorded_call(object_id=None, token=None), description="Two books")),
        lambda: create_request(replace(recorded_call(Kind.AUTHORIZE), return_url="https://shop.test/back")),
        lambda: send_request(recorded_call(token="pm_card_visa")),
        lambda: send_request(replace(recorded_call(token="pm_card_visa"), return_url="https://shop.test/back")),
        lambda: send_request(recorded_call(Kind.CAPTURE)),
        lambda: send_request(recorded_call(Kind.VOID)),
        lambda: send_request(recorded_call(Kind.REFUND)),
        lambda: send_request(recorded_call(Kind.REFUND, object_id=None, charge_id="ch_1")),
        lambda: lookup_request(recorded_call()),
        lambda: lookup_request(recorded_call(Kind.REFUND)),
        lambda: refunds_request(None, "ch_1", "re_1"),
        lambda: Request("get", "/v1/disputes/du_1"),
        lambda: Request("get", "/v1/refunds/re_1"),
    ],
)
async def test_stripes_own_openapi_takes_it(mock_api: StripeApi, request_of: Any) -> None:
    reply = await mock_api.ask(asked(request_of()))
    assert isinstance(reply, Reply) and reply.status == 200, reply


async def test_stripes_own_openapi_says_no_to_what_it_does_not_know(mock_api: StripeApi) -> None:
    """So that the test above can fail. A card's token is such a thing too: the published OpenAPI leaves out what
    belongs to raw cards, although the API takes it."""
    wrong = Request("post", "/v1/payment_intents", {"amount": 1000, "currency": "usd", "no_such_thing": "1"}, "k")
    card = asked(send_request(recorded_call(token="tok_visa")))
    for request in (wrong, card):
        reply = await mock_api.ask(request)
        assert isinstance(reply, Reply) and reply.status == 400
    del card.params["payment_method_data"]["card"]
    card.params["payment_method_data"]["type"] = "us_bank_account"
    reply = await mock_api.ask(card)
    assert isinstance(reply, Reply) and reply.status == 200, "all but the card itself is as published"


async def test_every_answer_of_stripe_mock_is_understood(mock_api: StripeApi) -> None:
    provider = StripeProvider(mock_api, live=False)
    for kind in Kind:
        call = recorded_call(kind, token="pm_card_visa", object_id="pi_1")
        made = await provider.create_object(call)
        assert made.verdict is Verdict.APPROVED
        sent, found = await provider.send(call), await provider.lookup(call)
        assert all(answer.code != "ANSWER_NOT_UNDERSTOOD" for answer in (sent, found))

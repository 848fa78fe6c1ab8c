"""The mock's signature: who cannot sign, or signed long ago, changes nothing; and what its events say."""

import json
from typing import Any

import pytest

from payment_service.adapters.providers.mock import PROVIDER
from payment_service.adapters.providers.mock_webhooks import HEADER, TOLERANCE_S, MockWebhooks, signature_of
from payment_service.adapters.settings import Settings
from payment_service.core.errors import Malformed, Refused
from payment_service.core.terms import DisputeState, Kind, Verdict
from payment_service.core.webhooks import AttemptNews, DisputeNews, RefundNews

SECRET = "whsec_of_this_test"
AT_S = 1_800_000_000
READER = MockWebhooks(SECRET)


def an_event(kind: str = "charge.succeeded", **data: Any) -> bytes:
    fields = {"object_id": "obj", "provider_id": "ch", "payment_id": "pay_1", "amount_minor": 9999, "currency": "USD"}
    return json.dumps({"id": "evt_1", "type": kind, "created": AT_S, "data": fields | data}).encode()


async def verified(header: str, body: bytes | None = None) -> Any:
    return await READER.verify({HEADER: header}, an_event() if body is None else body, AT_S * 1000)


async def test_a_right_signature_is_read() -> None:
    notice = await verified(signature_of(SECRET, an_event(), AT_S))
    assert (notice.event_id, notice.payment_id, notice.created_at_ms) == ("evt_1", "pay_1", AT_S * 1000)
    assert isinstance(notice.news[0], AttemptNews)


@pytest.mark.parametrize("seconds", [-TOLERANCE_S, TOLERANCE_S])
async def test_within_the_tolerance(seconds: int) -> None:
    await verified(signature_of(SECRET, an_event(), AT_S + seconds))


@pytest.mark.parametrize(
    "header",
    [
        "",
        "nonsense",
        "t=1",
        f"t={AT_S},v1=",
        f"t={AT_S},v0={signature_of(SECRET, an_event(), AT_S)[-64:]}",
        f"t=x,v1={signature_of(SECRET, an_event(), AT_S)[-64:]}",
        f"t={'9' * 5000},v1=0",
        f"t=-{AT_S},v1=0",
        "t=\u0661,v1=\u0661",
        signature_of("whsec_of_another", an_event(), AT_S),
        signature_of(SECRET, an_event(), AT_S - TOLERANCE_S - 1),
        signature_of(SECRET, an_event(), AT_S + TOLERANCE_S + 1),
        signature_of(SECRET, an_event() + b" ", AT_S),
        signature_of(SECRET, an_event(), AT_S).replace(f"t={AT_S}", f"t={AT_S + 1}"),
    ],
)
async def test_anything_else_is_refused(header: str) -> None:
    with pytest.raises(Refused) as refused:
        await verified(header)
    assert refused.value.code == "INVALID_SIGNATURE"
    assert "whsec" not in str(refused.value) + repr(READER)


@pytest.mark.parametrize("body", [b"", b"[]", b"null", b"{}", b'{"id":1}', b"\xff", b'{"id":"e","type":"t","data":3}'])
async def test_a_signed_body_that_is_no_event_is_malformed(body: bytes) -> None:
    with pytest.raises(Malformed):
        await verified(signature_of(SECRET, body, AT_S), body)


@pytest.mark.parametrize("name", ["payment_id", "object_id", "charge_id", "provider_id", "currency", "reason"])
@pytest.mark.parametrize("junk", [{}, [], 5, True])
async def test_an_id_that_is_no_text_is_malformed(name: str, junk: object) -> None:
    body = an_event("dispute.opened", **{"provider_id": "dp_1", name: junk})
    with pytest.raises(Malformed):
        await verified(signature_of(SECRET, body, AT_S), body)


def test_an_id_is_never_cut() -> None:
    """Two long ones that begin alike are two; which of them can be an id is decided where it is taken as one."""
    assert READER.read(an_event(payment_id="x" * 400)).payment_id == "x" * 400


def test_what_the_events_say() -> None:
    def news(kind: str, **data: Any) -> Any:
        return READER.read(an_event(kind, **data)).news

    (charged,) = news("charge.succeeded", key="pay_1:charge:3")
    assert (charged.kind, charged.number, charged.answer.verdict) == (Kind.CHARGE, 3, Verdict.APPROVED)
    (held,) = news("mock.charge.authorized", key="pay_2:charge:3")
    assert (held.kind, held.number) == (Kind.AUTHORIZE, None)
    (refunded,) = news("refund.failed", provider_id="re_1", key="pay_1:refund:1")
    assert isinstance(refunded, RefundNews) and (refunded.number, refunded.answer.provider_id) == (1, "re_1")
    (lost,) = news("dispute.lost", provider_id="dp_1", reason="fraudulent")
    assert lost == DisputeNews("dp_1", DisputeState.LOST, 9999, "USD", "fraudulent")
    assert news("invoice.created") == ()


def test_there_are_none_without_a_secret() -> None:
    assert PROVIDER.webhooks is not None
    without = Settings(_env_file=None)
    assert PROVIDER.webhooks(without, None, None) is None  # type: ignore[arg-type]
    with_secret = Settings(_env_file=None, mock_webhook_secret=SECRET)
    assert PROVIDER.webhooks(with_secret, None, None) is not None  # type: ignore[arg-type]

"""The mock's webhooks: signed as Stripe signs its own, under the header `mock-signature`.

Room: adapters/providers, beside mock.py. `t=<seconds>,v1=<hex of HMAC-SHA256 over "<seconds>.<body>">`, at most
TOLERANCE_S old or ahead (as in Stripe's documentation, "Verify webhook signatures manually").
A body is `{"id", "type", "created", "data": {…}}`; the fields of `data` may also stand beside `id`, and the type may
begin with "mock.". In `data`: object_id, provider_id (of the charge, capture, refund or dispute), charge_id (of the
charge that a refund or dispute is about), payment_id, key (ours: the number is in it), amount_minor, currency, code,
message, decline_code, reason. Asked again, the mock inside this process has nothing to say but the event; the one that
MOCK_PROVIDER_URL names shows its object as it is now.
"""

import hmac
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from hashlib import sha256
from typing import Any
from urllib.parse import quote

import orjson
from aiohttp import ClientError

from payment_service.adapters.providers.registration import Sessions
from payment_service.adapters.providers.stripe_fields import text_of
from payment_service.core.errors import Malformed, Refused, Unavailable
from payment_service.core.ports import Answer
from payment_service.core.terms import TAKES_MONEY, DisputeState, Kind, Verdict
from payment_service.core.webhooks import (
    Approved,
    AttemptNews,
    AuthorizationEnded,
    DisputeNews,
    News,
    Notice,
    RefundNews,
)

HEADER = "mock-signature"
TOLERANCE_S = 300
REFUND_FAILED = "REFUND_FAILED"
OBJECT_CANCELLED = "OBJECT_CANCELLED"
RETRY_AFTER_S = 2.0
SIGNATURES_MAX = 5
NAME = "MOCK"

CHARGES: dict[str, tuple[Kind, Verdict]] = {
    "charge.succeeded": (Kind.CHARGE, Verdict.APPROVED),
    "charge.authorized": (Kind.AUTHORIZE, Verdict.APPROVED),
    "charge.pending": (Kind.CHARGE, Verdict.PENDING),
    "charge.failed": (Kind.CHARGE, Verdict.DECLINED),
    "charge.captured": (Kind.CAPTURE, Verdict.APPROVED),
    "charge.cancelled": (Kind.VOID, Verdict.APPROVED),
    "void.succeeded": (Kind.VOID, Verdict.APPROVED),
}
REFUNDS = {
    "refund.succeeded": Verdict.APPROVED,
    "refund.pending": Verdict.PENDING,
    "refund.failed": Verdict.DECLINED,
}
DISPUTES = {"dispute.opened": DisputeState.OPEN, "dispute.won": DisputeState.WON, "dispute.lost": DisputeState.LOST}


def signature_of(secret: str, body: bytes, at_s: int) -> str:
    """The header's value."""
    return f"t={at_s},v1={_digest(secret, body, at_s)}"


def _digest(secret: str, body: bytes, at_s: int) -> str:
    return hmac.new(secret.encode(), b"%d.%s" % (at_s, body), sha256).hexdigest()


MockObjects = Callable[[str | None], Awaitable[Mapping[str, Any] | None]]
"""The object with this id as it is now, None if there is none. Raises Unavailable."""


def remote_objects(url: str, sessions: Sessions) -> MockObjects:
    """Those of provider-sim. The caller has a deadline of its own."""

    async def find(object_id: str | None) -> Mapping[str, Any] | None:
        if object_id is None:
            return None
        try:
            address = f"{url.rstrip('/')}/_sim/objects/{quote(object_id, safe='')}"
            async with sessions().get(address, allow_redirects=False) as response:
                if response.status == 404:
                    return None
                response.raise_for_status()
                return dict(await response.json())
        except (ClientError, OSError, ValueError):
            raise Unavailable(
                "the mock cannot be asked now", code="PROVIDER_UNAVAILABLE", retry_after_s=RETRY_AFTER_S
            ) from None

    return find


class MockWebhooks:
    """The WebhookReader of the mock."""

    asks_to_verify = False

    def __init__(self, secret: str, objects: MockObjects | None = None) -> None:
        self._secret = secret
        self._objects = objects

    def __repr__(self) -> str:
        return "MockWebhooks()"

    async def verify(self, headers: Mapping[str, str], body: bytes, now_ms: int) -> Notice:
        at_s, given = _parts(headers.get(HEADER, ""))
        # Compared before the time is looked at: who cannot sign learns nothing, not even whether our clocks agree.
        right = _digest(self._secret, body, at_s)
        if sum(hmac.compare_digest(right, one) for one in given) == 0:
            raise _invalid()
        if abs(now_ms / 1000 - at_s) > TOLERANCE_S:
            raise _invalid()
        return self.read(body)

    def read(self, body: bytes) -> Notice:
        try:
            event = orjson.loads(body)
            data = event.get("data", event)
            number = _number(data)
            event_id, kind = _given(event, "id"), _given(event, "type").removeprefix("mock.")
            created_ms = int(event["created_ms"] if "created_ms" in event else event["created"] * 1000)
            return Notice(
                NAME, event_id, kind, created_ms, _text(data, "payment_id"), _text(data, "object_id"),
                _text(data, "charge_id") or (_text(data, "provider_id") if kind in CHARGES else None),
                _news(kind, data, number),
            )  # fmt: skip
        except (ValueError, TypeError, KeyError, AttributeError, OverflowError) as error:
            raise Malformed(f"no event of the mock: {type(error).__name__}") from None

    async def refetch(self, notice: Notice) -> Notice:
        news = notice.news
        if self._objects is not None:
            news = tuple([await self._now(one, notice, self._objects) for one in news])
        return replace(notice, news=news, refetch=False)

    async def _now(self, news: News, notice: Notice, objects: MockObjects) -> News:
        """Older events may come after newer ones: a refund that failed since, a hold that was released."""
        if isinstance(news, RefundNews) and news.answer.verdict is Verdict.APPROVED:
            refund = await objects(news.answer.provider_id)
            if refund is not None and refund["state"] == "FAILED":
                failed = replace(news.answer, verdict=Verdict.DECLINED, code=REFUND_FAILED)
                return replace(news, answer=failed)
        if isinstance(news, AttemptNews) and news.kind in TAKES_MONEY and news.answer.verdict is Verdict.APPROVED:
            thing = await objects(notice.object_id)
            if thing is not None and thing["state"] == "CANCELLED":
                gone = Answer(Verdict.APPROVED, object_id=notice.object_id, code=OBJECT_CANCELLED, object_closed=True)
                return AttemptNews(Kind.VOID, gone)
        return news


def _invalid() -> Refused:
    return Refused("the signature is missing, wrong or not of now", code="INVALID_SIGNATURE")


def _parts(header: str) -> tuple[int, list[str]]:
    """(seconds, signatures). Raises Refused."""
    at_s = ""
    given: list[str] = []
    for part in header.split(",", SIGNATURES_MAX + 1):
        name, _, value = part.strip().partition("=")
        if name == "t":
            at_s = value
        elif name == "v1" and value.isascii():
            given.append(value)
    if not (at_s.isascii() and at_s.isdigit() and len(at_s) <= len("9999999999")):
        raise _invalid()
    return int(at_s), given[:SIGNATURES_MAX]


def _number(data: Mapping[str, Any]) -> int | None:
    """Of our attempt or refund, out of our key `<payment>:<kind>:<number>`."""
    key = data.get("key")
    payment, _, rest = key.partition(":") if isinstance(key, str) else ("", "", "")
    number = rest.rpartition(":")[2]
    return int(number) if payment == data.get("payment_id") and number.isdigit() and len(number) <= 4 else None


def _news(kind: str, data: Mapping[str, Any], number: int | None) -> tuple[News, ...]:
    if kind in CHARGES:
        what, verdict = CHARGES[kind]
        return (AttemptNews(what, _answer(verdict, data), number),)
    if kind in REFUNDS:
        return (RefundNews(_answer(REFUNDS[kind], data), number),)
    if kind in DISPUTES:
        return (
            DisputeNews(
                _given(data, "provider_id"), DISPUTES[kind], int(data["amount_minor"]), _given(data, "currency"),
                text_of(_text(data, "reason")),
            ),
        )  # fmt: skip
    if kind == "object.approved":
        return (Approved(),)
    if kind == "authorization.expired":
        return (AuthorizationEnded(),)
    return ()


def _answer(verdict: Verdict, data: Mapping[str, Any]) -> Answer:
    amount = data.get("amount_minor")
    return Answer(
        verdict, _text(data, "provider_id"), _text(data, "object_id"), None if amount is None else int(amount),
        _text(data, "currency"), text_of(_text(data, "code")) or "", text_of(_text(data, "message")) or "",
        text_of(_text(data, "decline_code")),
    )  # fmt: skip


def _text(data: Mapping[str, Any], name: str) -> str | None:
    """Raises ValueError for what is there and is no text. Whether it can be an id is for whoever takes it as one."""
    value = data.get(name)
    if not isinstance(value, str | None):
        raise ValueError(name)
    return value


def _given(data: Mapping[str, Any], name: str) -> str:
    text = _text(data, name)
    if text is None:
        raise KeyError(name)
    return text

"""Stripe's webhooks: is it from Stripe, what does it say, and how does its object stand now?

Room: adapters/providers, beside stripe.py. Source: docs.stripe.com/webhooks (signatures, rolling secrets).
"""

import hmac
from collections.abc import Mapping, Sequence
from dataclasses import replace
from hashlib import sha256
from typing import Any
from urllib.parse import quote

from payment_service.adapters.providers.registration import PROVIDER_UNAVAILABLE, unanswered_code
from payment_service.adapters.providers.stripe_answers import OBJECT_MISSING
from payment_service.adapters.providers.stripe_api import StripeApi
from payment_service.adapters.providers.stripe_events import (
    dispute_news,
    intent_news,
    notice_of,
    payment_id_of,
    refund_news,
)
from payment_service.adapters.providers.stripe_fields import Fields, identity
from payment_service.adapters.providers.stripe_requests import PAGE, Request, refunds_request
from payment_service.core.errors import Refused, Unavailable
from payment_service.core.ports import Answer
from payment_service.core.webhooks import DisputeNews, News, Notice, RefundNews

TOLERANCE_S = 300
"""How far the signed time may be from ours, in both directions; Stripe's own default."""
HEADER_MAX = 4096
SIGNATURES_MAX = 20
"""Of one header: while secrets are rolled Stripe sends one for each."""
REFUND_PAGES_MAX = 10
RETRY_AFTER_S = 5.0


def check_signature(header: str, body: bytes, secrets: Sequence[str], now_s: float) -> None:
    """Raises Refused INVALID_SIGNATURE. Any of the signatures may fit any of our secrets."""
    stamps, signatures = [], []
    for part in header[:HEADER_MAX].split(","):
        name, _, value = part.strip().partition("=")
        if name == "t":
            stamps.append(value)
        elif name == "v1":
            signatures.append(value.encode("utf-8", "replace"))  # of a header that was no UTF-8
    if len(stamps) != 1 or not stamps[0].isascii() or not stamps[0].isdigit() or len(stamps[0]) > 12:
        raise Refused("the webhook carries no signed time", code="INVALID_SIGNATURE")
    signed = stamps[0].encode() + b"." + body
    expected = [hmac.new(secret.encode(), signed, sha256).hexdigest().encode() for secret in secrets]
    if not any(hmac.compare_digest(one, other) for one in expected for other in signatures[:SIGNATURES_MAX]):
        raise Refused("the webhook's signature fits none of our secrets", code="INVALID_SIGNATURE")
    if abs(now_s - int(stamps[0])) > TOLERANCE_S:
        raise Refused("the webhook was signed at another time", code="INVALID_SIGNATURE")


class StripeWebhooks:
    """The WebhookReader port."""

    asks_to_verify = False

    def __init__(self, secrets: Sequence[str], api: StripeApi, live: bool | None) -> None:
        self._secrets = tuple(secrets)
        self._api = api
        self._live = live

    async def verify(self, headers: Mapping[str, str], body: bytes, now_ms: int) -> Notice:
        check_signature(headers.get("stripe-signature", ""), body, self._secrets, now_ms / 1000)
        return self.read(body)

    def read(self, body: bytes) -> Notice:
        return notice_of(body, self._live)

    async def refetch(self, notice: Notice) -> Notice:
        """How the object stands now, in Stripe's own words; the payment it belongs to is told by the PaymentIntent.

        Raises: Unavailable.
        """
        if notice.object_id is None and notice.charge_id is None:
            return replace(notice, refetch=False)
        news: tuple[News, ...] = ()
        payment_id, intent = notice.payment_id, None
        about = _object_of(notice.type)
        if about == "refund":
            news = await self._refunds(notice)
        elif about == "dispute":
            news = await self._dispute(notice)
        if notice.object_id is not None and (about == "payment_intent" or payment_id is None):
            intent = await self._get(f"/v1/payment_intents/{quote(notice.object_id, safe='')}")
            if intent is None:
                return replace(notice, news=(), refetch=False, review=(*notice.review, OBJECT_MISSING))
            payment_id = payment_id_of(intent) or payment_id
            if about == "payment_intent":
                news = intent_news(intent)
        return replace(notice, news=news, payment_id=payment_id, refetch=False)

    async def _refunds(self, notice: Notice) -> tuple[News, ...]:
        """The one that the event names, or all of the payment."""
        named = [news.answer.provider_id for news in notice.news if isinstance(news, RefundNews)]
        if named and named[0] is not None:
            refund = await self._get(f"/v1/refunds/{quote(named[0], safe='')}")
            return () if refund is None else refund_news(refund)
        found: list[News] = []
        after: str | None = None
        for _ in range(REFUND_PAGES_MAX):
            request = refunds_request(notice.object_id, notice.charge_id, after)
            assert isinstance(request, Request), "one of the two ids is there"
            page = Fields(await self._ask(request))
            entries = page.entries("data")
            found += [news for entry in entries for news in refund_news(Fields(entry))]
            if len(entries) < PAGE or page.get("has_more") is not True:
                break
            after = identity(entries[-1].get("id"))
        return tuple(found)

    async def _dispute(self, notice: Notice) -> tuple[News, ...]:
        named = [news.dispute_id for news in notice.news if isinstance(news, DisputeNews)]
        dispute = await self._get(f"/v1/disputes/{quote(named[0], safe='')}") if named else None
        return () if dispute is None else dispute_news(dispute)

    async def _get(self, path: str) -> Fields | None:
        body = await self._ask(Request("get", path))
        return None if body is None else Fields(body)

    async def _ask(self, request: Request) -> Mapping[str, Any] | None:
        """None: Stripe knows no such object."""
        reply = await self._api.ask(request)
        if isinstance(reply, Answer) or reply.status not in (200, 404):
            code = PROVIDER_UNAVAILABLE if isinstance(reply, Answer) else unanswered_code(reply.status)
            raise Unavailable("Stripe cannot be asked now", code=code, retry_after_s=RETRY_AFTER_S)
        return reply.body if reply.status == 200 else None


def _object_of(event_type: str) -> str:
    """What an event is about, in Stripe's words."""
    if event_type.startswith(("refund.", "charge.refund")):
        return "refund"
    return "dispute" if event_type.startswith("charge.dispute.") else "payment_intent"

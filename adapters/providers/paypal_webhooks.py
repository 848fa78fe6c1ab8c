"""PayPal's webhooks: is it from PayPal, what is it about, and how does that stand now?

Room: adapters/providers, beside paypal.py. Two ways to tell who sent it, chosen by PAYPAL_WEBHOOK_VERIFICATION and
never by the sender: offline, by the certificate; postback, by asking PayPal. What happened is always asked for again.
"""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Literal
from urllib.parse import quote

import orjson

from payment_service.adapters.providers.paypal_answers import OBJECT_MISSING, payments_of
from payment_service.adapters.providers.paypal_api import PaypalApi, Reply
from payment_service.adapters.providers.paypal_events import (
    EVENTS,
    About,
    capture_of,
    dispute_news,
    event_of,
    notice_of,
    order_news,
    payment_id_of,
)
from payment_service.adapters.providers.paypal_methods import TOKENS
from payment_service.adapters.providers.paypal_requests import Request, order_request, paypal_id
from payment_service.adapters.providers.paypal_signatures import (
    Certificates,
    Transmission,
    check_cert_url,
    check_signature,
    transmission_of,
)
from payment_service.adapters.providers.registration import (
    KEY_REFUSED,
    PROVIDER_UNAVAILABLE,
    RATE_LIMITED,
    Sessions,
    unanswered_code,
)
from payment_service.adapters.providers.stripe_fields import Fields
from payment_service.core.errors import Refused, Unavailable
from payment_service.core.ports import Answer
from payment_service.core.webhooks import DisputeNews, MethodNews, Notice

RETRY_AFTER_S = 5.0
DISPUTE_NOT_READABLE = "DISPUTE_NOT_READABLE"
"""A reason for a person to look."""
VERIFY = "/v1/notifications/verify-webhook-signature"


def build_webhooks(
    api: PaypalApi, sessions: Sessions, webhook_id: str, way: Literal["offline", "postback"], roots_path: Path | None
) -> "PaypalWebhooks":
    certificates = Certificates(api.base, roots_path, sessions) if way == "offline" else None
    return PaypalWebhooks(api, webhook_id, certificates)


class PaypalWebhooks:
    """The WebhookReader port. Without `certificates` every event is shown to PayPal."""

    def __init__(self, api: PaypalApi, webhook_id: str, certificates: Certificates | None) -> None:
        self._api = api
        self._webhook_id = webhook_id
        self._certificates = certificates

    @property
    def asks_to_verify(self) -> bool:
        return self._certificates is None

    async def verify(self, headers: Mapping[str, str], body: bytes, now_ms: int) -> Notice:
        sent = transmission_of(headers, now_ms)
        if self._certificates is not None:
            key = await self._certificates.key(sent.cert_url, now_ms)
            check_signature(key, sent, self._webhook_id, body)
        else:
            await self._ask_paypal(sent, body)
        return self.read(body)

    def read(self, body: bytes) -> Notice:
        return notice_of(body)

    async def refetch(self, notice: Notice) -> Notice:
        """How the whole order stands now, or the dispute, or whether a saved wallet is still there.

        Raises: Unavailable.
        """
        about = EVENTS.get(notice.type)
        if about is None:
            return replace(notice, refetch=False)
        if about is About.DISPUTE:
            return await self._dispute(notice)
        if about is About.WALLET:
            return await self._wallet(notice)
        object_id, payment_id = notice.object_id, notice.payment_id
        if object_id is None and notice.charge_id is not None:
            kind = About.AUTHORIZATION if about is About.AUTHORIZATION else About.CAPTURE
            movement = await self._get(f"/v2/payments/{kind}s/{quote(notice.charge_id, safe='')}")
            if movement is not None:
                related = movement.inner("supplementary_data").inner("related_ids")
                object_id = paypal_id(related.get("order_id"))
                payment_id = payment_id_of(movement, kind) or payment_id
        order = await self._get(order_request(object_id).path) if object_id is not None else None
        if order is None:
            return replace(notice, news=(), refetch=False, review=(*notice.review, OBJECT_MISSING))
        its_own = {it.get("id") for name in ("captures", "authorizations") for it in payments_of(order, name)}
        return replace(
            notice, news=order_news(order), object_id=object_id, refetch=False,
            charge_id=notice.charge_id if notice.charge_id in its_own else None,
            payment_id=payment_id_of(order, About.ORDER) or payment_id,
        )  # fmt: skip

    async def _wallet(self, notice: Notice) -> Notice:
        """No news while PayPal still has it."""
        named = [news.method_id for news in notice.news if isinstance(news, MethodNews)]
        there = bool(named) and await self._get(f"{TOKENS}/{quote(named[0], safe='')}") is not None
        return replace(notice, news=() if there else notice.news, refetch=False)

    async def _dispute(self, notice: Notice) -> Notice:
        """Credentials that may not read disputes leave it to a person: the event alone moves nothing."""
        named = [news.dispute_id for news in notice.news if isinstance(news, DisputeNews)]
        path = f"/v1/customer/disputes/{quote(named[0], safe='')}" if named else None
        reply = await self._api.ask(Request("GET", path)) if path is not None else None
        dispute = Fields(reply.body if isinstance(reply, Reply) and reply.status == 200 else None)
        if news := dispute_news(dispute):
            return replace(
                notice, news=news, refetch=False, charge_id=capture_of(dispute, About.DISPUTE),
                payment_id=payment_id_of(dispute, About.DISPUTE) or notice.payment_id,
            )  # fmt: skip
        if reply is None or (isinstance(reply, Reply) and reply.status in (200, 403, 404)):
            return replace(notice, news=(), refetch=False, review=(*notice.review, DISPUTE_NOT_READABLE))
        raise _away(reply)

    async def _ask_paypal(self, sent: Transmission, body: bytes) -> None:
        """The event goes back byte for byte: written anew, it would have another CRC. Raises Refused, Unavailable."""
        check_cert_url(sent.cert_url, self._api.base)
        event_of(body)  # one whole JSON object, so that it can stand within another
        asked = {
            "auth_algo": sent.algorithm, "cert_url": sent.cert_url, "transmission_id": sent.transmission_id,
            "transmission_sig": sent.signature, "transmission_time": sent.time, "webhook_id": self._webhook_id,
        }  # fmt: skip
        data = orjson.dumps(asked)[:-1] + b',"webhook_event":' + body + b"}"
        reply = await self._api.ask_raw("POST", VERIFY, data)
        status = reply.body.get("verification_status") if isinstance(reply, Reply) and reply.status == 200 else None
        if status == "SUCCESS":
            return
        if status == "FAILURE" or (isinstance(reply, Reply) and reply.status in (400, 422)):
            raise Refused("PayPal does not know this webhook", code="INVALID_SIGNATURE")
        raise _away(reply)

    async def _get(self, path: str) -> Fields | None:
        """None: PayPal knows no such object. Raises Unavailable."""
        reply = await self._api.ask(Request("GET", path))
        if isinstance(reply, Reply) and reply.status == 404:
            return None
        if not isinstance(reply, Reply) or reply.status != 200:
            raise _away(reply)
        return Fields(reply.body)


def _away(reply: Reply | Answer) -> Unavailable:
    if isinstance(reply, Reply):
        code = unanswered_code(reply.status)
    else:  # without a token nothing was asked
        code = reply.code if reply.code in (KEY_REFUSED, RATE_LIMITED) else PROVIDER_UNAVAILABLE
    return Unavailable("PayPal cannot be asked now", code=code, retry_after_s=RETRY_AFTER_S)

"""A provider's event: verified and durable while its sender waits; applied afterwards, by whichever worker has time.

Room: core/use_cases. Awaits on ports only.

- `WebhookInbox` is the door: nothing is done before the signature is right, nothing is answered before it is durable.
- `ApplyWebhook` applies one kept event: find its payment, ask the provider where the event cannot be believed as it is,
  and bring each piece of news to the payment as a command. Idempotent by provider and event id, in the inbox.
"""

import asyncio
import hashlib
import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from typing import Protocol

from payment_service.core.commands import FlagReview, StartCharge
from payment_service.core.errors import Malformed, OutcomeUnknown, PaymentError, Refused, Unavailable
from payment_service.core.payment import Payment
from payment_service.core.ports import Clock, Metrics
from payment_service.core.use_cases.execute import Execute
from payment_service.core.use_cases.perform_effects import Effects
from payment_service.core.use_cases.provider_calls import CallContext
from payment_service.core.use_cases.start_call import commit_and_call
from payment_service.core.webhook_news import (
    Reading,
    Step,
    earlier_object_number,
    flags_of,
    object_number_of,
    step_of,
)
from payment_service.core.webhooks import (
    Applied,
    Approved,
    ClaimedWebhook,
    MethodNews,
    News,
    Notice,
    ReceivedWebhook,
    WebhookLog,
    WebhookReader,
    WebhookStatus,
    WebhookStore,
)

TYPE_LENGTH_MAX = 128
MOMENT_MS_MAX = 253_402_300_799_999
"""The end of the year 9999: later cannot be stored."""
_OUR_ID = re.compile(r"[\x21-\x7e]{1,64}")
_THEIR_ID = re.compile(r"[\x21-\x7e]{1,255}")
REFETCH_S = 15.0
"""Longest wait for the provider; shorter than the lease of a claimed event."""
OLD_EVENT_S = 600.0
"""An event that is applied later than this is asked for again: what it says may be over."""
PATIENCE_S = 600.0
"""How long an event waits for what should have come before it. Providers deliver out of order by seconds."""
PARKED_S_MAX = 24 * 3600.0
"""How long an event waits for its payment. The payment is committed before the provider hears its id, so what waits
longer is another system's, or was lost from our database: a person looks."""
DELAY_S_MIN = 5.0
DELAY_S_MAX = 60.0
DELAY_SHARE = 0.1
"""An event that waits is looked at after this share of what it has waited, within the limits above."""
UNAVAILABLE_DELAY_S_MAX = 300.0
BUG_TRIES_MAX = 10
"""An event on which our own code fails is tried so often, then it is FAILED."""
ROUNDS_MAX = 2
"""As the event says it, and once more as the provider says it now."""


class WebhookDoor(Protocol):
    """What the web asks of the inbox."""

    async def verify(self, provider: str, headers: Mapping[str, str], body: bytes) -> ReceivedWebhook:
        """Raises Refused (INVALID_SIGNATURE, PROVIDER_NOT_CONFIGURED), Malformed, Unavailable. Nothing happened."""

    async def accept(self, webhook: ReceivedWebhook) -> None:
        """Durable when it returns. Raises Unavailable: the sender has to come again."""


@dataclass(frozen=True, slots=True)
class WebhookInbox:
    readers: Mapping[str, WebhookReader]
    log: WebhookLog
    clock: Clock
    metrics: Metrics

    async def verify(self, provider: str, headers: Mapping[str, str], body: bytes) -> ReceivedWebhook:
        reader = self.readers.get(provider)
        if reader is None:
            raise Refused("no webhooks of this provider are set up", code="PROVIDER_NOT_CONFIGURED")
        now_ms = self.clock.now_ms()
        try:
            notice = await reader.verify(headers, body, now_ms)
        except PaymentError as error:
            self.metrics.count("webhooks_received", provider=provider, type="unverified", outcome=error.code)
            raise
        return _received(notice, body, now_ms)

    async def accept(self, webhook: ReceivedWebhook) -> None:
        outcome = "UNAVAILABLE"
        try:
            outcome = await self.log.append(webhook)
        finally:
            self.metrics.count("webhooks_received", provider=webhook.provider, type=webhook.type, outcome=outcome)


def _received(notice: Notice, body: bytes, now_ms: int) -> ReceivedWebhook:
    """What a provider lets anybody write (metadata) is an id of ours or nothing; what names the event must be whole."""
    if not _THEIR_ID.fullmatch(notice.event_id) or not 0 < len(notice.type) <= TYPE_LENGTH_MAX:
        raise Malformed("an event without a usable id or type")
    if not notice.type.isprintable():
        raise Malformed("an event with an unreadable type")
    created_at_ms = min(max(notice.created_at_ms, 0), MOMENT_MS_MAX)
    return ReceivedWebhook(
        notice.provider, notice.event_id, notice.type, created_at_ms, now_ms, _our_id(notice.payment_id),
        notice.object_id if notice.object_id is not None and _THEIR_ID.fullmatch(notice.object_id) else None, body,
    )  # fmt: skip


def _our_id(text: str | None) -> str | None:
    return text if text is not None and _OUR_ID.fullmatch(text) else None


@dataclass(frozen=True, slots=True)
class ApplyWebhook:
    """Never raises for what an event says; Unavailable and OutcomeUnknown become "again later"."""

    readers: Mapping[str, WebhookReader]
    store: WebhookStore
    execute: Execute
    effects: Effects
    method_changed: Callable[[str, MethodNews], Awaitable[None]]
    """Told of saved methods: provider and news."""
    clock: Clock
    metrics: Metrics

    async def __call__(self, claimed: ClaimedWebhook) -> Applied:
        try:
            return await self._apply(claimed)
        except (Unavailable, OutcomeUnknown) as error:
            return _later(claimed, error.code, delay_max_s=UNAVAILABLE_DELAY_S_MAX)
        except PaymentError as error:
            return Applied(WebhookStatus.FAILED, error.code, claimed.webhook.payment_id)

    async def _apply(self, claimed: ClaimedWebhook) -> Applied:
        webhook = claimed.webhook
        reader = self.readers.get(webhook.provider)
        if reader is None:  # a worker that is set up for it will take it
            return _later(claimed, "PROVIDER_NOT_CONFIGURED", delay_max_s=UNAVAILABLE_DELAY_S_MAX)
        notice = reader.read(webhook.body)
        asked = False
        reason = self._to_ask(notice)
        for _ in range(ROUNDS_MAX):
            if reason:
                if await self._unknown_here(notice):
                    return self._parked(claimed, _our_id(notice.payment_id))
                notice, asked = await self._refetch(reader, notice, reason), True
            # The provider may know of no such object: no news, but a person should look.
            if not notice.news and not (asked and notice.review):
                return Applied(WebhookStatus.IGNORED, payment_id=webhook.payment_id)
            applied = await self._tell(claimed, notice, asked=asked)
            if isinstance(applied, Applied):
                return applied
            reason = applied
        raise AssertionError(f"asked, and still to be asked: {reason}")

    def _to_ask(self, notice: Notice) -> str:
        """Why the provider is asked before anything else, or nothing."""
        if notice.refetch:
            return "SAYS_TOO_LITTLE"
        if notice.news and self.clock.now_ms() - notice.created_at_ms > OLD_EVENT_S * 1000:
            return "OLD"
        return ""

    async def _unknown_here(self, notice: Notice) -> bool:
        """It names a payment that is not there: the provider need not be asked until it is."""
        payment_id = _our_id(notice.payment_id)
        return payment_id is not None and await self._payment(payment_id) is None

    async def _refetch(self, reader: WebhookReader, notice: Notice, reason: str) -> Notice:
        outcome = "failed"
        try:
            async with asyncio.timeout(REFETCH_S):
                fresh = await reader.refetch(notice)
            outcome = "done"
        except TimeoutError:
            raise Unavailable("the provider did not answer in time", code="PROVIDER_UNAVAILABLE") from None
        finally:
            self.metrics.count("webhook_refetches", provider=notice.provider, reason=reason, outcome=outcome)
        return replace(fresh, event_id=notice.event_id, provider=notice.provider)

    # --- its payment -----------------------------------------------------------------------------------------

    async def _payment(self, payment_id: str) -> Payment | None:
        """Also none while all that is known of it is that its order was cancelled before it was created."""
        payment = (await self.execute.store.load(payment_id)).payment
        return payment if payment is not None and payment.known else None

    async def _tell(self, claimed: ClaimedWebhook, notice: Notice, *, asked: bool) -> Applied | str:
        """The end of it, or why the provider has to be asked first."""
        methods = [news for news in notice.news if isinstance(news, MethodNews)]
        if methods and notice.review:
            return Applied(WebhookStatus.IGNORED, notice.review[0])
        for method in methods:
            await self.method_changed(notice.provider, method)
        if methods and len(methods) == len(notice.news):
            return Applied(WebhookStatus.PROCESSED)
        payment_id = _our_id(notice.payment_id)
        if payment_id is None:
            ids = [it for it in (notice.object_id, notice.charge_id) if it is not None and _THEIR_ID.fullmatch(it)]
            payment_id = await self.store.payment_of(notice.provider, ids) if ids else None
            if payment_id is None:
                # The provider's account serves others too: what does not even name a payment of ours is theirs.
                return Applied(WebhookStatus.IGNORED, "NOT_OURS") if asked else "NAMES_NO_PAYMENT"
        payment = await self._payment(payment_id)
        if payment is None:
            return self._parked(claimed, payment_id)
        return await self._tell_payment(claimed, notice, payment, asked=asked)

    def _parked(self, claimed: ClaimedWebhook, payment_id: str | None) -> Applied:
        if claimed.waited_s > PARKED_S_MAX:
            return Applied(WebhookStatus.FAILED, "PAYMENT_UNKNOWN", payment_id)
        return replace(_later(claimed, "PAYMENT_UNKNOWN"), status=WebhookStatus.PARKED, payment_id=payment_id)

    async def _object_number(self, payment: Payment, notice: Notice) -> int | None:
        number = object_number_of(payment, notice)
        followed = payment.object_number > 1 or (payment.object_number == 1 and payment.object_id is None)
        if number is None and notice.object_id is not None and followed:
            stored = await self.execute.store.events(payment.payment_id)
            return earlier_object_number(payment.payment_id, [it.event for it in stored], notice.object_id)
        return number

    # --- its news --------------------------------------------------------------------------------------------

    async def _tell_payment(
        self, claimed: ClaimedWebhook, notice: Notice, payment: Payment, *, asked: bool
    ) -> Applied | str:
        """One piece of news after the other, each on what the one before has made of the payment."""
        payment_id, patient = payment.payment_id, claimed.waited_s <= PATIENCE_S
        if not notice.news:
            await self._flag(payment_id, f"webhook:{notice.provider}:{notice.event_id}", list(notice.review))
            return Applied(WebhookStatus.FAILED, notice.review[0], payment_id)
        for index, news in enumerate(notice.news):
            object_number = await self._object_number(payment, notice)
            command_id = _command_id(notice, index, news)
            step = step_of(
                payment, object_number, notice, news, Reading(self.clock.now_ms(), command_id, asked, patient)
            )
            if step.ask:
                return step.ask
            if step.wait:
                unknown = object_number is None
                status = WebhookStatus.PARKED if unknown else WebhookStatus.RECEIVED
                return replace(_later(claimed, step.wait), status=status, payment_id=payment_id)
            if step.fail:
                reasons = dict.fromkeys((step.fail, *notice.review))
                await self._flag(payment_id, command_id, list(reasons))
                return Applied(WebhookStatus.FAILED, step.fail, payment_id)
            try:
                payment = await self._carry_out(payment, step)
            except Refused as error:
                # An approval of what was cancelled, or of what a person looks at: then nothing is taken.
                status = WebhookStatus.IGNORED if isinstance(news, Approved) else WebhookStatus.FAILED
                return Applied(status, error.code, payment_id)
            await self._flag(payment_id, command_id, flags_of(payment, notice, news))
        return Applied(WebhookStatus.PROCESSED, payment_id=payment_id)

    async def _carry_out(self, payment: Payment, step: Step) -> Payment:
        if step.command is None:
            return payment
        if isinstance(step.command, StartCharge):
            release = await self.effects.admit()
            started = await commit_and_call(self.execute, self.effects, step.command, CallContext(), release)
            return started.payment
        return (await self.execute(step.command)).payment

    async def _flag(self, payment_id: str, command_id: str, reasons: list[str]) -> None:
        for reason in reasons:
            flag = FlagReview(payment_id, f"{command_id}:{reason}", self.clock.now_ms(), "provider", reason)
            await self.execute(flag)


def _command_id(notice: Notice, index: int, news: News) -> str:
    """The digest: what the provider said when it was asked once more is other news under the same event."""
    digest = hashlib.blake2b(repr(news).encode(errors="replace"), digest_size=6).hexdigest()
    return f"webhook:{notice.provider}:{notice.event_id}:{index}:{digest}"


def _later(claimed: ClaimedWebhook, reason: str, *, delay_max_s: float = DELAY_S_MAX) -> Applied:
    delay_s = min(max(DELAY_S_MIN, claimed.waited_s * DELAY_SHARE), delay_max_s)
    return Applied(WebhookStatus.RECEIVED, reason, claimed.webhook.payment_id, delay_s)

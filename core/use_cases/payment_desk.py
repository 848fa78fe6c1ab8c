"""PaymentRequests, carried out: load, check the caller, execute, wait for the provider as long as the caller can.

Room: core/use_cases. Awaits on ports only.
"""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from payment_service.core.commands import Cancel, CreatePayment, RequestRefund, StartCapture, StartCharge
from payment_service.core.decide import not_found
from payment_service.core.errors import Refused, Unavailable
from payment_service.core.ids import payment_id_of
from payment_service.core.money import currency_code, to_minor
from payment_service.core.payment import (
    Payment,
    attempt_in_the_way,
    attempt_of,
    provider_key,
    refund_of,
    status_of,
)
from payment_service.core.ports import (
    Clock,
    Loaded,
    PaymentFilter,
    PaymentPage,
    PaymentStore,
    Provider,
    Secrets,
    StoredEvent,
)
from payment_service.core.terms import AttemptState, CaptureMethod, RefundStatus, Status
from payment_service.core.use_cases.execute import Execute, Outcome
from payment_service.core.use_cases.payment_requests import Answered, Caller
from payment_service.core.use_cases.perform_effects import Effects
from payment_service.core.use_cases.provider_calls import CallContext

SAVED_METHOD_PREFIX = "pmt_"
"""Ids of saved methods are ours and may be shown; anything else is a provider's own token, and secret."""
CANCEL_WAIT_S = 5.0
"""How long a cancellation waits for its void before it answers with the payment as it is."""
OWNER = "owner"
"""In REFUND_ROLES: the payment's own user."""
WAITING_STATUSES = (Status.PROCESSING, Status.UNKNOWN)


@dataclass(frozen=True, slots=True)
class DeskRules:
    """Settings that decide what a caller may do."""

    default_provider: str
    process_wait_s: float
    require_confirmed: bool
    refund_roles: frozenset[str]
    """`owner` is one of its values."""


@dataclass(frozen=True, slots=True)
class PaymentDesk:
    execute: Execute
    effects: Effects
    store: PaymentStore
    providers: Mapping[str, Provider]
    clock: Clock
    rules: DeskRules

    async def create(
        self,
        caller: Caller,
        *,
        order_id: str,
        amount: object,
        currency: str,
        provider: str | None,
        method: str | None,
        capture_method: CaptureMethod,
        description: str | None,
        metadata: Mapping[str, Any],
    ) -> Answered:
        if caller.user_id is None:
            raise Refused("a payment belongs to a user: send a user's token", code="FORBIDDEN")
        code = currency_code(currency)
        amount_minor = to_minor(amount, code)
        name = provider or self.rules.default_provider
        self._configured(name)
        saved, token = self._method(method)
        command = CreatePayment(
            payment_id_of(order_id), "", self.clock.now_ms(), caller.by, order_id, caller.user_id, amount_minor,
            code, name, saved, capture_method, description, metadata,
        )  # fmt: skip
        outcome = await self.execute(command, CallContext(stored_token=token))
        return replace(_answered(caller, outcome.payment, outcome.secrets), created=bool(outcome.steps))

    async def process(
        self, caller: Caller, payment_id: str, *, method: str | None, return_url: str | None, object_id: str | None
    ) -> Answered:
        if caller.user_id is None:
            raise not_found()
        saved, token = self._method(method)
        payment = (await self._load(caller, payment_id)).payment
        assert payment is not None
        self._configured(payment.provider)
        if object_id is not None and object_id != payment.object_id:
            # It must be ours by metadata, amount and currency, which only the provider can tell.
            raise Refused("no such provider object of this payment", code="NOT_FOUND")
        command = StartCharge(
            payment_id, "", self.clock.now_ms(), caller.by, caller.user_id, saved, method is not None,
            require_confirmed=self.rules.require_confirmed,
        )  # fmt: skip
        return await self._attempt(caller, command, CallContext(method_token=token, return_url=return_url))

    async def capture(self, caller: Caller, payment_id: str, *, amount: object | None) -> Answered:
        payment = (await self._load(caller, payment_id, any_owner=caller.privileged)).payment
        assert payment is not None
        self._configured(payment.provider)
        amount_minor = None if amount is None else to_minor(amount, payment.currency)
        command = StartCapture(payment_id, "", self.clock.now_ms(), caller.by, self._owner(caller), amount_minor)
        return await self._attempt(caller, command, CallContext())

    async def cancel(self, caller: Caller, payment_id: str, *, reason: str | None) -> Answered:
        command = Cancel(payment_id, "", self.clock.now_ms(), caller.by, self._owner(caller), reason)
        outcome = await self.execute(command)
        payment, secrets = outcome.payment, outcome.secrets
        if outcome.intents:
            payment, secrets = await self._settled(payment_id, CANCEL_WAIT_S)
        return _answered(caller, payment, secrets)

    async def refund(
        self,
        caller: Caller,
        payment_id: str,
        *,
        amount: object | None,
        reason: str | None,
        metadata: Mapping[str, Any],
    ) -> Answered:
        roles = self.rules.refund_roles
        # Another service may always (contract §3, POST /refunds). A token's role called "owner" owns nothing.
        by_role = caller.user_id is None or not (roles - {OWNER}).isdisjoint(caller.roles)
        if not by_role and OWNER not in roles:
            raise Refused("your role may not refund", code="FORBIDDEN")
        payment = (await self._load(caller, payment_id, any_owner=by_role)).payment
        assert payment is not None
        self._configured(payment.provider)
        amount_minor = None if amount is None else to_minor(amount, payment.currency)
        owner = None if by_role else caller.user_id
        release = await self.effects.admit()
        command = RequestRefund(payment_id, "", self.clock.now_ms(), caller.by, owner, amount_minor, reason, metadata)
        outcome = await self._run(command, CallContext(), release)
        call = outcome.intents[0].call
        latest = await self._latest(outcome)
        refund = refund_of(latest.payment, call.number)
        if refund.status is RefundStatus.CANCELLED:
            raise Unavailable("the provider cannot be reached", code="PROVIDER_UNAVAILABLE", retry_after_s=5.0)
        return replace(_answered(caller, latest.payment, latest.secrets), refund=refund)

    async def get(self, caller: Caller, payment_id: str) -> Answered:
        loaded = await self._load(caller, payment_id, any_owner="admin" in caller.roles)
        assert loaded.payment is not None
        return _answered(caller, loaded.payment, loaded.secrets)

    async def by_order(self, caller: Caller, order_id: str) -> Answered:
        return await self.get(caller, payment_id_of(order_id))

    async def timeline(self, caller: Caller, payment_id: str) -> Sequence[StoredEvent]:
        await self._load(caller, payment_id, any_owner="admin" in caller.roles)
        return await self.store.events(payment_id)

    async def find(self, caller: Caller, query: PaymentFilter) -> PaymentPage:
        if "admin" not in caller.roles:
            if caller.user_id is None:
                raise Refused("a list belongs to a user", code="FORBIDDEN")
            query = replace(query, user_id=caller.user_id)
        return await self.store.find(query)

    # --- what they share -------------------------------------------------------------------------------------

    async def _attempt(self, caller: Caller, command: StartCharge | StartCapture, context: CallContext) -> Answered:
        """Start an attempt and wait for its answer; or join what is under way."""
        release = await self.effects.admit()
        outcome = await self._run(command, context, release)
        if not outcome.intents:
            answered = _answered(caller, outcome.payment, outcome.secrets)
            return replace(answered, pending=status_of(outcome.payment) in WAITING_STATUSES)
        number = outcome.intents[0].call.number
        latest = await self._latest(outcome)
        attempt = attempt_of(latest.payment, number)
        answered = _answered(caller, latest.payment, latest.secrets)
        match attempt.state:
            case AttemptState.DECLINED:
                return replace(answered, declined=attempt)
            case AttemptState.NOT_SENT:
                if latest.payment.cancel_requested or latest.payment.cancelled:
                    return answered
                raise Unavailable("the provider cannot be reached", code="PROVIDER_UNAVAILABLE", retry_after_s=5.0)
            case AttemptState.OPEN | AttemptState.UNKNOWN | AttemptState.DISPLACED:
                return replace(answered, pending=status_of(latest.payment) in WAITING_STATUSES)
            case _:
                return answered

    async def _run(
        self, command: StartCharge | StartCapture | RequestRefund, context: CallContext, release: Any
    ) -> Outcome:
        """Commit the intent and start its call. The room for the call is given back if there is none to make."""
        committing = self.execute.submit(command, context)

        def committed(done: asyncio.Future[Outcome]) -> None:
            # A callback, not code after an await: the caller may go away between commit and call.
            if done.cancelled() or done.exception() is not None or not done.result().intents:
                release()
                return
            outcome = done.result()
            self.effects.start(outcome.intents[0].call, outcome.claimed_at, release)

        committing.add_done_callback(committed)
        return await asyncio.shield(committing)

    async def _latest(self, outcome: Outcome) -> Outcome:
        """The outcome of the call that was just started, or the payment as it is when time is up."""
        task = self.effects.under_way(outcome.intents[0].call.key)
        if task is not None:
            await asyncio.wait((task,), timeout=self.rules.process_wait_s)
            if task.done() and not task.cancelled() and task.exception() is None:
                answered = task.result()
                if answered is not None:
                    return answered
        loaded = await self.store.load(outcome.payment.payment_id)
        assert loaded.payment is not None
        return Outcome(loaded.payment, loaded.secrets, ())

    async def _settled(self, payment_id: str, wait_s: float) -> tuple[Payment, Secrets]:
        """The payment once nothing is in its way any more, or as it is when time is up."""
        deadline, delay = self.clock.monotonic_s() + wait_s, 0.005
        while True:
            loaded = await self.store.load(payment_id)
            assert loaded.payment is not None
            attempt = attempt_in_the_way(loaded.payment)
            if attempt is None or self.clock.monotonic_s() >= deadline:
                return loaded.payment, loaded.secrets
            task = self.effects.under_way(provider_key(payment_id, attempt.kind, attempt.number))
            await asyncio.wait((task,), timeout=wait_s) if task is not None else await asyncio.sleep(delay)
            delay = min(delay * 2, 0.2)

    async def _load(self, caller: Caller, payment_id: str, *, any_owner: bool = False) -> Loaded:
        """Raises PAYMENT_NOT_FOUND also for somebody else's payment: its existence is nobody's business."""
        loaded = await self.store.load(payment_id)
        payment = loaded.payment
        if payment is None or not payment.known:
            raise not_found()
        if not any_owner and payment.user_id != caller.user_id:
            raise not_found()
        return loaded

    def _owner(self, caller: Caller) -> str | None:
        return None if caller.privileged else caller.user_id or ""

    def _configured(self, provider: str) -> None:
        if provider not in self.providers:
            raise Refused(f"provider {provider} is not configured", code="PROVIDER_NOT_CONFIGURED")

    def _method(self, method: str | None) -> tuple[str | None, str | None]:
        """(saved method's id, one-time token) of what the caller sent."""
        if method is None:
            return None, None
        if method.startswith(SAVED_METHOD_PREFIX):
            raise Refused("no such payment method", code="NOT_FOUND")
        return None, method


def _answered(caller: Caller, payment: Payment, secrets: Secrets) -> Answered:
    """`next_action` lets whoever has it pay: it is for the shopper alone, not for a service or an admin."""
    acts = status_of(payment) is Status.REQUIRES_ACTION and caller.user_id == payment.user_id
    return Answered(payment, next_action=secrets.next_action if acts else None)

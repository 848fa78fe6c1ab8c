"""PaymentRequests, carried out: load, check the caller, execute, wait for the provider as long as the caller can.

Room: core/use_cases. Awaits on ports only.
"""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from payment_service.core.commands import Cancel, CreatePayment, RequestRefund, StartCapture, StartCharge
from payment_service.core.decide import not_found
from payment_service.core.errors import OutcomeUnknown, PaymentError, Refused, Unavailable
from payment_service.core.facts import fold
from payment_service.core.idempotency import CREATED, Bound, check, check_answered, is_free, number_in
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
from payment_service.core.payment_method import is_saved, own_method_id
from payment_service.core.ports import (
    NO_SECRETS,
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
from payment_service.core.use_cases.check_order import CheckOrder
from payment_service.core.use_cases.choose_method import ChooseMethod
from payment_service.core.use_cases.execute import Execute, Outcome
from payment_service.core.use_cases.payment_requests import Answered, Caller
from payment_service.core.use_cases.perform_effects import Effects, has_open_calls
from payment_service.core.use_cases.provider_calls import CallContext
from payment_service.core.use_cases.read_payments import CachedReads
from payment_service.core.use_cases.start_call import commit_and_call

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
    check_order: CheckOrder | None = None
    """Where there is an order service: asked before a payment is made."""
    methods: ChooseMethod | None = None
    """None: nobody has saved ones."""
    reads: CachedReads | None = None
    """Where there is a cache: what is only shown may come from it."""

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
        try:
            code = currency_code(currency)
            amount_minor = to_minor(amount, code)
            name = provider or self.rules.default_provider
            saved, token = self._method(method)
            if saved is not None and self.methods is not None:
                name = await self.methods.provider_of(caller.user_id, saved, payment_id_of(order_id), provider)
            self._configured(name)
            confirmed = self.check_order is not None and await self.check_order(caller, order_id, amount_minor, code)
        except PaymentError:
            # What would not go now may have gone the first time. Looked at only here: no creation waits for a read.
            before = await self._bound_before(caller, payment_id_of(order_id))
            if before is None:
                raise
            return await self._created_before(caller, before)
        command = CreatePayment(
            payment_id_of(order_id), caller.command_id, self.clock.now_ms(), caller.by, order_id, caller.user_id,
            amount_minor, code, name, saved, capture_method, description, metadata, confirmed=confirmed,
        )  # fmt: skip
        outcome = await self.execute(command, CallContext(stored_token=token, key=caller.key))
        if outcome.again:
            return await self._created_before(caller, outcome)
        answered = _answered(caller, outcome.payment, outcome.secrets, created=bool(outcome.steps))
        return answered if outcome.bound is None else replace(answered, bound=outcome.bound)

    async def process(
        self, caller: Caller, payment_id: str, *, method: str | None, return_url: str | None, object_id: str | None
    ) -> Answered:
        if caller.user_id is None:
            raise not_found()
        loaded = await self._load(caller, payment_id)
        payment = loaded.payment
        assert payment is not None
        if loaded.bound is not None and not is_free(loaded.bound, payment):
            return self._joined(caller, payment, loaded.secrets, loaded.bound)
        saved, token = self._method(method)
        self._configured(payment.provider)
        # Another object than ours must be this payment's by metadata, amount and currency: its provider looks first.
        adopted = object_id is not None and object_id != payment.object_id
        if object_id is not None and not adopted and method is None:
            await self.effects.ask(payment, self.rules.process_wait_s)  # the front end says that it has confirmed it
        if method is None and object_id is None:
            saved = payment.payment_method_id
        command = StartCharge(
            payment_id, caller.command_id, self.clock.now_ms(), caller.by, caller.user_id, saved, method is not None,
            object_id=object_id if adopted or payment.object_open else None,
            require_confirmed=self.rules.require_confirmed,
        )  # fmt: skip
        found = await self.methods.for_payment(payment, saved) if saved is not None and self.methods else None
        context = CallContext(
            token, return_url=return_url, adopted=adopted, named=object_id is not None, key=caller.key, saved=found
        )
        return await self._attempt(caller, command, context)

    async def capture(self, caller: Caller, payment_id: str, *, amount: object | None) -> Answered:
        loaded = await self._load(caller, payment_id, any_owner=caller.privileged)
        payment = loaded.payment
        assert payment is not None
        if loaded.bound is not None and not is_free(loaded.bound, payment):
            return self._joined(caller, payment, loaded.secrets, loaded.bound)
        self._configured(payment.provider)
        amount_minor = None if amount is None else to_minor(amount, payment.currency)
        command = StartCapture(
            payment_id, caller.command_id, self.clock.now_ms(), caller.by, self._owner(caller), amount_minor
        )
        return await self._attempt(caller, command, CallContext(key=caller.key))

    async def cancel(self, caller: Caller, payment_id: str, *, reason: str | None) -> Answered:
        owner = self._owner(caller)
        command = Cancel(payment_id, caller.command_id, self.clock.now_ms(), caller.by, owner, reason)
        outcome = await self.execute(command, CallContext(key=caller.key))
        payment, secrets = outcome.payment, outcome.secrets
        if outcome.again and outcome.bound is not None:
            if owner not in (None, payment.user_id):
                raise not_found()
            check_answered(outcome.bound, payment, CANCEL_WAIT_S)
        elif outcome.intents:
            payment, secrets = await self._settled(payment_id, CANCEL_WAIT_S)
        return replace(
            _answered(caller, payment, secrets),
            bound=outcome.bound, again=outcome.again, open=attempt_in_the_way(payment) is not None,
        )  # fmt: skip

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
        loaded = await self._load(caller, payment_id, any_owner=by_role)
        payment = loaded.payment
        assert payment is not None
        if loaded.bound is not None and not is_free(loaded.bound, payment):
            return self._refunded(caller, payment, loaded.secrets, loaded.bound)
        self._configured(payment.provider)
        amount_minor = None if amount is None else to_minor(amount, payment.currency)
        owner = None if by_role else caller.user_id
        release = await self.effects.admit()
        command = RequestRefund(
            payment_id, caller.command_id, self.clock.now_ms(), caller.by, owner, amount_minor, reason, metadata
        )
        outcome = await self._run(command, CallContext(key=caller.key), release)
        if outcome.again and outcome.bound is not None:
            return self._refunded(caller, outcome.payment, outcome.secrets, outcome.bound)
        number = outcome.intents[0].call.number
        latest = await self._latest(outcome)
        if refund_of(latest.payment, number).status is RefundStatus.CANCELLED:
            raise _out_of_reach()
        return _with_refund(_answered(caller, latest.payment, latest.secrets), number, outcome.bound)

    async def get(self, caller: Caller, payment_id: str, *, sync: bool = False) -> Answered:
        loaded = await self._load(caller, payment_id, any_owner="admin" in caller.roles, cached=not sync)
        assert loaded.payment is not None
        if sync and has_open_calls(loaded.payment):
            await self.effects.ask(loaded.payment, self.rules.process_wait_s)
            loaded = await self.store.load(payment_id)
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
        if outcome.again and outcome.bound is not None:
            return self._joined(caller, outcome.payment, outcome.secrets, outcome.bound)
        if not outcome.intents:
            answered = replace(_answered(caller, outcome.payment, outcome.secrets), bound=outcome.bound)
            return replace(answered, pending=status_of(outcome.payment) in WAITING_STATUSES)
        number = outcome.intents[0].call.number
        latest = await self._latest(outcome)
        stopped = latest.payment.cancel_requested or latest.payment.cancelled
        if attempt_of(latest.payment, number).state is AttemptState.NOT_SENT and not stopped:
            raise _out_of_reach()
        return self._told(replace(_answered(caller, latest.payment, latest.secrets), bound=outcome.bound), number)

    def _told(self, answered: Answered, number: int) -> Answered:
        """The outcome of that attempt, whatever was tried since."""
        attempt = attempt_of(answered.payment, number)
        match attempt.state:
            case AttemptState.DECLINED:
                return replace(answered, declined=attempt)
            case AttemptState.OPEN | AttemptState.UNKNOWN | AttemptState.DISPLACED:
                return replace(answered, pending=status_of(answered.payment) in WAITING_STATUSES, open=True)
            case _:
                return answered

    # --- a key that is bound already ---------------------------------------------------------------------------

    async def _bound_before(self, caller: Caller, payment_id: str) -> Outcome | None:
        """Raises what `check` raises, for a key that is bound."""
        if caller.key is None:
            return None
        loaded = await self.store.load(payment_id, caller.command_id)
        if loaded.bound is None:
            return None
        check(caller.key, loaded.bound)
        assert loaded.payment is not None, "a key without an answer belongs to a payment"
        return Outcome(loaded.payment, loaded.secrets, (), bound=loaded.bound, again=True)

    async def _created_before(self, caller: Caller, outcome: Outcome) -> Answered:
        """The payment as the first request made it: its history tells that exactly, so no answer had to be kept."""
        bound, payment = outcome.bound, outcome.payment
        if bound is not None and bound.subject == CREATED:
            history = await self.store.events(payment.payment_id)
            made = fold(payment.payment_id, [it.event for it in history if it.version <= bound.version])
            assert made is not None, "a key is bound to a version that is there"
            return replace(_answered(caller, made, NO_SECRETS, created=True), bound=bound, again=True)
        if payment.user_id != caller.user_id:
            raise not_found()
        return replace(_answered(caller, payment, outcome.secrets), bound=bound, again=True)

    def _joined(self, caller: Caller, payment: Payment, secrets: Secrets, bound: Bound) -> Answered:
        """Of process and capture. Raises Refused IDEMPOTENCY_IN_PROGRESS."""
        check_answered(bound, payment, self.rules.process_wait_s)
        answered = replace(_answered(caller, payment, secrets), bound=bound, again=True)
        number = number_in(bound)
        if number is None:
            return replace(answered, pending=status_of(payment) in WAITING_STATUSES)
        return self._told(answered, number)

    def _refunded(self, caller: Caller, payment: Payment, secrets: Secrets, bound: Bound) -> Answered:
        """Raises Refused IDEMPOTENCY_IN_PROGRESS."""
        check_answered(bound, payment, self.rules.process_wait_s)
        number = number_in(bound)
        assert number is not None, "a refund always starts something"
        return replace(_with_refund(_answered(caller, payment, secrets), number, bound), again=True)

    # --- the call that was started -----------------------------------------------------------------------------

    async def _run(
        self, command: StartCharge | StartCapture | RequestRefund, context: CallContext, release: Any
    ) -> Outcome:
        return await commit_and_call(self.execute, self.effects, command, context, release)

    async def _latest(self, outcome: Outcome) -> Outcome:
        """The outcome of the call that was just started, or the payment as it is when time is up. Raises
        OutcomeUnknown."""
        task = self.effects.under_way(outcome.intents[0].call.key)
        if task is not None:
            await asyncio.wait((task,), timeout=self.rules.process_wait_s)
            if task.done() and not task.cancelled() and task.exception() is None:
                answered = task.result()
                if answered is not None:
                    return answered
        loaded = await self._after_commit(outcome.payment.payment_id)
        assert loaded.payment is not None
        return Outcome(loaded.payment, loaded.secrets, ())

    async def _settled(self, payment_id: str, wait_s: float) -> tuple[Payment, Secrets]:
        """The payment once nothing is in its way any more, or as it is when time is up. Raises OutcomeUnknown."""
        deadline, delay = self.clock.monotonic_s() + wait_s, 0.005
        while True:
            loaded = await self._after_commit(payment_id)
            assert loaded.payment is not None
            attempt = attempt_in_the_way(loaded.payment)
            if attempt is None or self.clock.monotonic_s() >= deadline:
                return loaded.payment, loaded.secrets
            task = self.effects.under_way(provider_key(payment_id, attempt.kind, attempt.number))
            await asyncio.wait((task,), timeout=wait_s) if task is not None else await asyncio.sleep(delay)
            delay = min(delay * 2, 0.2)

    async def _after_commit(self, payment_id: str) -> Loaded:
        """A database that is away now does not mean that nothing happened: whoever heard that would ask again."""
        try:
            return await self.store.load(payment_id)
        except Unavailable:
            raise OutcomeUnknown("it was started, and cannot be looked at now") from None

    async def _load(self, caller: Caller, payment_id: str, *, any_owner: bool = False, cached: bool = False) -> Loaded:
        """Raises PAYMENT_NOT_FOUND also for somebody else's payment: its existence is nobody's business. And what
        `check` raises, for a key that is bound."""
        source = self.reads if cached and self.reads is not None else self.store
        loaded = await source.load(payment_id, caller.command_id)
        if caller.key is not None and loaded.bound is not None:
            check(caller.key, loaded.bound)
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
        if not is_saved(method):
            return None, method
        if self.methods is None:
            raise Refused("no such payment method", code="NOT_FOUND")
        return own_method_id(method), None


def _answered(caller: Caller, payment: Payment, secrets: Secrets, *, created: bool = False) -> Answered:
    """`next_action` lets whoever has it pay: it is for the shopper alone, not for a service or an admin."""
    shopper = caller.user_id == payment.user_id and not caller.operator
    acts = shopper and status_of(payment) is Status.REQUIRES_ACTION
    return Answered(payment, secrets.next_action if acts else None, created)


def _with_refund(answered: Answered, number: int, bound: Bound | None) -> Answered:
    """Open as long as the provider has not said that it has it."""
    refund = refund_of(answered.payment, number)
    unanswered = refund.status in (RefundStatus.PENDING, RefundStatus.UNKNOWN)
    return replace(answered, refund=refund, bound=bound, open=unanswered)


def _out_of_reach() -> Unavailable:
    return Unavailable("the provider cannot be reached", code="PROVIDER_UNAVAILABLE", retry_after_s=5.0)

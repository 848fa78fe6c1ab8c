"""What an operator may ask of any payment, and decide of it: for the commands and for the console.

Room: core/use_cases. Awaits on ports only. Who is an operator, and which one may do what, is known to those who ask.
"""

from collections.abc import Awaitable, Callable, Sequence
from math import ceil

from payment_service.core.commands import DecideByHand, RecordAnswer
from payment_service.core.decide import not_found
from payment_service.core.errors import Refused, invalid_field
from payment_service.core.frozen import dataclass
from payment_service.core.ids import payment_id_of
from payment_service.core.payment import Payment, provider_key
from payment_service.core.ports import PaymentFilter, PaymentPage, PaymentStore, StoredEvent
from payment_service.core.terms import Kind, Source, Verdict
from payment_service.core.use_cases.execute import Execute
from payment_service.core.use_cases.perform_effects import Effects, has_open_calls

BY_HAND = {"approved": Verdict.APPROVED, "declined": Verdict.DECLINED, "not-sent": Verdict.NOT_SENT}
"""What a person may find out about a call."""
REASON_LENGTH_MAX = 500
FOUND_MAX = 50
"""Payments that one search answers with."""


@dataclass(frozen=True, slots=True)
class Decision:
    """What a person found out about one attempt, or one refund. `amount_minor`: what moved, if not what was asked."""

    verdict: str
    """A word of BY_HAND."""
    reason: str
    attempt: int | None = None
    refund: int | None = None
    provider_id: str | None = None
    amount_minor: int | None = None


def checked_reason(text: str) -> str:
    """Raises Refused (422)."""
    reason = text.strip()
    if not 0 < len(reason) <= REASON_LENGTH_MAX or not reason.isprintable():
        raise invalid_field("reason", f"say why, in at most {REASON_LENGTH_MAX} characters")
    return reason


async def decide_by_hand(execute: Execute, payment_id: str, by: str, decision: Decision) -> Payment:
    """Raises Refused: there is no such payment or call, it is not open, or cannot end like that."""
    at_ms = execute.clock.now_ms()
    if (decision.attempt is None) == (decision.refund is None):
        raise invalid_field("attempt", "say which attempt, or which refund")
    if decision.verdict not in BY_HAND:
        raise invalid_field("verdict", f"must be one of: {', '.join(BY_HAND)}")
    if decision.verdict != "approved" and (decision.amount_minor is not None or decision.provider_id is not None):
        raise invalid_field("verdict", "an amount and an id at the provider are only for what was done")
    reason = checked_reason(decision.reason)
    payment = (await execute.store.load(payment_id)).payment
    if payment is None:
        raise not_found()
    number = decision.attempt or decision.refund or 0
    kind = Kind.REFUND
    if decision.attempt is not None:
        if not 1 <= number <= len(payment.attempts):
            raise Refused(f"there is no attempt {number}", code="NOT_FOUND")
        kind = payment.attempts[number - 1].kind
    if decision.verdict != "approved":
        # It may be arriving there just now: whoever tried again after this no would move the money twice.
        left_s = await execute.store.under_way_s(provider_key(payment_id, kind, number))
        if left_s > 0:
            raise Refused(f"a worker is asking the provider: come again in {ceil(left_s)} s", code="INVALID_STATE")
    currency = payment.currency if decision.amount_minor is not None else None
    answer = RecordAnswer(
        payment_id, "", at_ms, kind, number, BY_HAND[decision.verdict], Source.OPERATOR, decision.provider_id,
        decision.amount_minor, currency, "DECIDED_BY_HAND",
    )  # fmt: skip
    outcome = await execute(DecideByHand(payment_id, "", at_ms, by, reason, answer))
    return outcome.payment


@dataclass(frozen=True, slots=True)
class OperatorDesk:
    """Reads the truth, never a cache. Raises Unavailable, and Refused PAYMENT_NOT_FOUND."""

    execute: Execute
    effects: Effects
    store: PaymentStore
    find_by_provider_id: Callable[[str], Awaitable[Sequence[str]]]
    """Ids of payments that have this id at a provider: of a movement, or of the provider's object."""
    ask_wait_s: float

    async def payment(self, payment_id: str) -> Payment:
        payment = (await self.store.load(payment_id)).payment
        if payment is None:
            raise not_found()
        return payment

    async def timeline(self, payment_id: str) -> Sequence[StoredEvent]:
        return await self.store.events(payment_id)

    async def page(self, query: PaymentFilter) -> PaymentPage:
        return await self.store.find(query)

    async def search(self, text: str) -> Sequence[Payment]:
        """By the id of a payment, an order, a user, or anything at a provider. At most FOUND_MAX, newest first."""
        names = [text, payment_id_of(text), *await self.find_by_provider_id(text)]
        loaded = [(await self.store.load(name)).payment for name in dict.fromkeys(names[: FOUND_MAX + 2])]
        found = {it.payment_id: it for it in loaded if it is not None}
        found |= {it.payment_id: it for it in (await self.page(PaymentFilter(user_id=text, limit=FOUND_MAX))).payments}
        return sorted(found.values(), key=lambda it: -it.created_at_ms)[:FOUND_MAX]

    async def ask_provider(self, payment_id: str) -> Payment:
        """Whatever is open is looked up now, as long as somebody can wait."""
        payment = await self.payment(payment_id)
        if has_open_calls(payment):
            await self.effects.ask(payment, self.ask_wait_s)
        return await self.payment(payment_id)

    async def decide(self, payment_id: str, by: str, decision: Decision) -> Payment:
        return await decide_by_hand(self.execute, payment_id, by, decision)

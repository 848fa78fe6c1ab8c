"""What must follow from a committed fact: derived, never decided.

Room: core. The effects are carried out after the commit, by use_cases/perform_effects.py and the outbox.
"""

from payment_service.core import events as e
from payment_service.core.frozen import dataclass
from payment_service.core.payment import Payment, last_decline, order_word, status_of
from payment_service.core.terms import Kind, Status, Topic

REASON_LENGTH_MAX = 100
"""Of what the order service is told beside the word: a code, never a text that somebody typed."""


@dataclass(frozen=True, slots=True)
class CallProvider:
    """Ask the provider: the intent is committed first, the call comes after, its answer is a command."""

    kind: Kind
    number: int
    scheduled: bool


@dataclass(frozen=True, slots=True)
class Publish:
    topic: Topic
    sequence: int


@dataclass(frozen=True, slots=True)
class TellOrder:
    """`word`: contract §3. `reason`: the code of a decline, else the payment's status."""

    word: str
    reason: str


def call_of(event: e.Event) -> CallProvider | None:
    """The provider call that a fact asks for. Most facts ask for none."""
    if isinstance(event, e.AttemptStarted):
        return CallProvider(event.kind, event.number, event.scheduled)
    if isinstance(event, e.RefundRequested):
        return CallProvider(Kind.REFUND, event.number, event.scheduled)
    return None


def word_for_order(before: Payment | None, after: Payment) -> TellOrder | None:
    """What the order service has to hear: nothing of a creation, and nothing that it was told already."""
    if before is None:
        return None
    word = order_word(after)
    if word == order_word(before):
        return None
    status = status_of(after)
    declined = last_decline(after) if status is Status.FAILED else None
    reason = (declined.decline_code or declined.code or "") if declined is not None else ""
    if not reason or not reason.isprintable() or len(reason) > REASON_LENGTH_MAX:
        reason = status.value
    return TellOrder(word, reason)


def effects_of(
    before: Payment | None, event: e.Event, after: Payment, topic: Topic | None
) -> list[CallProvider | Publish | TellOrder]:
    """What must follow from a committed fact: derived, never decided."""
    effects: list[CallProvider | Publish | TellOrder] = []
    call = call_of(event)
    if call is not None:
        effects.append(call)
    if topic is not None:
        effects.append(Publish(topic, after.sequence))
    told = word_for_order(before, after)
    if told is not None:
        effects.append(told)
    return effects

"""What must follow from a committed fact: derived, never decided.

Room: core. The effects are carried out after the commit, by use_cases/perform_effects.py and the outbox.
"""

from dataclasses import dataclass

from payment_service.core import events as e
from payment_service.core.payment import Payment, order_word
from payment_service.core.terms import Kind, Topic


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
    word: str


def effects_of(
    before: Payment | None, event: e.Event, after: Payment, topic: Topic | None
) -> list[CallProvider | Publish | TellOrder]:
    """What must follow from a committed fact: derived, never decided."""
    effects: list[CallProvider | Publish | TellOrder] = []
    if isinstance(event, e.AttemptStarted):
        effects.append(CallProvider(event.kind, event.number, event.scheduled))
    elif isinstance(event, e.RefundRequested):
        effects.append(CallProvider(Kind.REFUND, event.number, event.scheduled))
    if topic is not None:
        effects.append(Publish(topic, after.sequence))
    if before is not None and order_word(before) != order_word(after):
        effects.append(TellOrder(order_word(after)))
    return effects

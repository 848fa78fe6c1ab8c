"""The state diagram of the public statuses, found by asking `decide` and `apply`: nobody draws it by hand.

Room: core. `python -m payment_service.core.diagram` prints the block that README.md carries; a test compares them.

Every payment of one order with at most ATTEMPTS_SEEN attempts and REFUNDS_SEEN refunds is visited, and every command
and answer is tried on it. What is drawn is what changes the status. Disputes, flags and what contradicts an earlier
answer are left out, but for the yes that comes late: it is the only way from FAILED or CANCELLED to money. It is drawn
and not followed, because every state could follow it.
"""

from collections import deque
from collections.abc import Iterator

from payment_service.core import commands as c
from payment_service.core.decide import decide
from payment_service.core.errors import Refused
from payment_service.core.facts import apply
from payment_service.core.payment import Payment, status_of
from payment_service.core.terms import (
    REFUND_OPEN,
    TAKES_MONEY,
    AttemptState,
    CaptureMethod,
    Kind,
    RefundStatus,
    Source,
    Status,
    Verdict,
)

START, END = "<!-- state-diagram:start -->", "<!-- state-diagram:end -->"
LATE = "late yes"
ATTEMPTS_SEEN = 2
REFUNDS_SEEN = 2
PAYMENTS_SEEN_MAX = 20_000
"""A mistake in the machine must not let the search run for ever."""
_ID, _ORDER, _USER, _AMOUNT, _AT_MS = "pay_0", "order", "user", 100, 1
_SAYS = {
    Verdict.APPROVED: "yes",
    Verdict.DECLINED: "no",
    Verdict.NOT_SENT: "not sent",
    Verdict.PENDING: "accepted",
    Verdict.UNKNOWN: "unknown",
}


def _creations() -> Iterator[tuple[str, c.Command]]:
    for method in CaptureMethod:
        yield (
            "create",
            c.CreatePayment(
                _ID, "", _AT_MS, f"user:{_USER}", _ORDER, _USER, _AMOUNT, "EUR", "mock", capture_method=method
            ),
        )
    yield (
        "order.created with automatic processing",
        c.CreatePayment(
            _ID, "", _AT_MS, "order", _ORDER, _USER, _AMOUNT, "EUR", "mock", by_order=True, confirmed=True, charge=True
        ),
    )
    yield (
        "order.cancelled",
        c.Cancel(_ID, "", _AT_MS, "order", by_order=True, order_id=_ORDER, user_id=_USER, provider="mock"),
    )


def _commands(payment: Payment) -> Iterator[tuple[str, c.Command]]:
    """What can happen to this payment next, each with the word for it."""
    yield from ((word, command) for word, command in _creations() if payment.known or word != "create")
    yield "process", c.StartCharge(_ID, "", _AT_MS, f"user:{_USER}", has_method=True)
    yield "capture", c.StartCapture(_ID, "", _AT_MS, "service")
    yield "cancel", c.Cancel(_ID, "", _AT_MS, f"user:{_USER}")
    yield "authorization expired", c.ExpireAuthorization(_ID, "", _AT_MS, Source.WEBHOOK)
    if payment.authorization_open > 0:
        yield (
            "captured at the provider",
            c.RecordExternalCapture(_ID, "", _AT_MS, "mock", "cap", 1, payment.object_number, Source.WEBHOOK),
        )
    for amount in (1, None):
        yield "refund", c.RequestRefund(_ID, "", _AT_MS, "service", amount_minor=amount)
    for attempt in payment.attempts:
        if attempt.state is AttemptState.ACTION:
            yield "action expired", c.ExpireAction(_ID, "", attempt.action_expires_at_ms or _AT_MS, attempt.number)
        if attempt.state in (AttemptState.OPEN, AttemptState.UNKNOWN) and attempt.kind in TAKES_MONEY:
            if not payment.object_open:
                yield "object", c.RecordObject(_ID, "", _AT_MS, attempt.number, f"object-{payment.object_number}")
            yield "the shopper must act", c.RequireAction(_ID, "", _AT_MS, attempt.number, "redirect", _AT_MS)
        yield from _answers(payment, attempt.kind, attempt.number)
    for refund in payment.refunds:
        if refund.status in REFUND_OPEN:
            yield "refund: yes", _answer(Kind.REFUND, refund.number, Verdict.APPROVED)
        if refund.status in (*REFUND_OPEN, RefundStatus.COMPLETED):
            yield "refund: no, or failed late", _answer(Kind.REFUND, refund.number, Verdict.DECLINED)


def _answers(payment: Payment, kind: Kind, number: int) -> Iterator[tuple[str, c.Command]]:
    state = payment.attempts[number - 1].state
    if state in (AttemptState.DECLINED, AttemptState.NOT_SENT, AttemptState.SUPERSEDED):
        if kind in TAKES_MONEY and payment.captured == 0 and payment.authorization_open == 0:
            yield f"{kind.lower()}: {LATE}", _answer(kind, number, Verdict.APPROVED)
    elif state is not AttemptState.APPROVED:
        for verdict, says in _SAYS.items():
            yield f"{kind.lower()}: {says}", _answer(kind, number, verdict)


def _answer(kind: Kind, number: int, verdict: Verdict) -> c.RecordAnswer:
    return c.RecordAnswer(_ID, "", _AT_MS, kind, number, verdict, Source.LIVE, f"{kind}-{number}")


def _after(payment: Payment | None, command: c.Command) -> Payment | None:
    try:
        events = decide(payment, command)
    except Refused:
        return None
    for event in events:
        payment, _ = apply(payment, event, _ID)
    return payment


def _kind_of(payment: Payment) -> tuple[object, ...]:
    """What decides what can happen next. Payments that differ only in ids, texts and counters are one."""
    return (
        status_of(payment),
        payment.known,
        payment.capture_method,
        payment.object_open,
        payment.authorization_open > 0,
        payment.captured > 0,
        payment.cancelled,
        payment.cancel_requested,
        payment.cancel_final,
        tuple((a.kind, a.state, a.accepted, a.cause, a.number > payment.payable_since) for a in payment.attempts),
        tuple((r.status, r.amount_minor) for r in payment.refunds),
    )


def transitions() -> dict[tuple[Status | None, Status], set[str]]:
    """(status before, status after) -> what leads there. None: there was no payment."""
    found: dict[tuple[Status | None, Status], set[str]] = {}
    seen: set[tuple[object, ...]] = set()
    waiting: deque[Payment] = deque()

    def visit(before: Payment | None, word: str, after: Payment) -> None:
        old = None if before is None else status_of(before)
        if old is not status_of(after):
            found.setdefault((old, status_of(after)), set()).add(word)
        key = _kind_of(after)
        small = len(after.attempts) <= ATTEMPTS_SEEN and len(after.refunds) <= REFUNDS_SEEN
        if small and not word.endswith(LATE) and key not in seen:
            seen.add(key)
            waiting.append(after)

    for word, command in _creations():
        first = _after(None, command)
        assert first is not None
        visit(None, word, first)
    while waiting:
        assert len(seen) <= PAYMENTS_SEEN_MAX, "the search does not end"
        payment = waiting.popleft()
        for word, command in _commands(payment):
            after = _after(payment, command)
            if after is not None:
                visit(payment, word, after)
    return found


def state_diagram() -> str:
    """The Mermaid text, the same for the same machine."""
    order = [None, *Status]
    found = sorted(transitions().items(), key=lambda item: (order.index(item[0][0]), order.index(item[0][1])))
    lines = [
        f"    {'[*]' if before is None else before} --> {after}: {', '.join(sorted(_grouped(words)))}"
        for (before, after), words in found
    ]
    return "\n".join(["stateDiagram-v2", *lines])


def _grouped(words: set[str]) -> list[str]:
    """`charge: no`, `authorize: no` -> `charge/authorize: no`."""
    kinds: dict[str, list[str]] = {}
    for word in words:
        kind, _, says = word.rpartition(": ")
        kinds.setdefault(says, []).append(kind)
    order = [kind.lower() for kind in Kind]
    return [
        says if kinds[says] == [""] else f"{'/'.join(sorted(kinds[says], key=order.index))} - {says}" for says in kinds
    ]


def readme_block() -> str:
    return f"{START}\n```mermaid\n{state_diagram()}\n```\n{END}"


if __name__ == "__main__":
    print(readme_block())  # noqa: T201  (that is what it is run for)

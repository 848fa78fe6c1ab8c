"""A caller's Idempotency-Key: whose it is, what it is bound to, and what that means for the next request with it.

Room: core. Pure. The key is bound to the attempt or refund that its request started in the very commit that started
it (adapters/postgres/statement.py), so that there is never one without the other. From then on:
- a final answer that was given is given again, byte for byte (`Bound.answer`): it was kept before it went out;
- what was never answered, or answered 202, is told anew from that attempt or refund, never started a second time;
- what was certainly not sent (NOT_SENT), and told to nobody as anything else, frees the key.
Sources: the IETF draft httpapi-idempotency-key-header (422, 409, replay) and Stripe's idempotent requests (the same
status and body).
"""

import hashlib
from dataclasses import dataclass, field
from typing import Protocol

from payment_service.core.errors import Refused
from payment_service.core.payment import Payment, attempt_of, refund_of, subject_of
from payment_service.core.terms import AttemptState, Kind, RefundStatus

PREFIX = "rest:"
"""Of the command ids that are made of keys: they are looked for in a table of their own."""
CREATED = "created"
REFUSED = "refused"
NOTHING = ""
"""Subjects beside an attempt or a refund: the request made the payment (or opened it again), was refused, or found
that everything was so already."""
KEPT_S = 24 * 3600.0
"""How long a key is kept from the commit that bound it (contract §3)."""


@dataclass(frozen=True, slots=True)
class RequestKey:
    """One request of one caller. Both are digests: neither the key nor the body can be read from them."""

    command_id: str
    fingerprint: str
    """Of the body: the same key with another one is a mistake of the caller."""


def request_key(by: str, method: str, path: str, key: str, body: bytes) -> RequestKey:
    """`by`: the user, or "service". `body`: in a form in which equal bodies are equal bytes."""
    # Each part is told apart from the next by its length: no two scopes make the same text.
    scope = "".join(f"{len(part)}:{part}" for part in (by, method, path, key))
    return RequestKey(
        PREFIX + hashlib.sha256(scope.encode()).hexdigest()[:32], hashlib.sha256(body).hexdigest()[:32]
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Bound:
    """What a key is bound to: one row."""

    key: RequestKey
    subject: str
    """`attempt:N` or `refund:N`, or a word from above."""
    version: int
    """Of the payment after the commit that bound it."""
    answered: bool
    """Its first request was answered, or does not wait for anything."""
    answer: bytes | None = field(default=None, repr=False)
    """The final answer, as whoever made it wrote it down."""
    age_s: float = 0.0
    """By the database's clock, when it was read."""


class AnsweredBefore(Exception):
    """There is a final answer under this key: it is the answer."""

    def __init__(self, answer: bytes) -> None:
        super().__init__("answered before")
        self.answer = answer


class KeptAnswers(Protocol):
    """The answers under keys. Every method raises Unavailable when the database is away."""

    async def find(self, key: RequestKey) -> Bound | None: ...

    async def keep(self, bound: Bound, answer: bytes | None) -> bytes | None:
        """The final answer to a request that was carried out; None: it was answered, and not for good. Returns what is
        kept now: the first one stays. None: nothing is kept."""

    async def keep_unbound(self, key: RequestKey, subject: str, payment_id: str, answer: bytes) -> bool:
        """The final answer to a request that bound its key to nothing: REFUSED, or NOTHING for what is the same however
        often it is done. False: the key is bound already, this is not its answer."""


def bind(key: RequestKey, payment: Payment, kind: Kind | None, number: int, *, made: bool, waits: bool) -> Bound:
    """`kind` and `number`: the attempt or refund that was started, or is in the way; None: there is none."""
    subject = CREATED if made else NOTHING if kind is None else subject_of(kind, number)
    return Bound(key, subject, payment.version, answered=not waits)


def check(key: RequestKey, bound: Bound) -> None:
    """Raises Refused IDEMPOTENCY_MISMATCH (422), or AnsweredBefore."""
    if bound.key.fingerprint != key.fingerprint:
        raise Refused("the key was used with another body", code="IDEMPOTENCY_MISMATCH")
    if bound.answer is not None:
        raise AnsweredBefore(bound.answer)


def number_in(bound: Bound) -> int | None:
    """Of the attempt or refund; None: it is about neither."""
    _, found, number = bound.subject.partition(":")
    return int(number) if found else None


def is_free(bound: Bound, payment: Payment) -> bool:
    """What it started was certainly never sent, and its caller has not been told to wait for it: the same request may
    start it anew. A late yes makes it anything but free: that yes is in the state (answers.py)."""
    number = number_in(bound)
    if number is None or bound.answered:
        return False
    if _is_refund(bound):
        return refund_of(payment, number).status is RefundStatus.CANCELLED
    return attempt_of(payment, number).state is AttemptState.NOT_SENT


def check_answered(bound: Bound, payment: Payment, wait_s: float) -> None:
    """Raises Refused IDEMPOTENCY_IN_PROGRESS (409) while the first request may still be waiting for the provider,
    which is no longer than `wait_s`: whatever became of its worker, then its caller has gone or was told 202."""
    number = number_in(bound)
    if number is None or bound.answered or bound.age_s >= wait_s:
        return
    if _is_refund(bound):
        waiting = refund_of(payment, number).status is RefundStatus.PENDING
    else:
        attempt = attempt_of(payment, number)
        waiting = attempt.state is AttemptState.OPEN and not attempt.accepted
    if waiting:
        raise Refused("the first request with this key is not answered yet", code="IDEMPOTENCY_IN_PROGRESS")


def _is_refund(bound: Bound) -> bool:
    return bound.subject.startswith("refund:")

"""What shoppers, shops and order services do: scripts of a few steps for one order each, and how each may end."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

AMOUNT = 30.0
MINOR = 3000


@dataclass(frozen=True, slots=True)
class Step:
    """`what`: a request of REST, an event of the order service, the shopper's yes, or waiting until all is quiet."""

    what: str
    token: str | None = None
    amount: float | None = None
    nth: int = 1
    """Of a refund: it is the n-th one. Who is not sure looks before asking again: a refund without a key is new."""


@dataclass(frozen=True, slots=True)
class Story:
    """Steps side by side stand in one tuple. `ends`: (status, captured, refunded) that are right in the end."""

    name: str
    steps: tuple[tuple[Step, ...], ...]
    ends: frozenset[tuple[str, int, int]]
    charges_orders: bool = False
    settings: Mapping[str, str] = field(default_factory=dict)


def _story(name: str, ends: set[tuple[str, int, int]], *steps: Any, charges_orders: bool = False, **env: str) -> Story:
    one_by_one = tuple(step if isinstance(step, tuple) else (step,) for step in steps)
    return Story(name, one_by_one, frozenset(ends), charges_orders, env)


CREATE, MANUAL = Step("create"), Step("create_manual")
PAY = Step("process", "tok_visa")
CANCEL, REST, APPROVE, LATER = Step("cancel"), Step("rest"), Step("approve"), Step("later")
SECURE, LOST, DROPPED = Step("process", "tok_secure"), Step("process", "tok_lost"), Step("process", "tok_dropped")
ORDERED, ORDER_CANCELLED = Step("order.created", "tok_visa"), Step("order.cancelled")
PAID, CANCELLED = ("SUCCEEDED", MINOR, 0), ("CANCELLED", 0, 0)
FAILED = ("FAILED", 0, 0)
GIVEN_BACK = ("REFUNDED", MINOR, MINOR)


def _refund(amount: float, nth: int = 1) -> Step:
    return Step("refund", amount=amount, nth=nth)


STORIES: tuple[Story, ...] = (
    _story("paid", {PAID}, CREATE, PAY),
    _story("declined_then_paid", {PAID}, CREATE, Step("process", "tok_declined"), PAY),
    _story("secure", {PAID}, CREATE, SECURE, APPROVE, REST),
    _story("secure_cancelled", {CANCELLED}, CREATE, SECURE, CANCEL),
    _story("captured", {("SUCCEEDED", 1250, 0)}, MANUAL, PAY, Step("capture", amount=12.5)),
    _story("voided", {CANCELLED}, MANUAL, PAY, CANCEL),
    # The cancellation that comes after the money was taken is refused: then it is paid.
    _story("cancelled_in_flight", {CANCELLED, GIVEN_BACK, PAID}, CREATE, (Step("process", "tok_slow"), CANCEL)),
    _story("order_cancelled_before", {CANCELLED}, ORDER_CANCELLED, ORDERED),
    _story("order_cancelled_after", {CANCELLED}, ORDERED, ORDER_CANCELLED),
    _story("order_cancelled_paid", {PAID}, ORDERED, PAY, ORDER_CANCELLED),
    _story("refunded", {GIVEN_BACK}, CREATE, PAY, _refund(10), _refund(20, nth=2)),
    # The first refund is refused while the outcome is unknown; a worker that recovered may know it by then.
    _story(
        "refund_while_unknown", {("PARTIALLY_REFUNDED", MINOR, 1000), ("PARTIALLY_REFUNDED", MINOR, 2000)},
        CREATE, LOST, _refund(10), REST, _refund(10),
    ),
    _story("order_charged", {PAID}, ORDERED, REST, charges_orders=True),
    _story("order_declined", {FAILED}, Step("order.created", "tok_declined"), REST, charges_orders=True),
    _story(
        "order_charged_and_cancelled", {CANCELLED, GIVEN_BACK, PAID},
        Step("order.created", "tok_slow"), ORDER_CANCELLED, REST, charges_orders=True,
    ),
    _story("answer_lost", {PAID}, CREATE, LOST, REST),
    _story("request_lost", {PAID}, CREATE, DROPPED, REST),
    _story("capture_lost", {("SUCCEEDED", 1213, 0)}, MANUAL, PAY, Step("capture", amount=12.13), REST),
    _story("refund_lost", {("PARTIALLY_REFUNDED", MINOR, 313)}, CREATE, PAY, _refund(3.13), REST),
    _story("refund_dropped", {("PARTIALLY_REFUNDED", MINOR, 317)}, CREATE, PAY, _refund(3.17), REST),
    _story("secure_expired", {FAILED}, CREATE, SECURE, LATER, REST),
    _story("secure_too_late", {FAILED, PAID}, CREATE, SECURE, LATER, (REST, APPROVE), REST),
    # Nothing is sent again once the window is over: what was not done is cancelled at the provider, what was is found.
    _story("given_up", {FAILED}, CREATE, DROPPED, REST, RESEND_WINDOW_S="0"),
    _story("given_up_then_paid", {PAID}, CREATE, DROPPED, REST, PAY, RESEND_WINDOW_S="0"),
    _story("found_late", {PAID}, CREATE, LOST, REST, RESEND_WINDOW_S="0"),
    _story("held_and_given_up", {FAILED}, MANUAL, DROPPED, REST, RESEND_WINDOW_S="0"),
)  # fmt: skip

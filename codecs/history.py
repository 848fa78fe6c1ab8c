"""A payment's stored history -> what it published last.

Room: codecs.
"""

from collections.abc import Iterable, Iterator

from payment_service.codecs.events import decode_event
from payment_service.codecs.published import encode_published
from payment_service.core.facts import apply
from payment_service.core.payment import Payment
from payment_service.core.ports import Step

StoredRow = tuple[int, int | None, str, bytes]
"""Version, sequence (None: internal), type and data, as in `payment_events`."""


def published_steps(payment_id: str, rows: Iterable[StoredRow]) -> Iterator[Step]:
    """What the payment has published, in order. `rows` in the order of versions. Raises Malformed."""
    payment: Payment | None = None
    for version, sequence, type_name, data in rows:
        event = decode_event(type_name, data)
        payment, topic = apply(payment, event, payment_id)
        if sequence is not None and topic is not None:
            yield Step(event, version, sequence, topic, payment)


def last_published(payment_id: str, rows: Iterable[StoredRow]) -> bytes | None:
    """The value of the payment's last published message, as it was sent.

    None: it has published nothing. Raises Malformed.
    """
    last: Step | None = None
    for step in published_steps(payment_id, rows):
        last = step
    return None if last is None else encode_published(last)

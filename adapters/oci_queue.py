"""A queue of OCI Queue by the SDK: blocking calls, for a thread of their own.

Room: adapters. At least once, in no order. A message that was handed out is out of others' sight until its visibility
ends, then it comes again with one delivery more; the queue moves it to its own dead letters when it was delivered more
often than the queue allows.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from payment_service.adapters.oci_sign_on import OciSignOn, asked

GET_MAX = 20
"""Messages of one answer; OCI hands out no more."""
POLL_S = 10
"""How long OCI waits for a first message. Shorter than a worker's drain, which waits for the poll to end."""
VISIBILITY_S = 60
READ_S = POLL_S + 10.0


@dataclass(frozen=True, slots=True)
class QueueMessage:
    id: int
    content: str = field(repr=False)
    receipt: str = field(repr=False)
    deliveries: int
    """1: for the first time."""
    properties: Mapping[str, str] = field(repr=False)


@dataclass(frozen=True, slots=True)
class QueueDepth:
    visible: int
    in_flight: int
    dead: int
    """In the queue's own dead letters, where nothing of ours should come."""


@dataclass(frozen=True, slots=True)
class QueuePlace:
    """`deliveries_max`: how often the queue hands a message out before it gives up; 0: for ever, None: not known."""

    endpoint: str
    deliveries_max: int | None


def find_queue(
    sign_on: OciSignOn, queue_id: str, endpoint: str | None, admin_endpoint: str | None = None
) -> QueuePlace:
    """Where its messages are. Asks nobody when the endpoint is given. Raises: Unavailable, OciRefused."""
    if endpoint is not None:
        return QueuePlace(endpoint, None)
    import oci

    admin = sign_on.client(oci.queue.QueueAdminClient, admin_endpoint)
    queue = asked(lambda: admin.get_queue(queue_id), "show the queue of OCI_QUEUE_ID").data
    return QueuePlace(queue.messages_endpoint, queue.dead_letter_queue_delivery_count)


class OciQueue:
    """One client, for one thread. Every method blocks, and raises Unavailable or OciRefused."""

    def __init__(self, sign_on: OciSignOn, queue_id: str, endpoint: str) -> None:
        import oci

        self._oci = oci
        self._client = sign_on.client(oci.queue.QueueClient, endpoint, READ_S)
        self._queue_id = queue_id

    def get(self) -> Sequence[QueueMessage]:
        """What there is, at most GET_MAX; waits POLL_S for the first."""
        answer = asked(
            lambda: self._client.get_messages(
                self._queue_id, visibility_in_seconds=VISIBILITY_S, timeout_in_seconds=POLL_S, limit=GET_MAX
            ),
            "hand out messages",
        )
        return [_message(it) for it in answer.data.messages or ()]

    def delete(self, receipts: Sequence[str]) -> int:
        """How many were not deleted: they come again."""
        models = self._oci.queue.models
        entries = [models.DeleteMessagesDetailsEntry(receipt=it) for it in receipts]
        details = models.DeleteMessagesDetails(entries=entries)
        return _failed(asked(lambda: self._client.delete_messages(self._queue_id, details), "delete messages").data)

    def hold(self, receipts: Sequence[str], seconds: int) -> int:
        """Out of others' sight for so long from now; 0 gives them back. How many were not."""
        models = self._oci.queue.models
        entries = [models.UpdateMessagesDetailsEntry(receipt=it, visibility_in_seconds=seconds) for it in receipts]
        details = models.UpdateMessagesDetails(entries=entries)
        return _failed(asked(lambda: self._client.update_messages(self._queue_id, details), "hold messages").data)

    def depth(self) -> QueueDepth:
        stats = asked(lambda: self._client.get_stats(self._queue_id), "tell its depth").data
        dead = stats.dlq.visible_messages if stats.dlq is not None else 0
        return QueueDepth(stats.queue.visible_messages or 0, stats.queue.in_flight_messages or 0, dead or 0)


def _message(it: Any) -> QueueMessage:
    properties = it.metadata.custom_properties if it.metadata is not None else None
    return QueueMessage(int(it.id), it.content or "", it.receipt, int(it.delivery_count or 1), properties or {})


def _failed(result: Any) -> int:
    return sum(1 for entry in result.entries or () if entry.error_code is not None)

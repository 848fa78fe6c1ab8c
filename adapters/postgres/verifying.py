"""Whether a payment's stored history is what we wrote: its audit chain, its numbers, and the row that follows from it.

Room: adapters/postgres. Pure.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from payment_service.adapters.audit_chain import next_hash
from payment_service.codecs.events import decode_event
from payment_service.codecs.state import decode_state
from payment_service.core.errors import Malformed
from payment_service.core.facts import fold


@dataclass(frozen=True, slots=True)
class StoredHistory:
    """One snapshot. `state`, `head` and `version` are of the payment's row, None when there is none."""

    payment_id: str
    state: str | None
    head: bytes | None
    version: int | None
    events: list[tuple[int, int | None, str, bytes, bytes]]
    """version, sequence, type, data, hash."""


def history_of(payment_id: str, row: Sequence[Any]) -> StoredHistory:
    """From what the queries `history` and `histories` give."""
    state, head, version, versions, sequences, types, data, hashes = row
    return StoredHistory(
        payment_id, state, bytes(head) if head is not None else None, version,
        [
            (v, s, t, bytes(d), bytes(h))
            for v, s, t, d, h in zip(versions, sequences, types, data, hashes, strict=True)
        ],
    )  # fmt: skip


def problems_of(keys: Sequence[bytes], stored: StoredHistory) -> list[str]:
    """Every way in which it does not fit, in words; empty when it does. `keys`: the present one, then older ones."""
    problems: list[str] = []
    head, sequence_before = b"", 0
    for expected, (version, sequence, type_name, data, digest) in enumerate(stored.events, start=1):
        if version != expected:
            problems.append(f"version {expected} is missing: {version} comes next")
            break
        if sequence is not None:
            if sequence != sequence_before + 1:
                problems.append(f"version {version}: published as {sequence} after {sequence_before}")
            sequence_before = sequence
        place = (stored.payment_id, version, sequence, type_name, data)
        if all(digest != next_hash(key, head, *place) for key in keys):
            problems.append(f"version {version}: its hash does not fit")
        head = digest
    if stored.state is None:
        if stored.events:
            problems.append("the payment's row is missing")
        return problems
    if stored.version != len(stored.events):
        problems.append(f"the row is of version {stored.version}, the history has {len(stored.events)} events")
    if stored.head != head:
        problems.append("the row's chain head is not the last hash")
    if not problems and not _follows(stored):
        problems.append("the row's state does not follow from its history")
    return problems


def _follows(stored: StoredHistory) -> bool:
    assert stored.state is not None
    try:
        events = [decode_event(type_name, data) for _, _, type_name, data, _ in stored.events]
        return fold(stored.payment_id, events) == decode_state(stored.state)
    except Malformed:
        return False

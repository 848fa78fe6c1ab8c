"""The auditor's checks of what was told to the world, and of the chain over what is stored."""

import hmac
import json
from collections import defaultdict
from collections.abc import Iterator
from hashlib import sha256

from crash.auditor_evidence import Evidence, Row, Violation

Place = tuple[str, int]
"""Payment and sequence."""


def _told(evidence: Evidence) -> Iterator[tuple[Place, Row, Row]]:
    """(place, event, message) of every delivery in the payment.* topics."""
    for message in evidence.messages:
        if message["topic"].startswith("payment."):
            event = json.loads(message["value"].encode("latin-1"))
            yield (event["data"]["paymentId"], event["sequence"]), event, message


def changed_events(evidence: Evidence) -> Iterator[Violation]:
    """The same id and content however often it is delivered; one id is one event."""
    first: dict[Place, Row] = {}
    ids: dict[str, Place] = {}
    for place, event, message in _told(evidence):
        before = first.setdefault(place, message)
        for name in ("topic", "key", "value", "headers"):
            if message[name] != before[name]:
                yield Violation("event changed", place[0], f"event {place[1]}: its {name} differs between deliveries")
        if ids.setdefault(event["id"], place) != place:
            yield Violation("event changed", place[0], f"the id {event['id']} is two events")
        headers = dict(message["headers"])
        if headers.get("ce_id") != event["id"] or message["key"] != place[0] or event["eventType"] != message["topic"]:
            yield Violation("event changed", place[0], f"event {place[1]}: key, headers and value disagree")


def lost_events(evidence: Evidence) -> Iterator[Violation]:
    """Sequences are 1..n of the row without holes: in the stored events and in the topics."""
    stored: dict[str, list[int]] = defaultdict(list)
    for row in evidence.table("payment_events"):
        if row["sequence"] is not None:
            stored[row["payment_id"]].append(row["sequence"])
    heard: dict[str, set[int]] = defaultdict(set)
    for (payment_id, sequence), _, _ in _told(evidence):
        heard[payment_id].add(sequence)
    waiting = {(row["payment_id"], row["sequence"]) for row in evidence.table("outbox")}
    for payment_id, row in evidence.payments.items():
        numbers = list(range(1, row["sequence"] + 1))
        if sorted(stored[payment_id]) != numbers:
            yield Violation("sequence", payment_id, f"stored are {stored[payment_id]}, the row says {row['sequence']}")
        lost = [it for it in numbers if it not in heard[payment_id] and (payment_id, it) not in waiting]
        if lost:
            yield Violation("event lost", payment_id, f"never published: {lost}")
    for payment_id in heard:
        extra = heard[payment_id] - set(stored[payment_id])
        if extra:
            yield Violation("event of nothing", payment_id, f"published but not stored: {sorted(extra)}")


def disorder(evidence: Evidence) -> Iterator[Violation]:
    """First deliveries: in order within a partition, and none written before the one that precedes it."""
    first_ms: dict[Place, int] = {}
    newest: dict[tuple[str, int, str], int] = defaultdict(int)
    known: set[Place] = set()
    told = sorted(_told(evidence), key=lambda it: (it[2]["topic"], it[2]["partition"], it[2]["offset"]))
    for place, _, message in told:
        payment_id, sequence = place
        here = message["topic"], message["partition"], payment_id
        if place not in known and sequence < newest[here]:
            yield Violation("disorder", payment_id, f"event {sequence} comes after {newest[here]}")
        known.add(place)
        newest[here] = max(newest[here], sequence)
        first_ms[place] = min(first_ms.get(place, message["at_ms"]), message["at_ms"])
    for (payment_id, sequence), at_ms in first_ms.items():
        before = first_ms.get((payment_id, sequence - 1))
        if before is not None and before > at_ms:
            yield Violation("disorder", payment_id, f"event {sequence} was written before {sequence - 1}")


def last_words(evidence: Evidence) -> Iterator[Violation]:
    """Money never changes in silence: the newest event says what the row and the ledger say; each says what it is."""
    newest: dict[str, Row] = {}
    taken: dict[str, int] = defaultdict(int)
    seen: set[Place] = set()
    for place, event, _ in _told(evidence):
        if place in seen:
            continue
        seen.add(place)
        data = event["data"]
        if place[1] >= newest.get(place[0], event)["sequence"]:
            newest[place[0]] = event
        if event["eventType"] == "payment.processed" and data["status"] != "AUTHORIZED":
            taken[place[0]] += 1
        if data["amounts"]["captured"] > evidence.purse(place[0]).captured:
            yield Violation(
                "told the world", place[0], f"event {place[1]} says {data['amounts']}, the ledger denies it"
            )
    for payment_id, count in taken.items():
        if count > 1:
            yield Violation("told the world", payment_id, f"{count} events say that its money was taken")
    for payment_id, event in newest.items():
        row, amounts = evidence.payments.get(payment_id), event["data"]["amounts"]
        if row is None:
            continue
        for bucket in ("authorized", "captured", "refunded", "disputed"):
            if amounts[bucket] != row[bucket]:
                text = f"{bucket} is {row[bucket]}, the newest event says {amounts[bucket]}"
                yield Violation("told the world", payment_id, text)
        for name, column in (("amountMinor", "amount_minor"), ("currency", "currency"), ("orderId", "order_id")):
            if event["data"][name] != row[column]:
                yield Violation(
                    "told the world", payment_id, f"{name} is {row[column]}, told was {event['data'][name]}"
                )


def chain_key(encryption_key: bytes) -> bytes:
    """RFC 5869 with SHA-256, no salt, one block."""
    drawn = hmac.digest(b"\0" * 32, encryption_key, "sha256")
    return hmac.digest(drawn, b"payment-service audit chain\x01", sha256)


def broken_chains(evidence: Evidence) -> Iterator[Violation]:
    """HMAC-SHA256 over the hash before it, then payment, version, sequence and type on lines, then the stored bytes;
    the first comes after 32 zero bytes, the last one is kept in the row."""
    key = chain_key(str(evidence.begin.get("encryption_key", "")).encode())
    stored: dict[str, list[Row]] = defaultdict(list)
    for row in evidence.table("payment_events"):
        stored[row["payment_id"]].append(row)
    for payment_id in stored.keys() - evidence.payments.keys():
        yield Violation("chain", payment_id, "events without a payment")
    for payment_id, row in evidence.payments.items():
        head = b"\0" * 32
        events = sorted(stored[payment_id], key=lambda it: int(it["version"]))
        if [it["version"] for it in events] != list(range(1, row["version"] + 1)):
            yield Violation("chain", payment_id, f"{len(events)} events, the row says version {row['version']}")
        for event in events:
            place = f"{payment_id}\n{event['version']}\n{event['sequence']}\n{event['type']}\n"
            head = hmac.digest(key, head + place.encode() + bytes.fromhex(event["data"]), "sha256")
            if head.hex() != event["hash"]:
                yield Violation("chain", payment_id, f"breaks at version {event['version']}")
                break
        else:
            if head.hex() != row["chain_head"]:
                yield Violation("chain", payment_id, "its head is not the last event's")


def broken_audit_log(evidence: Evidence) -> Iterator[Violation]:
    """One chain for each process, numbered from 1: HMAC-SHA256 over the hash before it, then `audit`, chain and number
    on lines, then the entry's text. A process that was killed leaves its chain unclosed, never broken."""
    key = chain_key(str(evidence.begin.get("encryption_key", "")).encode())
    chains: dict[str, list[Row]] = defaultdict(list)
    for row in evidence.table("audit_log"):
        chains[row["chain"]].append(row)
    for chain, rows in chains.items():
        head = b"\0" * 32
        for number, row in enumerate(sorted(rows, key=lambda it: int(it["number"])), 1):
            place = f"audit\n{chain}\n{number}\n"
            head = hmac.digest(key, head + place.encode() + str(row["entry"]).encode(), "sha256")
            if row["number"] != number or head.hex() != row["hash"]:
                yield Violation("audit log", chain, f"breaks at number {number}")
                break


CHECKS = (changed_events, lost_events, disorder, last_words, broken_chains, broken_audit_log)

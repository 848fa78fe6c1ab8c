"""The auditor: what the provider moved, what the clients were told and what was published, against PostgreSQL.

It reads the journal and the rows, knows the contract, and imports nothing of the service.
"""

import json
from collections import Counter, defaultdict
from collections.abc import Iterator
from typing import Any

import psycopg2

Rows = list[tuple[Any, ...]]
OPEN_CALLS = ("PENDING", "UNKNOWN")


class Auditor:
    """Of one run: one order, its payment and everything of it. `at_rest()` and `at_the_end()` give what is wrong."""

    def __init__(self, database: Any, lines: list[dict[str, Any]], order_id: str) -> None:
        self._database = database
        self._lines = lines
        self._order_id = order_id
        self._payments = self._rows(
            "select id, status, captured, refunded, refund_pending, version, sequence, amount_minor, needs_review"
            " from payment_service.payments where order_id = %s"
        )

    @property
    def found(self) -> bool:
        return bool(self._payments)

    def at_rest(self) -> list[str]:
        """After everybody recovered and nothing moves any more."""
        accepted = [
            line for line in self._lines
            if line["line"] == "told" and line["what"].startswith(("create", "order.")) and "error" not in line
        ]  # fmt: skip
        if len(self._payments) > 1 or (accepted and not self._payments):
            return [f"the order has {len(self._payments)} payments"]
        if not self._payments:
            return list(self._ledger_alone())
        return [*self._ledger_alone(), *self._row(), *self._calls(), *self._history(), *self._told()]

    def at_the_end(self, ends: frozenset[tuple[str, int, int]] | None) -> list[str]:
        """When the client has done all of its script, too."""
        if not self._payments:
            return ["the order has no payment in the end"]
        _, status, captured, refunded, *_ = self._payments[0]
        wrong = self.at_rest()
        if ends is not None and (status, captured, refunded) not in ends:
            wrong.append(f"it ends as {(status, captured, refunded)}, which is none of {sorted(ends)}")
        return wrong

    # --- the ledger ----------------------------------------------------------------------------------------------

    def _moved(self, *kinds: str, until: int | None = None) -> int:
        lines = self._lines[:until]
        return sum(it["amount_minor"] for it in lines if it["line"] == "movement" and it["kind"] in kinds)

    def _held(self) -> bool:
        """The last word of some object is an authorization."""
        last = {
            it["object_id"]: it["kind"] for it in self._lines if it["line"] == "movement" and it["kind"] != "refund"
        }
        return "authorize" in last.values()

    def _ledger_alone(self) -> Iterator[str]:
        keys = Counter(it["key"] for it in self._lines if it["line"] == "movement" and it["key"] is not None)
        yield from (f"the key {key} moved money {count} times" for key, count in keys.items() if count > 1)
        takings = Counter(it["kind"] for it in self._lines if it["line"] == "movement")
        for kind in ("charge", "authorize", "capture"):
            if takings[kind] > 1:
                yield f"{takings[kind]} times: {kind}"
        if self._moved("refund") > self._moved("charge", "capture"):
            yield "more was given back than taken"
        if not self._payments and takings:
            yield "money moved for an order without a payment"

    # --- the rows ------------------------------------------------------------------------------------------------

    def _rows(self, query: str) -> Rows:
        with self._database.cursor() as cursor:
            cursor.execute(query, (self._order_id,))
            return list(cursor.fetchall())

    def _row(self) -> Iterator[str]:
        _, status, captured, refunded, pending, _, _, amount, review = self._payments[0]
        taken, given = self._moved("charge", "capture"), self._moved("refund")
        if (captured, refunded) != (taken, given):
            yield f"the row says {captured} taken and {refunded} given back, the ledger {taken} and {given}"
        if captured > amount or refunded + pending > captured:
            yield f"{captured} captured of {amount}, {refunded} + {pending} refunded"
        if (status == "AUTHORIZED") != self._held():
            yield f"the row is {status}, the ledger {'holds' if self._held() else 'does not hold'} money"
        if status == "CANCELLED" and taken != given:
            yield f"it is CANCELLED with {taken} taken and {given} given back"
        if status in ("PROCESSING", "UNKNOWN"):
            yield f"it is still {status}"
        if review:
            yield "somebody must look at it, though the provider always told the truth"

    def _calls(self) -> Iterator[str]:
        """Every intent is settled; only a shopper may be waited for. What is settled keeps no request."""
        waits = self._payments[0][1] == "REQUIRES_ACTION"
        for key, status, due, has_request in self._rows(
            "select t.provider_key, t.status, t.due_at is not null, t.request is not null"
            " from payment_service.transactions t join payment_service.payments p on p.id = t.payment_id"
            " where p.order_id = %s"
        ):
            if (status in OPEN_CALLS) != due or (status in OPEN_CALLS and not waits):
                yield f"the call {key} is {status}"
            if has_request and status not in OPEN_CALLS:
                yield f"the settled call {key} still keeps its request"
        for number, status in self._rows(
            "select r.number, r.status from payment_service.refunds r"
            " join payment_service.payments p on p.id = r.payment_id where p.order_id = %s"
        ):
            if status not in ("COMPLETED", "FAILED", "CANCELLED"):
                yield f"refund {number} is {status}"

    def _history(self) -> Iterator[str]:
        payment_id, *_, version, sequence, _, _ = self._payments[0]
        events = self._rows(
            "select e.version, e.sequence from payment_service.payment_events e"
            " join payment_service.payments p on p.id = e.payment_id where p.order_id = %s order by e.version"
        )
        if [it[0] for it in events] != list(range(1, version + 1)):
            yield f"the versions of {payment_id} have holes: {events}"
        stored = [it[1] for it in events if it[1] is not None]
        if stored != list(range(1, sequence + 1)):
            yield f"the sequences of {payment_id} have holes: {events}"
        waiting = self._rows(
            "select o.sequence from payment_service.outbox o"
            " join payment_service.payments p on p.id = o.payment_id where p.order_id = %s"
        )
        if waiting:
            yield f"the events {waiting} wait in the outbox"
        yield from self._published(payment_id, stored)

    def _published(self, payment_id: str, stored: list[int]) -> Iterator[str]:
        """At least once each, first deliveries in order, and the same however often."""
        first: dict[int, dict[str, Any]] = {}
        ids: dict[str, set[int]] = defaultdict(set)
        for line in self._lines:
            if line["line"] != "published" or line["key"] != payment_id:
                continue
            event = json.loads(line["value"])
            sequence = event["sequence"]
            ids[event["id"]].add(sequence)
            if sequence not in first:
                if sequence != len(first) + 1:
                    yield f"event {sequence} was published before event {len(first) + 1}"
                first[sequence] = line
            elif _message(first[sequence]) != _message(line):
                yield f"event {sequence} changed between two deliveries"
        if sorted(first) != stored:
            yield f"published are the events {sorted(first)}, stored are {stored}"
        if any(len(sequences) > 1 for sequences in ids.values()):
            yield "one id for two events"

    # --- what the clients were told --------------------------------------------------------------------------------

    def _told(self) -> Iterator[str]:
        asked_at: dict[tuple[int, str], int] = {}
        completed = 0
        for place, line in enumerate(self._lines):
            if line["line"] == "asked":
                asked_at[line["by"], line["step"]] = place
            elif line["line"] == "told":
                if line.get("refund") and line["refund"]["status"] == "COMPLETED":
                    completed += line["refund"]["amount_minor"]
                yield from self._denied(line, place, asked_at[line["by"], line["step"]])
        if completed > self._moved("refund"):
            yield f"clients were told of refunds of {completed}, the ledger gave {self._moved('refund')}"

    def _denied(self, line: dict[str, Any], place: int, asked_at: int) -> Iterator[str]:
        """One answer against the ledger as it was then; what was final, also against how it is now."""
        said = f"step {line['step']} ({line['what']})"
        between = [
            it for it in self._lines[asked_at:place] if it["line"] == "movement" and it["by"] == line["by"]
        ]  # fmt: skip
        if line.get("error") == "PROVIDER_UNAVAILABLE" and between:
            yield f"{said} was told that nothing was sent, and money moved: {between}"
        if "captured" not in line:
            return
        taken, given = self._moved("charge", "capture", until=place), self._moved("refund", until=place)
        if line["captured"] > taken or line["refunded"] > given:
            yield f"{said} was told of {line['captured']}/{line['refunded']}, the ledger had {taken}/{given}"
        if line["status"] == "AUTHORIZED" and not self._moved("authorize", until=place):
            yield f"{said} was told AUTHORIZED, and nothing is"
        if line["status"] == "CANCELLED" and self._moved("charge", "capture") != self._moved("refund"):
            yield f"{said} was told CANCELLED, and the money is kept"
        if line["declined"] and not any(_is_no(it) for it in self._lines[:place]):
            yield f"{said} was told no, and nobody said so"


def _is_no(line: dict[str, Any]) -> bool:
    """The provider's no, or that what was not done was cancelled there."""
    if line["line"] == "movement":
        return bool(line["kind"] == "void")
    return bool(line["line"] == "answer" and line["answer"]["verdict"] == "DECLINED")


def _message(line: dict[str, Any]) -> tuple[Any, ...]:
    return line["topic"], line["value"], line["headers"]


def connect(url: str) -> Any:
    database = psycopg2.connect(url)
    database.autocommit = True
    return database

"""Millions of stored payments by COPY, each as the service leaves it: what it made of a few orders, under other ids.

A story is one real payment (its rows, events, marks and audit entries as read from the database); every further one
has its own ids, user, amount and times, and chains of its own with the right hashes. They come in the order of their
time, so that tables and indexes lie as they would after a year of work: nothing is built anew behind the rows.
"""

import io
import re
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg2

from payment_service.adapters.audit_chain import next_audit_hash, next_hash
from payment_service.adapters.postgres.idempotency import answer_place
from payment_service.adapters.postgres.webhooks import body_place
from payment_service.core.ids import payment_id_of
from payment_service.core.ports import Cipher

USER, AMOUNT_MINOR = "story-user", 7_654_321
"""What every story has, so that it is found in its texts."""
BATCH = 10_000
"""Payments in one COPY of each table; one batch is written while the next one is made."""
YEAR = timedelta(days=365)
INBOX_KEPT, WEBHOOKS_KEPT, KEYS_KEPT = timedelta(days=29), timedelta(days=29), timedelta(hours=23)
"""Rows that leave by age are there for the time that they stay, a little less: nothing leaves while it is measured."""
HEAVY_USER, HEAVY_EVERY = "user-heavy", 100
PAYMENTS_OF_A_USER = 10
CHAIN = "bench:1"
WEBHOOK_BODY = b'{"type":"charge.succeeded","data":"%s"}' % (b"x" * 400)
ANSWER = b'{"success":true,"data":"%s"}' % (b"x" * 600)
WEBHOOK_COLUMNS = (
    "provider, event_id, type, status, payment_id, object_id, body, created_at, received_at, since,"
    " due_at, tries, updated_at"
)
OLD_WEBHOOKS = f"payment_webhooks (id, {WEBHOOK_COLUMNS})"
NEW_WEBHOOKS = f"payment_webhooks ({WEBHOOK_COLUMNS})"
TABLES = ("payments", "payment_events", "transactions", "refunds", "inbox", "idempotency_keys", "audit_log")

Words = list[Any]
"""Of one payment, by position: HEX, ORDER, USER_ID, AMOUNT, TAG, HEAD."""
HEX, ORDER, USER_ID, AMOUNT, TAG, HEAD, MS, STAMP, RFC3339 = range(9)


def _stamp(at_ms: int) -> str:
    return datetime.fromtimestamp(at_ms / 1000, UTC).isoformat(sep=" ")


def _rfc3339(at_ms: int) -> str:
    return datetime.fromtimestamp(at_ms / 1000, UTC).isoformat(timespec="milliseconds")[:-6] + "Z"


class Text:
    """A text of a story, ready to be told of another payment."""

    def __init__(self, text: str, story: "Story") -> None:
        known = {
            story.hex: HEX, story.order_id: ORDER, USER: USER_ID, str(AMOUNT_MINOR): AMOUNT, story.head.hex(): HEAD,
        }  # fmt: skip
        pattern = "|".join([
            *(f"(?P<w{code}>{re.escape(word)})" for word, code in known.items()),
            r"(?<=mock_pi_)(?P<tag>\w+)|(?<=mock_ch_)(?P<tag2>\w+)",
            r"(?P<ms>(?<!\d)1[6-9]\d{11}(?!\d))",
            r"(?P<stamp>\d{4}-\d\d-\d\d \d\d:\d\d:\d\d(?:\.\d+)?\+00)",
            r"(?P<rfc>\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d+Z)",
        ])  # fmt: skip
        self.pieces: list[tuple[int, int]] = []
        parts, end = [], 0
        for found in re.finditer(pattern, text):
            parts.append(text[end : found.start()].replace("%", "%%"))
            self.pieces.append(_piece(found, story.created_ms))
            end = found.end()
        self.format = "%s".join([*parts, text[end:].replace("%", "%%")])

    def told(self, words: Words, created_ms: int) -> str:
        return self.format % tuple([
            words[code] if code < MS
            else created_ms + after if code == MS
            else (_stamp if code == STAMP else _rfc3339)(created_ms + after)
            for code, after in self.pieces
        ])  # fmt: skip


def _piece(found: "re.Match[str]", created_ms: int) -> tuple[int, int]:
    name, text = str(found.lastgroup), found.group()
    if name.startswith("w"):
        return int(name[1:]), 0
    if name.startswith("tag"):
        return TAG, 0
    if name == "ms":
        return MS, int(text) - created_ms
    at = datetime.fromisoformat(text if name == "rfc" else text + ":00")
    return (RFC3339 if name == "rfc" else STAMP), round(at.timestamp() * 1000) - created_ms


@dataclass(slots=True)
class Story:
    """One payment that the service really made. `share`: of all stored ones."""

    share: float
    hex: str
    order_id: str
    created_ms: int
    head: bytes
    rows: dict[str, list[Text]] = field(default_factory=dict)
    events: list[tuple[int, int | None, str, Text, Text]] = field(default_factory=list)
    """version, sequence, type, time, data"""
    audit: list[Text] = field(default_factory=list)
    charged: bool = False


def read_story(dsn: str, order_id: str, share: float) -> Story:
    payment_id = payment_id_of(order_id)
    with closing(psycopg2.connect(dsn, options="-c timezone=UTC")) as connection, connection.cursor() as cursor:
        cursor.execute(
            "select (extract(epoch from created_at) * 1000)::bigint, chain_head, captured"
            " from payment_service.payments where id = %s", (payment_id,),
        )  # fmt: skip
        ((created_ms, head, captured),) = cursor.fetchall()
        story = Story(share, payment_id.removeprefix("pay_"), order_id, created_ms, bytes(head), charged=captured > 0)
        for table in TABLES[:5]:
            if table == "payment_events":
                continue
            column = "id" if table == "payments" else "payment_id"
            written = io.StringIO()
            cursor.copy_expert(
                f"copy (select * from payment_service.{table} where {column} = '{payment_id}') to stdout", written
            )
            story.rows[table] = [Text(line, story) for line in written.getvalue().splitlines()]
        cursor.execute(
            "select version, sequence, type, at::text, convert_from(data, 'UTF8') from payment_service.payment_events"
            " where payment_id = %s order by version", (payment_id,),
        )  # fmt: skip
        for version, sequence, kind, at, data in cursor.fetchall():
            story.events.append((version, sequence, kind, Text(at, story), Text(data, story)))
        cursor.execute(
            "select entry::text from payment_service.audit_log where entry ->> 'paymentId' = %s order by number",
            (payment_id,),
        )
        story.audit = [Text(entry, story) for (entry,) in cursor.fetchall()]
    return story


class Loader:
    """Limits: BATCH payments in memory twice."""

    def __init__(self, dsn: str, stories: Sequence[Story], cipher: Cipher, chain_key: bytes, size: int) -> None:
        self._dsn = dsn
        self._cipher = cipher
        self._key = chain_key
        self._size = size
        self._by_hundred = [story for story in stories for _ in range(round(story.share * 100))]
        self._until = datetime.now(UTC) - timedelta(hours=1)
        self._audit_number, self._audit_head = 0, b""

    def load(self, progress: Callable[[int], None]) -> None:
        with ThreadPoolExecutor(1) as writer, closing(psycopg2.connect(self._dsn)) as connection:
            connection.cursor().execute("set synchronous_commit = off")
            writing: Future[None] | None = None
            for done, rows in self._batches():
                if writing is not None:
                    writing.result()
                writing = writer.submit(_copy, connection, rows)
                progress(done)
            if writing is not None:
                writing.result()

    def _batches(self) -> Iterator[tuple[int, dict[str, list[str]]]]:
        for first in range(0, self._size, BATCH):
            rows: dict[str, list[str]] = {}
            last = min(first + BATCH, self._size)
            for number in range(first, last):
                self._tell(number, rows)
            yield last, rows

    def place(self, number: int) -> tuple[str, str, datetime]:
        """(order id, user, time) of a stored payment."""
        users = max(1, self._size // PAYMENTS_OF_A_USER)
        user = HEAVY_USER if number % HEAVY_EVERY == 0 else f"user-{number * 2_654_435_761 % users}"
        return f"stored-{number}", user, self._until - YEAR * (1 - number / self._size)

    def _tell(self, number: int, rows: dict[str, list[str]]) -> None:
        story = self._by_hundred[number * 61 % len(self._by_hundred)]
        order_id, user, at = self.place(number)
        created_ms, payment_id = int(at.timestamp() * 1000), payment_id_of(order_id)
        name = payment_id[4:]
        words: Words = [name, order_id, user, 500 + number * 7919 % 200_000, name[:24], ""]
        head, events = b"", rows.setdefault("payment_events", [])
        for version, sequence, kind, when, text in story.events:
            data = text.told(words, created_ms).encode()
            head = next_hash(self._key, head, payment_id, version, sequence, kind, data)
            shown = "\\N" if sequence is None else sequence
            moment = when.told(words, created_ms)
            events.append(f"{payment_id}\t{version}\t{shown}\t{kind}\t{moment}\t\\\\x{data.hex()}\t\\\\x{head.hex()}")
        words[HEAD] = head.hex()
        for table, texts in story.rows.items():
            if table != "inbox" or at > self._until - INBOX_KEPT:
                rows.setdefault(table, []).extend([text.told(words, created_ms) for text in texts])
        for text in story.audit:
            self._audited(text.told(words, created_ms), rows.setdefault("audit_log", []))
        self._leaving(story, words, payment_id, at, rows)

    def _audited(self, entry: str, lines: list[str]) -> None:
        self._audit_number += 1
        self._audit_head = next_audit_hash(
            self._key, self._audit_head, CHAIN, self._audit_number, entry.encode()
        )  # fmt: skip
        escaped = entry.replace("\\", "\\\\")
        lines.append(f"{CHAIN}\t{self._audit_number}\t{escaped}\t\\\\x{self._audit_head.hex()}")

    def _leaving(
        self, story: Story, words: Words, payment_id: str, at: datetime, rows: dict[str, list[str]]
    ) -> None:  # fmt: skip
        """The mark of its order, the event of its provider and the key of its caller, where they are not too old."""
        moment = at.isoformat(sep=" ")
        if at > self._until - INBOX_KEPT:
            rows.setdefault("inbox", []).append(f"order.created:{words[ORDER]}:{words[HEX]}\t{payment_id}\t{moment}")
        if at > self._until - KEYS_KEPT:
            command = f"rest:{words[HEX]}{words[HEX]}"
            answer = self._cipher.seal(ANSWER, answer_place(command)).hex()
            rows.setdefault("idempotency_keys", []).append(
                f"{command}\t{payment_id}\t{words[HEX]}\tcreated\t1\tt\t\\\\x{answer}\t{moment}"
            )
        if story.charged and at > self._until - WEBHOOKS_KEPT:
            event = f"evt_{words[HEX]}"
            body = self._cipher.seal(WEBHOOK_BODY, body_place("MOCK", event)).hex()
            rows.setdefault(NEW_WEBHOOKS, []).append(
                f"MOCK\t{event}\tcharge.succeeded\tPROCESSED\t{payment_id}\tmock_pi_{words[TAG]}\t\\\\x{body}"
                f"\t{moment}\t{moment}\t{moment}\t\\N\t1\t{moment}"
            )


def _copy(connection: Any, rows: dict[str, list[str]]) -> None:
    with connection.cursor() as cursor:
        for table, lines in rows.items():
            if lines:
                text = io.StringIO("\n".join(lines) + "\n")
                cursor.copy_expert(f"copy payment_service.{table} from stdin", text)
    connection.commit()


def add_old_rows(dsn: str, inbox: int, webhooks: int, keys: int, cipher: Cipher) -> None:
    """As many more that are too old to stay; webhooks with ids before all others, since they came before them."""
    now = datetime.now(UTC)
    old, older = (now - timedelta(days=days) for days in (31, 61))
    rows: dict[str, list[str]] = {"inbox": [], OLD_WEBHOOKS: [], "idempotency_keys": []}
    body = cipher.seal(WEBHOOK_BODY, body_place("MOCK", "evt_old")).hex()
    answer = cipher.seal(ANSWER, answer_place("rest:old")).hex()
    for number in range(max(inbox, webhooks, keys)):
        at = (older + (old - older) * (number / max(inbox, webhooks, keys))).isoformat(sep=" ")
        name = payment_id_of(f"old-{number}")
        row_id = number - webhooks
        if number < inbox:
            rows["inbox"].append(f"order.created:old-{number}:{name[4:]}\t{name}\t{at}")
        if number < keys:
            rows["idempotency_keys"].append(f"rest:old{name}\t{name}\tf\tcreated\t1\tt\t\\\\x{answer}\t{at}")
        if number < webhooks:
            rows[OLD_WEBHOOKS].append(
                f"{row_id}\tMOCK\tevt_{name}\tcharge.succeeded\tPROCESSED\t{name}\tmock_pi_{name}\t\\\\x{body}"
                f"\t{at}\t{at}\t{at}\t\\N\t1\t{at}"
            )
    with closing(psycopg2.connect(dsn)) as connection:
        _copy(connection, rows)

"""Everything that a run has left anywhere, and whether something secret can be read in it."""

import base64
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import aclosing
from typing import Any

import psycopg2
from aiokafka.admin import AIOKafkaAdminClient
from psycopg2.sql import SQL, Identifier

from payment_service.adapters.kafka_client import KafkaClient
from payment_service.adapters.topic_reading import read_topic

SHORTEST = 7
"""Characters of a needle: anything shorter is found by chance."""


def forms_of(secret: str) -> Iterator[bytes]:
    """As it is, in hexadecimal, and in base64 wherever it begins in the text that is encoded."""
    raw = secret.encode()
    yield raw
    yield raw.hex().encode()
    yield raw.hex().upper().encode()
    for before in range(3):
        encoded = base64.b64encode(b"\0" * before + raw)
        # Six bits a character: those that also depend on what stands before and behind it are left out.
        inside = encoded[-(-before * 8 // 6) : (before + len(raw)) * 8 // 6]
        yield inside
        yield inside.translate(bytes.maketrans(b"+/", b"-_"))


def readable(places: Mapping[str, bytes], secrets: Mapping[str, Iterable[str]]) -> list[str]:
    """What of the secrets, by their kinds, can be read where."""
    found = []
    for kind, them in secrets.items():
        for secret in them:
            assert len(secret) >= SHORTEST, f"{kind}: too short to look for"
            forms = set(forms_of(secret))
            found += [
                f"{kind} {secret!r} in {place}" for place, text in places.items() if any(f in text for f in forms)
            ]
    return found


def database_dump(url: str) -> dict[str, bytes]:
    """Every table of ours, each value as text or as its bytes."""
    dump: dict[str, bytes] = {}
    connection = psycopg2.connect(url)
    with connection, connection.cursor() as cursor:
        cursor.execute("select table_name from information_schema.tables where table_schema = 'payment_service'")
        for (table,) in cursor.fetchall():
            cursor.execute(SQL("select * from payment_service.{}").format(Identifier(table)))
            rows = [b"\x1f".join(map(_raw, row)) for row in cursor.fetchall()]
            dump[f"table {table}"] = b"\n".join(rows)
    connection.close()
    return dump


def _raw(value: Any) -> bytes:
    return bytes(value) if isinstance(value, memoryview | bytes) else str(value).encode()


async def topics_dump(broker: str, prefix: str) -> dict[str, bytes]:
    """Keys, values and headers of every topic with this prefix."""
    admin = AIOKafkaAdminClient(bootstrap_servers=broker)
    await admin.start()
    names = [name for name in await admin.list_topics() if name.startswith(prefix)]
    await admin.close()
    dump: dict[str, bytes] = {}
    for name in names:
        parts: list[bytes] = []
        # Until it is silent: the embedded broker answers "latest offset" wrongly.
        async with aclosing(read_topic(KafkaClient(broker), name, silence_s=1.0)) as batches:
            async for records in batches:
                for record in records:
                    headers = [part for header, text in record.headers for part in (header.encode(), text)]
                    parts += [record.key or b"", record.value or b"", *headers]
        dump[f"topic {name.removeprefix(prefix)}"] = b"\n".join(parts)
    return dump


def secrets_in(ledger: str) -> dict[str, set[str]]:
    """What the provider has given out that is nobody's business, from the ledger of its simulator."""
    return {
        "a provider's method": set(re.findall(r"\bpm_[A-Za-z0-9]{10,}", ledger)),
        "a provider's customer": set(re.findall(r"\bcus_[A-Za-z0-9]{6,}", ledger)),
        "a setup": set(re.findall(r"\bseti_[A-Za-z0-9]{10,}", ledger)),
        "a client secret": set(re.findall(r"\b(?:pi|seti)_[A-Za-z0-9]+_secret_[A-Za-z0-9]+", ledger)),
    }

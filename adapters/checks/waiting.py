"""What waits in the database and why, whether the key opens what is sealed there, whether books and chains are whole.

Room: adapters/checks. Reads alone, and bounded: `payment-service audit verify` walks everything.
"""

import asyncio
import time
from collections.abc import Sequence
from typing import Any

from payment_service.adapters import audit_chain
from payment_service.adapters.audit_anchors import Anchored
from payment_service.adapters.postgres import arrays
from payment_service.adapters.postgres.audit_verifier import AuditVerifier
from payment_service.adapters.postgres.outbox import WORKER_LOCKS
from payment_service.adapters.postgres.pool import ConnectionLost, Database, StatementRefused, TryAgain
from payment_service.adapters.postgres.queries import QUERIES
from payment_service.adapters.postgres.resealing import COLUMNS
from payment_service.adapters.sealing import AesGcmCipher
from payment_service.adapters.settings import Settings
from payment_service.core.audit import Problem
from payment_service.core.doctor import Area, Doctor, Finding
from payment_service.core.errors import Malformed, PaymentError

WAITS_S = 60.0
"""What waits longer than this waits for somebody."""
SEALED_LOOKED_AT = 20
"""Newest values of each column: a key that does not open these is not the one that is used."""
WALK_S = 10.0
"""For chains and books each; the rest is for the commands that walk everything."""
PAGE = 1_000
SHOWN = 3


async def of_work(settings: Settings, cipher: AesGcmCipher | None) -> list[Finding]:
    """`cipher` None: there is no usable key."""
    doctor = Doctor(Area.WORK)
    database = Database(settings.database_dsn, application_name="payment-service doctor", size_max=2)
    found: list[Finding] = []
    try:
        for look in (_waiting, _books):
            found += await look(doctor, database)
        if cipher is None:
            return [
                *found,
                doctor.skipped("key", "without a usable key neither sealed values nor chains can be checked"),
            ]
        found += await _sealed(doctor, database, cipher)
        found.append(await _chains(doctor, database, settings))
    except (PaymentError, ConnectionLost, TryAgain, StatementRefused) as error:
        found.append(doctor.skipped("work", f"the database did not answer: {type(error).__name__}"))
    finally:
        await database.close()
    return found


async def _waiting(doctor: Doctor, database: Database) -> list[Finding]:
    (row,) = await database.fetch(QUERIES["look_at_work"], (WORKER_LOCKS,))
    workers, outbox, outbox_s, due_s, unknown, review, failed, parked, words_s = row
    nobody = "start a worker: none runs on this database with a broker" if not workers else ""
    found = [doctor.ok("workers", f"{workers} publish events now")] if workers else []
    if outbox_s > WAITS_S:
        what = f"{outbox} events are committed and not published, the oldest for {_span(outbox_s)}"
        found.append(
            doctor.wrong("outbox", what, nobody or "is the broker well, are its topics there (`topics check`)?")
        )
    if due_s > WAITS_S:
        what = f"provider calls are due for {_span(due_s)}"
        found.append(
            doctor.wrong("due calls", what, nobody or "`payment-service reconcile`; is the provider within its rate?")
        )
    if unknown:
        what = f"{unknown} provider calls have been without an answer for more than 10 minutes"
        mend = "`payment-service reconcile --now`; what the provider does not know: `payments resolve ID`"
        found.append(doctor.wrong("unknown calls", what, mend))
    if review:
        mend = "`payment-service payments list` marks them, `payments timeline ID` says why"
        found.append(doctor.warning("review", f"{review} payments need a person", mend))
    if failed:
        mend = "`payment-service webhooks list --status FAILED`, then `webhooks replay ID`"
        found.append(doctor.wrong("failed webhooks", f"{failed} could not be applied", mend))
    if parked:
        what = f"{parked} have waited more than 15 minutes for a payment that is not known here"
        mend = "another installation with the same provider account? `payment-service webhooks list --status PARKED`"
        found.append(doctor.warning("parked webhooks", what, mend))
    if words_s > WAITS_S * 10:
        what = f"the order service has not taken an outcome for {_span(words_s)}"
        found.append(
            doctor.wrong("order words", what, nobody or "what does the order service answer to PATCH payment-status?")
        )
    if all(it.check == "workers" for it in found):
        found.append(doctor.ok("waiting", "nothing waits for longer than it should"))
    return found


async def _books(doctor: Doctor, database: Database) -> list[Finding]:
    """Money in minus money out, as the workers' gauge has it."""
    end, after, looked = time.monotonic() + WALK_S, "", 0
    wrong: list[str] = []
    while time.monotonic() < end:
        ids = [row[0] for row in await database.fetch(QUERIES["payments_after"], (after, PAGE))]
        if not ids:
            break
        for _, differing, _ in await database.fetch(QUERIES["money_differences"], (arrays.texts(sorted(ids)),)):
            wrong += differing or ()
        looked, after = looked + len(ids), ids[-1]
    if wrong:
        what = f"the money of {len(wrong)} payments differs from that of their calls: {', '.join(wrong[:SHOWN])}"
        mend = "compare `payments show ID` with the provider, then `payment-service audit verify --payment ID`"
        return [doctor.wrong("books", what, mend)]
    return [doctor.ok("books", f"agree for {looked} payments")]


async def _sealed(doctor: Doctor, database: Database, cipher: AesGcmCipher) -> list[Finding]:
    unreadable: dict[str, int] = {}
    looked = 0
    for column in COLUMNS:
        for value, *about in await database.fetch(column.sql("newest_sealed"), (SEALED_LOOKED_AT,)):
            looked += 1
            try:
                cipher.unseal(bytes(value), column.place_of(*about))
            except Malformed:
                unreadable[column.name] = unreadable.get(column.name, 0) + 1
    if unreadable:
        columns = ", ".join(f"{name} ({count})" for name, count in unreadable.items())
        what = f"ENCRYPTION_KEY and ENCRYPTION_KEYS_OLD do not open what is stored: {columns}"
        mend = (
            "the key that sealed it, as ENCRYPTION_KEY, or in ENCRYPTION_KEYS_OLD; then `payment-service keys rotate`"
        )
        return [doctor.wrong("key", what, mend)]
    return [doctor.ok("key", f"opens {looked} of the newest sealed values")]


async def _chains(doctor: Doctor, database: Database, settings: Settings) -> Finding:
    keys = [audit_chain.chain_key(key) for key in (settings.encryption_key_bytes, *settings.encryption_keys_old)]

    async def none() -> Anchored:
        return Anchored()

    verifier = AuditVerifier(database, keys, none)
    problems: list[Problem] = []
    payments = entries = 0
    whole = True
    try:
        async with asyncio.timeout(WALK_S):
            async for part in verifier.verify(None):
                payments, entries = payments + part.payments, entries + part.entries
                problems += part.problems
    except TimeoutError:
        whole = False
    if problems:
        return doctor.wrong(
            "audit chains",
            _told(problems),
            "is every earlier key in ENCRYPTION_KEYS_OLD? Then `payment-service audit verify` names every row; keep a"
            " copy of the database",
        )
    looked = f"{payments} payments and {entries} rows of the audit log are as they were written"
    if not whole:
        looked += f" (as far as {WALK_S:.0f} s reach; `payment-service audit verify` walks all)"
    return doctor.ok("audit chains", looked)


def _told(problems: Sequence[Problem]) -> str:
    first = "; ".join(f"{it.where}: {it.what}" for it in problems[:SHOWN])
    return f"{len(problems)} rows are not as they were written: {first}"


def _span(seconds: Any) -> str:
    for length, unit in ((86400, "days"), (3600, "hours"), (60, "minutes")):
        if seconds >= 2 * length:
            return f"{int(seconds // length)} {unit}"
    return f"{int(seconds)} seconds"

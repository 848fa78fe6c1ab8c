"""PostgreSQL: can we work there, is the schema ours, may our role do what it must and no more.

Room: adapters/checks. Reads alone, on one connection of its own; what the driver says is told without the password.
"""

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import closing
from typing import Any

import psycopg2

from payment_service.adapters.checks.given import MENDS
from payment_service.adapters.checks.outside import skew
from payment_service.adapters.postgres import migrate as migrations
from payment_service.adapters.postgres.queries import QUERIES
from payment_service.adapters.redaction import redacted
from payment_service.adapters.settings import Settings
from payment_service.core.doctor import Area, Doctor, Finding
from payment_service.core.errors import PaymentError
from payment_service.core.ports import Clock

CONNECT_S = 8
VERSION_MIN = 15
SHOWN = 5
CONNECTIONS_A_WORKER = 10
"""Two pools of four, the outbox's own, one that migrates."""
MORE = "a larger max_connections, fewer workers"
ANSWERS = (
    ("could not translate host name", "the host's name is not known", MENDS["DATABASE_URL"]),
    ("connection refused", "nothing listens there", "start PostgreSQL there, or name the right host and port"),
    ("password authentication failed", "the password is not accepted", "the role's password: ALTER ROLE ... PASSWORD"),
    ("no pg_hba.conf entry", "the server takes nobody from here as this role", "a line in its pg_hba.conf"),
    ("timeout", "no answer in time", "network or firewall on the way there"),
    ("too many", "the server has no connection left", MORE),
    ("remaining connection slots", "the server has no connection left", MORE),
    ("ssl", "TLS is not agreed on", "sslmode, sslrootcert in DATABASE_URL"),
)
"""What libpq says -> what it means, and how to mend it."""
UNKNOWN_DATABASE, UNKNOWN_ROLE = "3D000", "28000"


async def of_database(settings: Settings, clock: Clock, *, production: bool, own: bool) -> tuple[list[Finding], bool]:
    """And whether the work in it can be looked at. `own`: it is our embedded one, where we are the superuser."""
    doctor, dsn = Doctor(Area.DATABASE), settings.database_dsn
    found = await asyncio.to_thread(_look, doctor, dsn, clock, production=production, own=own)
    if any(it.check == "connection" and it.mend for it in found):
        return found, False
    try:
        missing = await migrations.pending(dsn)
    except PaymentError as error:
        found.append(
            doctor.wrong(
                "schema", error.message, "run the version of the service that made this schema, or a newer one"
            )
        )
        return found, False
    if missing:
        what = f"{len(missing)} migrations are missing: {', '.join(missing)}"
        if settings.migrate_on_start:
            what, say = f"{what}; a worker applies them when it starts", doctor.warning
        else:
            say = doctor.wrong
        return [*found, say("schema", what, "payment-service migrate")], False
    found.append(doctor.ok("schema", "is up to date"))
    if own:
        return found, True
    rights, readable = await asyncio.to_thread(_rights, doctor, dsn, production=production)
    return found + rights, readable


def _look(doctor: Doctor, dsn: str, clock: Clock, *, production: bool, own: bool) -> list[Finding]:
    try:
        (row,) = _rows(dsn, "look_at_server")
    except psycopg2.Error as error:
        return [_away(doctor, error)]
    version, fsync, whole_pages, encoding, read_only, most, used, at_ms, role, may_all = row
    now_ms = clock.now_ms()
    found = [doctor.ok("connection", f"PostgreSQL {version // 10000} as {role}")]
    if version // 10000 < VERSION_MIN:
        found.append(
            doctor.wrong("version", f"PostgreSQL {version // 10000} is too old", f"PostgreSQL {VERSION_MIN} or newer")
        )
    if read_only:
        found.append(
            doctor.wrong(
                "writing",
                "the server takes no writes: a standby, or set read-only",
                "the primary's host in DATABASE_URL",
            )
        )
    if encoding != "UTF8":
        found.append(doctor.wrong("encoding", f"is {encoding}", "a database made with ENCODING 'UTF8'"))
    if not (fsync and whole_pages):
        what = "fsync or full_page_writes is off: a power cut loses payments that were answered"
        found.append(
            (doctor.wrong if production else doctor.warning)("durability", what, "fsync = on, full_page_writes = on")
        )
    if most - used < CONNECTIONS_A_WORKER:
        what = f"{used} of {most} connections are taken; a worker needs {CONNECTIONS_A_WORKER}"
        found.append(doctor.warning("connections", what, "a larger max_connections, or end what holds them"))
    if may_all and not own:
        what = f"{role} is a superuser: no grant and no trigger keeps it from changing what is append-only"
        mend = "a role of its own in DATABASE_URL, the owner in MIGRATION_DATABASE_URL, then payment-service migrate"
        found.append((doctor.wrong if production else doctor.warning)("role", what, mend))
    return [*found, skew(doctor, "clock against the database", at_ms, now_ms)]


def _away(doctor: Doctor, error: psycopg2.Error) -> Finding:
    said = redacted(str(error).strip().partition("\n")[0])
    small = said.lower()
    if error.pgcode == UNKNOWN_DATABASE or ('database "' in small and "does not exist" in small):
        return doctor.wrong(
            "connection", f"there is no such database: {said}", "createdb, or the right name in DATABASE_URL"
        )
    if error.pgcode == UNKNOWN_ROLE or ('role "' in small and "does not exist" in small):
        return doctor.wrong("connection", f"there is no such role: {said}", "CREATE ROLE ... LOGIN PASSWORD ...")
    for words, meaning, mend in ANSWERS:
        if words in small:
            return doctor.wrong("connection", f"{meaning}: {said}", mend)
    return doctor.wrong("connection", said or type(error).__name__, MENDS["DATABASE_URL"])


def _rights(doctor: Doctor, dsn: str, *, production: bool) -> tuple[list[Finding], bool]:
    """And whether every table can be read."""
    try:
        rows = _rows(dsn, "look_at_rights")
    except psycopg2.Error as error:
        return [_away(doctor, error)], False
    lacking = list(_lacking(rows))
    found = []
    if lacking:
        what = (
            f"the role may not do what the service does: {', '.join(lacking[:5])}{' ...' if len(lacking) > 5 else ''}"
        )
        mend = "payment-service migrate, with MIGRATION_DATABASE_URL (the owner) and DATABASE_URL both set"
        found.append(doctor.wrong("rights", what, mend))
    loose = [name for name, kept, *_, update, delete, truncate, _ in rows if kept and (update or delete or truncate)]
    if loose:
        what = f"the role may change what is append-only: {', '.join(loose)}"
        mend = "tables owned by another role (MIGRATION_DATABASE_URL), then payment-service migrate, which revokes it"
        found.append((doctor.wrong if production else doctor.warning)("append-only", what, mend))
    if not found:
        found.append(doctor.ok("rights", "what the service does, and nothing that is append-only can be changed"))
    return found, not any(it.endswith(": select") for it in lacking)


def _lacking(rows: Sequence[Any]) -> Iterator[str]:
    for name, kept, select, insert, update, delete, _, _ in rows:
        if not select:
            yield f"{name}: select"
        elif name == "schema_migrations":
            continue
        elif not insert:
            yield f"{name}: insert"
        elif not kept and not (update and delete):
            yield f"{name}: {'delete' if update else 'update'}"


def _rows(dsn: str, query: str) -> list[Any]:
    options = "-c statement_timeout=8000"
    name = "payment-service doctor"
    with closing(
        psycopg2.connect(dsn, connect_timeout=CONNECT_S, options=options, application_name=name)
    ) as connection:
        connection.autocommit = True
        with connection.cursor() as cursor:
            cursor.execute(QUERIES[query])
            return list(cursor.fetchall())
